"""Public names: each is the same thing whenever it is asked for, and no module's name."""

import importlib
import pkgutil

import pytest

import furs_jax
from furs_jax import report


def modules(package):
    return [module.name for module in pkgutil.iter_modules(package.__path__)]


@pytest.mark.parametrize("package", [furs_jax, report], ids=["furs_jax", "report"])
@pytest.mark.parametrize("order", [1, -1])
def test_a_name_stays_what_it_is(package, order):
    first = {name: getattr(package, name) for name in package.__all__[::order]}
    for name in modules(package):
        if name != "__main__":
            importlib.import_module(f"{package.__name__}.{name}")
    for _ in range(2):
        assert {name: getattr(package, name) for name in package.__all__} == first
    assert all(callable(value) for value in first.values())


def test_an_import_of_the_submodule_hides_no_name():
    import furs_jax.reallocate
    import furs_jax.search

    assert callable(furs_jax.search)
    assert callable(furs_jax.reallocate)
    assert importlib.import_module("furs_jax.jobs.search").search is furs_jax.search


def test_no_name_of_the_report_is_a_module_s():
    assert not set(report.__all__) & set(modules(report))


def test_an_unknown_name_is_an_attribute_error():
    for package in (furs_jax, report):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            package.nothing  # noqa: B018
