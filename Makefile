# All targets set up .venv first: they need only git, make and Python 3.11 or newer.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

# timm's own tests, of the installed version, from its source distribution.
TIMM_TESTS := .venv/timm-tests

# What broke with versions that were too old: saved models, tables, figures, images, export.
LOWEST_TESTS := $(patsubst %,tests/test_%.py,card checkpoint export fused images kept manifest optim plots \
	records report settings sinks statistics variant)

.PHONY: demo test slow lowest check golden calibrate wheel docs clean

demo: .venv/running  ## B and D in both orders on scikit-learn's digits: about a minute
	$(BIN)/python -m resnet_variants run --variant B D --order post preact --depth 8 --epochs 4

test: check $(TIMM_TESTS)  ## format, lint, types and tests: what CI runs
	$(BIN)/python -m pytest

slow: $(TIMM_TESTS)  ## what takes too long for every change: about an hour
	$(BIN)/python -m pytest -m slow

lowest: .venv-lowest/installed  ## quick tests with the oldest versions that pyproject.toml allows
	.venv-lowest/bin/python -m pytest -W ignore::DeprecationWarning $(LOWEST_TESTS)

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

golden: .venv/installed  ## rewrite golden tables and the generated documentation; read the diff
	$(BIN)/python -m pytest -m '' --rewrite tests/test_cost.py tests/test_runs.py tests/test_readme.py

calibrate: .venv/installed  ## simulate what the verdicts promise: some hours
	OMP_NUM_THREADS=1 $(BIN)/python experiments/calibrate.py

wheel: .venv/installed  ## the package for machines without this checkout, in dist/
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

docs: .venv/installed  ## README and docs/ as a site, in site/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	$(BIN)/mkdocs build --strict

.venv/running: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python'; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed: .venv/running
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

.venv-lowest/installed: pyproject.toml
	$(PYTHON) -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python \
		--resolution lowest-direct --editable '.[test]'
	@touch $@

$(TIMM_TESTS): .venv/installed
	rm -rf $@ $@.sdist
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps \
		--no-binary timm --dest $@.sdist "timm==$$($(BIN)/python -c \
		'from importlib.metadata import version; print(version("timm"))')"
	mkdir $@.sdist/unpacked
	tar -xzf $@.sdist/timm-*.tar.gz --strip-components=1 -C $@.sdist/unpacked
	mv $@.sdist/unpacked $@

clean:
	rm -rf .venv .venv-lowest
