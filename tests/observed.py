"""Runs of which only the arithmetic is left out: what they read, when, and with which seed.

Every step that would be compiled is replaced by one that notes its batch; splits, orders, seeds,
journals and checkpoints are the run's own.
"""

import dataclasses
import inspect
from typing import Any

import jax
import numpy as np

from furs_jax.data.dataset import Dataset, Split
from furs_jax.furs import estimate, importance
from furs_jax.furs.steps import Rises
from furs_jax.jobs import compare, prepare
from furs_jax.methods import network_adjustment
from furs_jax.training import evaluate, trainer
from furs_jax.training.step import Compiled
from tests.small_runs import small_config

SIZES = {"train": 48, "search": 20, "test": 16}
SHORT = {
    "train.epochs": 2,
    "train.batch_size": 16,
    "final.train.epochs": 2,
    "final.train.batch_size": 16,
    "final.seeds": 2,
    "furs.batch_size": 8,
    "furs.every_epochs": 0,
    "eval_batch_size": 8,
    "cpu_devices": 0,
}


@dataclasses.dataclass(frozen=True)
class Event:
    """A step: what it is for, after which training began, and the images that it read."""

    kind: str  # "train", "evaluate", "furs" or "importance"
    phase: str | None
    images: tuple[tuple[str, int], ...]  # split and place there; of weight one
    seed: int | None = None  # of a training
    teacher: int | None = None  # the seed that the teacher was trained with
    recipe: Any = None

    @property
    def splits(self) -> set[str]:
        return {split for split, _ in self.images}


def _from_nothing(*given):
    """A trainer whose weights begin as zeros, which needs no compiling."""
    made = trainer.make_trainer(*given)

    def init(seed):
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), made.abstract())
        return zeros.replace(seed=np.int32(seed))

    return made._replace(init=init)


class Observer:
    """Takes the place of the compiled steps; `events` is what they met, in order."""

    def __init__(self, monkeypatch):
        self.events: list[Event] = []
        self.rises = lambda sites, images: np.random.default_rng(0).normal(size=(sites, images))
        self._phase, self._recipe = None, None
        monkeypatch.setattr(prepare, "load_dataset", lambda *_: dataset())
        monkeypatch.setattr(trainer, "compiled", lambda *_: Compiled(self._train, lambda *_: None))
        for module in (evaluate, estimate, importance):
            monkeypatch.setattr(module, "data_parallel", self._data_parallel)
        for module in (network_adjustment, compare):
            monkeypatch.setattr(module, "train_phase", self._noting_phase(module.train_phase))
            monkeypatch.setattr(module, "make_trainer", _from_nothing)
        monkeypatch.setattr(network_adjustment, "free_axes", lambda net: {})

    def _noting_phase(self, train_phase):
        def noted(run, made, phase, *rest, **more):
            self._phase, self._recipe = phase, made.recipe
            return train_phase(run, made, phase, *rest, **more)

        return noted

    def _data_parallel(self, step, devices=None, donate=False):
        return {
            "eval_step": self._evaluate,
            "dropout_step": self._furs,
            "fisher_step": self._furs,
            "importance_step": lambda *given: self._importance(step, *given),
        }[step.__name__]

    def _note(self, kind, batch, **fields):
        pixels = batch["image"].reshape(-1, 8, 8)
        names = list(SIZES)
        images = [(names[image[0, 0]], int(image[0, 1])) for image in pixels]
        weight = batch.get("weight", np.ones(len(images))).ravel()
        kept = tuple(image for image, w in zip(images, weight, strict=True) if w)
        self.events.append(Event(kind, self._phase, kept, **fields))
        return len(images)

    def _train(self, state, batch):
        teacher = None
        if state.extra.objective is not None:
            teacher = int(np.asarray(jax.tree.leaves(state.extra.objective["params"])[0]).flat[0])
        seed = int(state.seed)
        self._note("train", batch, seed=seed, teacher=teacher, recipe=self._recipe)
        marked = jax.tree.map(lambda x: np.full(x.shape, mark(seed), x.dtype), state.params)
        return (
            state.replace(step=state.step + 1, params=marked),
            {"loss": np.float32(1), "accuracy": np.float32(0.5)},
        )

    def _evaluate(self, variables, batch):
        count = float(batch["weight"].sum())
        self._note("evaluate", batch)
        return {"loss": count, "top1": 0.5 * count, "top5": count, "count": count}

    def _furs(self, inputs, batch):
        count = self._note("furs", batch)
        rise = self.rises(len(inputs[1]), count)
        return Rises(np.ones((2, count)), np.stack([rise, rise]))

    def _importance(self, step, variables, batch):
        self._note("importance", batch)
        channels = inspect.getclosurevars(step).nonlocals["channels"]
        return [np.arange(c, dtype=float) for c in channels]


def mark(seed: int) -> int:
    """What the weights of a training of this seed are filled with; float32 holds it exactly."""
    return seed % 2**20


def dataset() -> Dataset:
    """Every image tells its split, in the first pixel, and its place there, in the second."""
    splits = {}
    for number, (name, count) in enumerate(SIZES.items()):
        images = np.zeros((count, 8, 8, 1), np.uint8)
        images[:, 0, 0, 0], images[:, 0, 1, 0] = number, np.arange(count)
        splits[name] = Split(images, np.arange(count, dtype=np.int32) % 10)
    return Dataset("observed", **splits, num_classes=10, mean=(0.5,), std=(0.5,))


def everything(*names: str) -> set[tuple[str, int]]:
    """All images of these splits."""
    return {(name, place) for name in names for place in range(SIZES[name])}


def short_config(**changes):
    return small_config(**{**SHORT, **changes})
