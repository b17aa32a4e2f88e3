"""Units taken out, exchanged and watched: what the studies of a network share."""

import pytest
import torch
from timm.layers import LayerScale2d

from resnet_variants.diagnosis.activations import recorded
from resnet_variants.diagnosis.distances import identity_distance
from resnet_variants.diagnosis.gradients import gradient_flow
from resnet_variants.diagnosis.lesions import lesion_study
from resnet_variants.diagnosis.units import (
    batch_statistics,
    deleted,
    evaluating,
    exchanged,
    units,
)
from resnet_variants.models.branches import ORDERS
from resnet_variants.models.variant import Variant
from resnet_variants.models.zoo import build
from resnet_variants.registry import UserError


def net(depth=14, **axes):
    """In float64, with running statistics and affine weights that are not the initial ones."""
    torch.manual_seed(1)
    model = build(Variant(family="cifar", depth=depth, **axes), in_chans=1, num_classes=10).double()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.3, 0.3)
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
        if isinstance(module, LayerScale2d):
            torch.nn.init.uniform_(module.gamma, 0.5, 1.5)
    return model.eval()


def batch(n=6):
    torch.manual_seed(2)
    return torch.randn(n, 1, 8, 8, dtype=torch.float64), torch.randint(0, 10, (n,))


def snapshot(model):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hooks = [
        len(hooks)
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    ]
    modes = [module.training for module in model.modules()]
    return state, hooks, modes, [name for name, _ in model.named_modules()], model(batch()[0])


def assert_untouched(model, before):
    state, hooks, modes, names, out = snapshot(model)
    assert all(torch.equal(state[name], tensor) for name, tensor in before[0].items())
    assert (hooks, modes, names) == before[1:4]
    assert torch.equal(out, before[4])


def zero_branch(module, order):
    """By hand: what ends the branch before the addition gives zero."""
    last = module.bn2b if order == "twice" else getattr(module, "bn2", module.conv2)
    last = module.conv2 if ORDERS[order].ends_with == "conv" else last
    for parameter in last.parameters():
        parameter.data.zero_()


RESIDUAL = [
    *({"order": order} for order in ORDERS),
    *({"shortcut": shortcut} for shortcut in ("pad", "avgpool", "conv_all")),
    *({"skip": skip} for skip in ("scale", "scale_both", "exclusive_gate", "shortcut_gate")),
    {"attention": "se"},
    {"norm": "none"},
    {"norm": "layer", "act": "gelu", "branch_scale": "skipinit"},
    {"order": "preact", "branch_scale": "layerscale"},
]


@pytest.mark.parametrize(
    ("axes", "branch"),
    [
        ({"branch_scale": "zero_gamma"}, 0),
        ({"branch_scale": "skipinit"}, 0),
        ({"branch_scale": "fixup", "norm": "none"}, 0),
        ({"branch_scale": "layerscale", "norm": "group"}, 1e-5),
    ],
    ids=str,
)
def test_branches_that_start_small_are_measured_as_such(axes, branch):
    torch.manual_seed(0)
    variant = Variant(family="cifar", depth=14, order="preact" if branch else "post", **axes)
    model = build(variant, in_chans=1, num_classes=10).double().eval()
    found = identity_distance(model, batch()[0])["branch_to_shortcut"].dropna()
    assert len(found) and (found.between(branch / 30, branch * 30)).all()
    lesions = lesion_study(model, *batch())
    assert lesions["loss"].max() - lesions["loss"].min() <= 1e3 * branch
    gradients = gradient_flow(model, *batch())
    assert gradients["grad_norm"].gt(0).all()


@pytest.mark.parametrize("end", [None, torch.nn.Identity()], ids=["none", "shared"])
def test_units_without_an_own_end_of_the_branch_are_deleted_and_watched(end):
    model, other = net(), net()
    for unit in units(other):
        unit.module.drop_path = end
    before = snapshot(other)
    for study in (lesion_study, gradient_flow):
        assert study(other, *batch()).equals(study(model, *batch()))
    assert_untouched(other, before)


def test_a_plain_unit_that_changes_the_shape_cannot_be_deleted():
    unit = units(net(shortcut="none"))[2]
    with pytest.raises(UserError, match=r"layer2\.0 changes the shape and has no shortcut"):
        deleted([unit]).__enter__()


@pytest.mark.parametrize("pair", [(0, 3), (2, 3)], ids=["two stages", "another shape"])
def test_units_of_other_shapes_cannot_change_places(pair):
    model = net()
    swap = tuple(units(model)[i] for i in pair)
    with pytest.raises(UserError, match="take maps of other shapes: they cannot change places"):
        exchanged(model, [swap]).__enter__()


def test_an_error_inside_leaves_the_model_as_it_was():
    model = net()
    before, found = snapshot(model), units(model)
    for context in (
        lambda: deleted(found[:2]),
        lambda: exchanged(model, [(found[0], found[1])]),
        lambda: recorded(model),
        lambda: batch_statistics(model),
        lambda: evaluating(model),
    ):
        with pytest.raises(ZeroDivisionError), context():
            raise ZeroDivisionError
        assert_untouched(model, before)


@pytest.mark.parametrize("study", [lesion_study, gradient_flow])
def test_a_model_in_training_mode_stays_in_it(study):
    model = net().train()
    model.layer1.eval()
    before = [module.training for module in model.modules()]
    assert study(model, *batch()).equals(study(net(), *batch()))
    assert [module.training for module in model.modules()] == before


def test_other_models_are_refused():
    with pytest.raises(UserError, match="Linear is none of this package's networks"):
        lesion_study(torch.nn.Linear(2, 2), *batch())
