"""Where a run prints: lines, and a bar over each training."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

Record = dict[str, Any]


class Console:
    """Prints to standard output; progress bars go to standard error where that is a terminal."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet

    def print(self, text: str) -> None:
        if not self.quiet:
            tqdm.write(text)
            sys.stdout.flush()

    def final(self, title: str, scores: dict[str, float]) -> None:
        self.print(
            f"{title}  top-1 {100 * scores['top1']:.2f}%  top-5 {100 * scores['top5']:.2f}%  "
            "(test split)"
        )

    @contextmanager
    def progress(self, title: str, steps: int) -> Iterator[Callable[[int], None]]:
        """A bar over one training's steps, with the time left; yields its update function."""
        # disable=None: not where standard error is a file.
        hide = True if self.quiet else None
        with tqdm(total=steps, desc=title, unit="step", leave=False, disable=hide) as bar:
            yield lambda step: bar.update(step - bar.n)
