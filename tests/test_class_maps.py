"""Class activation maps: they add up to the logits, and are drawn beside each other."""

import numpy as np
import pandas as pd
import pytest
import torch
from factories import A, B, diagnosed_folder, diagnosis, drawing, paired_rows, run_row
from safetensors.torch import load_file
from small import digits, digits_run, execute
from test_units import assert_untouched, net, snapshot

import resnet_variants as rv
from resnet_variants.diagnosis.activation_maps import class_maps
from resnet_variants.models.variant import Variant
from resnet_variants.models.zoo import build
from resnet_variants.records.diagnosis import TABLES, is_diagnosed, read_diagnoses
from resnet_variants.records.pictures import CLASS_MAPS, map_of, map_text, picture_of, picture_text
from resnet_variants.registry import UserError
from resnet_variants.reporting.build import build as report
from resnet_variants.reporting.figures.diagnosis import diagnosis_figure
from resnet_variants.settings import Study
from resnet_variants.terminal import cli

SMALL = ["--images", "40", "--batch-size", "20", "--draws", "1"]


def network(axes=None, **model_args):
    """In float32, with weights and statistics that no initial network has."""
    torch.manual_seed(1)
    model = build(
        Variant(family="cifar", **{"depth": 8} | (axes or {})), num_classes=5, **model_args
    )
    for tensor in model.state_dict().values():
        if tensor.dtype == torch.float32 and tensor.ndim == 1:
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
    return model.eval()


IMAGES = torch.randn(3, 3, 20, 20, generator=torch.Generator().manual_seed(0))


# --- the identity -----------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["post", "preact"])
@pytest.mark.parametrize("conv_bias", [False, True])
@pytest.mark.parametrize(
    "size", [{"block": "basic", "depth": 8}, {"block": "bottleneck", "depth": 11}]
)
def test_the_mean_of_a_map_and_the_bias_are_the_logit(order, conv_bias, size):
    model = network({"order": order, **size}, conv_bias=conv_bias)
    maps, logits = class_maps(model, IMAGES)
    with torch.no_grad():
        expected, features = model(IMAGES), model.forward_features(IMAGES)
        by_hand = torch.einsum("ck,nkhw->nchw", model.fc.weight, features)
    largest = expected.abs().max().item()
    assert maps.shape == (3, 5, 5, 5) and largest > 0.1
    bound = 1e-5 * max(1, largest)
    assert (maps.mean((2, 3)) + model.fc.bias - expected).abs().max() < bound
    assert (logits - expected).abs().max() < bound
    assert (maps - by_hand).abs().max() < 1e-5 * by_hand.abs().max()


def test_a_batch_norm_in_the_head_is_folded_into_map_and_bias():
    model = network(head="bn_linear")
    maps, _ = class_maps(model, IMAGES)
    norm, linear = model.fc
    with torch.no_grad():
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        bias = linear(norm.bias - scale * norm.running_mean)
        weight = linear.weight * scale
        by_hand = torch.einsum("ck,nkhw->nchw", weight, model.forward_features(IMAGES))
        assert (maps.mean((2, 3)) + bias - model(IMAGES)).abs().max() < 1e-5
    assert (maps - by_hand).abs().max() < 1e-5 * by_hand.abs().max()


def test_the_mean_has_maps_under_each_of_its_names():
    maps = [class_maps(network(global_pool=name), IMAGES)[0] for name in ("avg", "fast", "fastavg")]
    assert torch.equal(maps[0], maps[1]) and torch.equal(maps[0], maps[2])


def test_the_network_is_as_before():
    model = net().train()
    before = snapshot(model.eval())
    model.train()
    class_maps(model, IMAGES[:, :1].double())
    assert all(module.training for module in model.modules())
    assert_untouched(model.eval(), before)


@pytest.mark.parametrize("pool", ["max", "avgmax", "catavgmax", ""])
def test_another_pooling_than_the_mean_is_refused(pool):
    model = network()
    model.reset_classifier(5 if pool else 0, pool)
    with pytest.raises(UserError, match="there are no class maps"):
        class_maps(model, IMAGES)


def test_maps_that_do_not_add_up_are_refused():
    model = network()
    model.fc = torch.nn.Sequential(model.fc, torch.nn.Tanh())
    with pytest.raises(UserError, match=r"differ from its logits by .* is not affine"):
        class_maps(model, IMAGES)
    with pytest.raises(UserError, match="Linear is none of this package's networks"):
        class_maps(torch.nn.Linear(1, 1), IMAGES)


# --- of a run ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    run = digits_run(epochs=1)
    assert execute(run, out / "runs" / run.id)["status"] == "done"
    return out / "runs" / run.id


def test_the_table_holds_the_images_that_were_asked_for(run):
    assert cli.main(["diagnose", str(run), *SMALL, "--map-images", "7", "0", "7"]) == 0
    table, data = pd.read_csv(run / "class_maps.csv"), digits(val=8)
    assert table["image"].tolist() == [7, 7, 0, 0]
    true, other = (table[table["kind"] == kind] for kind in ("true", "other"))
    assert true["class"].tolist() == data.val.labels[[7, 0]].tolist()
    logits = load_file(run / "predictions.safetensors")["val_logits"][[7, 0]].float()
    for row, own in zip(true.to_dict("records"), logits, strict=True):
        assert row["logit"] == pytest.approx(own[row["class"]].item(), abs=2e-2)
        pixels = np.asarray(picture_of(row["picture"], CLASS_MAPS))[..., 0]
        assert np.array_equal(pixels, data.val.images[row["image"], 0].numpy())
    for row, own in zip(other.to_dict("records"), logits, strict=True):
        own[true["class"][true["image"] == row["image"]].item()] = -np.inf
        assert row["class"] == own.argmax()
    assert (run / "class_maps.svg").is_file()


def test_without_a_wish_there_is_an_image_of_each_of_the_first_classes(run):
    found = rv.diagnose(run, images=40, batch_size=20, draws=1).tables["class_maps"]
    true = found[found["kind"] == "true"]
    assert true["class"].tolist() == [0, 1, 2, 3]
    labels = digits(val=120).val.labels.tolist()
    assert true["image"].tolist() == [labels.index(number) for number in range(4)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["120"],
            "--map-images: map_images 120 must be below 120, the number of validation images",
        ),
        (["-1"], "map_images -1 must be from 0 to 1000000"),
        ([*map(str, range(17))], "map_images names 17 images: a figure has room for 16"),
    ],
)
def test_a_wrong_place_is_one_line(run, complaint, words, said):
    assert said in complaint("diagnose", run, *SMALL, "--map-images", *words)


def test_a_run_with_another_pooling_has_all_but_the_maps(tmp_path, caplog):
    run = digits_run(epochs=1, global_pool="max")
    path = tmp_path / "runs" / run.id
    execute(run, path)
    found = rv.diagnose(path, images=40, batch_size=20, draws=1)
    assert found.tables["class_maps"].empty and len(found.tables["lesion"])
    assert "class_maps.png" not in {file.name for file in found.files}
    (said,) = [record.getMessage() for record in caplog.records]
    assert "has global_pool 'max': there are no class maps" in said
    assert is_diagnosed(path)


# --- reports ----------------------------------------------------------------------------------


def tables(*parts):
    frame = pd.concat(parts)
    return {name: frame[:0] for name in TABLES} | {"class_maps": frame}


def titles(figure, columns):
    """By row, without the scale."""
    texts = [axes.get_title() for axes in figure.axes]
    return [texts[at : at + columns] for at in range(0, len(texts), columns + 1)]


def test_one_network_is_drawn_with_the_true_class_and_the_next():
    own = diagnosis(run_row(A))["class_maps"]
    wrong = own.assign(image=5, probability=[0.1, 0.7])
    figure = diagnosis_figure("class_maps", tables(own, wrong), "digits")
    assert titles(figure, 3) == [
        ["validation\nimage 0", "00, 60 %\ntrue, predicted", "01, 40 %\nnext"],
        ["validation\nimage 5", "00, 10 %\ntaken for 01", "01, 70 %\npredicted"],
    ]
    assert [len(axes.images) for axes in figure.axes[:3]] == [1, 2, 2]


def test_several_networks_have_a_column_each_of_their_first_seeds():
    rows = [run_row(model, seed) for model in (A, B) for seed in (1, 0)]
    parts = [diagnosis(row)["class_maps"].assign(map=f"{row['seed']} 5") for row in rows]
    more = parts[1].assign(image=3)
    figure = diagnosis_figure("class_maps", tables(*parts, more), "digits")
    assert titles(figure, 3) == [
        ["validation\nimage 0", *(f"{name}\n00, 60 %\ntrue, predicted" for name in (A, B))],
        ["validation\nimage 3", "00, 60 %\ntrue, predicted", ""],  # B was asked for other images
    ]
    scales = {tuple(axes.images[1].get_clim()) for axes in figure.axes[1:3]}
    assert scales == {(0, 5)}
    assert not figure.legends


def test_more_networks_than_there_is_room_for_are_counted():
    parts = [diagnosis(run_row(A))["class_maps"].assign(model=f"net{i}") for i in range(13)]
    figure = diagnosis_figure("class_maps", tables(*parts), "digits")
    assert len(figure.axes) == 14
    assert "the first 12 of 13 networks" in figure._suptitle.get_text().replace("\n", " ")


def test_a_report_draws_all_networks_and_keeps_the_names_of_classes(tmp_path):
    out = diagnosed_folder(tmp_path / "out", paired_rows({A: [0.8, 0.9], B: [0.7]}))
    with drawing("class_maps"):
        report(out)
    table = pd.read_csv(out / "class_maps.csv", dtype=str)
    assert table["run_id"].nunique() == 3 and set(table["class_name"]) == {"00", "01"}
    assert "maps of the true class" in (out / "class_maps.svg").read_text()


def test_a_diagnosis_from_before_the_maps_is_whole(tmp_path):
    rows = paired_rows({A: [0.8, 0.9]})
    out = diagnosed_folder(tmp_path / "out", rows)
    folders = [out / "runs" / row["run_id"] for row in rows]
    for folder in folders:
        (folder / "class_maps.csv").unlink()
        assert is_diagnosed(folder)
    found = read_diagnoses(out, [row["run_id"] for row in rows])
    assert found["class_maps"].empty and found["lesion"]["run_id"].nunique() == 2
    assert "class_maps.csv" not in {file.name for file in report(out).files}


# --- cells ------------------------------------------------------------------------------------


def test_maps_and_pictures_come_back_from_their_cells():
    values = np.array([[1.25, -3e-7, 0], [1e5, 2, 3]])
    assert map_of(map_text(values)).tolist() == values.tolist()
    pixels = np.zeros((400, 200, 3), np.uint8)
    pixels[:200] = (250, 10, 100)
    picture = picture_of(picture_text(pixels), CLASS_MAPS)
    assert picture.size == (80, 160)
    assert np.abs(np.array(picture.getpixel((40, 20))) - (250, 10, 100)).max() < 8


@pytest.mark.parametrize("text", ["", "1 2;3", "1 x", "nan", "1;;2"])
def test_a_damaged_map_is_one_line(text):
    with pytest.raises(
        UserError, match=r"^class_maps\.csv holds a map that cannot be read: [^\n]*$"
    ):
        map_of(text)


@pytest.mark.parametrize("text", ["", "no base 64!", "eA==", "\u00e9"])
def test_a_damaged_picture_is_one_line(text):
    with pytest.raises(UserError, match=r"^class_maps\.csv holds a picture that cannot be read: "):
        picture_of(text, CLASS_MAPS)


def test_places_are_kept_once():
    assert Study(map_images=[3, 0, 3]).map_images == (3, 0)
