"""Channel search for convolutional networks by FLOPs utilisation ratios, in JAX."""

import importlib
from typing import Any

# name -> module. Imported when asked for, so that `import furs_jax` stays light. No name is a
# module's of this package, which an import would put in its place.
_EXPORTS = {
    "default_config": "furs_jax.config_files",
    "estimate_furs": "furs_jax.furs.estimate",
    "FURs": "furs_jax.furs.ratios",
    "get_network": "furs_jax.networks",
    "load": "furs_jax.jobs.load",
    "Network": "furs_jax.networks",
    "reallocate": "furs_jax.widths.reallocate",
    "search": "furs_jax.jobs.search",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'furs_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
