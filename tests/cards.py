"""The sections of docs/choices.md: what each choice is, costs and brought, from code and tables."""

import re
from statistics import median

import pandas as pd

from resnet_variants import describe
from resnet_variants.analysis.published import PLACE, published
from resnet_variants.experiments.choices import choices
from resnet_variants.models.diagram import diagram
from resnet_variants.models.network import ResNet
from resnet_variants.models.variant import AXES
from resnet_variants.registry import number_of
from resnet_variants.reporting.text import interval, markdown

AXES_OF = {"stride": "downsample", "shortcut": "downsample"}  # which effects tell of both
BOTTLENECK = {"preset", "stride"}  # basic blocks have one stride
NOT_DRAWN = {"act", "norm"}  # their diagrams differ in a word
EXAMPLES = 3
UNITS = ["unit that changes the shape", "other units"]


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
    assert list(costs.index) == [choice.name for choice in found], "python experiments/choices.py"
    about = [_about(choice) for choice in found]
    dates = [re.search(r"arXiv:(\d\d)(\d\d)\.", text) for text in about]
    columns = {
        "choice": [f"`{choice.name}`" for choice in found],
        "what it is": about,
        "since": [f"20{date[1]}-{date[2]}" if date else "" for date in dates],
        "MACs": [f"x {ratio:.2f}" for ratio in costs["macs_ratio"]],
        "time": [f"x {ratio:.2f}" for ratio in costs["step_ratio"]],
    }
    return f"{markdown(pd.DataFrame({k: v for k, v in columns.items() if any(v)}))}\n"


def _about(choice):
    """What ``describe`` says of it; for a preset, its choices."""
    if choice.axis == "preset":
        main = ("stem", "stride", "shortcut")
        return ", ".join(f"{axis} `{getattr(choice.variant, axis)}`" for axis in main)
    if choice.axis in ("stride", "stem_stride"):
        return describe._axis(choice.variant, choice.axis).partition(": ")[2]
    entries = {str(name): entry for name, entry in AXES[choice.axis].choices.items()}
    return describe._entry_text(entries[choice.name])


def _diagrams(found):
    """Of the usual choice all parts in which any choice differs; of another the parts that do.

    Of a choice that changes both kinds of unit, only the one without a change of shape is drawn.
    """
    drawn = {choice.name: _drawn(choice.variant) for choice in found}
    usual = next(choice.name for choice in found if choice.variant == choice.usual)
    plain = drawn[usual]
    differ = {name: [p for p in plain if own[p] != plain[p]] for name, own in drawn.items()}
    shown = {
        name: [p for p in parts if (p, UNITS[1] in parts) != (UNITS[0], True)]
        for name, parts in differ.items()
    }
    shown[usual] = [p for p in plain if any(p in parts for parts in shown.values())]
    lines = []
    for name, parts in shown.items():
        for part in parts:
            lines += [
                f"{name}: {part}",
                *(f"  {line}" for line in drawn[name][part].splitlines()),
                "",
            ]
    return "\n".join(["```text", *lines[:-1], "```", ""])


def _drawn(variant):
    return diagram(ResNet(variant, device="meta"))


def _listed(title, lines):
    return "\n".join([f"{title}:", "", *lines, ""]) if lines else ""


def _published(found):
    """The differences of papers and model zoos from the usual choice: how many, and the first."""
    usual = next(choice.name for choice in found if choice.variant == choice.usual)
    rows = [row for row in published() if row["axis"] == found[0].axis]
    before = {_place(row): row for row in rows if row["level"] == usual}
    for choice in found:
        own = [row for row in rows if row["level"] == choice.name != usual]
        pairs = [(row, before[_place(row)]) for row in own if _place(row) in before]
        deltas = [float(row["top1_acc"]) - float(other["top1_acc"]) for row, other in pairs]
        if deltas:
            told = "; ".join(map(_example, deltas[:EXAMPLES], (row for row, _ in pairs)))
            extent = f"median of {len(deltas)} comparisons {median(deltas):+.2f} points, with "
            extent = extent if len(deltas) > 1 else ""
            yield f"- `{choice.name}` - `{usual}`: {extent}{told}."


def _place(row):
    return tuple(row[key] for key in PLACE)


def _example(delta, row):
    network = f"ResNet-{row['depth']}, " if row["depth"] else ""
    return f"{delta:+.2f} on {row['dataset']} ({network}{row['source']} {row['table']})"


def _ours(axis, results):
    """The main effects of the axis in all committed folders."""
    for path in sorted(results.glob("*/effects.csv")):
        rows = pd.read_csv(path)
        for row in rows[
            (rows["kind"] == "main") & rows["effect"].isin([axis, AXES_OF.get(axis)])
        ].to_dict("records"):
            points = interval(row["estimate"], row["ci_low"], row["ci_high"], sign="+")
            page = f"[{path.parent.name}](results/{path.parent.name}.md)"
            extent = f"{number_of(row['seeds'], 'seed')}, {number_of(row['epochs'], 'epoch')}"
            yield f"- {row['contrast']}: {points} points, {row['verdict']} ({page}: {extent})"
