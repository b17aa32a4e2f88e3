"""Two arms side by side, as text."""

from __future__ import annotations

import math

import pandas as pd

from resnet_variants.analysis.contrast import FLIPS, Contrast
from resnet_variants.analysis.statistics import DIFFERENCE
from resnet_variants.registry import number_of, one_line
from resnet_variants.reporting.text import POINTS, interval, markdown, p_value

SHOWN = 10  # images that are most apart


def contrast_text(found: Contrast) -> str:
    """What differs in settings, then in accuracy, answers, classes and single images."""
    one, other = found.first.name, found.second.name
    settings = found.settings.set_axis(["what differs", one, other], axis=1)
    facts = found.first.facts
    parts = [f"{other} against {one}, on {facts['dataset']} at {facts['img_size']} px."]
    parts += [markdown(settings) if len(settings) else "No setting differs.", *_sentences(found)]
    if len(found.classes):
        parts.append(markdown(_classes(found)))
    if len(found.apart):
        parts.append(f"Images of which {one} and {other} are right most unequally often:")
        parts.append(markdown(_apart(found)))
    return "\n\n".join(parts)


def _sentences(found: Contrast) -> list[str]:
    one, other, compared = found.first.name, found.second.name, found.accuracy
    delta = compared.difference
    pairs = number_of(compared.pairs, "pair of seeds", "pairs of seeds")
    text = (
        f"Test accuracy over {pairs}: {one} {POINTS * found.first.scores.mean():.2f} %, {other} "
        f"{POINTS * found.second.scores.mean():.2f} %; difference "
        f"{interval(delta.mean, delta.low, delta.high, sign='+')} points"
    )
    text += f", p {p_value(compared.p_value)}" if not math.isnan(compared.p_value) else ""
    if found.images and not math.isnan(found.images.low):
        ends = (f"{POINTS * end:+.2f}" for end in (found.images.low, found.images.high))
        text += f"; for new images too [{', '.join(ends)}]"
    if found.flips.empty:
        return [f"{text}.", "Predictions of one side were not kept: no more can be said."]
    shares = [f"{POINTS * found.flips[name]:.2f} %" for name in FLIPS]
    answers = f"Answers: both right {shares[0]}, only {one} {shares[1]}, only {other} {shares[2]}"
    answers += f", both wrong {shares[3]}"
    if not math.isnan(found.mcnemar_p):
        answers += f"; McNemar's p {p_value(found.mcnemar_p)}, of these two runs alone"
    return [f"{text}.", f"{answers}."]


def _classes(found: Contrast) -> pd.DataFrame:
    """The classes by their differences, the largest loss first."""
    own, table = (
        found.classes[found.classes["model"] == side.name].set_index("class")
        for side in (found.first, found.second)
    )
    table = table.sort_values("difference", kind="stable")
    shares = {
        f"{side.name} %": (POINTS * rows["mean"][table.index]).map("{:.2f}".format)
        for side, rows in ((found.first, own), (found.second, table))
    }
    deltas = [interval(*row, sign="+") for row in table[[*DIFFERENCE]].itertuples(index=False)]
    cells = {"class": map(one_line, table.index), "images": table["images"]}
    return pd.DataFrame({**cells, **shares, "difference, points [95 %]": deltas})


def _apart(found: Contrast) -> pd.DataFrame:
    table = found.apart.head(SHOWN)
    shares = {
        f"{side.name} right": [f"{share:.0%}" for share in table[name]]
        for name, side in (("first", found.first), ("second", found.second))
    }
    return pd.DataFrame(
        {"test image": table["image"], "class": table["class"].map(one_line), **shares}
    )
