"""The sections of docs/choices.md: what each choice is, costs and brought, from code and tables."""

import functools
import re
import textwrap
from statistics import median

import pandas as pd

from resnet_variants import describe
from resnet_variants.analysis.published import PLACE, published
from resnet_variants.experiments.choices import choices
from resnet_variants.models.diagram import CHANGING, KEEPING, diagram
from resnet_variants.models.network import ResNet
from resnet_variants.models.variant import AXES
from resnet_variants.registry import number_of
from resnet_variants.reporting.text import interval, markdown

# Contrasts of the axis `downsample`, which is both: the second changes the stride too.
DOWNSAMPLE = {"stride": "3x3 - 1x1", "shortcut": "3x3+avgpool - 1x1"}
BOTTLENECK = {"preset", "stride"}  # basic blocks have one stride
BOTH_UNITS = {"order"}  # its units differ in more than the choice
NOT_DRAWN = {"act", "norm"}  # their diagrams differ in a word
CARDS = {choice.axis for choice in choices()}


def card_block(axis, bench):
    """A table of the axis' choices, their diagrams, and what they brought."""
    results = bench.parent
    depth = 50 if axis in BOTTLENECK else 18  # which has shorter lines
    found = [choice for choice in choices(depth=depth) if choice.axis == axis]
    parts = [_table(found, results), "" if axis in NOT_DRAWN else _diagrams(found)]
    parts += [_listed("Published", [*_published(found)])]
    parts += [_listed("Measured here", [*_ours(axis, results)])]
    return "\n".join(part for part in parts if part)


def _table(found, results):
    costs = pd.read_csv(results / "bench" / "choices" / "choices.csv", dtype={"choice": str})
    costs = costs[costs["axis"] == found[0].axis].set_index("choice")
    costs = costs.reindex([choice.name for choice in found])  # a new choice has none yet
    about = [_about(choice) for choice in found]
    dates = [re.search(r"arXiv:(\d\d)(\d\d)\.", text) for text in about]
    columns = {
        "choice": [f"`{choice.name}`" for choice in found],
        "what it is": about,
        "paper of": [f"20{date[1]}-{date[2]}" if date else "" for date in dates],
        "MACs": [_times(ratio) for ratio in costs["macs_ratio"]],
        "time": [_times(ratio) for ratio in costs["step_ratio"]],
    }
    return f"{markdown(pd.DataFrame({k: v for k, v in columns.items() if any(v)}))}\n"


def _times(ratio):
    return "" if pd.isna(ratio) else f"x {ratio:.2f}"


def _about(choice):
    """What ``describe`` says of it; for a preset, its choices."""
    if choice.axis == "preset":
        main = ("stem", "stride", "shortcut")
        return ", ".join(f"{axis} `{getattr(choice.variant, axis)}`" for axis in main)
    if choice.axis in ("stride", "stem_stride"):
        return describe.axis_text(choice.variant, choice.axis).partition(": ")[2]
    entries = {str(name): entry for name, entry in AXES[choice.axis].choices.items()}
    return describe.entry_text(entries[choice.name])


def _diagrams(found):
    """Of the usual choice every part that another one changes; of each other what it changes."""
    drawn = {choice.name: _drawn(choice.variant) for choice in found}
    shown = {choice.name: _differing(drawn[choice.name], choice) for choice in found}
    usual = _usual(found)
    shown[usual] = [part for part in drawn[usual] if any(part in own for own in shown.values())]
    parts = [(name, part) for name, own in shown.items() for part in own]
    texts = [
        f"{name}: {part}\n{textwrap.indent(drawn[name][part], '  ')}\n" for name, part in parts
    ]
    return "\n".join(["```text", "\n".join(texts).rstrip(), "```", ""])


def _differing(own, choice):
    """The parts that the choice changes; of both kinds of unit the one that keeps the shape."""
    plain = _drawn(choice.usual)
    parts = [part for part in plain if own[part] != plain[part]]
    both = {CHANGING, KEEPING} <= {*parts} and choice.axis not in BOTH_UNITS
    return [part for part in parts if not (both and part == CHANGING)]


@functools.cache  # the usual network is set against each choice
def _drawn(variant):
    return diagram(ResNet(variant, device="meta"))


def _usual(found):
    return next(choice.name for choice in found if choice.variant == choice.usual)


def _listed(title, lines):
    return "\n".join([f"{title}:", "", *lines, ""]) if lines else ""


def _published(found):
    """The differences of papers and model zoos: how many, the lowest, the median and the highest.

    They are from the usual choice, of a preset from the one before.
    """
    rows = [row for row in published() if row["axis"] == found[0].axis]
    names = [choice.name for choice in found]
    for name in names:
        cumulative = found[0].axis == "preset"
        base = names[max(0, names.index(name) - 1)] if cumulative else _usual(found)
        before = {_place(row): row for row in rows if row["level"] == base}
        own = [row for row in rows if row["level"] == name != base and _place(row) in before]
        deltas = [float(row["top1_acc"]) - float(before[_place(row)]["top1_acc"]) for row in own]
        pairs = sorted(zip(deltas, map(_where, own), strict=True))
        shown = sorted({0, (len(pairs) - 1) // 2, len(pairs) - 1} - {-1})
        if pairs:
            told = "; ".join(
                f"{delta:+.2f} on {where}" for delta, where in map(pairs.__getitem__, shown)
            )
            extent = f"median of {len(deltas)} {median(deltas):+.2f} points. " * (len(deltas) > 1)
            yield f"- `{name}` - `{base}`: {extent}{told}."


def _place(row):
    return tuple(row[key] for key in PLACE)


def _where(row):
    network = f"{row['depth']} layers, " if row["depth"] else ""
    recipe = f", {row['recipe']}" if row["recipe"] else ""
    return f"{row['dataset']} ({network}{row['source']} {row['table']}{recipe})"


def _ours(axis, results):
    """The main effects of the axis in all committed folders."""
    for path in sorted(results.glob("*/effects.csv")):
        rows = pd.read_csv(path).query("kind == 'main'")
        own = (rows["effect"] == axis) | (rows["contrast"] == DOWNSAMPLE.get(axis))
        for row in rows[own].to_dict("records"):
            points = interval(row["estimate"], row["ci_low"], row["ci_high"], sign="+")
            points += _for_new_images(path.with_name("summary.csv"), row)
            page = f"[{path.parent.name}](results/{path.parent.name}.md)"
            extent = f"{number_of(row['seeds'], 'seed')}, {number_of(row['epochs'], 'epoch')}"
            yield f"- {row['contrast']}: {points} points, {row['verdict']} ({page}: {extent})"


def _for_new_images(file, effect):
    """The interval for new seeds and new images, where the effect is the difference of two arms."""
    if "images_ci_low" not in (rows := pd.read_csv(file)):
        return ""
    own = rows[(rows["epochs"] == effect["epochs"]) & (rows["delta"] == effect["estimate"])]
    for row in own[["delta", "images_ci_low", "images_ci_high"]].dropna().to_numpy():
        return f", with new images {interval(*row, sign='+').partition(' ')[2]},"
    return ""
