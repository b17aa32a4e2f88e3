"""What a run says of its pictures is what its test did: timm's transform from config.json alone."""

import dataclasses
import json
import shutil

import numpy as np
import pictures
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from small import CPU, digits_run, execute, network, recipe, sweep, weights
from timm.data import create_transform, resolve_model_data_config
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

import resnet_variants as rv
from resnet_variants.data import dataset as data_module
from resnet_variants.data.dataset import Loading, load_dataset
from resnet_variants.data.sources import as_picture
from resnet_variants.diagnosis.study import diagnose_run
from resnet_variants.models.variant import Variant
from resnet_variants.records.run_folder import RunFolder
from resnet_variants.registry import UserError
from resnet_variants.settings import Study
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.run import Run
from resnet_variants.sweeps.sweep import Options
from resnet_variants.training.augment import Normalise
from resnet_variants.training.recipe import Recipe

EIGHT = Variant(family="cifar", depth=8)


def smooth(width, height, seed):
    """A picture of few waves, so that sizes and filters differ in it."""
    small = pictures.noise(5, 5, seed=seed)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Square pictures of many sizes, two classes of random waves."""
    root = tmp_path_factory.mktemp("data") / "squares"
    for split, count in (("train", 20), ("test", 17)):
        for i in range(2 * count):
            side = 20 + 3 * (i % 17)
            path = root / split / "ab"[i % 2] / f"{i}.png"
            pictures.save(path, smooth(side, side, seed=1000 * len(split) + i))
    return root


def folder_run(root, **fields):
    fields = {"batch_size": 16, "epochs": 1, "flip": "none"} | fields
    return Run(EIGHT, f"folder:{root}", recipe(**fields), 0, 28)


def finished(run, path):
    result = execute(run, path)
    assert result["status"] == "done"
    return result


def files(root):
    return sorted((root / "test").rglob("*.png"))


@pytest.mark.parametrize("crop_pct", [1.0, 0.875, 0.95])  # 28 of 28, of 32 and of 29 pixels
def test_timm_alone_comes_to_the_recorded_test_accuracy(squares, tmp_path, crop_pct):
    run = folder_run(squares, crop_pct=crop_pct)
    result = finished(run, tmp_path / "run")
    # As any user of timm gets a saved run.
    model = timm.create_model(f"local-dir:{tmp_path}/run", pretrained=True).eval()
    config = resolve_model_data_config(model)
    transform = create_transform(**config)
    inputs = torch.stack([transform(Image.open(file)) for file in files(squares)])
    labels = torch.tensor(["ab".index(file.parent.name) for file in files(squares)])
    data = run.load()
    assert data.classes == ("a", "b") and torch.equal(labels, data.test.labels)
    # Pixel for pixel; normalised in another order of the same three numbers.
    raw = create_transform(**config, normalize=False)
    pixels = torch.stack([raw(Image.open(file)) for file in files(squares)])
    assert torch.equal(pixels, data.test.images)
    torch.testing.assert_close(inputs, Normalise.of(data, torch.device("cpu"))(pixels))
    with torch.no_grad():
        hits = (model(inputs).argmax(1) == labels).sum().item()
    assert hits / len(labels) == result["test_acc"]
    told = {"interpolation": "bilinear", "crop_pct": crop_pct, "crop_mode": "center"}
    told |= {"mean": [*data.mean], "std": [*data.std]}
    assert config == told | {"input_size": (3, 28, 28)}
    assert "turned as their EXIF" in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("size", [(61, 40), (40, 97), (200, 150)])
def test_of_oblong_pictures_timms_cut_is_less_than_a_pixel_away(tmp_path, size):
    ramp = np.linspace(0, 255, size[0])[None, :, None].repeat(size[1], 0).repeat(3, 2)
    rows = np.linspace(0, 255, size[1])[:, None, None].repeat(size[0], 1).repeat(3, 2)
    for name, pixels in (("a/ramp", ramp), ("b/rows", rows)):
        for split, count in (("train", 6), ("test", 1)):
            for i in range(count):
                pictures.save(tmp_path / split / f"{name}{i}.png", pixels.round().astype(np.uint8))
    for crop_pct in (1.0, 0.875, 0.95):
        run = folder_run(tmp_path, crop_pct=crop_pct)
        data = run.load()
        raw = create_transform(**resolve_model_data_config(run.build(data)), normalize=False)
        theirs = torch.stack([raw(Image.open(file)) for file in files(tmp_path)]).int()
        step = 255 / 28 if crop_pct == 1 else 0  # levels from a pixel to the next
        assert (theirs - data.test.images.int()).abs().max() <= step


@pytest.mark.parametrize("img_size", [0, 16])
def test_grey_images_in_memory_are_within_a_level_of_timms(img_size):
    """Where they are resized, torch rounds once and Pillow twice; where not, they are equal."""
    run = dataclasses.replace(digits_run(crop_pct=0.875), img_size=img_size)
    data = run.load()
    config = resolve_model_data_config(run.build(data))
    assert config["input_size"] == (1, data.img_size, data.img_size)
    raw = create_transform(**config, normalize=False)
    whole = load_dataset("digits").test.images
    theirs = torch.stack([raw(as_picture(image)) for image in whole[:200]]).int()
    assert (theirs - data.test.images[:200].int()).abs().max() <= 1
    if not img_size:
        plain = digits_run().load()
        assert torch.equal(plain.test.images, whole)


def test_the_cut_is_of_validation_and_test_alone_streamed_or_not(squares, monkeypatch):
    spec = f"folder:{squares}"
    whole, cut = (load_dataset(spec, img_size=28, crop_pct=share) for share in (1.0, 0.5))
    monkeypatch.setattr(data_module, "RESIDENT_BYTES", 0)
    streamed = load_dataset.__wrapped__(spec, img_size=28, crop_pct=0.5, loading=Loading(workers=0))
    for name in ("train", "val", "test"):
        one, other, third = (getattr(data, name) for data in (whole, cut, streamed))
        assert torch.equal(one.images, other.images) == (name == "train")
        every = data_module.Batch(torch.arange(len(other)))
        assert torch.equal(other.images, torch.cat(list(third.batches([every]))))
    assert (cut.mean, cut.std) == (whole.mean, whole.std) == (streamed.mean, streamed.std)


# --- what normalises --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A results folder with one run whose mean and deviation are not those of the digits."""
    out = tmp_path_factory.mktemp("source")
    run = digits_run(epochs=1)
    torch.set_num_threads(1)
    finished(run, out / "runs" / run.id)
    (config,) = (out / "runs").glob("*/config.json")
    content = json.loads(config.read_text())
    content["pretrained_cfg"] |= {"mean": [0.25], "std": [0.5]}
    config.write_text(json.dumps(content))
    return out


def moments(run):
    data = run.prepared(run.load())
    return data.mean, data.std


def test_a_body_gets_pictures_as_it_was_trained_on_them(source):
    (folder,) = (source / "runs").iterdir()
    for weights_ in (source, folder):
        assert moments(digits_run(weights=str(weights_))) == ((0.25,), (0.5,))
    own = moments(digits_run())
    file = folder / "model.safetensors"
    assert own == moments(digits_run(weights=str(source), normalise="data"))
    assert own == moments(digits_run(weights=str(file)))  # a file states nothing


def test_published_weights_state_their_own():
    run = Run(rv.parse_name("rv_resnet18_d_preact"), "digits", Recipe(weights="pretrained"), 0)
    cfg = timm.get_pretrained_cfg("resnetv2_18d")
    assert moments(run) == ((np.mean(cfg.mean).item(),), (np.mean(cfg.std).item(),))  # one channel
    color = dataclasses.replace(run.load(), in_chans=3)
    prepared = run.prepared(color)
    assert (prepared.mean, prepared.std) == (cfg.mean, cfg.std)
    nothing = Run(EIGHT, "digits", Recipe(weights="pretrained"), 0)  # nobody has published any
    assert moments(nothing) == moments(digits_run())


def test_imagenets_are_a_choice():
    data = dataclasses.replace(digits_run().load(), in_chans=3)
    prepared = digits_run(normalise="imagenet").prepared(data)
    assert (prepared.mean, prepared.std) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def test_ids_name_what_normalises():
    """The training images' moments were all there was: they have the ids of that time."""

    def digest(**settings):
        return digits_run(**settings).id.split("__")[2]

    assert digest() == digest(normalise="data") == "4c599309"
    assert digest(weights="x", normalise="data") == "fe21f75a"
    assert digest(weights="x") == "9410d05c"
    assert digest(crop_pct=0.875) == "2354b644"


@pytest.mark.parametrize(
    "stated",
    [
        *({"mean": [0.5]}, {"mean": [0.5], "std": [0]}, {"mean": [0.5], "std": [1, 1]}),
        *({"mean": "x", "std": "y"}, {"mean": 1, "std": 1}, {"mean": [float("nan")], "std": [1]}),
    ],
    ids=str,
)
@pytest.mark.parametrize("nested", [True, False])
def test_a_config_that_states_no_numbers_is_one_line(tmp_path, stated, nested):
    save_file(weights(network()), tmp_path / "model.safetensors")
    content = {"pretrained_cfg": stated} if nested else stated
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"config.json is damaged .*give the weights file itself$"):
        moments(digits_run(weights=str(tmp_path)))


STUDY = Study(images=40, batch_size=20, draws=1, paths=1)


def test_a_finished_run_needs_its_source_no_more(source, tmp_path):
    there = shutil.copytree(source, tmp_path / "there")
    one = digits_run(epochs=1, weights=str(there))
    experiment = Experiment(name="x", variants=(one.variant,), recipe=one.recipe, seeds=1)
    options = Options(machine=dataclasses.replace(CPU, snapshots=True))
    assert sweep(experiment, tmp_path / "out", options)
    shutil.rmtree(there)
    assert sweep(experiment, tmp_path / "out", options)  # nothing to do
    folder = tmp_path / "out" / "runs" / one.id
    file = folder / "run.json"
    told = json.loads(file.read_text())
    assert len(told["weights_hash"]) == 16
    stated = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    for record in (told, stated):
        assert (record["mean"], record["std"]) == ([0.25], [0.5])
    # A diagnosis normalises as the run did.
    as_it_was = diagnose_run(folder, STUDY)["gradient_flow"]
    assert as_it_was["epoch"].min() == 0
    file.write_text(json.dumps(told | {"mean": [0.0], "std": [1.0]}))
    assert not diagnose_run(folder, STUDY)["gradient_flow"].equals(as_it_was)
    file.write_text(json.dumps(told | {"mean": ["x"]}))
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        diagnose_run(folder, STUDY)


def test_a_run_of_a_version_that_knew_less_goes_on(tmp_path):
    folder, config = RunFolder(tmp_path / "run"), {"seed": 0, "recipe": {"lr": 1}}
    folder.start(config)
    folder.checkpoint.touch()
    folder.start(config | {"mean": [0.5], "recipe": {"lr": 1, "crop_pct": 1.0}})
