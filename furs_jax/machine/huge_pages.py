"""Large arrays in large pages of memory, where the system gives them to those who ask.

XLA on CPU gets its buffers anew for every program it runs. Page by page of 4 KiB, that was a sixth
of a ResNet-20's training step and 30 % of a MnasNet's; in pages of 2 MiB it was next to nothing.
"""

import os
import pathlib
import sys
from collections.abc import Mapping
from contextlib import suppress

# "always [madvise] never" on Linux: the word in brackets holds.
_SWITCH = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
_TUNABLES = "GLIBC_TUNABLES"  # read by the C library when a process begins; others ignore it


def asking(environment: Mapping[str, str], switch: pathlib.Path = _SWITCH) -> dict[str, str] | None:
    """The environment of a process that asks for large pages; None where that changes nothing.

    Nor is it changed where there are tunables of one's own.
    """
    with suppress(OSError):
        if _TUNABLES not in environment and "[madvise]" in switch.read_text():
            return {**environment, _TUNABLES: "glibc.malloc.hugetlb=1"}
    return None


def begin_again(switch: pathlib.Path = _SWITCH) -> None:
    """Begins this process's program again where it should ask for large pages; at once or never."""
    environment = asking(os.environ, switch)
    if environment is not None:
        with suppress(OSError):  # then pages stay small
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
