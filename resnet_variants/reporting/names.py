"""What readers call networks and comparisons: the same in tables, figures, page and file names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain

import pandas as pd

from resnet_variants.analysis.comparison import KEY, Comparison, joined
from resnet_variants.registry import number_of

_LONGEST = 80  # letters that a comparison adds to the name of a file


def named_summary(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """The summaries with two more columns.

    ``arm`` is the short label of a network, ``runs`` what tells its comparison from the others.
    """
    places = zip(comparisons, conditions(comparisons)[1], strict=True)
    return joined(comparisons, "summary").assign(
        arm=[label for part in comparisons for label in part.labelled(part.summary["model"])],
        runs=[place for part, place in places for _ in range(len(part.summary))],
    )


def conditions(comparisons: Sequence[Comparison]) -> tuple[str, list[str]]:
    """In words what all comparisons share, and what tells each from the others.

    What tells one alone from others is empty.
    """
    recipes = recipes_in_words(comparisons)
    words = [
        {
            "data": part.data,
            "epochs": number_of(int(part.key["epochs"]), "epoch"),
            "recipe": recipes[part.key["recipe"]],
            **{name: str(part.key[name]) for name in ("precision", "device")},
        }
        for part in comparisons
    ]
    names = [*words[0]] if words else []
    varied = [name for name in names if len({part[name] for part in words}) > 1]
    shared = [words[0][name] for name in names if name not in (*varied, "recipe")]
    own = [", ".join(part[name] for name in varied if part[name]) for part in words]
    return ", ".join(shared), _with_ids(own, comparisons)


def _with_ids(texts: Sequence[str], comparisons: Sequence[Comparison]) -> list[str]:
    """The texts; of comparisons that share one, each with the ids that tell it from the others."""
    ids = [
        (f"{part.key['dataset']} at {part.key['img_size']} px", f"recipe {part.key['recipe']}")
        for part in comparisons
    ]
    told = []
    for text, own in zip(texts, ids, strict=True):
        alike = [other for i, other in enumerate(ids) if texts[i] == text]
        further = [
            x for x, all_x in zip(own, zip(*alike, strict=True), strict=True) if len({*all_x}) > 1
        ]
        told.append(", ".join(filter(None, [text, *further])))
    return told


def recipes_in_words(comparisons: Sequence[Comparison]) -> dict[str, str]:
    """By digest the settings in which each recipe differs from the others: ``lr 0.01, ema 0.9``.

    A recipe whose settings are not recorded is called by its digest.
    """
    recipes = {str(part.key["recipe"]): part.recipe for part in comparisons}
    settings = dict.fromkeys(chain.from_iterable(recipes.values()))
    varied = [
        name
        for name in settings
        if name not in KEY and len({own.get(name) for own in recipes.values()}) > 1
    ]
    return {
        digest: ", ".join(f"{name} {own[name] or 'none'}" for name in varied if name in own)
        if own
        else f"recipe {digest}"
        for digest, own in recipes.items()
    }


def suffixes(comparisons: Sequence[Comparison]) -> list[str]:
    """What each comparison adds to the names of its files; nothing where it is alone."""
    if len(comparisons) < 2:
        return [""] * len(comparisons)
    texts = [f"_{_slug(text)}" for text in conditions(comparisons)[1]]
    again = [texts[:i].count(text) for i, text in enumerate(texts)]
    return [f"{text}-{n + 1}" if n else text for text, n in zip(texts, again, strict=True)]


def _slug(text: str) -> str:
    """``2 epochs, lr 0.05`` as a part of a file's name: ``2-epochs_lr-0.05``."""
    parts = (re.sub(r"[^A-Za-z0-9.+-]+", "-", part).strip("-") for part in text.split(", "))
    return "_".join(filter(None, parts))[:_LONGEST].rstrip("-_.")
