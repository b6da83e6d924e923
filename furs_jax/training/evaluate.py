"""Loss and accuracy of a network on a split."""

import collections
import contextlib
import math
from collections.abc import Iterator, Sequence

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
        total: collections.Counter = collections.Counter()
        for batch in self._batches(split):
            sums = self._step(variables, batch)
            total.update({key: float(value) for key, value in sums.items()})
        scores = {key: total[key] / total["count"] for key in ("loss", "top1", "top5")}
        if not math.isfinite(scores["loss"]):
            raise DivergedError(
                f"the loss on {len(split.labels):,} images is {scores['loss']}: the network's "
                "outputs are no numbers; train it anew with a lower learning rate, in another "
                "--workdir"
            )
        skipped = len(split.labels) - round(total["count"])
        return {**scores, "skipped": skipped} if skipped else scores

    def compile(self, variables: Variables, split: AnySplit) -> None:
        """What a call would do first; of the variables only shapes and dtypes are looked at."""
        with contextlib.closing(self._batches(split)) as batches:
            self._step.lower(abstract(variables, self._task.devices), next(batches)).compile()

    def _batches(self, split: AnySplit) -> Iterator[Batch]:
        place = hosts.index(), hosts.count()
        for batch in evaluation_batches(split, self._task.eval_batch_size, *place):
            yield shard(batch, len(self._task.devices))
