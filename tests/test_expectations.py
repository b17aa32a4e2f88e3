"""What is predicted before the first run: how it is read, judged, recorded and shown."""

import dataclasses
import hashlib
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from factories import cells_of

import resnet_variants as rv
from resnet_variants.analysis.predictions import Predictions, judged, parse
from resnet_variants.analysis.verdicts import Plan
from resnet_variants.models.grids import expand
from resnet_variants.records.files import to_json
from resnet_variants.records.results_folder import read_experiment
from resnet_variants.registry import UserError
from resnet_variants.reporting.build import build
from resnet_variants.reporting.findings import headline
from resnet_variants.run import command
from resnet_variants.sweeps.experiment import read_toml

SIZES = {"family": "cifar", "depth": 29}
LETTERS = SIZES | {"preset": [*"ABCD"], "order": ["post", "preact"]}
TWELVE = SIZES | {
    "stem": ["conv3", "deep"],
    "downsample": ["1x1", "3x3", "3x3+avgpool"],
    "order": ["post", "preact"],
}
DEPTHS = {"family": "cifar", "depth": [8, 20, 44], "shortcut": ["none", "pad"]}


def read(statements, grid=LETTERS):
    return parse(statements, cells_of(expand(grid)[0]))


def weights(statement, grid=LETTERS):
    """The arms' weights of the only part, by their names without what all share."""
    ((part,),) = (one.parts for one in read([statement], grid).each)
    return {
        name.removeprefix("rv_resnet").replace("_cifar", ""): w for name, w in part.arms.items()
    }


# --- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "grid", "expected"),
    [
        ("D preact - A post > 1", LETTERS, {"29_d_preact": 1, "29_a": -1}),
        ("B > A where post", LETTERS, {"29_b": 1, "29_a": -1}),
        (
            "A<B",
            LETTERS,
            {"29_b": 0.5, "29_b_preact": 0.5, "29_a": -0.5, "29_a_preact": -0.5},
        ),
        ("order preact > post where D", LETTERS, {"29_d_preact": 1, "29_d": -1}),
        ("rv_resnet29_cifar_a < rv_resnet29_cifar_d", LETTERS, {"29_d": 1, "29_a": -1}),
        ("3x3+avgpool - 3x3 < 3 where deep, post", TWELVE, {"29_d": 1, "29_c": -1}),
        (
            "44 plain < plain 20",
            DEPTHS,
            {"20_conv3_3x3_none": 1, "44_conv3_3x3_none": -1},
        ),
        (
            "depth 44 - depth 20 within 1 where pad",
            DEPTHS,
            {"44_conv3_3x3_pad": 1, "20_conv3_3x3_pad": -1},
        ),
    ],
)
def test_words_are_choices_and_mean_all_arms_that_have_them(statement, grid, expected):
    assert weights(statement, grid) == expected


def test_sides_are_compared_by_the_arms_that_differ_in_nothing_else():
    variants = expand(LETTERS)[0]
    kept = [v for v in variants if not (v.preset == "B" and v.order == "preact")]
    (prediction,) = parse(["A < B < C"], cells_of(kept)).each
    first, second = (part.arms for part in prediction.parts)
    assert {*first} == {"rv_resnet29_cifar_b", "rv_resnet29_cifar_a"}
    assert {*second} == {"rv_resnet29_cifar_c", "rv_resnet29_cifar_b"}
    confounded = [
        v for v in variants if (v.preset, v.order) not in {("A", "post"), ("D", "preact")}
    ]
    with pytest.raises(UserError, match="no arm 'D' differs from an arm 'A' in nothing else"):
        parse(["A < D"], cells_of(confounded))


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["A < E"], "'A < E': unknown arm or choice 'E'; choices: "),
        (["preactt > post"], "unknown arm or choice 'preactt'; did you mean 'preact'?"),
        (["A D > B C"], "'A D' names two choices of preset"),
        (["D preact > D"], "'D preact' names preset and order, and 'D' names preset: name the"),
        (["A < B where A"], "preset is named on the sides and after 'where': drop one"),
        (["D - A > much"], "'much' must be a number of points between -100 and 100"),
        (["D - A > nan"], "'nan' must be a number of points between -100 and 100"),
        (["D - A > 100"], "'100' must be a number of points between -100 and 100"),
        (["D - A within -1"], "'-1' must be a number of points above 0 and below 100"),
        (["D > 90"], "90 is a number, and 'D' no difference: say 'A < B < C', 'A - B > 0.2' or"),
        (["A"], "'A': say 'A < B < C', 'A - B > 0.2' or 'A - B within 0.1' with choices"),
        (["A <"], "say 'A < B < C'"),
        (["A = B"], "say 'A < B < C'"),
        (["A <= B"], "say 'A < B < C'"),
        (["A < B > C"], "say 'A < B < C'"),
        (["A - B"], "say 'A < B < C'"),
        (["A - B - C > 1"], "say 'A < B < C'"),
        (["A within 1"], "say 'A < B < C'"),
        (["A < B where post where C"], "say 'A < B < C'"),
        (["A < B", "A  <  B"], "'A < B' is stated twice"),
        (["A < A"], "'A < A' cannot hold, whatever the accuracies are"),
        (["C < D", "A < B", "B < A"], "'A < B' and 'B < A' cannot all hold"),
        (["A < B", "B < C", "C < A"], "'A < B', 'B < C' and 'C < A' cannot all hold"),
        (["D - B > 0.2", "D - B within 0.1"], "'D - B > 0.2' and 'D - B within 0.1' cannot"),
        (["D - B > 0.1", "D - B within 0.1"], "'D - B > 0.1' and 'D - B within 0.1' cannot"),
        (["B - A > 60", "C - B > 60"], "'B - A > 60' and 'C - B > 60' cannot all hold"),
        (["A < B", "B < A where post", "B < A where preact"], "cannot all hold"),
    ],
)
def test_a_fault_is_one_line(statements, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        read(statements)
    assert "\n" not in str(error.value)
    assert error.value.field == "expect"


def test_a_choice_of_two_axes_needs_the_name_of_one():
    grid = SIZES | {"attention": ["none", "se"], "antialias": ["none", "blur"]}
    with pytest.raises(UserError, match="'none' is a choice of attention and antialias: say 'att"):
        read(["none < se"], grid)
    assert len(weights("attention none < se", grid)) == 4


def test_predictions_that_can_hold_together_are_no_contradiction():
    statements = ["A < B", "B < A where post", "D - B > 0.05", "D - B within 0.1", "A < C < D"]
    assert read(statements).texts == tuple(statements)


# --- judging ----------------------------------------------------------------------------------

SEEDS = 8
NOISE = np.array([0.3, -0.2, 0.1, -0.3, 0.2, -0.1, 0.25, -0.25]) / 100


def scores(**points):
    """Accuracies by seed: of each preset so many points above 80, less noise than a tenth."""
    own = {f"rv_resnet29_cifar_{name}": p / 100 for name, p in points.items()}
    tilt = {name: 0.1 * at for at, name in enumerate(own)}
    columns = {name: 0.8 + NOISE + p + tilt[name] * NOISE for name, p in own.items()}
    return pd.DataFrame(columns)


def verdicts(statements, table, plan=None):
    predictions = read(statements, SIZES | {"preset": [*"ABCD"]})
    frame = judged(predictions, table, plan or Plan())
    return dict(zip(frame["prediction"], frame["verdict"], strict=False)), frame


def test_verdicts_on_made_scores():
    said, frame = verdicts(
        [
            *("A < B < C", "B - A > 0.5", "D - C within 0.5", "B - A < 2", "C < D"),
            *("D - A > 3", "C - B < 1.5"),
        ],
        scores(a=0, b=1, c=2, d=2),
    )
    assert said == {
        **dict.fromkeys(
            ("A < B < C", "B - A > 0.5", "D - C within 0.5", "B - A < 2", "C - B < 1.5"), "held"
        ),
        "C < D": "undecided",
        "D - A > 3": "failed",
    }
    first = frame.iloc[0]
    assert (first["part"], first["seeds"]) == ("B - A", SEEDS)
    assert first["difference"] == pytest.approx(0.01, abs=0.001)
    assert first["difference_ci_low"] < first["difference"] < first["difference_ci_high"]
    assert first["p_adjusted"] == pytest.approx(2 / 2**SEEDS)
    assert frame["number"].tolist() == [1, 1, 2, 3, 4, 5, 6, 7]
    assert (frame.query("verdict == 'undecided'")["p_adjusted"] > 0.03).all()


def test_a_difference_beyond_the_margin_on_either_side_fails():
    said, _ = verdicts(["B - A within 0.5", "C - A within 0.5"], scores(a=2, b=1, c=3))
    assert {*said.values()} == {"failed"}


def test_a_chain_fails_with_one_part_and_is_undecided_with_another():
    said, _ = verdicts(["A < B < C", "A < B < D"], scores(a=0, b=2, c=1, d=2))
    assert said == {"A < B < C": "failed", "A < B < D": "undecided"}


def test_what_has_no_scores_or_too_few_seeds_is_undecided():
    table = scores(a=0, b=1)
    said, frame = verdicts(["A < B", "C < D"], table)
    assert said == {"A < B": "held", "C < D": "undecided"}
    assert frame["seeds"].tolist() == [SEEDS, 0]
    assert np.isnan(frame["difference"].iloc[1])
    assert verdicts(["A < B"], table.iloc[:5])[0] == {"A < B": "undecided"}
    assert verdicts(["A < B"], table, Plan(seeds=9))[0] == {"A < B": "undecided"}
    table.iloc[3:, 1] = np.nan  # the seeds that both arms have count
    assert verdicts(["A < B"], table)[1]["seeds"].tolist() == [3]
    assert judged(Predictions(), table, Plan()).empty


def test_false_verdicts_are_rare_however_many_predictions_there_are():
    """All differences are zero or at their number: each held or failed prediction is false."""
    random, false = np.random.default_rng(0), 0
    statements = ["A < B", "C < D", "C - A < 0", "D - A within 0.2", "D - B > 0"]
    predictions = read(statements, SIZES | {"preset": [*"ABCD"]})
    names = [f"rv_resnet29_cifar_{x}" for x in "abcd"]
    for _ in range(300):
        noise = random.normal(0, 0.005, (7, 4)) + random.normal(0, 0.01, (7, 1))
        noise[:, 3] += 0.002  # D - A is at the margin
        frame = judged(predictions, pd.DataFrame(noise, columns=names), Plan())
        wrong = (frame["part"] == "C - A") | (frame["part"] == "B - A")
        false += bool(
            (frame[wrong]["part_verdict"] != "undecided").any()
            or (frame.query("part == 'D - A'")["part_verdict"] != "undecided").any()
            or (frame.query("part in ['D - C', 'D - B']")["part_verdict"] == "failed").any()
        )
    assert false <= 24  # 15 expected at most; three standard deviations more
    assert false > 0


# --- recorded and shown -----------------------------------------------------------------------

TEXTS = ["preact - post within 90", "post < preact"]
QUESTION = """
expect = ["preact - post within 90", "post < preact"]
data   = "digits"
seeds  = 2

[grid]
family = "cifar"
depth  = 8
order  = ["post", "preact"]

[recipe]
epochs     = 1
batch_size = 256
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A file with predictions, and the folder of its results."""
    root = tmp_path_factory.mktemp("predicted")
    file, out = root / "orders.toml", root / "results"
    file.write_text(QUESTION)
    argv = ["--experiment", str(file), "--out", str(out), "--engine", "inline"]
    assert command(argv) == 0
    return out, argv


def plan(out):
    return read_experiment(out)["plan"]["predictions"]


def test_predictions_are_recorded_with_their_digest_and_shown(trained):
    out, _ = trained
    record = plan(out)
    assert record["list"] == TEXTS
    assert record["sha256"] == hashlib.sha256(("\n".join(TEXTS) + "\n").encode()).hexdigest()
    assert (record["late"], record["earlier"]) == (False, [])
    made = rv.report(out)
    assert made.headline[-1] == "Of 2 predictions 2 are undecided."
    assert made.predictions["verdict"].tolist() == ["undecided", "undecided"]
    assert (made.predictions["dataset"] == "digits").all()
    assert (made.predictions["seeds"] == 2).all()
    table = pd.read_csv(out / "predictions.csv")
    assert table["prediction"].tolist() == TEXTS
    page = (out / "report.html").read_text()
    assert page.index("post &lt; preact") < page.index('class="forest"')
    assert "stated before the first result" in page
    assert "Of 2 predictions 2 are undecided." in repr(made)
    assert "Of 2 predictions 2 are undecided." in made._repr_html_()


def again(out, expect):
    """The predictions that the folder records after the same networks are asked for again."""
    asked = {"epochs": 1, "batch_size": 256, "seeds": 2, "report": False, "engine": "inline"}
    variants, _ = expand({"family": "cifar", "depth": 8, "order": ["post", "preact"]})
    rv.run(variants, out=out, expect=expect, **asked)
    return plan(out)


def test_a_list_that_is_changed_after_a_result_says_so(trained, tmp_path, capsys):
    first, argv = trained
    out = shutil.copytree(first, tmp_path / "results")
    assert not again(out, expect=TEXTS)["late"]
    changed = tmp_path / "orders.toml"
    changed.write_text(QUESTION.replace("post < preact", "post > preact"))
    words = [argv[0], str(changed), argv[2], str(out), *argv[4:]]
    assert command(words) == 0
    record = plan(out)
    assert record["late"] and record["list"][1] == "post > preact"
    assert record["earlier"] == [TEXTS]
    said = "Of 2 predictions (changed after the first result) 2 are undecided."
    assert said in capsys.readouterr().out
    page = (out / "report.html").read_text()
    assert "They replaced: preact - post within 90; post &lt; preact." in page
    table = pd.read_csv(out / "predictions.csv")
    assert (table["stated"] == "changed after the first result").all()
    # Without a list the recorded one stays; a new beginning forgets what was before.
    assert again(out, expect="words") == record
    assert command([*words, "--fresh"]) == 0
    assert (plan(out)["late"], plan(out)["earlier"]) == (False, [])


def test_a_list_after_the_first_result_is_marked(trained, tmp_path):
    first, _ = trained
    out = shutil.copytree(first, tmp_path / "results")
    content = read_experiment(out)
    del content["plan"]["predictions"]
    (out / "experiment.json").write_text(to_json(content))
    assert "predictions.csv" not in {file.name for file in build(out).files}
    assert not (out / "predictions.csv").exists()
    record = again(out, expect=TEXTS)
    assert (record["late"], record["earlier"]) == (True, [])
    assert "(stated after the first result)" in rv.report(out).headline[-1]
    together = rv.report(out, out=tmp_path / "together")
    assert together.predictions["stated"].unique().tolist() == ["stated after the first result"]
    assert rv.report(tmp_path / "together").headline == together.headline
    # A list that only one of two shares has may be made from the other's results.
    shutil.copytree(first, tmp_path / "share")
    (tmp_path / "share" / "experiment.json").write_text(to_json(content))
    shared = rv.report(first, tmp_path / "share", out=tmp_path / "shares").predictions
    assert shared["stated"].unique().tolist() == ["stated after the first result"]
    # A list that is late in one of two folders is one list.
    both = rv.report(first, out, out=tmp_path / "both").predictions
    assert both["number"].unique().tolist() == [1, 2]


def test_the_sentence_is_shown_in_python_too(tmp_path):
    variants, _ = expand({"family": "cifar", "depth": 8, "order": ["post", "preact"]})
    more = {"epochs": 1, "batch_size": 256, "report": False}
    made = rv.run(variants, seeds=1, out=tmp_path / "x", expect=["post < preact"], **more)
    assert made.headline[-1] == "Of 1 prediction 1 is undecided."
    assert plan(tmp_path / "x")["list"] == ["post < preact"]


@pytest.mark.parametrize("flag", ["--dry-run", "--no-dry-run"])
def test_a_list_that_cannot_hold_trains_nothing(tmp_path, flag):
    file = tmp_path / "orders.toml"
    file.write_text(QUESTION.replace("within 90", "> 1").replace("post < preact", "preact < post"))
    with pytest.raises(UserError, match="'preact - post > 1' and 'preact < post' cannot all hold"):
        command(["--experiment", str(file), "--out", str(tmp_path / "out"), flag])
    assert not (tmp_path / "out").exists()


def test_words_stay_words_and_other_kinds_are_refused(tmp_path):
    file = tmp_path / "orders.toml"
    file.write_text(QUESTION.replace('["preact - post within 90", "post < preact"]', '"A < B"'))
    experiment = read_toml(file)
    assert (experiment.expect, experiment.predictions) == ("A < B", Predictions())
    for wrong in (3, ["A", 3], {"a": 1}):
        with pytest.raises(UserError, match="expect must be text in quotes, or a list of such"):
            dataclasses.replace(experiment, expect=wrong)


def test_a_record_that_was_edited_is_damaged(trained, tmp_path):
    first, _ = trained
    content = read_experiment(first)
    content["plan"]["predictions"]["list"][0] = "post < preact by much"
    (tmp_path / "experiment.json").write_text(to_json(content))
    with pytest.raises(UserError, match="predictions are not those of their SHA-256"):
        Predictions.in_folder(tmp_path)


def test_the_sentence_counts_what_came_out(trained):
    made = rv.report(trained[0])
    (part,) = made.comparisons
    table = part.predictions.loc[[0, 0, 1, 1]]
    table = table.assign(number=[1, 2, 3, 4], verdict=["held", "held", "failed", "undecided"])
    vars(part)["predictions"] = table
    assert headline([part])[-1] == "Of 4 predictions 2 held, 1 failed, 1 is undecided."
