"""Parts of one's own: plugins from files, modules and installed packages."""

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from small import digits, recipe

import resnet_variants as rv
from resnet_variants import describe, diagnose, plugins, run
from resnet_variants.data.dataset import load_dataset, split_indices
from resnet_variants.data.specs import DATASETS
from resnet_variants.data.splits import Batch
from resnet_variants.models.branches import ORDERS, Order
from resnet_variants.models.families import FAMILIES
from resnet_variants.models.stems import STEMS, ConvSpec
from resnet_variants.plugins import load_plugin
from resnet_variants.registry import UserError
from resnet_variants.sweeps.experiment import read_toml
from resnet_variants.sweeps.run import Run
from resnet_variants.training.augment import check_augment
from resnet_variants.training.batches import train_batches
from resnet_variants.training.recipe import AUGMENTATIONS, Recipe

PAGE = Path(__file__).parents[1].joinpath("docs", "plugins.md").read_text("utf-8")
EXAMPLE, TOML = (re.findall(rf"```{kind}\n(.*?)```", PAGE, re.S)[0] for kind in ("python", "toml"))
(SHELL,) = re.findall(r"```sh\n(.*?)```", PAGE, re.S)
CHECK_DATA, RUN, LIST = re.findall(r"^python -m (.*)$", SHELL.replace("\\\n", ""), re.M)
NAME = "rv_resnet8_cifar_conv5_3x3_conv"
STEM = """
from resnet_variants.models.stems import STEMS, ConvSpec

@STEMS.register("theirs")
def theirs(width, stride):
    return [ConvSpec(width, 3, stride)]
"""


@pytest.fixture(autouse=True)
def _forgotten():
    """Each test begins without plugins."""
    yield
    forget()


def forget():
    plugins._LOADED.clear()
    load_dataset.cache_clear()
    for table in plugins.OPEN.values():
        for name in [name for name in table if name not in table.built_in]:
            del table[name]


@pytest.fixture
def plugin(tmp_path):
    """Write a plugin file."""

    def write(text, name="parts.py"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The folder in which the commands of the page were run, the second one by a worker."""
    folder = tmp_path_factory.mktemp("example")
    (folder / "my_parts.py").write_text(EXAMPLE)
    (folder / "question.toml").write_text(TOML)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words in (CHECK_DATA.split(), [*RUN.split(), "--jobs", "1"]):
            verb = import_module(words[0])
            assert verb.command(words[1:]) == 0
    forget()
    return folder


def python(words, folder, status=0, **environment):
    """Run a module; what it says."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def one(folder, pattern):
    (path,) = (folder / "results" / "stripes" / "runs").glob(pattern)
    return path


# --- the page's example -----------------------------------------------------------------------


def test_a_run_records_the_plugins_that_it_takes_a_part_from(example):
    text = EXAMPLE.encode()
    sha256 = plugins.hashlib.sha256(text).hexdigest()
    for pattern in (f"{NAME}__stripes__*__s1", "rv_resnet8_cifar_b__stripes__*__s0"):
        config = json.loads((one(example, pattern) / "run.json").read_text())
        assert config["plugins"] == {"my_parts.py": sha256}  # the data and the recipe are of it
        assert json.loads((one(example, pattern) / "result.json").read_text())["status"] == "done"
    provenance = json.loads((example / "results" / "stripes" / "provenance.json").read_text())
    assert provenance["plugin my_parts.py"] == [sha256]


def test_a_network_without_own_parts_needs_no_plugin(plugin):
    load_plugin(plugin(EXAMPLE))
    experiment = {"data": "digits", "recipe": Recipe(), "seed": 0}
    base, own = (run_of(name, **experiment) for name in ("rv_resnet8_cifar_b", NAME))
    assert (base.plugins, [*own.plugins]) == ({}, ["parts.py"])


def run_of(name, **more):
    return Run(variant=rv.parse_name(name), **more)


def test_timm_loads_a_run_once_its_plugin_is_there(example):
    folder = one(example, f"{NAME}*s0")
    missing = rf"{NAME}: it needs the plugin 'my_parts.py' \(SHA-256 \w+\): give --plugin, or call"
    with pytest.raises(UserError, match=missing):
        timm.create_model(f"local-dir:{folder}")
    rv.load_plugin(example / "my_parts.py")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert model.conv1.kernel_size == (5, 5)
    assert rv.load_weights(rv.create_model(NAME, in_chans=1, num_classes=2), folder)
    assert "rv.load_plugin('my_parts.py')" in (folder / "README.md").read_text()


def test_timm_warns_where_the_plugin_is_another_version(example, plugin):
    rv.load_plugin(plugin(EXAMPLE + "# mended\n", "my_parts.py"))
    folder = one(example, f"{NAME}*s0")
    with pytest.warns(UserWarning, match=r"plugin 'my_parts.py' has changed: SHA-256 \w+ there"):
        timm.create_model(f"local-dir:{folder}", pretrained=True)
    with pytest.raises(UserError, match=r"plugin 'my_parts.py' has changed"):
        rv.diagnose(folder)


def test_diagnose_needs_the_plugin_and_report_does_not(example, capsys):
    folder = str(one(example, f"{NAME}*s0"))
    with pytest.raises(UserError, match=r"it needs the plugin 'my_parts.py' \(SHA-256"):
        diagnose.command([folder])
    assert rv.report(example / "results" / "stripes").runs["stem"].unique().tolist() == [
        "conv3",
        "conv5",
    ]
    diagnose.command([folder, "--images", "10", "--plugin", str(example / "my_parts.py")])
    assert "sensitivity.csv" in capsys.readouterr().out


def test_a_folder_holds_one_version_of_a_plugin(example, plugin, tmp_path):
    changed = str(plugin(EXAMPLE.replace("kernel=5", "kernel=7"), "my_parts.py"))
    words = [*RUN.split()[1:-1], str(example / "results" / "stripes")]
    words[words.index("my_parts.py")] = changed
    with pytest.raises(UserError, match=r"was made with another plugin 'my_parts.py' \(SHA-256"):
        run.command(words)
    other = tmp_path / "other"
    words = ["--plugin", changed, "--data", "stripes", "--stem", "conv5", "--depth", "8"]
    run.command(
        [*words, "--epochs", "1", "--seeds", "1", "--engine", "inline", "--out", str(other)]
    )
    with pytest.raises(UserError, match=r"several versions of the plugin my_parts.py \(SHA-256"):
        rv.report(example / "results" / "stripes", other, out=tmp_path / "both")


def test_an_experiment_file_names_plugins_beside_it(example, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    experiment = read_toml(example / "question.toml")
    assert [variant.stem for variant in experiment.variants] == ["conv3", "conv5"]
    assert (experiment.data, experiment.recipe.augment) == ("stripes", "darker")
    bad = tmp_path / "bad.toml"
    bad.write_text("plugin = 3\n[grid]\ndepth = 8\n")
    with pytest.raises(UserError, match="plugin must be the name of a Python file"):
        read_toml(bad)


def test_help_lists_the_choices_of_a_plugin(plugin, capsys):
    path = str(plugin(EXAMPLE))
    for words in (["--plugin", path, "--help"], [f"--plugin={path}", "--help"]):
        with pytest.raises(SystemExit):
            run.command(words)
        shown = "".join(capsys.readouterr().out.split())
        assert "tiered_narrow,conv5}" in re.sub("[^a-z0-9_,}]", "", shown)
        assert "svhn,stripes," in re.sub("[^a-z0-9,-]", "", shown)


def test_describe_reads_the_names_of_a_plugin(plugin, capsys):
    describe.command([NAME, "--plugin", str(plugin(EXAMPLE))])
    assert "stem         conv5: One 5x5 convolution." in capsys.readouterr().out


def test_list_shows_the_networks_that_have_a_part_of_a_plugin(plugin, capsys):
    verb, pattern, flag, name = shlex.split(LIST)
    path = str(plugin(EXAMPLE, name))
    assert import_module(verb).command([pattern, flag, path]) == 0
    _, *rows = capsys.readouterr().out.splitlines()
    name = "rv_resnet20_cifar_conv5_3x3_conv"
    (row,) = (row for row in rows if row.startswith(f"{name} "))
    assert row.split()[1:3] == [f"{rv.cost(name).params:,}", f"{rv.cost(name).macs:,}"]
    assert row.endswith("conv5 stem, stride in 3x3, conv shortcut, post")
    assert len(rows) == sum(len(family.named_depths) for family in FAMILIES.values())
    experiment, *_ = run.read(["--variant", "rv_*_cifar_conv5_*", flag, path])
    assert len(experiment.variants) == len(FAMILIES["cifar"].named_depths)


def test_list_has_the_registered_names_beside_those_of_a_plugin(plugin, capsys):
    import_module("resnet_variants.list").command(
        ["rv_resnet20_cifar_[bc]*", "--plugin", str(plugin(EXAMPLE))]
    )
    names = [row.split()[0] for row in capsys.readouterr().out.splitlines()[1:]]
    assert "rv_resnet20_cifar_b" in names
    assert "rv_resnet20_cifar_conv5_3x3_conv" in names


# --- what is no plugin ------------------------------------------------------------------------

ORDER = "from resnet_variants.models.branches import ORDERS, Order\n"
BAD = {
    "import nowhere_at_all": "parts.py, line 1: ModuleNotFoundError: No module named 'nowhere_at",
    "x = 1\nx / 0": "parts.py, line 2: ZeroDivisionError: division by zero",
    "raise SystemExit(3)": "parts.py, line 1: SystemExit: 3",
    "my own stem": r"parts.py, line 1: SyntaxError: invalid syntax",
    b"\x00\xff\x89PNG": "parts.py.*: SyntaxError: ",
    "": "parts.py: it registers nothing; a plugin enters its parts as stem, shortcut, order, skip",
    ORDER + "ORDERS['preact'] = Order('conv', 'conv +')": (
        "parts.py, line 2: order 'preact' is registered already, by resnet_variants.models.branches"
    ),
    ORDER + "ORDERS['mine'] = Order('convv', 'conv +')": "line 2: unknown word in the order's unit",
    ORDER + "ORDERS['mine'] = 'conv'": "parts.py: order 'mine' must be an Order",
    STEM.replace("[ConvSpec(width, 3, stride)]", "3"): "stem 'theirs' must be a function of width",
    STEM.replace("ConvSpec(width, 3", "ConvSpc(width, 3"): "line 6: NameError: name 'ConvSpc'",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_a_plugin_that_cannot_be_used_is_one_line(plugin, text):
    before = {kind: dict(table) for kind, table in plugins.OPEN.items()}
    with pytest.raises(UserError, match=f"^plugin .*{BAD[text]}"):
        load_plugin(plugin(text))
    assert {kind: dict(table) for kind, table in plugins.OPEN.items()} == before
    assert plugins.loaded() == ()
    load_plugin(plugin(STEM))  # mended


@pytest.mark.parametrize(
    "name",
    ["deepwide", "preact", "conv", "cifar", "bottleneck", "s1", "g8", "w16", "a", "my_stem", "Ünï"],
)
def test_a_name_is_a_word_of_its_own_in_names_of_networks(plugin, name):
    with pytest.raises(UserError, match=f"the name of stem '{name}' (means something|must be)"):
        load_plugin(plugin(STEM.replace('"theirs"', repr(name))))


def test_names_of_files_and_modules(tmp_path, plugin, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    cases = {
        "nowhere.py": "there is no plugin file",
        "nowhere": "there is no module 'nowhere' here; the name of a file ends in .py",
        "a/b.txt": "is no Python file: its name must end in .py",
        "": "plugin '' must be a Python file or the name of a module",
        3: "plugin 3 must be a Python file or the name of a module",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message):
            load_plugin(name)
    plugin("import nowhere_at_all", "broken_module.py")
    with pytest.raises(UserError, match=r"broken_module.py, line 1: ModuleNotFoundError: No mod"):
        load_plugin("broken_module")


def test_a_module_or_a_package_is_a_plugin(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "rv_test_package"
    package.mkdir()
    (package / "__init__.py").write_text("from rv_test_package import stems")
    (package / "stems.py").write_text(STEM)
    try:
        __import__("rv_test_package")  # a module may be imported already
        found = load_plugin("rv_test_package")
        assert run_of("rv_resnet8_cifar_theirs_3x3_conv", data="digits", recipe=Recipe(), seed=0)
        assert plugins.used_plugins({"stem": "theirs"}) == {"rv_test_package": found.sha256}
        assert load_plugin("rv_test_package") is found
    finally:
        for name in [name for name in sys.modules if name.startswith("rv_test_package")]:
            del sys.modules[name]


def test_two_plugins_with_one_name(plugin, tmp_path):
    load_plugin(plugin(STEM))
    load_plugin(tmp_path / "parts.py")  # once more: nothing happens
    with pytest.raises(UserError, match="stem 'theirs' is registered already, by plugin_parts"):
        load_plugin(plugin(STEM, "other.py"))
    plugin(STEM + "# changed", "parts.py")
    with pytest.raises(UserError, match=r"plugin 'parts.py' has two versions, by SHA-256: .*renam"):
        load_plugin(tmp_path / "parts.py")


def test_what_a_notebook_registers_is_built_but_not_run(tmp_path):
    STEMS.register("mine")(lambda width, stride: [ConvSpec(width, 3, stride)])
    ORDERS["reversed"] = Order("act norm conv", "act norm conv +", stem="", head="act norm")
    variant = rv.Variant(family="cifar", depth=8, stem="mine", order="reversed")
    assert rv.create_model(variant)(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    with pytest.raises(UserError, match="stem 'mine' was registered by test_plugins, which is no"):
        rv.run(variant, out=tmp_path, seeds=1)


def test_registered_names_are_the_same_with_plugins():
    code = (
        "import sys; sys.argv = ['resnet-variants']\n"
        "from resnet_variants.models.branches import ORDERS, Order\n"
        "ORDERS['mine'] = Order('conv', 'conv +')\n"
        "from resnet_variants.models.catalogue import registered\n"
        "print(len(registered()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(rv.list_models())


# --- installed packages -----------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path):
    """A folder with an installed package whose entry point is a plugin."""
    info = tmp_path / "rv_theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rv-theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[resnet_variants.plugins]\ntheirs = rv_theirs\n")
    (tmp_path / "rv_theirs.py").write_text(STEM)
    root = Path(rv.__file__).parents[1]
    return tmp_path, {"PYTHONPATH": os.pathsep.join(map(str, (tmp_path, root)))}


def test_an_installed_plugin_is_loaded_with_the_package(installed):
    folder, environment = installed
    (folder / "look.py").write_text(  # starting Python takes longest: one process does it all
        "import rv_theirs  # before the package that it is a plugin of\n"
        "import resnet_variants as rv\n"
        "from resnet_variants.plugins import require_plugins, used_plugins\n"
        "require_plugins({'stem': 'theirs'})\n"
        "print([*used_plugins(vars(rv.Variant(stem='theirs')))])\n"
        "from resnet_variants.terminal import cli\n"
        "cli.main(['list', 'rv_resnet18_theirs_3x3_conv'])\n"
    )
    said = python(["look"], folder, **environment)
    assert "['rv_theirs']" in said and "rv_resnet18_theirs_3x3_conv  " in said


def test_a_broken_installed_plugin_is_one_line(installed):
    folder, environment = installed
    (folder / "rv_theirs.py").write_text("import nowhere_at_all")
    said = python(["resnet_variants.list"], folder, 2, **environment)
    assert "rv_theirs.py, line 1: ModuleNotFoundError" in said
    assert "it comes with the installed package rv-theirs" in said
    assert "Traceback" not in said


# --- augmentations ----------------------------------------------------------------------------


def noisy(images, stream):
    noise = torch.randint(0, 9, images.shape, generator=stream, dtype=torch.uint8)
    return images // 2 + noise


@pytest.fixture
def augment():
    def register(function):
        AUGMENTATIONS["noisy"] = function
        return recipe(augment="noisy", flip="none", crop_padding=0)

    return register


def batches(settings, **more):
    key = {"seed": 3, "epoch": 2} | more
    return [images for images, _ in train_batches(digits(), settings, **key)]


def test_an_augmentation_depends_on_seed_epoch_and_step(augment):
    own = augment(noisy)
    plain = batches(dataclasses.replace(own, augment=""))
    altered = batches(own)
    noise = [(b - a // 2) for a, b in zip(plain, altered, strict=True)]
    assert all(part.max() == 8 and part.min() == 0 for part in noise)
    assert not torch.equal(noise[0], noise[1])
    torch.manual_seed(5)
    assert all(map(torch.equal, altered, batches(own)))
    assert torch.equal(altered[2], batches(own, start=2)[0])  # a run that is continued
    assert not torch.equal(altered[0], batches(own, epoch=3)[0])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x, g: x / 255, r"must return uint8 images \(8, 1, 8, 8\) .*returned torch.float32"),
        (lambda x, g: x[:, :, 1:], r"it returned torch.uint8 \(8, 1, 7, 8\) on cpu"),
        (lambda x, g: None, "it returned NoneType"),
        (lambda x, g: x + torch.randint(0, 9, x.shape, dtype=x.dtype), "another random stream"),
        (lambda x, g: x + np.uint8(np.random.randint(200)), "another random stream"),
        (lambda x, g: {}[1], r"fails on images \(8, 1, 8, 8\): test_plugins.py, line \d+: KeyErr"),
    ],
)
def test_an_augmentation_is_tried_before_anything_is_trained(augment, function, message):
    augment(function)
    before = torch.get_rng_state()
    with pytest.raises(UserError, match=message):
        check_augment("noisy", (1, 8, 8))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unknown_augmentation_names_the_flag():
    with pytest.raises(UserError, match="unknown augment 'noisy'; choices: none: --plugin names"):
        Recipe(augment="noisy")


# --- data sets --------------------------------------------------------------------------------

IMAGES, LABELS = torch.zeros(90, 1, 6, 6, dtype=torch.uint8), torch.arange(90) % 3


def test_a_data_set_from_tensors_has_the_splits_that_it_is_given():
    source = rv.Dataset.from_tensors(IMAGES, LABELS.numpy(), mirror=False)
    assert (source.classes, source.side, source.mirror) == (("0", "1", "2"), 6, False)
    assert [len(index) for index in split_indices(source).values()] == [54, 6, 30]
    test = (IMAGES[:6].numpy(), LABELS[:6])
    split = split_indices(rv.Dataset.from_tensors(IMAGES, LABELS, mirror=True, test=test))
    assert split["test"].tolist() == [*range(90, 96)]


@pytest.mark.parametrize(
    ("images", "labels", "classes", "message"),
    [
        (IMAGES, LABELS, "ab", "label 2 of image 2 of the split train is no class: labels are 0"),
        (IMAGES, LABELS - 1, "", "label -1 of image 0 of the split train is no class"),
        (IMAGES, LABELS.float(), "", "labels of the split train must be whole numbers"),
        (IMAGES, LABELS[:7], "", "the split train has 90 images and 7 labels"),
        (IMAGES, LABELS * 0, "", "a data set has two classes at least; this one has 1"),
        (IMAGES.float(), LABELS, "", "must be uint8 squares .*; they are torch.float32"),
        (
            IMAGES[:, :, 1:],
            LABELS,
            "",
            r"must be uint8 squares .*; they are torch.uint8 \(90, 1, 5",
        ),
        (IMAGES.expand(-1, 2, -1, -1), LABELS, "", "images have 1 or 3 channels"),
    ],
)
def test_what_is_no_data_set_is_refused(images, labels, classes, message):
    with pytest.raises(UserError, match=message):
        rv.Dataset.from_tensors(images, labels, classes=[*classes], mirror=True)


class Photographs(torch.utils.data.Dataset):
    """Pictures of several sizes."""

    classes = ("dark", "light")

    def __init__(self, n, picture=lambda i: Image.new("RGB", (10 + i % 3, 12), (i % 2 * 200,) * 3)):
        self.n, self.picture = n, picture

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.picture(i), i % 2


def test_a_data_set_of_torch_is_decoded_and_resized():
    DATASETS["photographs"] = lambda _: rv.Dataset.from_torch(Photographs(40), mirror=True)
    with pytest.raises(UserError, match="not one square size: give the side in pixels"):
        load_dataset("photographs")
    data = load_dataset("photographs", img_size=8)
    assert data.classes == ("dark", "light")
    images = next(data.test.batches([Batch(torch.arange(len(data.test)))]))
    assert torch.equal(images.amax((1, 2, 3)), (200 * data.test.labels).to(torch.uint8))
    grey = Photographs(40, lambda i: torch.full((1, 9, 9), i, dtype=torch.uint8))
    assert rv.Dataset.from_torch(grey, mirror=True, test=grey).picture(7).getpixel((0, 0))[0] == 7
    named = rv.Dataset.from_torch(grey, mirror=True, classes=np.array(["odd", "even"]))
    assert (named.classes, named.name(3)) == (("odd", "even"), "item 3 of the split train")
    grey.samples = [("x.png", 1)] * 40  # no attribute that is promised to be looked at
    found = rv.Dataset.from_torch(grey, mirror=True, classes=None)
    assert (found.classes, found.labels.tolist()) == (Photographs.classes, [0, 1] * 20)
    grey.targets = [1, 0] * 20
    assert rv.Dataset.from_torch(grey, mirror=True).labels.tolist() == grey.targets
    for bad in (Photographs(40, lambda i: torch.zeros(3, 9, 9)), Photographs(0), [3]):
        with pytest.raises(UserError, match=r"must be a picture and its|must have a length"):
            rv.Dataset.from_torch(bad, mirror=True)


def test_a_function_that_opens_no_data_set_is_one_line():
    DATASETS["broken"] = lambda folder: folder / 3
    DATASETS["number"] = lambda folder: 3
    with pytest.raises(UserError, match=r"data 'broken' cannot be opened: test_plugins.py, line"):
        load_dataset("broken")
    with pytest.raises(UserError, match=r"data 'number' returned 3: it must return rv.Dataset"):
        load_dataset("number")
