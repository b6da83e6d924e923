"""Figures of a run's result, and whether they are what its journals tell."""

import math
from collections.abc import Sequence
from typing import Any

from furs_jax.costs import Cost
from furs_jax.data.batches import steps_per_epoch
from furs_jax.data.dataset import AnySplit
from furs_jax.networks.network import Network
from furs_jax.options.schema import Recipe
from furs_jax.options.units import amount

Record = dict[str, Any]


def training_macs(net: Network, channels: Sequence[int], recipe: Recipe, split: AnySplit) -> int:
    """MACs of a training; a backward pass counts as two forward ones."""
    steps = recipe.epochs * steps_per_epoch(split, recipe.batch_size)
    return 3 * net.macs(channels) * recipe.batch_size * steps


def vector_entry(net: Network, cost: Cost, channels: Sequence[int]) -> Record:
    """What a vector is and costs."""
    sizes = {"macs": net.macs(channels), "params": net.params(channels)}
    return {"channels": list(channels), **sizes, **cost.record(channels)}


def size_text(record: Record) -> str:
    """What a line's vector costs: MACs, and what else the budget is counted in."""
    own = f"{amount(record['cost'])} {record['unit']}, " if "cost" in record else ""
    return f"{own}{record['macs']:,} MACs"


def compare_entry(found: Record, expected: Record, name: str, tolerance: float = 1e-9) -> None:
    """Raises ValueError where a result's entry of `name` is not what the journals tell.

    Floats may differ by a share of `tolerance`: another version of SciPy makes others of the same
    figures, and so does another processor.
    """
    for key, value in expected.items():
        if not _same(found[key], value, tolerance):
            raise ValueError(f"{name} {key} ".lstrip() + "is not what the journals tell")


def _same(found: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(
            _same(found[key], expected[key], tolerance) for key in found
        )
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(
            _same(one, other, tolerance) for one, other in zip(found, expected, strict=True)
        )
    if isinstance(expected, float):
        return math.isclose(found, expected, rel_tol=tolerance, abs_tol=tolerance / 1000)
    return found == expected
