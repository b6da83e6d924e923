"""Every option changes what is done, and a run goes on with others only if no result changes."""

import contextlib
import json
import types
import zlib

import jax
import numpy as np
import pytest

from furs_jax.costs import Cost
from furs_jax.errors import FursError, WorkdirError
from furs_jax.furs.measure import Reread
from furs_jax.jobs import prepare
from furs_jax.methods import Method
from furs_jax.methods.autoslim import AutoSlim
from furs_jax.methods.lccl import LowCostLayers
from furs_jax.options import parse as options_lib
from furs_jax.run import phases
from furs_jax.run.folder import Workdir
from tests.jobs.recorded import small
from tests.small_runs import timeless


class Other(Method):
    """Finds nothing."""


class Pruned(Method):
    """The unpruned network, as it is."""

    prunes = True

    def network(self, run):
        return run.unpruned


class Widest(AutoSlim):
    """The network that would be slimmed."""

    is_complete, check_journal, check_result = (
        Method.is_complete,
        Method.check_journal,
        Method.check_result,
    )

    def search(self, run):
        return self.largest(run.options, run.unpruned)


class Unmeasured(LowCostLayers):
    """Without a look at the zeros."""

    finish = Method.finish


class Squares(Cost):
    name = unit = "squares"

    def of(self, channels):
        return float(sum(c**2 for c in channels))


class Tabled(Squares):
    def of(self, channels):
        return super().of(channels) * (2 if self.table else 1)


# Option -> another value than `small` has, and what it needs beside it to matter. A path's is
# filled in by the test.
CHANGED = {
    "method": (f"{__name__}:Other", {}),
    "cost.resource": (f"{__name__}:Squares", {}),
    "cost.budget": (3e5, {"width_multiplier": 1.0}),
    "cost.batch_size": (2, {"cost.resource": "activation_memory"}),
    "cost.limits.activation_memory": (3000.0, {}),
    "cost.table": (".", {"cost.resource": f"{__name__}:Tabled"}),
    "cost.limits.latency": (1.0, {}),  # which needs a table
    "cost.limits.macs": (45_000.0, {}),
    "cost.limits.params": (4500.0, {}),
    "objective": ("furs_jax.objectives:Objective", {}),
    "seed": (1, {}),
    "network": ("plain14_cifar", {}),
    "width_multiplier": (0.5, {}),
    "flops_budget": (3e5, {"width_multiplier": 1.0}),
    "channels": ((12, 8, 8, 8, 8, 8), {}),
    "channels_from": ("result.json", {}),
    "init_from": ("checkpoint", {}),
    "init_head": ("fresh", {"init_from": "checkpoint"}),
    "padding": ("local", {}),
    "dtype": ("bfloat16", {}),
    "step_programs": ("two", {}),
    "cpu_devices": (8, {}),
    "eval_batch_size": (16, {}),
    "checkpoint_seconds": (5.0, {}),
    "profile": ("trace", {}),
    "data.name": ("random:8x8x1:10:200", {}),
    "data.dir": ("d", {}),
    "data.search_fraction": (0.3, {}),
    "data.search_split": ("last", {}),
    "data.seed": (1, {}),
    "data.pool": (2, {}),
    "data.image_size": (8, {}),
    "data.min_scale": (0.5, {}),
    "data.eval_crop": (0.5, {}),
    "data.workers": (1, {}),
    "data.processes": (1, {}),
    "data.prefetch": (1, {}),
    "data.on_corrupt": ("skip", {}),
    "furs.method": ("fisher", {}),
    "furs.metric": ("accuracy", {}),
    "furs.base_drop_rate": (0.1, {}),
    "furs.draws": (7, {}),
    "furs.max_draws": (20, {}),
    "furs.noise": ("gaussian", {}),
    "furs.variance_reduction": (False, {}),
    "furs.fisher_labels": ("sampled", {}),
    "furs.every_epochs": (1, {}),
    "furs.images": (20, {}),
    "furs.batch_size": (16, {}),
    "furs.memory_gib": (1.0, {}),
    "reallocate.direction": ("reversed", {}),
    "reallocate.num_layers": (1, {}),
    "reallocate.num_layers_decay": (3.0, {"search.rounds": 2}),
    "reallocate.step": (0.9, {}),
    "reallocate.step_from_start": (
        True,
        {"channels": (20, 8, 8, 8, 8, 8), "reallocate.step": 0.6},
    ),
    "reallocate.step_decay": (0.3, {"reallocate.step": 0.9}),
    "reallocate.fixed": ("stage1_*", {}),
    "reallocate.min_channels": (3, {"reallocate.step": 0.9}),
    "reallocate.max_channels": (17, {}),
    "reallocate.channel_multiple": (2, {}),
    "search.rounds": (2, {}),
    "search.select": ("best", {}),
    "search.warm_start": (True, {"search.rounds": 2}),
    "search.warm_epochs": (2, {"search.rounds": 2, "search.warm_start": True}),
    "search.warm_learning_rate": (0.01, {"search.rounds": 2, "search.warm_start": True}),
    "search.patience": (1, {"search.rounds": 2}),
    "search.stop_when_equal": (True, {"search.rounds": 2}),
    "search.blocks": (True, {"depths": (1, 2, 1)}),
    "depths": ((1, 2, 1), {}),
    "response.max_trainings": (2, {"method": "response", "response.least_gain": 1e5}),
    "response.least_gain": (1e5, {"method": "response", "response.max_trainings": 6}),
    "response.at_once": (2, {"method": "response", "response.max_trainings": 2}),
    "prune.width_multiplier": (0.5, {"method": f"{__name__}:Pruned"}),
    "prune.expand": (2.0, {"method": f"{__name__}:Widest"}),
    "prune.penalty": (0.1, {"method": f"{__name__}:Unmeasured"}),
    "kd.teacher": ("original", {}),
    "kd.network": ("resnet14_cifar", {"kd.teacher": "other"}),
    "kd.width_multiplier": (0.5, {"kd.teacher": "other"}),
    "kd.alpha": (0.5, {"kd.teacher": "original"}),
    "kd.temperature": (2.0, {"kd.teacher": "original"}),
    "final.seeds": (2, {}),
    "final.original": (False, {}),
    "final.timed": (False, {}),
    "final.use_search_split": (False, {}),
    **{
        f"{prefix}train.{field}": (value, {})
        for prefix in ("", "final.")
        for field, value in {
            "epochs": 3,
            "batch_size": 24,
            "learning_rate": 0.2,
            "end_learning_rate": 0.0,
            "warmup_epochs": 1.0,
            "momentum": 0.8,
            "nesterov": True,
            "weight_decay": 0.1,
            "label_smoothing": 0.1,
            "dropout": 0.2,
            "dropout_by_epoch": False,
            "dropout_by_depth": False,
            "crop_margin": 2,
            "flip": True,
        }.items()
    },
}


def _told(value):
    """What can be compared of a call."""
    if isinstance(value, np.ndarray):
        return value.shape, zlib.crc32(np.ascontiguousarray(value).tobytes())
    if isinstance(value, dict):
        return {key: _told(x) for key, x in value.items()}
    if isinstance(value, Reread):
        return _told((value.split, value.batch_size))
    if isinstance(value, (tuple, list)):
        return [_told(x) for x in value]
    return None if isinstance(value, types.FunctionType) else repr(value)


def _done(recording, folder, **changes):
    """All that a search asks for, or why it does not begin."""
    recording.calls.clear()
    recording.losses.update(round_00=0.3, round_01=0.4)
    recording.spread = 0.1
    try:
        result = recording.search(folder, **{"search.rounds": 1, "final.seeds": 1, **changes})
    except FursError as error:
        return str(error)
    return [*map(_told, recording.calls), timeless(result)]


@pytest.fixture(scope="module")
def without() -> dict[str, list]:
    """What was done without an option, by what is given beside it."""
    return {}


@pytest.mark.parametrize("option", CHANGED)
def test_every_option_changes_what_is_done(
    option, recording, tmp_path, checkpoint, monkeypatch, without
):
    def traced(folder, on_step):
        recording.calls.append(("trace", folder))
        return contextlib.nullcontext(on_step)

    def set_up(cpu_devices, batch_sizes):
        recording.calls.append(("devices", cpu_devices))
        return tuple(jax.devices())

    monkeypatch.setattr(phases, "traced", traced)
    monkeypatch.setattr(prepare, "set_up", set_up)

    def given(value):
        if value in ("checkpoint", "other"):
            return checkpoint("resnet8_cifar", 0.25)[0]
        if value == "result.json":
            vector = {"searched": {"channels": [12, 8, 8, 8, 8, 8]}}
            (tmp_path / "result.json").write_text(json.dumps(vector))
            return str(tmp_path / "result.json")
        return value

    value, beside = CHANGED[option]
    beside = {key: given(x) for key, x in beside.items()}
    if str(beside) not in without:
        without[str(beside)] = _done(recording, tmp_path / "before", **beside)
        # Only an option may make a difference.
        assert _done(recording, tmp_path / "again", **beside) == without[str(beside)]
    before = without[str(beside)]
    assert not isinstance(before, str), before
    assert _done(recording, tmp_path / "after", **{**beside, option: given(value)}) != before


def test_a_folder_is_its_config_s_but_for_what_changes_no_result(tmp_path):
    def as_json(config):
        return json.loads(config.to_json_best_effort())

    config = small(cpu_devices=1, **{"final.seeds": 1})
    folder = Workdir(tmp_path, as_json(config))
    folder.start(as_json(config), {})
    folder.close()
    goes_on = set()
    for option, (value, _) in [*CHANGED.items(), ("mode", ("train", {}))]:
        changed = config.copy_and_resolve_references()
        options_lib.override(changed, option, str(value))
        message = None
        try:
            Workdir(tmp_path, as_json(changed)).close()
        except WorkdirError as error:
            message = str(error)
        if message is None:
            goes_on.add(option)
        else:
            assert f"config.{option} (" in message
    assert goes_on == {
        "checkpoint_seconds",
        "profile",
        "data.workers",
        "data.processes",
        "data.prefetch",
        "furs.memory_gib",
        "final.timed",
    }


def test_no_option_is_left_out():
    assert set(CHANGED) == set(options_lib.OPTIONS) - {"mode"}  # modes have tests of their own
