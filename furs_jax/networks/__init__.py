"""Networks as pure functions of a channel vector. Imports Flax only when a network is built."""

import importlib
from typing import Any

# name -> module. Imported when asked for: what a run recorded of its network is read without.
_EXPORTS = {"NETWORKS": "by_name", "Network": "network", "get_network": "by_name"}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'furs_jax.networks' has no attribute {name!r}")
    return getattr(importlib.import_module(f"furs_jax.networks.{_EXPORTS[name]}"), name)
