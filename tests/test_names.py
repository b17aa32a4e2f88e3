"""What tells comparisons of one folder apart, in words: in tables, in LaTeX and in file names."""

import pytest
from factories import A, paired_rows, runs_frame

from resnet_variants.analysis.comparison import comparisons
from resnet_variants.reporting.names import conditions, named_summary, suffixes
from resnet_variants.reporting.summary import (
    MARKDOWN,
    TERMINAL,
    summary_cells,
    summary_latex,
)

PROVENANCE = {
    "recipe aaaaaaaa": ["epochs 2, lr 0.1, mixup 0.0"],
    "recipe bbbbbbbb": ["epochs 2, lr 0.05, mixup 0.0"],
    "recipe cccccccc": ["epochs 9, lr 0.05, mixup 0.0"],
}


def parts(*kinds, **more):
    """A comparison for each dataset, recipe and number of epochs."""
    rows = [
        row | {"run_id": f"{A}__{dataset}__{recipe * 8}__s{row['seed']}"}
        for dataset, recipe, epochs in kinds
        for row in paired_rows({A: [0.5]}, dataset=dataset, epochs=epochs)
    ]
    return comparisons(runs_frame(rows), {}, provenance=PROVENANCE, **more)


CASES = {
    "one": (parts(("digits", "a", 2)), [""], [""]),
    "settings": (
        parts(("digits", "a", 2), ("digits", "b", 2), ("digits", "c", 9)),
        ["2 epochs, lr 0.1", "2 epochs, lr 0.05", "9 epochs, lr 0.05"],
        ["_2-epochs_lr-0.1", "_2-epochs_lr-0.05", "_9-epochs_lr-0.05"],
    ),
    "epochs alone": (
        parts(("digits", "b", 2), ("digits", "c", 9)),
        ["2 epochs", "9 epochs"],
        ["_2-epochs", "_9-epochs"],
    ),
    "data": (
        parts(("folder-a/b", "a", 2), ("digits", "a", 2), names={"folder-a/b": "Pets, 32 px"}),
        ["Pets, 32 px", "digits at 8 px"],
        ["_Pets_32-px", "_digits-at-8-px"],
    ),
    "one name of two data sets": (
        parts(("one", "a", 2), ("two", "a", 2), names={"one": "Pets", "two": "Pets"}),
        ["one at 8 px", "two at 8 px"],
        ["_one-at-8-px", "_two-at-8-px"],
    ),
    "settings that are not recorded": (
        parts(("digits", "x", 2), ("digits", "y", 2)),
        ["recipe xxxxxxxx", "recipe yyyyyyyy"],
        ["_recipe-xxxxxxxx", "_recipe-yyyyyyyy"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_comparisons_are_called_by_what_differs(case):
    compared, words, files = CASES[case]
    assert conditions(compared)[1] == words
    assert suffixes(compared) == files
    for table in (MARKDOWN, TERMINAL):
        cells = summary_cells(named_summary(compared), table)
        assert (cells["runs"].tolist() if "runs" in cells else [""]) == words


def test_latex_names_recipes_by_what_they_differ_in():
    text = summary_latex(CASES["settings"][0], "x")
    assert "lr 0.05" in text and "bbbbbbbb" not in text


def test_long_words_stay_short_in_files_and_differ():
    name = "a very long name of some images " * 5
    both = parts(
        ("one", "a", 2), ("one", "a", 3), ("two", "a", 2), names={"one": name, "two": name}
    )
    endings = suffixes(both)
    assert len({*endings}) == 3 and max(map(len, endings)) < 90
