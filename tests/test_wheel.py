"""The wheel: it holds every file of the package, and works where there is no checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import build_meta; build_meta.build_wheel('dist')"


def test_the_wheel_holds_every_file_and_finds_its_experiments_without_a_checkout(tmp_path):
    # The wheel of the sources, built without the network.
    source, installed = tmp_path / "source", tmp_path / "installed"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    package = ROOT / "resnet_variants"
    left_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, source / "resnet_variants", ignore=left_out)
    subprocess.run([sys.executable, "-c", BUILD], cwd=source, check=True, capture_output=True)
    (path,) = (source / "dist").glob("*.whl")
    wheel = zipfile.ZipFile(path)
    files = {p.relative_to(ROOT).as_posix() for p in package.rglob("*") if p.is_file()}
    wanted = {name for name in files if "__pycache__" not in name}
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == wanted

    wheel.extractall(installed)
    program = "import sys; from resnet_variants.terminal.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "run", "--experiment", "bag_of_trick"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert (
        "did you mean 'bag_of_tricks'? choices: activation_orders, attention, bag_of_tricks"
        in done.stderr
    )
