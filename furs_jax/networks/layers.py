"""The table of layers: what a network consists of, what each costs, and how they hang together."""

import math
from typing import NamedTuple


class Layer(NamedTuple):
    """One convolution (with its BatchNorm) or dense layer of a network, as built."""

    name: str
    kernel: int | tuple[int, ...]  # 1 for a dense layer; a tuple where it is not square
    inputs: int  # input channels
    outputs: int  # output channels
    height: int  # of the output; 1 for a dense layer
    width: int
    site: int | None = None  # the site whose width this layer's outputs are
    groups: int = 1
    dense: bool = False
    # Trained values beside the weights. None: a BatchNorm of the outputs, or a dense layer's bias.
    extra: int | None = None
    # Pairs of an output position and a kernel's tap that are multiplied. None: all.
    pairs: int | None = None

    @property
    def window(self) -> tuple[int, ...]:
        """The kernel's height and width."""
        return self.kernel if isinstance(self.kernel, tuple) else (self.kernel, self.kernel)

    @property
    def weights(self) -> int:
        return math.prod(self.window) * (self.inputs // self.groups) * self.outputs

    @property
    def factors(self) -> tuple[int, int, int]:
        """Numbers that multiply to its MACs."""
        taps = math.prod(self.window) * self.height * self.width
        return taps if self.pairs is None else self.pairs, self.inputs // self.groups, self.outputs

    @property
    def arrays(self) -> tuple[tuple[int, ...], ...]:
        """Numbers that multiply to the parameters of each of its arrays."""
        usual = ((1 if self.dense else 2, self.outputs),)
        weights = (math.prod(self.window), self.inputs // self.groups, self.outputs)
        return (weights, *(usual if self.extra is None else ((self.extra,),)))

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return math.prod(self.factors)

    @property
    def params(self) -> int:
        """Trained values."""
        return sum(map(math.prod, self.arrays))


class Shortcut(NamedTuple):
    """A path around layers, to the sum behind them."""

    past: tuple[int, ...]  # their sites, in order
    projection: bool  # it leads through a layer of its own


class Connections(NamedTuple):
    """How the layers of sites hang together."""

    shortcuts: tuple[Shortcut, ...]
    concatenated: tuple[tuple[int, ...], ...]  # sites whose outputs are
    reads: tuple[tuple[int, ...], ...]  # for each site the sites whose outputs its layer reads
    strided: tuple[int, ...]  # sites whose layer lowers the resolution, not a pooling before it
    branches: bool  # whether layers lie side by side, of whom none reads the other
