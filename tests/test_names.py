"""Public names: each is the same thing whenever it is asked for, and no module's name."""

import ast
import importlib
import pkgutil
import subprocess
import sys

import pytest

import furs_jax
from furs_jax import report
from tests import ROOT

MODULES = [module.name for module in pkgutil.walk_packages(furs_jax.__path__, "furs_jax.")]


@pytest.mark.parametrize("package", [furs_jax, report], ids=["furs_jax", "report"])
@pytest.mark.parametrize("order", [1, -1])
def test_a_name_stays_what_it_is(package, order):
    first = {name: getattr(package, name) for name in package.__all__[::order]}
    assert all(callable(value) for value in first.values())
    for _ in range(2):
        for module in MODULES:
            if not module.endswith("__main__"):
                importlib.import_module(module)
        for _ in range(2):
            assert {name: getattr(package, name) for name in package.__all__} == first


@pytest.mark.parametrize("package", [furs_jax, report], ids=["furs_jax", "report"])
def test_no_name_is_a_module_s(package):
    assert len(MODULES) > 50
    assert not set(package.__all__) & {
        module.name for module in pkgutil.iter_modules(package.__path__)
    }


FILES = [
    path
    for top in ("furs_jax", "benchmarks", "configs", "launch", "tests")
    for path in (ROOT / top).rglob("*.py")
]


def test_every_name_that_is_imported_exists_also_within_functions():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("furs_jax"):
                module = importlib.import_module(node.module)
                for name in (alias.name for alias in node.names):
                    place = f"{path.relative_to(ROOT)}:{node.lineno}: {node.module}.{name}"
                    assert hasattr(module, name) or f"{node.module}.{name}" in MODULES, place


def test_an_unknown_name_is_an_attribute_error():
    for package in (furs_jax, report):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            package.nothing  # noqa: B018


def test_importing_the_package_is_light():
    heavy = ("jax", "flax", "tensorflow", "grain", "matplotlib", "tensorflow_datasets", "sklearn")
    code = f"import sys, furs_jax; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
