"""What is installed without the project's folder: its config files come along."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import furs_jax
from configs import default
from tests import ROOT

pytest.importorskip("setuptools")  # newer venvs have none; pip brings its own


def python(*arguments: str, folder: pathlib.Path, path: str = "") -> str:
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the project: building writes into its folder."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("furs_jax", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("setup.py", "README.md"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def installed(source):
    """A folder as an installation's site-packages."""
    python("setup.py", "-q", "build", folder=source)
    return source / "build" / "lib"


def as_json(config):
    return json.loads(config.to_json_best_effort())


def test_the_default_config_is_the_one_of_configs_default():
    for _ in range(2):
        assert as_json(furs_jax.default_config()) == as_json(default.get_config())
    furs_jax.default_config().seed = 1
    assert furs_jax.default_config().seed == 0


def test_an_installation_has_the_default_config(installed, tmp_path):
    code = (
        "import furs_jax; print(furs_jax.__file__); "
        "print(furs_jax.default_config().to_json_best_effort())"
    )
    file, config = python("-c", code, folder=tmp_path, path=str(installed)).splitlines()
    assert file == str(installed / "furs_jax" / "__init__.py")
    assert json.loads(config) == as_json(default.get_config())


def test_config_files_are_found_from_any_folder_whatever_lies_there(installed, tmp_path):
    """A package `configs` of one's own is what it is, and none of the project's files see it."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("SEED = 3")
    (tmp_path / "configs" / "default.py").write_text("raise ValueError('not the project\\'s')")
    (tmp_path / "mine.py").write_text(
        "from configs import SEED\n"
        "from .digits import get_config as digits\n"
        "def get_config(argument=''):\n"
        "    config = digits(argument)\n    config.seed = SEED\n    return config\n"
    )
    code = (
        "import sys\n"
        "from furs_jax.cli import load\n"
        "for file in ('configs/imagenet.py:mnasnet', 'mine.py:smoke', 'configs/digits.py'):\n"
        "    config = load(file, {})\n"
        "    print(config.network, config.seed, config.train.epochs)\n"
        "print([p for p in sys.path if p.endswith('furs_jax')])"
    )
    assert python("-c", code, folder=tmp_path, path=str(installed)).splitlines() == [
        "mnasnet_a1 0 10",
        "resnet14_cifar 3 2",
        "resnet14_cifar 0 20",
        "[]",
    ]


def test_a_config_file_of_one_s_own_builds_on_the_project_s(installed, tmp_path):
    text = "from configs.digits import get_config\nfrom configs.default import adapt"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(f"{text}\nfrom .beside import *\n")
        (tmp_path / name / "beside.py").write_text(f"NAME = {name!r}\n")
    code = (
        "import pathlib\n"
        "from furs_jax.config_files import load_module\n"
        "for name in ('one', 'two'):\n"
        "    module = load_module(pathlib.Path(name, 'mine.py').absolute())\n"
        "    print(module.NAME, module.get_config().network)"
    )
    found = python("-c", code, folder=tmp_path, path=str(installed)).splitlines()
    assert found == ["one resnet14_cifar", "two resnet14_cifar"]


def test_an_editable_install_puts_the_project_s_folder_on_the_path(source):
    """By one line of a .pth file, for which setuptools wants the plain layout."""
    code = (
        "from distutils.core import run_setup\n"
        "import setuptools\n"
        "build = run_setup('setup.py', stop_after='init').get_command_obj('build_py')\n"
        "build.editable_mode = True\n"
        "build.ensure_finalized()\n"
        "print(build.package_dir, [name for name in build.packages if 'configs' in name])"
    )
    assert python("-c", code, folder=source) == "{'': '.'} []"
