"""Ways out: the seam. One file a format, whose class is called `PLUGIN`; `--format` names it."""

import importlib.util
import pathlib
from typing import TYPE_CHECKING, Any

from furs_jax import plugins
from furs_jax.errors import ConfigError, MissingExtraError
from furs_jax.options.kinds import Plugin

if TYPE_CHECKING:
    from furs_jax.jobs.predicting import TrainedNetwork

Record = dict[str, Any]


class Format:
    """A way to write a trained network into a folder, and to run what was written.

    Attributes:
      packages: what writing it needs; of the formats here, of the extra "export".
      runs_with: the packages that run it; where these are not JAX, it is run without JAX.
      folds: whether BatchNorms can be made parts of the layers before them.
      runner: a Python program that is called in the folder with two files' names: it reads images
        from the first, as `predict` takes them, and writes their logits to the second, both as
        NumPy's .npy; a third is the name of the user's own network where there is one.
      usage: how the user does the same, in Python.
    """

    packages: tuple[str, ...] = ()
    runs_with: tuple[str, ...] = ("jax",)
    folds = False
    runner: str
    usage: str

    def write(
        self, found: "TrainedNetwork", folder: pathlib.Path, record: Record, fold: bool
    ) -> None:
        """Writes the network.

        Args:
          found: computed in float32.
          folder: it is there, and empty.
          record: what the network is, as export.json has it.
          fold: make BatchNorms parts of the layers before them; only where `folds`.

        Raises:
          ConfigError: the format can't hold it.
        """
        raise NotImplementedError


def load_format(name: str, fold: bool = False) -> Format:
    """The format of that name.

    Raises:
      ConfigError: there is none, it is to fold BatchNorms and can't, or one of the user's own
        needs what is not installed.
      MissingExtraError: what writes it is not installed.
    """
    kind = Plugin(plugins.names("export"))
    if not kind.allows(name):
        raise ConfigError(f"--format={name} must be {kind}")
    found = plugins.behind(plugins.load("export", name), Format, f"--format={name}")()
    if fold and not found.folds:
        raise ConfigError(f"--format={name} folds no BatchNorms; leave out --fold_batch_norms")
    for package in found.packages:
        if importlib.util.find_spec(package) is None:
            if ":" in name:
                raise ConfigError(f"--format={name} needs {package}, which is not installed")
            raise MissingExtraError(f"exports as {name}", package, "export")
    return found
