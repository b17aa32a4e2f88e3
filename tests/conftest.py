"""What all tests share: the switch that rewrites golden files, and quiet, seeded torch."""

import csv
from pathlib import Path

import pytest
import torch

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
