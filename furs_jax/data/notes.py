"""What the user should know of the data, though the run goes on."""

import functools
import sys


@functools.cache
def say(text: str) -> None:
    """One line on standard error, once in a process."""
    print(f"furs_jax: {text}", file=sys.stderr)
