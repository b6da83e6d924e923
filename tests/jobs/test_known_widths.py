"""Runs whose cost is known of some widths only: they keep to these, or are refused."""

import dataclasses

import numpy as np
import pytest

from furs_jax.errors import ConfigError
from furs_jax.jobs.prepare import prepare
from furs_jax.jobs.search import search
from furs_jax.networks import get_network
from furs_jax.options.parse import parse
from tests.jobs.recorded import Training, workdir_lines
from tests.small_runs import small_config
from tests.stairs import UNITS, Stairs

STAIRS = {
    "cost.resource": "tests.stairs:Stairs",
    "width_multiplier": 0.25,
}
NET = get_network("resnet8_cifar", 0.25, 10, image_shape=(8, 8, 1))
METHODS = {
    "network_adjustment": {"search.rounds": 3, "reallocate.num_layers": 2},
    "response": {"response.max_trainings": 3, "response.least_gain": 0.0},
    "uniform": {},
}


def is_known(channels) -> bool:
    return not np.any(np.mod(channels, np.resize(UNITS, 6)))


@pytest.mark.parametrize("method", METHODS)
def test_from_the_first_move_on_all_widths_are_known(method, recording, tmp_path):
    """The original has others, and stays what it is."""
    assert not is_known(NET.channels)
    given = {**STAIRS, **METHODS[method], "reallocate.min_channels": 1, "final.seeds": 1}
    result = recording.search(tmp_path, method=method, **given)
    others = {t.trainer.channels for t in recording.of(Training)} - {NET.channels}
    assert all(map(is_known, others))
    if method == "network_adjustment":
        assert len(others) >= 2
        nexts = [line["next_channels"] for line in workdir_lines(tmp_path, "rounds")]
        assert all(map(is_known, nexts))
        assert result["searched"]["cost"] <= result["budget"] == Stairs(NET).of(NET.channels)


class Strict(Stairs):
    """Does not know the original's widths, either."""

    def of(self, channels):
        assert is_known(channels)
        return super().of(channels)


def test_with_a_budget_the_original_is_known_too_and_what_is_given_gets_so(recording, tmp_path):
    given = {"cost.resource": f"{__name__}:Strict", "cost.budget": 40.0, "final.seeds": 1}
    given |= {"search.rounds": 1, "channels": (5,)}
    result = recording.search(tmp_path, **given, width_multiplier=1.0)
    assert is_known(result["original"]["channels"])
    assert 36 < result["original"]["cost"] <= 40
    (line,) = workdir_lines(tmp_path, "rounds")
    assert is_known(line["channels"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        *[({"method": m}, f"method={m} asks for others, too; give another method")
          for m in ("autoslim", "fpgm", "lccl", "sfp", "tas")],
        ({"search.blocks": True}, "search.blocks=True asks for others, too; give search.blocks=F"),
        ({"reallocate.max_channels": 5},
         "leave no width for stage1_block1_conv2 that is a multiple of 3 up to 5"),
    ],
)  # fmt: skip
def test_what_would_ask_for_others_is_refused(given, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        search(small_config(**STAIRS, **given), tmp_path / "w", quiet=True)
    assert not (tmp_path / "w").exists()


def test_a_benchmark_that_would_ask_for_others_is_refused():
    options = dataclasses.replace(parse(small_config(**STAIRS)), mode="truth")
    with pytest.raises(ConfigError, match="bench truth asks for others, too; give another bench"):
        prepare(options)
