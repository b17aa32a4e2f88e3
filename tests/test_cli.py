"""The commands as typed: what they print, write and return."""

import importlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest

import resnet_variants as rv
from resnet_variants.records.results_folder import read_experiment
from resnet_variants.records.run_folder import RunFolder
from resnet_variants.registry import UserError
from resnet_variants.terminal import cli
from resnet_variants.training import device
from resnet_variants.training.recipe import RECIPES, Recipe

LOADING = ("loading torch and timm\n", "loading the images\n")


def typed(capsys, line):
    """Exit status, standard output without what is being loaded, and standard error."""
    status = cli.main(line.split())
    out, err = capsys.readouterr()
    return status, "".join(line for line in out.splitlines(True) if line not in LOADING), err


TINY = "run --engine inline --depth 11 --epochs 1 --seeds 1 --device cpu --variant"


def test_run_trains_reports_and_continues(tmp_path, capsys):
    out = tmp_path / "out"
    status, text, err = typed(capsys, f"{TINY} A D --out {out}")
    assert (status, err) == (0, "")
    assert f"output     {out}" in text
    assert ": 2 runs to do\n" in text
    assert "[2/2] D seed 0: test " in text
    assert "| A " in text
    assert f"open {out}/report.html" in text.splitlines()[-1]
    assert {path.name for path in out.iterdir()} >= {
        *("runs", "runs.csv", "runs.parquet", "epochs.csv", "summary.csv", "summary.md"),
        *("accuracy_vs_macs.png", "accuracy_vs_macs.svg"),
        *("training_curves.png", "training_curves.svg"),
    }
    _, again, _ = typed(capsys, f"{TINY} A D --out {out}")
    assert "all 2 runs are over" in again
    assert "2 done" in again


def test_the_first_words_come_before_anything_is_loaded(tmp_path, capsys):
    cli.main(f"{TINY} A --data folder:{tmp_path}".split())
    assert capsys.readouterr().out == "".join(LOADING)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--variant A --data folder:none", "--data: the folder 'none' does not exist"),
        ("--experiment none", "--experiment: unknown experiment 'none'; choices: "),
        ("--experiment x.toml", "--experiment: 'x.toml': unknown key 'qestion'; did you mean"),
    ],
)
def test_what_needs_no_library_is_refused_before_any_is_loaded(
    flags, message, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    Path("x.toml").write_text('qestion = "?"')
    status = cli.main(f"run {flags}".split())
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")  # it has not said that it loads anything
    assert err.startswith(f"resnet-variants run: {message}")


def test_a_failed_run_is_status_1_and_its_error_one_line(tmp_path, capsys, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("out \x1b[2J of [/red] luck")

    monkeypatch.setattr("resnet_variants.sweeps.execute.fit", broken)
    status, text, _ = typed(capsys, f"{TINY} A --out {tmp_path}")
    assert status == 1
    assert "failed after" in text
    assert r": RuntimeError: out \x1b[2J of [/red] luck" in text
    assert "1 failed" in text


def test_a_dry_run_lists_and_estimates_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("resnet_variants.sweeps.estimate._SECONDS", 0.1)
    out = tmp_path / "out"
    status, text, _ = typed(capsys, f"{TINY} A D --dry-run --out {out}")
    assert status == 0
    assert "rv_resnet11_cifar_d__digits__" in text
    assert re.search(r"2 runs, about \d+:\d\d", text)
    assert re.search("an estimate: a few steps of [12] of 2 networks", text)
    assert not out.exists()


def read(line):
    return importlib.import_module("resnet_variants.run").read(line.split())[0]


def test_flags_choose_networks():
    assert [v.preset for v in read("").variants] == ["A", "B", "C", "D"]
    grid = read("--grid")
    assert (len(grid.variants), grid.name) == (12, "digits_cifar29_grid")
    assert {v.preset for v in grid.variants} == {"A", "B", "C", "D", ""}
    assert len(read("--grid --preact").variants) == 6
    assert [v.name for v in read("--variant D --preact").variants] == ["rv_resnet29_cifar_d_preact"]
    assert len(read("--stem conv3 deep --order post preact --depth 20 56").variants) == 8
    twins = read("--variant A B --depth 20")
    (b,) = twins.variants
    assert b.preset == "B"
    assert "preset=B" in twins.merged[0]


def test_flags_name_networks_in_full():
    one = read("--variant rv_resnet8_cifar_s2_b rv_resnet11_cifar_d")
    assert [v.name for v in one.variants] == ["rv_resnet8_cifar_s2_b", "rv_resnet11_cifar_d"]
    assert one.name == "digits_rv_resnet8_cifar_s2_b-rv_resnet11_cifar_d"
    assert not one.free_stem
    wild = read("--variant rv_resnet20_cifar_? rv_resnet20_cifar_d --seeds 2")
    assert [v.preset for v in wild.variants] == ["B", "C", "D"]
    (merged,) = wild.merged
    assert "rv_resnet20_cifar_a is the same network as rv_resnet20_cifar_b" in merged


def test_flags_change_the_recipe_of_a_paper():
    assert read("--recipe he2015").recipe == RECIPES["he2015"]
    assert read("--recipe=he2015 --epochs 3").recipe == replace(RECIPES["he2015"], epochs=3)
    changed = read("--recipe he2015 --decay weights --no-sync-bn --milestones 0.8 0.9").recipe
    assert (changed.decay, changed.sync_bn, changed.milestones) == ("weights", False, (0.8, 0.9))
    assert read("--recipe he2015").name == "digits_cifar29_he2015"
    assert read("--recipe default") == read("")


def test_a_stem_stride_follows_the_images_unless_it_is_given():
    line = "--variant D --depth 11 --img-size 64"
    assert read(line).fitted().runs[0].id.startswith("rv_resnet11_cifar_s2_d__digits-64px__")
    given = read(f"{line} --stem-stride 1")
    assert given.fitted().runs[0].id.startswith("rv_resnet11_cifar_d__digits-64px__")


FILE = """
seeds = 2
[grid]
family = "cifar"
depth = 11
[recipe]
epochs = 3
weight_decay = 0.01
"""


def test_flags_override_the_experiments_file(tmp_path):
    path = tmp_path / "question.toml"
    path.write_text(FILE)
    for flags, seeds, epochs in (("", 2, 3), ("--seeds 3 --epochs 20", 3, 20)):
        given = read(f"--experiment {path} {flags}")
        recipe = given.recipe
        assert (given.seeds, recipe.epochs, recipe.weight_decay) == (seeds, epochs, 0.01)
    with pytest.raises(UserError, match="the file names the networks"):
        read(f"--experiment {path} --variant A")


FULL = "--variant: a name says all of a network: drop letters, and other flags that choose it"
MANY = "--depth 20 32 44 --stem-stride 1 2 4 --cardinality " + " ".join(map(str, range(1, 1001)))
WRONG = {
    "--variant A rv_resnet20_cifar_b": FULL,
    "--variant rv_resnet20_cifar_b --depth 20": FULL,
    "--variant resnet50d": "--variant: unknown name 'resnet50d'; did you mean 'rv_resnet50_d'?",
    f"{MANY} --base-width {' '.join(map(str, range(1, 201)))} --yes": "the grid has 7,200,000 comb"
    "inations (3 depth x 3 stem_stride x 1,000 cardinality x 200 base_width x 4 preset), and mem",
    "--seeds 10000 --order post preact --stem conv3 deep tiered --shortcut conv avgpool pad "
    "--attention none se eca --antialias none blur avg --yes": "162 arms x 10,000 seeds are m",
    "--variant E": "--variant: unknown variant 'E'; choices: A, B, C, D",
    "--depth 21 --family cifar": "--depth: unknown depth 21 for family 'cifar'; choices: 6n+2",
    "--family cifra": "--family: unknown family 'cifra'; did you mean 'cifar'? choices: imagenet",
    "--epochs 0": "--epochs: epochs 0 must be from 1 to 1000000",
    "--epochs many": "--epochs: 'many' is no number",
    "--depth 8 eight": "--depth: 'eight' is no number",
    "--depth 8 14.5": "--depth: '14.5' is no whole number",
    "--milestones 0.5 it's": "--milestones: Could not find valid parse for arguments: ['0.5',",
    "--milestones 0.5 half": "--milestones: 'half' is no number",
    "--epochs 1.5": "--epochs: '1.5' is no whole number",
    "--batch-size 1e3": "--batch-size: '1e3' is no whole number",
    "--lr high": "--lr: 'high' is no number",
    "--preact --order post": "--preact: give either --preact or --order",
    "--grid --stem deep": "--stem: --grid sets it already: drop --stem",
    "--experiment=": "--experiment: unknown experiment ''; choices: activation_orders, attention,",
    "--experiment bag_of_trick": "--experiment: unknown experiment 'bag_of_trick'; did you mean "
    "'bag_of_tricks'? choices: activation_orders, attention, bag_of_tricks,",
    "--experiment .": "--experiment: cannot read '.': Is a directory",
    "--experiment none.toml": "--experiment: cannot read 'none.toml': No such file or directory",
    "--nonsense": "unknown words '--nonsense'; see --help",
    "--epochs": "--epochs: ",
    "--variant": "--variant: missing a value",
    "--variant D --variant A": "--variant: given twice: name all values after one flag",
    "--data timm:": "--data: unknown data 'timm:'; did you mean 'timm:NAME'? choices: digits",
    "--recipe nope": "--recipe: unknown recipe 'nope'; choices: default, he2015, he2016,",
    "--recipe": "--recipe: ",
    "--recipe fast --experiment x.toml": "--recipe: the file names the recipe: drop --recipe",
    "--optimizer sdg": "--optimizer: unknown optimizer 'sdg'; did you mean 'sgd'? choices: nest",
    "--auto-augment nope": "--auto-augment: auto_augment 'nope' is none of timm's policies, such",
    "--devices 99 --device cpu": "--devices: devices 99 exceeds the 2 of this machine (cpu)",
    "--variant B --shortcut none --zero-init-last": "--zero-init-last: rv_resnet29_cifar_conv3",
    "--variant B --shortcut none --drop-path-rate 0.1": "--drop-path-rate: rv_resnet29_cifar_conv3",
    "--out a\0b": "--out: 'a\\x00b' holds a NUL or bytes that are no UTF-8: take another name",
    "--data folder:a\udcff": "--data: 'folder:a\\udcff' holds a NUL or bytes that are no UTF-8",
    "--weights a\udcff": "--weights: 'a\\udcff' holds a NUL or bytes that are no UTF-8: take",
}


LINES = {f"run {flags}": f"run: {message}" for flags, message in WRONG.items()} | {
    "report nowhere": "report: no results folder 'nowhere'",
    "report": "report: missing ",
    "describe rv_resnet50_e": "describe: unknown stem in name",
    "describe rv_resnet50_d --img-size -1": "describe: --img-size: img_size -1",
    "describe rv_resnet50_d --in-chans 0": "describe: --in-chans: in_chans 0",
    "describe resnet50.a1_in1": "describe: unknown weights of rv_resnet50_b 'a1_in1'; did you mean",
    "describe rv_resnet20_cifar_b.x": "describe: unknown weights of rv_resnet20_cifar_b 'x'; ",
    "describe resnet51": "describe: unknown name 'resnet51'; did you mean ",
    "describe ResNet50D": "describe: unknown name 'ResNet50D'; did you mean 'rv_resnet50_d'?",
    "run --minutes four": "run: --minutes: 'four' is no number",
    "list resnt50*": "list: no registered model matches 'resnt50*', here or in timm",
    "describe d": "describe: unknown name 'd'; did you mean 'D'?",
    "list nothing*": "list: no registered model matches 'nothing*'",
    "runn": "runn: unknown verb 'runn'; did you mean 'run'? choices: run",
}


@pytest.mark.parametrize("line", LINES)
def test_a_mistake_is_one_line_status_2_and_nothing_written(line, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(device.joblib, "cpu_count", lambda: 2)
    status, out, err = typed(capsys, line)
    assert (status, out) == (2, "")
    assert err.startswith(f"resnet-variants {LINES[line]}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\x1b[2Jb", "a\x00b", "a\u202eb", "a\udcffb"])
def test_a_message_is_one_line_that_moves_no_terminal(text, capsys):
    def fails():
        raise UserError(f"{text} is wrong")

    assert cli.guard(fails, "run") == 2
    spelt = repr(text).strip("'")
    assert capsys.readouterr().err == f"resnet-variants run: {spelt} is wrong\n"
    cli.say(f"first\n{text}")
    shown = capsys.readouterr().out
    assert shown.removeprefix("first\n").replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "resnet_variants.describe", "rv_resnet18_b"],
        [str(Path(sys.executable).parent / "resnet-variants"), "describe", "rv_resnet18_b"],
    ],
)
def test_an_interruption_while_libraries_are_loaded_is_one_line(words):
    command = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(rv.__file__).parents[1])},
    )
    maps = Path(f"/proc/{command.pid}/maps")
    while "libtorch" not in maps.read_text():
        assert command.poll() is None
        time.sleep(0.002)
    command.send_signal(signal.SIGINT)
    out, err = command.communicate()
    assert (command.returncode, out) == (130, "")
    assert err == "resnet-variants: interrupted; the same command continues\n"


def test_importing_the_package_leaves_interruptions_alone_and_plotting_out_and_builds_no_network():
    code = """
import signal, sys, timm, torch
made = []
torch.nn.Conv2d.__init__ = lambda *args, **kwargs: made.append(args)
import resnet_variants
resnet_variants.list_models()
print(signal.getsignal(signal.SIGINT).__name__, {"pandas", "tyro"} & {*sys.modules}, made)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "default_int_handler set() []\n"


def test_a_run_that_another_command_trains_is_not_redone(tmp_path, capsys):
    path = tmp_path / "runs" / read("--variant A --depth 11 --epochs 1").runs[0].id
    path.mkdir(parents=True)
    with RunFolder(path).claim():
        status, out, err = typed(capsys, f"{TINY} A --out {tmp_path} --fresh")
    assert (status, out) == (2, "")
    assert err == (
        f"resnet-variants run: --fresh: {path} is being trained by another command: wait for it\n"
    )


def test_a_reader_that_leaves_is_no_traceback():
    heard, said = os.pipe()
    os.close(heard)
    words = [sys.executable, "-m", "resnet_variants.list", "rv_resnet[1-3]*_b"]
    done = subprocess.run(words, stdout=said, stderr=subprocess.PIPE, text=True, check=False)
    os.close(said)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_closed_stream_is_no_traceback(stream, monkeypatch):
    monkeypatch.setattr(sys, stream, None)  # what Python has in its place
    line = "list rv_resnet18_b" if stream == "stdout" else "list nothing*"
    assert cli.main(line.split()) == (0 if stream == "stdout" else 2)


def test_a_terminal_without_the_letters_shows_their_codes(monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    assert cli.guard(lambda: cli.say("ünï") or 0, "run") == 0
    assert shown.getvalue() == rb"\xfcn\xef" + b"\n"


def test_list_shows_params_macs_and_axes_and_aliases_for_what_they_are(capsys):
    status, out, _ = typed(capsys, "list rv_resnet50_d_p*")
    assert status == 0
    (line,) = out.splitlines()[1:]
    assert line.split()[:4] == ["rv_resnet50_d_preact", "25,568,584", "4,328,824,832", "224"]
    status, out, _ = typed(capsys, "list rv_resnet18_a")
    assert status == 0
    (line,) = out.splitlines()[1:]
    assert line.split() == ["rv_resnet18_a", *["the", "same", "network", "as", "rv_resnet18_b"]]


def test_shares_of_the_seeds_are_trained_apart_and_reported_together(tmp_path, capsys):
    line = f"{TINY.replace('--seeds 1', '--seeds 2')} A D"
    for share in (1, 2):
        status, text, _ = typed(capsys, f"{line} --share {share}/2 --out {tmp_path / str(share)}")
        assert status == 0
        assert f"seeds      2, of which share {share}/2 is {share - 1}, so 2 runs" in text
    shutil.rmtree(tmp_path / "1" / "runs")  # as in a clone
    typed(capsys, f"report {tmp_path / '1'} {tmp_path / '2'} --out {tmp_path / 'both'}")
    runs = pd.read_csv(tmp_path / "both" / "runs.csv")
    assert sorted(zip(runs["preset"], runs["seed"], strict=True)) == [
        (preset, seed) for preset in "AD" for seed in (0, 1)
    ]
    assert read_experiment(tmp_path / "2")["plan"]["seeds"] == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--budget 1h", "--share: a share has its planned seeds: no --more, --minutes, --budget"),
        ("--until-decided", "--share: a share has its planned seeds: no --more"),
        ("--more 1 --arms A", "--share: a share has its planned seeds: no --more"),
        ("--minutes 1", "--share: a share has its planned seeds: no --more"),
    ],
)
def test_what_a_share_is_not_for_is_refused(capsys, tmp_path, more, message):
    status, _, err = typed(capsys, f"{TINY} A D --share 1/1 {more} --out {tmp_path / 'out'}")
    assert status == 2
    assert err.startswith(f"resnet-variants run: {message}")
    assert not (tmp_path / "out").exists()


def test_describe_says_which_network_it_is(capsys):
    status, out, _ = typed(capsys, "describe rv_resnet50_d")
    assert status == 0
    for text in (
        "preset       ResNet-D",
        "timm                    resnet50d",
        "mmpretrain              ResNetV1d(depth=50)",
        "arXiv:1812.01187        ResNet-50-D, fig. 2c",
        "layer4.2.conv3",
        "at 224 px: 25,576,264 params, 4,328,824,832 MACs = 8,657,649,664 FLOPs",
    ):
        assert text in out
    _, brief, _ = typed(capsys, "describe rv_resnet50_d --no-layers")
    assert out.startswith(brief) and "layer4.2.conv3" not in brief
    _, out, _ = typed(capsys, "describe rv_resnet29_cifar_deep_1x1_conv --img-size 8 --in-chans 1")
    assert "none: a cell of its own" in out
    assert "none known" in out


def test_describe_knows_names_of_other_libraries(capsys):
    for name, told in {
        "resnet50d": ["resnet50d of timm is rv_resnet50_d"],
        "resnet50d.ra2_in1k": ["resnet50d.ra2_in1k of timm is rv_resnet50_d"],
        "wide_resnet50_2": ["wide_resnet50_2 of timm, torchvision is rv_wide_resnet50_2_b"],
        "resnet50": [
            "resnet50 of timm, torchvision is rv_resnet50_b",
            "resnet50 of pytorchcv is rv_resnet50_a",
        ],
        "D": ["rv_resnet50_d"],
    }.items():
        status, out, _ = typed(capsys, f"describe {name}")
        assert (status, out.splitlines()[: len(told)]) == (0, told)
    _, out, _ = typed(capsys, "describe PreActResNet18")
    assert out.startswith("PreActResNet18 of kuangliu/pytorch-cifar (differs: it has no norm and")


@pytest.mark.parametrize(
    "line", ["rv_resnet164_cifar_a_preact", "rv_wide_resnet101_2_b --img-size 8192"]
)
def test_no_column_of_describe_runs_into_the_next(capsys, line):
    _, out, _ = typed(capsys, f"describe {line}")
    heading, layers = out.split("names elsewhere\n")[1].split("\nlayer ")
    for row in heading.split("\n\n")[0].splitlines():
        assert re.fullmatch(r"  \S+ {2,}\S.*", row)
    rows = [re.split(r" {2,}", row) for row in f"layer {layers}".split("\n\n")[0].splitlines()]
    assert {len(row) for row in rows} == {6}
    assert len({len(row) for row in f"layer {layers}".split("\n\n")[0].splitlines()}) == 1


def test_python_runs_do_what_the_command_does(tmp_path):
    settings = {"preset": "fast", "epochs": 1, "device": "cpu", "data_dir": tmp_path, "workers": 1}
    out = tmp_path / "my results"
    frame = rv.run("rv_resnet8_cifar_b", data="digits", seeds=2, out=out, **settings).runs
    assert list(frame["status"]) == ["done", "done"]
    assert list(frame["seed"]) == [0, 1]
    config = json.loads((out / "runs" / frame["run_id"][0] / "run.json").read_text())
    assert Recipe(**config["recipe"]) == replace(RECIPES["fast"], epochs=1)
    assert (config["device"], config["devices"]) == ("cpu", 1)
    importlib.import_module("resnet_variants.run")  # does not hide rv.run
    for wrong, message in [
        ({"epoch": 1}, "unknown recipe setting 'epoch'"),
        ({"preset": "slow"}, "unknown recipe 'slow'"),
        ({"devices": 0}, "devices 0 must be from 1"),
        ({"workers": -1}, "workers -1 must be from 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            rv.run("rv_resnet8_cifar_b", out=tmp_path, **wrong)


def test_list_knows_timms_names(capsys):
    status, out, _ = typed(capsys, "list resnet50d")
    assert status == 0
    lines = out.splitlines()
    assert lines[1].startswith("rv_resnet50_d ")
    assert lines[2].split() == ["resnet50d", "timm's", "name", "of", "rv_resnet50_d"]


def test_the_version_is_that_of_the_package(capsys):
    status, out, _ = typed(capsys, "--version")
    assert (status, out) == (0, f"resnet_variants {version('resnet_variants')}\n")


def test_a_letter_of_no_preset_is_one_line():
    with pytest.raises(UserError, match="unknown preset 'E'; choices: A, B, C, D"):
        rv.create_model("E", depth=50)
