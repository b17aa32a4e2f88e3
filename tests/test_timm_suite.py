"""timm's own tests of models, of the installed version, on our names."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pytest

import resnet_variants as rv

# `make test` unpacks timm's source distribution there.
SUITE = Path(sys.prefix) / "timm-tests"
SAMPLE = ["rv_resnet29_cifar_deep_1x1_avgpool_preact"]
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


def outcomes(names, report):
    """(test, name) -> ``passed``, ``skipped``, ``failure`` or ``error`` for every test that ran."""
    command = [sys.executable, "-m", "pytest", "-p", "rv_peer", "-p", "no:xdist", "-q", "-k", "rv_"]
    command += [str(SUITE / "tests" / "test_models.py"), "--rootdir", str(SUITE)]
    env = os.environ | {
        "RV_NAMES": " ".join(names),
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
        name = next(name for name in names if name in parts)
        kinds = [child.tag for child in case if child.tag != "properties"]
        found.setdefault((test, name), []).append(kinds[0] if kinds else "passed")
    return found, done.stdout


def expected(test, name):
    """timm leaves out the traced backward pass of networks beyond 100 million parameters."""
    if test != "test_model_backward_fx":
        return "passed"
    params = rv.cost(rv.parse_name(name), num_classes=42).params
    return "skipped" if params > 100e6 else "passed"


def check(names, tmp_path):
    if not SUITE.is_dir():
        pytest.skip("timm's own tests are not there: `make test` fetches them")
    info = (SUITE / "PKG-INFO").read_text(encoding="utf-8")
    assert f"\nVersion: {version('timm')}\n" in info
    found, output = outcomes(names, tmp_path / "report.xml")
    assert set(found) == {(test, name) for test in TESTS for name in names}
    wrong = {case: kinds for case, kinds in found.items() if {*kinds} != {expected(*case)}}
    assert wrong == {}, output


@pytest.mark.timeout(1800)
def test_a_sample_of_our_names_passes_timms_own_tests(tmp_path):
    check(SAMPLE, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(14))
def test_every_name_passes_timms_own_tests(part, tmp_path):
    check(rv.list_models()[part::14], tmp_path)
