"""timm's own tests of models, of the installed version, on our names."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pytest

import resnet_variants as rv
from resnet_variants.models.branches import ORDERS

# `make test` unpacks timm's source distribution there.
SUITE = Path(sys.prefix) / "timm-tests"
SAMPLE = (
    "rv_resnet18_d_preact",
    "rv_resnet20_cifar_conv3_3x3_pad",
    "rv_resnet20_cifar_b_bnafteradd",
    "rv_resnet29_cifar_deep_1x1_avgpool_preact",
)
MORE = (
    *SAMPLE,
    "rv_resnet26_a",
    "rv_resnet34_c",
    "rv_resnet50_conv7_3x3_avgpool_preact",
    "rv_resnext50_32x4d_b",
    "rv_resnet18_b_blur",
    "rv_resnet18_b_se",
    "rv_resnet20_cifar_conv3_3x3_none",
    "rv_resnet29_cifar_b_relupreact",
)
# What timm runs on every convolutional model; a version that renames one must be looked at.
TESTS = {
    "test_model_forward",
    "test_model_backward",
    "test_model_default_cfgs",
    "test_model_forward_features",
    "test_model_forward_intermediates_features",
    "test_model_forward_intermediates",
    "test_prune_intermediate_layers_contract",
    "test_model_forward_torchscript",
    "test_model_forward_fx",
    "test_model_backward_fx",
}
# What timm runs on models that it names; those of them that hold for any residual network, at most
# without the parameters that speak of a transformer's parts.
BY_NAME = {
    "test_reset_classifier_keeps_pool": "",
    "test_gcvit_batch_consistency": "",
    "test_features_only_grad_checkpointing_backward": "",
    "test_feature_hook_net_grad_checkpointing_order": "",
    "test_convit_dtype_change_after_forward": "",
    "test_pruned_features_torchscript": "",
    "test_feature_getter_stage_ends_torchscript": "",
    "test_prune_intermediate_layers_params_used": "",
    "test_head_hidden_size": "",
    "test_features_only_feature_cls_class": "",
    "test_resnet_pruned_grad_checkpointing": "",
    "test_prune_intermediate_layers_last_feature": "",
    "test_prune_to_stem_feature": "",
    "test_forward_intermediates_stop_early_final_norm": "",
    "test_matching_stem_shape_loads_despite_stale_channel_metadata": "",
    "test_export_tracks_reset_pool_and_omits_in_memory_weight_source": "",
    "test_export_tracks_reset_pool_in_head": "",
    "test_export_does_not_inherit_training_regularization": "True",
    "test_create_model_transfers_multispectral_checkpoint": "",
    "test_freeze_unfreeze": "root",
    "test_freeze_unfreeze_string_input": "",
    "test_activation_stats_hook_validation": "",
    "test_extract_spp_stats": "",
    "test_distillation_train_keeps_teacher_in_eval": "Token",
    "test_feature_distillation_checkpoint_keeps_projection_in_task_state": "",
    "test_feature_distillation_trainable_module_optimizer_grouping": "",
}
# Those that hold for some residual networks.
BY_NAME_FOR = {
    "test_model_features_output_stride": lambda variant: variant.stem_stride == 4,
    "test_resnetv2_stem_feature_odd_size": lambda variant: variant.stem_stride == 4,
    "test_feature_wrapper_retains_input_contract": lambda variant: variant.stem[:4] == "conv",
    "test_forward_after_prune_intermediate_layers": lambda variant: not ORDERS[variant.order].head,
}
BY_NAME_SAMPLE = "rv_resnet18_d_preact rv_resnet20_cifar_conv3_3x3_pad"


def chunks(names, size):
    return [" ".join(names[i : i + size]) for i in range(0, len(names), size)]


def outcomes(names, report, *, plugin, files, wanted):
    """(test, name) -> ``passed``, ``skipped``, ``failure`` or ``error`` for every test that ran."""
    command = [sys.executable, "-m", "pytest", "-p", plugin, "-p", "no:xdist", "-q"]
    command += [*(str(SUITE / "tests" / f"test_{file}.py") for file in files), "-k", wanted]
    command += ["--rootdir", str(SUITE)]
    env = os.environ | {
        "RV_NAMES": names,
        "PYTHONPATH": str(Path(__file__).parent / "peer"),
        "GITHUB_ACTIONS": "1",  # leaves out what needs the network
        "OMP_NUM_THREADS": "1",
    }
    env.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        [*command, f"--junitxml={report}"], env=env, capture_output=True, text=True, check=False
    )
    assert report.is_file(), done.stdout + done.stderr
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        test, _, parameters = case.get("name").partition("[")
        parts = {part.partition(".")[0] for part in parameters.strip("]").split("-")}  # drops tags
        name = next(name for name in names.split() if name in parts)
        kinds = [child.tag for child in case if child.tag != "properties"]
        found.setdefault((test, name), []).append(kinds[0] if kinds else "passed")
    return found, done.stdout


def expected(test, name):
    """timm leaves out the traced backward pass of networks beyond 100 million parameters."""
    if test != "test_model_backward_fx":
        return "passed"
    params = rv.cost(rv.parse_name(name), num_classes=42).params
    return "skipped" if params > 100e6 else "passed"


def require_suite():
    if not SUITE.is_dir():
        pytest.skip("timm's own tests are not there: `make test` fetches them")
    info = (SUITE / "PKG-INFO").read_text(encoding="utf-8")
    assert f"\nVersion: {version('timm')}\n" in info


def check(names, tmp_path):
    require_suite()
    found, output = outcomes(
        names, tmp_path / "report.xml", plugin="rv_peer", files=["models"], wanted="rv_"
    )
    assert {test for test, _ in found} == TESTS
    assert set(found) == {(test, name) for test in TESTS for name in names.split()}
    wrong = {case: kinds for case, kinds in found.items() if {*kinds} != {expected(*case)}}
    assert wrong == {}, output


def test_a_sample_of_our_names_passes_timms_own_tests(tmp_path):
    check(" ".join(SAMPLE), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("names", chunks(rv.list_models(), 22), ids=lambda names: names.split()[0])
def test_every_name_passes_timms_own_tests(names, tmp_path):
    check(names, tmp_path)


def check_by_name(names, tmp_path):
    require_suite()
    terms = [
        f"{test} and not ({without})" if without else test for test, without in BY_NAME.items()
    ]
    found, output = outcomes(
        names,
        tmp_path / "report.xml",
        plugin="rv_stand_in",
        files=["models", "model_input", "input_conv", "utils", "task"],
        wanted=" or ".join(f"({term})" for term in [*terms, *BY_NAME_FOR]),
    )
    assert {test for test, _ in found} == {*BY_NAME, *BY_NAME_FOR}
    wrong = {
        (test, name): kinds
        for (test, name), kinds in found.items()
        if BY_NAME_FOR.get(test, lambda _: True)(rv.parse_name(name)) and {*kinds} != {"passed"}
    }
    assert wrong == {}, output


def test_a_sample_of_our_names_passes_what_timm_asks_of_models_that_it_names(tmp_path):
    check_by_name(BY_NAME_SAMPLE, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("names", chunks(MORE, 4), ids=lambda names: names.split()[0])
def test_more_of_our_names_pass_what_timm_asks_of_models_that_it_names(names, tmp_path):
    check_by_name(names, tmp_path)
