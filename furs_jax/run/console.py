"""What a run prints: header, progress, a line for each round, the comparison."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from furs_jax.data.batches import steps_per_epoch
from furs_jax.run.folder import Workdir
from furs_jax.run.tables import network_table, round_line
from furs_jax.run.text import printable
from furs_jax.training.train import Task, Trainer

Record = dict[str, Any]


class Console:
    """Prints to standard output; progress bars go to standard error where that is a terminal."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet

    def print(self, text: str) -> None:
        if not self.quiet:
            tqdm.write(text)
            sys.stdout.flush()

    def header(
        self, folder: Workdir, task: Task, budget: int | None, channels: Sequence[int]
    ) -> None:
        """Devices, data and the network of the vector that is begun with; a budget in MACs."""
        data, device = task.dataset, task.devices[0]
        shape = "x".join(map(str, data.image_shape))
        self.print(
            f"devices  {len(task.devices)} x {device.device_kind} ({device.platform}), "
            f"{task.dtype}\n"
            f"data     {printable(data.name)}: {shape}, {data.num_classes} classes; "
            f"train {len(data.train.labels):,}, search {len(data.search.labels):,}, "
            f"test {len(data.test.labels):,} images\n"
            f"network  {printable(task.net.name)}, {len(task.net.channels)} sites"
            f"{'' if budget is None else f', budget {budget:,} MACs'}\n"
            f"workdir  {printable(str(folder.path))}\n\n"
            f"{network_table(task.net, channels)}\n"
        )

    def moved(self, folder: Workdir) -> None:
        """The run goes on with other devices or versions than it began with."""
        self.print(
            f"note: {folder.config} names other devices or versions than these; figures may differ "
            "in the last digits from those of a run that was not moved"
        )

    def round(self, record: Record, rounds: int) -> None:
        self.print(round_line(record, rounds))

    def final(self, title: str, scores: dict[str, float]) -> None:
        self.print(
            f"{title}  top-1 {100 * scores['top1']:.2f}%  top-5 {100 * scores['top5']:.2f}%  "
            "(test split)"
        )

    @contextmanager
    def progress(self, title: str, trainer: Trainer) -> Iterator[Callable[[int], None]]:
        """A bar over one training's steps, with the time left; yields its update function."""
        total = trainer.recipe.epochs * steps_per_epoch(trainer.split, trainer.recipe.batch_size)
        # disable=None: not where standard error is a file.
        hide = True if self.quiet else None
        with tqdm(total=total, desc=title, unit="step", leave=False, disable=hide) as bar:
            yield lambda step: bar.update(step - bar.n)
