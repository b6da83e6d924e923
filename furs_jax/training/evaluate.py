"""Loss and accuracy of a network on a split."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from furs_jax.data.batches import evaluation_batches
from furs_jax.data.dataset import AnySplit, Batch
from furs_jax.errors import DivergedError
from furs_jax.machine import hosts
from furs_jax.objectives import Variables
from furs_jax.training.step import abstract, data_parallel, make_eval_step, shard
from furs_jax.training.trainer import Task


class Evaluator:
    """Loss, top1 and top5 (shares) of one network, by a program that is compiled once."""

    def __init__(self, task: Task, channels: Sequence[int]):
        self._task = task
        self._step = data_parallel(make_eval_step(task.apply(channels)), task.devices)

    def __call__(self, variables: Variables, split: AnySplit) -> dict[str, float]:
        """Of all of a split; where damaged images were skipped, also their number, "skipped".

        Raises:
          DivergedError: the loss is not finite.
        """
        return scores(self.sums(variables, split), split)

    def sums(self, variables: Variables, split: AnySplit) -> dict[str, np.ndarray]:
        """Of `make_eval_step` over a split, float64."""
        total: dict[str, np.ndarray] = {}
        for batch in self._batches(split):
            sums = self._step(variables, batch)
            for key, value in sums.items():
                total[key] = total.get(key, 0.0) + np.asarray(value, np.float64)
        return total

    def compile(self, variables: Variables, split: AnySplit) -> None:
        """What a call would do first; of the variables only shapes and dtypes are looked at."""
        with contextlib.closing(self._batches(split)) as batches:
            self._step.lower(abstract(variables, self._task.devices), next(batches)).compile()

    def _batches(self, split: AnySplit) -> Iterator[Batch]:
        place = hosts.index(), hosts.count()
        for batch in evaluation_batches(split, self._task.eval_batch_size, *place):
            yield shard(batch, len(self._task.devices))


def scores(sums: Mapping[str, float], split: AnySplit, whose: str = "") -> dict[str, float]:
    """Of a network, from its sums over a split; see `Evaluator`."""
    total = {key: float(value) for key, value in sums.items()}
    found = {key: total[key] / total["count"] for key in ("loss", "top1", "top5")}
    if not math.isfinite(found["loss"]):
        raise DivergedError(
            f"the loss{whose} on {len(split.labels):,} images is {found['loss']}: the network's "
            "outputs are no numbers; train it anew with a lower learning rate, in another "
            "--workdir"
        )
    skipped = len(split.labels) - round(total["count"])
    return {**found, "skipped": skipped} if skipped else found
