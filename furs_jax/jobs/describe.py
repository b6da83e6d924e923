"""mode=describe: the table of layers, without the data."""

import sys
from typing import NamedTuple

from furs_jax.errors import DataError, MissingExtraError
from furs_jax.jobs.prepare import prepare
from furs_jax.jobs.vectors import given_channels, initial_network, start_vector
from furs_jax.machine.stop import Stop
from furs_jax.options.schema import Options
from furs_jax.options.units import amount
from furs_jax.run.tables import network_table


def perform(options: Options, workdir: str | None = None, stop: Stop | None = None) -> None:
    """Prints the table of layers.

    Where the data is not there, it says so and prints that for the network's usual images. A folder
    or file of one's own has no usual ones, so that it must be there.
    """
    del workdir, stop
    try:
        prepared = prepare(options)
        cost, start = prepared.cost, prepared.start
        images = f"the images of {options.data.name}"
    except (DataError, MissingExtraError) as error:
        if options.data.name.startswith(("folder:", "npz:")):
            raise
        print(f"furs_jax: this is the table of other images: {error}", file=sys.stderr)
        cost, budget = initial_network(options, _UsualImages())
        start, images = start_vector(options, cost, budget), "its usual images"
    net = cost.net
    channels = given_channels(options, net) or net.channels
    print(network_table(net, channels))
    if start != channels:
        widths = " ".join(map(str, start))
        print(f"a search brings that to its budget: {widths}, {amount(cost.of(start))} {cost.unit}")
    blocks = f" with {', '.join(map(str, net.depths))} blocks" if options.tells_depths else ""
    print(f"{net.name}{blocks} for {images}: {'x'.join(map(str, net.image_shape))}")


class _UsualImages(NamedTuple):
    """In place of a data set that is not there: images and classes that a network is known for."""

    image_shape: None = None
    num_classes: None = None
