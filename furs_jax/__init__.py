"""Channel search for convolutional networks by FLOPs utilisation ratios, in JAX."""

import importlib
import sys
import types
from typing import Any

# name -> module. Imported when asked for, so that `import furs_jax` stays light.
_EXPORTS = {
    "estimate_furs": "furs_jax.furs.estimate",
    "FURs": "furs_jax.furs.estimate",
    "get_network": "furs_jax.networks",
    "Network": "furs_jax.networks",
    "reallocate": "furs_jax.widths.reallocate",
    "search": "furs_jax.jobs.search",
}
__all__ = sorted(_EXPORTS)


class _Package(types.ModuleType):
    """Keeps public names: an import makes a submodule its package's attribute, `search` too."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _EXPORTS and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'furs_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


sys.modules[__name__].__class__ = _Package
