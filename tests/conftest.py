"""What all tests share: the switch that rewrites golden files, quiet torch, quick stand-ins."""

import csv
import multiprocessing
from pathlib import Path

import pytest
import torch
from factories import DRAWING, drawing, undrawn
from warm import COLD, get_context

from resnet_variants.terminal import cli

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser):
    parser.addoption("--rewrite", action="store_true", help="rewrite golden files and the README")


@pytest.fixture
def rewrite(request):
    return request.config.getoption("--rewrite")


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed():
    # Two test workers share two cores.
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _no_imports_and_drawings_that_are_not_the_point(tmp_path_factory):
    """Where the package spawns a process, a warm one starts; files of figures are empty."""
    with pytest.MonkeyPatch.context() as patch:
        # Another folder would keep images of tests for later tests.
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(multiprocessing, "get_context", get_context)
        for name in DRAWING:
            patch.setattr(name, undrawn)
        yield


@pytest.fixture
def drawn():
    """Files of figures are what users get: drawing them takes seconds."""
    with drawing():
        yield


@pytest.fixture
def spawned(monkeypatch):
    """Processes start as users' do."""
    monkeypatch.setattr(multiprocessing, "get_context", COLD)


@pytest.fixture
def complaint(capsys):
    """Type a command that is wrong usage: the one line that says why."""

    def typed(*words):
        capsys.readouterr()
        assert cli.main([*map(str, words)]) == cli.WRONG_USAGE
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return typed


@pytest.fixture
def without_values(monkeypatch):
    """Convolutions begin without values: initialisation is slow, and these tests look at none."""
    monkeypatch.setattr(torch.nn.init, "kaiming_normal_", lambda *_args, **_kwargs: None)


@pytest.fixture
def golden(rewrite):
    """Compare rows with FOLDER/NAME.csv, or write them there under --rewrite.

    Text for text; numbers within ``rel`` where it is given.
    """

    def compare(
        name: str,
        rows: list[dict[str, object]],
        rel: float | None = None,
        folder: Path = GOLDEN,
    ) -> None:
        path = folder / f"{name}.csv"
        text = [{key: str(value) for key, value in row.items()} for row in rows]
        if rewrite:
            path.parent.mkdir(exist_ok=True)
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(text[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(text)
        with path.open(newline="", encoding="utf-8") as file:
            kept = list(csv.DictReader(file))
        if rel is None:
            assert kept == text, f"if the change is meant: pytest --rewrite, then read {path}"
        else:
            numbers = [
                [[float(value) for value in row.values()] for row in t] for t in (kept, text)
            ]
            assert numbers[0] == [pytest.approx(row, rel=rel) for row in numbers[1]]

    return compare
