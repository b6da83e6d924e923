"""Whether what was written computes what Flax computes, tried in a process of its own."""

import os
import pathlib
import subprocess
import sys
import tempfile
from typing import NamedTuple

import numpy as np

from furs_jax.errors import FursError
from furs_jax.export import Format

# Of logits, and of the largest of them where that is more: in float32 sums in another order differ
# by some 1e-6 of it.
TOLERANCE, SHARE = 1e-4, 1e-5

# Behind a format's runner, where that does without JAX.
_NO_JAX = """
found = [name for name in ("jax", "jaxlib", "flax", "furs_jax") if name in sys.modules]
if found:
    sys.exit(f"it imports {found[0]}")
"""


class ExportError(FursError, RuntimeError):
    """What was written can't be verified, or computes something else; it is not kept."""


class Verification(NamedTuple):
    """What was compared.

    Attributes:
      images: how many.
      largest_logit: the largest absolute value of a logit.
      largest_difference: between a logit of Flax and one of what was written.
      tolerance: the largest difference that is allowed.
      same_class: the share of images of the same first class.
      python: what ran it: Python, and the packages of `Format.runs_with`.
    """

    images: int
    largest_logit: float
    largest_difference: float
    tolerance: float
    same_class: float
    python: str

    def __str__(self) -> str:
        return (
            f"verified with {self.python}: logits of {self.images} images differ by at most "
            f"{self.largest_difference:.2e} (allowed: {self.tolerance:.2e}; the largest is "
            f"{self.largest_logit:.3g}); {100 * self.same_class:.4g}% have the same first class"
        )


def find_runner(form: Format, python: str) -> str:
    """The Python that runs a format, and versions, as in "Python 3.11.7, torch 2.14.1".

    Raises:
      ExportError: it lacks a package; the message says how to go on.
    """
    program = "import sys, importlib.metadata as m; print(sys.version.split()[0], *map(m.version, "
    program += f"{list(form.runs_with)!r}))"
    try:
        done = _run(python, program, [], None)
    except OSError as error:
        raise ExportError(f"--python={python} can't be started: {error.strerror}") from error
    if done.returncode:
        packages = " ".join(form.runs_with)
        raise ExportError(
            f"{python} has not all of {packages}, which run what is written, and nothing is kept "
            f"that was not run: {python} -m pip install {packages}, or give another Python that "
            "has them, --python=PATH"
        )
    version, *versions = done.stdout.split()
    told = (f"{name} {v}" for name, v in zip(form.runs_with, versions, strict=True))
    return ", ".join([f"Python {version}", *told])


def verify(
    form: Format,
    folder: pathlib.Path,
    images: np.ndarray,
    logits: np.ndarray,
    python: str,
    told: str,
    own: str | None = None,
) -> Verification:
    """Runs what was written, and compares.

    Args:
      form, folder: what was written where.
      images: uint8, shape (N, H, W, C).
      logits: float32, shape (N, K), of Flax.
      python: the Python that runs it.
      told: its versions, from `find_runner`.
      own: the name of the user's own network.

    Raises:
      ExportError: it can't be run, or computes something else.
    """
    program = form.runner + (_NO_JAX if "jax" not in form.runs_with else "")
    with tempfile.TemporaryDirectory() as place:
        given, found = (pathlib.Path(place, name) for name in ("images.npy", "logits.npy"))
        np.save(given, images)
        done = _run(python, program, [given, found, *filter(None, [own])], folder)
        if done.returncode or not found.is_file():
            said = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
            raise ExportError(f"what was written can't be run by {told}: {said[:300]}")
        computed = np.load(found)
    return compare(computed, logits, told)


def compare(computed: np.ndarray, logits: np.ndarray, python: str) -> Verification:
    """Raises ExportError where logits differ, or aren't numbers."""
    if computed.shape != logits.shape:
        raise ExportError(
            f"what was written gives logits of the shape {computed.shape}, not {logits.shape}"
        )
    if not np.all(np.isfinite(logits)):
        raise ExportError("the network's logits are no finite numbers, so nothing can be compared")
    largest = float(np.max(np.abs(logits)))
    found = Verification(
        len(logits),
        largest,
        float(np.max(np.abs(np.float64(computed) - logits))),
        max(TOLERANCE, SHARE * largest),
        float(np.mean(computed.argmax(axis=1) == logits.argmax(axis=1))),
        python,
    )
    # Comparisons with NaN are false.
    if not found.largest_difference <= found.tolerance:
        raise ExportError(
            f"what was written computes something else: its logits differ from Flax's by "
            f"{found.largest_difference:.2e}, more than {found.tolerance:.2e}; nothing is kept"
        )
    return found


def _run(
    python: str, program: str, arguments: list, folder: pathlib.Path | None
) -> subprocess.CompletedProcess:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONDONTWRITEBYTECODE": "1"}
    if python == sys.executable:  # what this process finds, it finds too
        environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
    return subprocess.run(
        [python, "-", *map(str, arguments)],
        input=program,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
