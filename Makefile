# Both targets set up .venv first: they need only git, make and Python 3.11 or newer.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test check golden clean

demo: .venv/installed  ## one network on scikit-learn's digits: under a minute
	$(BIN)/python -m resnet_variants.run --variant D --preact

test: check  ## format, lint, types and tests: what CI runs
	$(BIN)/python -m pytest

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

golden: .venv/installed  ## rewrite golden tables and the README's table; read the diff
	$(BIN)/python -m pytest --rewrite tests/test_cost.py tests/test_runs.py tests/test_readme.py

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python'; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

clean:
	rm -rf .venv
