"""Loss and accuracy of a network on a split."""

import collections
import math
from collections.abc import Callable, Sequence

from furs_jax.data.batches import evaluation_batches
from furs_jax.data.dataset import AnySplit
from furs_jax.errors import DivergedError
from furs_jax.machine import hosts
from furs_jax.objectives import Variables
from furs_jax.training.step import data_parallel, make_eval_step, shard
from furs_jax.training.trainer import Task


def make_evaluator(
    task: Task, channels: Sequence[int]
) -> Callable[[Variables, AnySplit], dict[str, float]]:
    """A compiled evaluation of one network: (variables, split) -> loss, top1, top5 (shares).

    Where damaged images were skipped, also their number, "skipped". Raises DivergedError where the
    loss is not finite.
    """
    step = data_parallel(make_eval_step(task.apply(channels)), task.devices)

    def evaluate(variables: Variables, split: AnySplit) -> dict[str, float]:
        total: collections.Counter = collections.Counter()
        place = hosts.index(), hosts.count()
        for batch in evaluation_batches(split, task.eval_batch_size, *place):
            sums = step(variables, shard(batch, len(task.devices)))
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

    return evaluate
