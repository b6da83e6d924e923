"""Runs that are real but for their networks, which are neither trained nor looked at."""

import functools
import pathlib
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from furs_jax.data.dataset import AnySplit, Dataset
from furs_jax.furs import measure
from furs_jax.furs.estimate import Estimator
from furs_jax.furs.ratios import FURs
from furs_jax.jobs import compare, harness, look, prepare
from furs_jax.methods import network_adjustment, response
from furs_jax.networks import get_network
from furs_jax.objectives.cross_entropy import CrossEntropy
from furs_jax.run import phases
from furs_jax.training import loading
from furs_jax.training.checkpoint import Checkpoints
from furs_jax.training.recipe import Recipe
from furs_jax.training.step import TrainState
from furs_jax.training.trainer import Task, Trainer
from furs_jax.widths.worth import decisions
from tests.conftest import random_variables
from tests.jobs.recorded import DATA, Estimate, Evaluation, Recording, Training


@pytest.fixture
def recording(monkeypatch) -> Recording:
    return record_calls(monkeypatch)


def record_calls(monkeypatch: pytest.MonkeyPatch) -> Recording:
    """In place of trainings, evaluations and estimates; the data is `DATA`."""
    made = Recording([], {})
    monkeypatch.setattr(decisions, "_CANDIDATES", 8)  # of 120: for speed

    def load_dataset(*arguments: Any) -> Dataset:
        made.calls.append(("data", *arguments))
        return DATA

    def load_network(path: str, net: Any, *arguments: Any) -> tuple:
        if "original" in path:  # by a training that only seemed to be
            return net.channels, {"params": pathlib.Path(path).name}
        return loading.load_network(path, net, *arguments)

    def make_trainer(
        task: Task, channels: Sequence[int], recipe: Recipe, split: AnySplit, objective: Any = None
    ) -> Trainer:
        def init(seed: int) -> TrainState:
            return TrainState(step=0, seed=seed, params={}, batch_stats={}, opt_state={})

        objective = objective or CrossEntropy()
        return Trainer(task, tuple(channels), recipe, split, init, lambda: None, None, objective)

    def train(trainer: Trainer, seed: int, folder: pathlib.Path, seconds: float, *rest: Any):
        on_epoch, _, monitor, _, _ = rest
        epochs = trainer.recipe.epochs
        record = {"epoch": epochs, "step": 1, "loss": 0.5, "accuracy": 0.5, "seconds": 1.0}
        monitored = monitor(epochs, folder.name)
        on_epoch({**record, **monitored})
        task, state = trainer.task, trainer.init(seed)
        teacher = getattr(trainer.objective, "teacher", None)
        what = trainer, seed, state, monitored, teacher, seconds
        made.calls.append(Training(folder.name, *what, task.dtype, len(task.devices)))
        return types.SimpleNamespace(variables=folder.name), record

    def make_evaluator(task: Task, channels: Sequence[int]):
        def evaluate(variables: str, split: AnySplit) -> dict[str, float]:
            size = task.eval_batch_size
            made.calls.append(Evaluation(variables, tuple(channels), split, size))
            own = made.loss_of(channels)
            loss = made.losses.get(str(variables)[:8], own)
            return {"loss": loss, "top1": 1 - own, "top5": max(0.9, 1 - own)}

        return evaluate

    def make_estimate(net, channels, *, preprocess, dtype, devices, cost, branches=None, **options):
        pixels = np.arange(6, dtype=np.uint8).reshape(1, 2, 3, 1)
        normal = (pixels / 255 - 0.5) / 0.25
        normalises = np.allclose(preprocess(pixels), normal, atol=1e-6)

        def estimate(variables: str, batches: Any, num_layers: int, seed: int) -> FURs:
            of, size = batches.split, batches.batch_size
            what = num_layers, seed, Estimator(**options), dtype, len(devices), normalises
            made.calls.append(Estimate(variables, tuple(channels), of, size, *what))
            values = {field: np.cos(np.arange(len(channels)) ** 2) for field in FURs._fields}
            if branches:
                made.calls.append(("branches", net.depths, branches.sites))
                own = np.array(made.block_furs(net.depths), float)
                apart = 1e3 * np.subtract.outer(own, own)
                values |= {"furs": own, "furs_stderr": 0 * own, "apart": apart}
            return FURs(**values)._replace(
                loss=0.5,
                accuracy=0.5,
                draws=5,
                spread=made.spread,
                separation=made.separation,
                images=len(of.labels),
                drawn_share=0.4,
                narrowed=0.9,
            )

        return estimate

    def forward_times(task: Task, nets: dict[str, Any], *_: Any) -> dict[str, Any]:
        made.calls.append(("times", {name: net.channels for name, net in nets.items()}))
        return {"device": "cpu", "batch_size": 1, "seconds": {name: [0.1, 0.2] for name in nets}}

    class FakeCheckpoints:
        def __init__(self, folder: pathlib.Path, **_: Any):
            self.folder = folder

        def __enter__(self):
            return self

        def __exit__(self, *_: Any) -> None:
            pass

        def restore(self, abstract: Any) -> TrainState:
            name = self.folder.name
            return TrainState(step=9, seed=9, params=name, batch_stats=name, opt_state=name)

    def channel_importance(apply, channels, variables, batches, devices) -> list[np.ndarray]:
        made.calls.append(("importance", variables["params"], tuple(channels), batches))
        return [np.arange(c)[::-1] for c in channels]

    def inherit(
        old: TrainState, fresh: TrainState, order: list, axes: dict, **more: Any
    ) -> TrainState:
        made.calls.append(("order", [list(site) for site in order], more.get("silent", ())))
        carried = {name: f"of {old[name]}" for name in ("params", "batch_stats", "opt_state")}
        return fresh.replace(**carried)

    replaced = {
        prepare: {"load_dataset": load_dataset},
        phases: {"train": train},
        harness: {"record_network": lambda *_: {}},
        network_adjustment: {
            "make_trainer": make_trainer,
            "Evaluator": make_evaluator,
            "Checkpoints": FakeCheckpoints,
            "is_trained": lambda *_: True,
            "channel_importance": channel_importance,
            "inherit": inherit,
            "free_axes": lambda net: {0: [], 2: []},
            "release_programs": lambda: None,
            "compile_first": lambda *_: None,
        },
        response: {
            "make_trainer": make_trainer,
            "Evaluator": make_evaluator,
            "release_programs": lambda: None,
            "compile_first": lambda *_: None,
            "make_stacked_trainer": lambda task, vectors, *_: vectors,
            "train_at_once": lambda run, *given: made.calls.append(("at once", *given)),
        },
        compare: {
            "is_trained": lambda *_: True,
            "make_trainer": make_trainer,
            "Evaluator": make_evaluator,
            "load_network": load_network,
            "release_programs": lambda: None,
            "compile_first": lambda *_: None,
            "forward_times": forward_times,
        },
        measure: {"make_estimate": make_estimate},
        look: {"Evaluator": make_evaluator},
    }
    for module, names in replaced.items():
        for name, value in names.items():
            monkeypatch.setattr(module, name, value)
    return made


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of a training of the smallest network and of one twice as wide: folder and variables."""

    @functools.cache
    def save(name: str, width: float):
        net = get_network(name, width, 10, image_shape=(8, 8, 1))
        variables = random_variables(net, net.channels)
        folder = tmp_path_factory.mktemp("c")
        state = TrainState(step=np.int32(1), seed=np.int32(1), opt_state={}, **variables)
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(1, state, {"epoch": 1, "channels": list(net.channels)})
        return str(folder), variables

    return save
