"""What a run's config.json holds of its network; `networks.recorded` reads it."""

from collections.abc import Sequence
from typing import Any

from furs_jax.networks.connections import find_connections
from furs_jax.networks.layers import Layer
from furs_jax.networks.network import Network

Record = dict[str, Any]


def record_network(net: Network, start: Sequence[int], num_classes: int) -> Record:
    """What config.json holds of a network and of the vector that the run begins with."""
    try:
        connections = find_connections(net)._asdict()
        connections["shortcuts"] = [shortcut._asdict() for shortcut in connections["shortcuts"]]
    except Exception:  # whatever a module of one's own raises; a run does not end by a picture
        connections = None
    defaults = Layer._field_defaults
    return {
        "name": net.name,
        "image_shape": list(net.image_shape),
        "num_classes": num_classes,
        **{
            name: {
                "channels": list(vector),
                "macs": net.macs(vector),
                "params": net.params(vector),
            }
            for name, vector in (("original", net.channels), ("start", start))
        },
        "layers": [
            {
                key: v
                for key, v in row._asdict().items()
                if key not in defaults or v != defaults[key]
            }
            for row in net.layers(net.channels)
        ],
        "connections": connections,
    }
