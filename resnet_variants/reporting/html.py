"""``report.html``: one file that needs no network, made from tables.

The first screen has the question, the answer and the arms' differences to their baselines. The rest
is folded. The page works as plain tables. Its script sorts and filters them and shows the figures,
which are made in ``figures.interactive``. What comes from a run, an experiment or a class name is
text in every place: the template escapes HTML, the data are in base 64, and the policy in the head
allows no script but the two whose digests it names.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib import resources
from itertools import chain, combinations
from typing import Any, cast

import pandas as pd

from resnet_variants.analysis.comparison import Comparison
from resnet_variants.analysis.probabilities import calibration_errors
from resnet_variants.analysis.statistics import MEAN, SHARE, paired_comparison
from resnet_variants.analysis.verdicts import UNDECIDED
from resnet_variants.models.variant import FURTHER, MAIN, SIZE, shown_as
from resnet_variants.records.results_folder import MISSING, STATUSES
from resnet_variants.records.run_folder import DIVERGED, FAILED, recipe_label
from resnet_variants.reporting.figures.arms import LISTED, arms_of, looks_by_value
from resnet_variants.reporting.figures.interactive import (
    BANDS,
    CURVE_POINTS,
    LAYOUT,
    MEASURES,
    Style,
    cost_figure,
    curves_figure,
    known_columns,
    style_of,
)
from resnet_variants.reporting.figures.style import COSTS
from resnet_variants.reporting.forest import forest
from resnet_variants.reporting.names import conditions, named_summary, recipes_in_words
from resnet_variants.reporting.pictures import Picture
from resnet_variants.reporting.summary import (
    ACCURACY,
    DELTA,
    PAGE,
    summary_cells,
    what_it_takes,
)
from resnet_variants.reporting.template import Links, Table, asset, filled
from resnet_variants.reporting.text import (
    POINTS,
    cell_text,
    hours_text,
    interval,
    p_value,
    readable_calibration,
    readable_comparisons,
    readable_diagnoses,
    readable_endpoints,
    readable_errors,
    readable_predictions,
    readable_robustness,
    readable_search,
)

BAD = {FAILED, DIVERGED, MISSING}
RUNS_SHOWN = 2_000  # beyond that a browser answers slowly
PAIRED = 30  # arms of a comparison beyond which their pairs are too many for the page
AXES = (*shown_as(SIZE, MAIN), *shown_as(FURTHER))


@dataclass(frozen=True)
class Failure:
    """A run that failed or diverged."""

    run_id: str
    status: str
    error: str
    log: str  # its end; empty where the raw runs are not here


@dataclass(frozen=True)
class Content:
    """All that the page says."""

    title: str  # the experiment's name
    question: str  # may be empty
    expect: str  # what was expected; may be empty
    headline: Sequence[str]  # what came out, a sentence each, the first two in bold
    answer: Sequence[str]  # the same in detail
    counts: Mapping[str, int]  # runs by status
    comparisons: Sequence[Comparison]
    failures: Sequence[Failure]
    provenance: Mapping[str, Sequence[str]]  # label -> distinct values
    notes: Sequence[str]  # how to read the numbers
    reproduce: Sequence[str] = ()  # shell commands
    files: Links = ()  # that the report wrote beside the page
    run_files: Mapping[str, Links] = field(default_factory=dict)  # by the run's id
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Section:
    """A comparison on the page."""

    label: str  # what tells it from the others
    comparison: Comparison
    arms: pd.DataFrame  # its part of ``named_summary``; the index numbers the page's arms

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each arm by its network's full name."""
        return dict(zip(self.arms["model"], self.arms.index.tolist(), strict=True))

    @property
    def best(self) -> dict[int, str]:
        """The arms with a score by their numbers, the best mean first."""
        scored = self.arms[self.arms["test_acc_mean"].notna()]
        ranked = scored.sort_values("test_acc_mean", ascending=False, kind="stable")
        return dict(zip(ranked.index.tolist(), ranked["arm"], strict=True))


def _sections(comparisons: Sequence[Comparison], arms: pd.DataFrame) -> list[Section]:
    sections, first = [], 0
    for label, part in zip(conditions(comparisons)[1], comparisons, strict=True):
        last = first + len(part.summary)
        sections.append(Section(label, part, arms[first:last]))
        first = last
    return sections


def render(content: Content) -> str:
    """The whole page; the same content gives the same bytes."""
    arms = named_summary(content.comparisons)
    sections = _sections(content.comparisons, arms)
    colours = ["arm", *varied(arms, content.comparisons)]
    runs = sum(len(part.runs) for part in content.comparisons)
    styles = _styles(content.comparisons, arms, colours)
    most = RUNS_SHOWN if runs <= RUNS_SHOWN else 0
    data = _data(arms, sections, styles, most=most)
    drawn = [name for name, figures in data["figures"].items() if any(figures)]
    scripts = [*([_plotly()] if drawn else []), asset("page.js")]
    return filled(
        "page.html.j2",
        content=content,
        shared=conditions(content.comparisons)[0],
        counts=_counts(content.counts),
        bad=BAD,
        provenance=_provenance(content),
        sections=sections,
        stated=content.comparisons[0].stated if content.comparisons else None,
        groups=[(i, section.label) for i, section in enumerate(sections)],
        models=arms["model"].to_dict(),
        means=_means(sections),
        hours_text=hours_text,
        tables=_tables(content, sections, summary_cells(arms, PAGE), most=most),
        pictures=content.pictures,
        filters=_filters(arms, colours[1:]),
        paired=PAIRED,
        drawn=drawn,
        styles=styles,
        costs=[(name, COSTS[name].label) for name in known_columns(arms, COSTS)],
        measures=list(MEASURES.items()),
        colours=[(axis, axis.replace("_", " ")) for axis in colours],
        colour=colours[0 if len(arms) <= LISTED else -1],
        left_out=0 if most else RUNS_SHOWN,
        bands=BANDS,
        scripts=scripts,
        digests=[_digest(script) for script in scripts],
        data=packed(data),
    )


def _styles(
    comparisons: Sequence[Comparison], arms: pd.DataFrame, axes: Sequence[str]
) -> dict[str, dict[str, Style]]:
    """For each axis the style of its values; that of an arm is its look in all figures."""
    looks = {axis: looks_by_value(arms[axis].map(cell_text)) for axis in axes}
    if comparisons:
        own = arms_of(comparisons[0])
        looks["arm"] = {own.labels[name]: own.look(name) for name in arms["model"].unique()}
    return {
        axis: {value: style_of(look) for value, look in values.items()}
        for axis, values in looks.items()
    }


def _data(
    arms: pd.DataFrame,
    sections: Sequence[Section],
    styles: Mapping[str, Mapping[str, Style]],
    *,
    most: int,
) -> dict[str, Any]:
    """What the script shows: figures, differences of pairs, and the values of each arm.

    Args:
        arms: of the whole page.
        sections: of the page.
        styles: as in ``cost_figure``.
        most: single runs that are drawn.
    """
    rows = {name: arms[name].map(cell_text).tolist() for name in ("model", *styles, "verdict")}
    points = max(1, CURVE_POINTS // max(1, len(arms)))
    cost = [cost_figure(s.arms, s.comparison.done[:most], styles) for s in sections]
    curves = [
        curves_figure(s.arms, s.comparison.done_epochs, styles, most=points) for s in sections
    ]
    return {
        "rows": rows,
        "groups": [i for i, section in enumerate(sections) for _ in section.numbers],
        "pairs": {arm: own for section in sections for arm, own in _pairs(section).items()},
        "layout": LAYOUT,
        "bands": BANDS,
        "figures": {
            name: [figure and asdict(figure) for figure in figures]
            for name, figures in (("cost", cost), ("curves", curves))
        },
    }


def _pairs(section: Section) -> dict[int, dict[int, str]]:
    """The difference of each arm to each other one, in words; none of too many arms."""
    scores = section.comparison.scores.rename(columns=section.numbers)
    texts: dict[int, dict[int, str]] = {arm: {} for arm in section.best}
    if len(texts) > PAIRED:
        return {}
    for a, b in combinations(texts, 2):
        found = paired_comparison(scores[a], scores[b], SHARE)
        mean, low, high = found.difference.mean, found.difference.low, found.difference.high
        p = f", p {p_value(found.p_value)}" if found.pairs > 1 else ""
        over = f"points over {found.pairs} common seed{'s' if found.pairs > 1 else ''}{p}"
        for one, other, ends in ((a, b, (mean, low, high)), (b, a, (-mean, -high, -low))):
            difference = interval(*(0.0 + end for end in ends), sign="+")  # no -0
            texts[one][other] = f"{difference} {over}" if found.pairs else "no seed in common"
    return texts


def packed(value: object) -> str:
    """JSON, compressed, in base 64: no text of a run can leave the element that holds it.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    written = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(written.encode(), mtime=0)).decode()


def _plotly() -> str:
    """The library as its Python package ships it."""
    file = resources.files("plotly") / "package_data" / "plotly.min.js"
    return file.read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """How a content security policy names an inline script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _counts(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Runs by status, those that there are, in the order of a run's life."""
    known = (*STATUSES, MISSING)
    order = (*known, *sorted(set(counts) - {*known}))
    return [(status, counts[status]) for status in order if counts.get(status)]


def _provenance(content: Content) -> list[tuple[str, Sequence[str]]]:
    """The labels and values, with recipes named by what they differ in."""
    recipes = recipes_in_words(content.comparisons)
    titles = {recipe_label(digest): f"recipe {words}".strip() for digest, words in recipes.items()}
    return [(titles.get(label, label), values) for label, values in content.provenance.items()]


# --- tables -----------------------------------------------------------------------------------


def varied(arms: pd.DataFrame, comparisons: Sequence[Comparison] = ()) -> list[str]:
    """The axes and settings in which the arms differ."""
    names = dict.fromkeys(chain(AXES, *(part.varied for part in comparisons)))
    return [name for name in names if arms[name].nunique(dropna=False) > 1]


def _filters(arms: pd.DataFrame, axes: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The columns that a reader may filter by, with their values."""
    verdict = ["verdict"] if arms["verdict"].nunique() > 1 else []
    return [(name, _values(arms[name])) for name in (*axes, *verdict)]


def _values(column: pd.Series) -> list[str]:
    distinct = column.drop_duplicates()
    numeric = pd.api.types.is_numeric_dtype(distinct)
    return [cell_text(value) for value in (distinct.sort_values() if numeric else distinct)]


def _tables(
    content: Content, sections: Sequence[Section], cells: pd.DataFrame, *, most: int
) -> dict[str, list[tuple[int, Table]]]:
    """The tables of each part of the page, with the numbers of their comparisons.

    Runs are listed if any may be, as ``most`` says.
    """
    cells = cells[[name for name in cells if cells[name].ne("").any()]]
    if "verdict" in cells:  # a narrow screen shows two columns
        cells.insert(1, "verdict", cells.pop("verdict"))
    tables = defaultdict[str, list[tuple[int, Table]]](list)
    for at, section in enumerate(sections):
        part, arms = section.comparison, section.arms.index
        own = {
            "predictions": Table.of(readable_predictions(part.predictions)),
            "differences": _differences(section),
            "summary": Table.of(cells.loc[arms], arms.tolist()),
            "runs": _runs(section, content.run_files) if most else Table({}),
            "effects": _effects(part.effects),
            "endpoints": _readable(section, part.endpoints, readable_endpoints),
            "pairs": _readable(section, part.all_pairs, readable_endpoints),
            "robustness": _readable(section, part.robustness, readable_robustness),
            "classes": _classes(section),
            "probabilities": _readable(
                section, calibration_errors(part.calibration), readable_calibration
            ),
            "search": _readable(section, part.search, readable_search),
            "depths": _readable(section, part.errors_by_depth, readable_errors),
            "diagnosis": _readable(section, part.diagnosis_summary, readable_diagnoses),
            "compared": _readable(section, part.diagnosis_summary, readable_comparisons),
        }
        for name, table in own.items():
            if table.rows:
                tables[name].append((at, table))
    return tables


def _classes(section: Section) -> Table:
    """Accuracy by class, a column for each arm, if they are few."""
    table = section.comparison.by_class
    if not 0 < table["model"].nunique() <= LISTED:
        return Table({})
    cells = [interval(*row) for row in table[[*MEAN]].itertuples(index=False)]
    names = section.comparison.labelled(table["model"])
    wide = table.assign(cell=cells, arm=names).pivot(
        index=["class", "images"], columns="arm", values="cell"
    )
    wide = wide.reindex(table["class"].drop_duplicates(), level="class")
    return Table.of(wide[[*dict.fromkeys(names)]].reset_index())


def _differences(section: Section) -> Table:
    """The arms that have a difference to their baseline, the best first."""
    rows = section.arms[section.arms["pairs"] > 0]
    rows = rows.sort_values("delta", ascending=False, kind="stable")
    bases = section.comparison.labelled(rows["baseline"])
    one = bases.nunique() == 1
    base = bases.iloc[0] if one else "the baseline"
    records = cast("list[dict[str, Any]]", rows.to_dict("records"))
    base_macs = rows["baseline"].map(section.arms.set_index("model")["macs"]).astype(float)
    times = rows["macs"] / base_macs
    cells = {
        "arm": rows["arm"] if one else rows["arm"] + " against " + bases,
        f"difference to {base}, points [95 %]": _intervals(rows, DELTA),
        "verdict": rows["verdict"],
        **({"times the MACs": times.map("{:.2f}".format)} if (times != 1).any() else {}),
        "what an undecided row would take": [what_it_takes(row) for row in records],
    }
    decided, margin = rows["verdict"] != UNDECIDED, section.comparison.plan.margin
    drawn = forest(rows, DELTA, decided, margin)
    return Table.of(pd.DataFrame(cells), rows.index.tolist(), forest=drawn)


def _means(sections: Sequence[Section]) -> Table:
    """The accuracies of the arms of several comparisons, the best first."""
    if len(sections) < 2 or not any(section.best for section in sections):
        return Table({})
    rows = pd.concat([s.arms.loc[[*s.best]] for s in sections])
    rows = rows.sort_values("test_acc_mean", ascending=False, kind="stable")
    title = "test accuracy % [95 %]"
    cells = rows.assign(**{title: _intervals(rows, ACCURACY)})[["runs", title, "n", "arm"]]
    return Table.of(cells, rows.index.tolist())


def _runs(section: Section, files: Mapping[str, Links]) -> Table:
    """A row for each run, whatever became of it."""
    runs = section.comparison.runs
    cells = {
        "arm": section.comparison.labelled(runs["model"]),
        **{name: runs[name] for name in ("seed", "status")},
        "test accuracy %": [f"{POINTS * x:.2f}" if x == x else "" for x in runs["test_acc"]],
        "seconds": [f"{x:.0f}" if x == x else "" for x in runs["seconds"]],
        "network": runs["model"],
    }
    arms, own = runs["model"].map(section.numbers), [files.get(i, ()) for i in runs["run_id"]]
    return Table.of(pd.DataFrame(cells), arms.tolist(), files=own if any(own) else ())


def _effects(effects: pd.DataFrame) -> Table:
    if effects.empty:
        return Table({})
    ends = ("estimate", "ci_low", "ci_high")
    columns = {
        **{name: effects[name] for name in ("effect", "kind", "contrast")},
        "estimate, points [95 %]": _intervals(effects, ends),
        "p": effects["p_value"].astype(float).map(p_value),
        "p (adjusted)": effects["p_adjusted"].astype(float).map(p_value),
        **{name: effects[name] for name in ("verdict", "cells", "seeds")},
    }
    main = effects["kind"] == "main"
    return Table.of(pd.DataFrame(columns), forest=forest(effects, ends, main))


def _readable(
    section: Section, frame: pd.DataFrame, readable: Callable[[pd.DataFrame], pd.DataFrame]
) -> Table:
    """A table with a row for each arm, or several."""
    if frame.empty:
        return Table({})
    cells = readable(frame)
    names = cells["model"] if "model" in cells else frame["model"]
    cells = cells.apply(
        lambda c: section.comparison.labelled(c) if c.name in ("model", "against") else c
    )
    return Table.of(cells.rename(columns={"model": "arm"}), names.map(section.numbers).tolist())


def _intervals(rows: pd.DataFrame, names: Sequence[str]) -> list[str]:
    sign = "" if names == ACCURACY else "+"
    return [interval(*row, sign=sign) for row in rows[[*names]].astype(float).to_numpy()]
