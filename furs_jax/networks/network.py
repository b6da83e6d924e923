"""A network as a pure function of its channel vector: one of ours, or your own from its trace.

Your own is any linen module with a `channels` field. It is called as module.apply(variables,
images, gates=None, train=False), images of shape (N, H, W, C), and returns float32 logits
(N, num_classes). It passes the output of each searchable layer through
`furs_jax.gates.gate(x, gates, site)`, behind its BatchNorm and activation, where x has
channels[site] channels. With a gate of zero it gives the logits of the module without that
channel. Random numbers may be drawn where train is True. Sums and concatenations of gated values
go through `furs_jax.gates.match_streams`; a module that does without is measured by a pass for
each site.

Fields that are set where the module has them: `num_classes`, `padding`, `dtype` (of the
computation) and `axis_name` (of the devices, for nn.BatchNorm; needed where there is one).

`places`, by default None, is needed only where methods that prune filters shall take channels out
of a residual sum, at any place. Then it has for each site where its channels lie, and the module
sums by `furs_jax.gates.site_places`, `joined_places` and `fit_places`, as networks/blocks.py does.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax

from furs_jax.errors import ConfigError
from furs_jax.networks.blocks import Join
from furs_jax.networks.checks import check_module, check_removal, fans_out, least_multiple
from furs_jax.networks.counting import MacsModel, fit_macs
from furs_jax.networks.depths import resized
from furs_jax.networks.layers import Layer
from furs_jax.networks.searchable import Searchable
from furs_jax.networks.trace import sizes, trace_module, traced_layers


@dataclasses.dataclass(frozen=True)
class Network(Searchable):
    """A searchable network, which asks its module for the table of layers."""

    fans_out = True  # whether the module may be given `furs_jax.gates.FanOut`

    @staticmethod
    def from_module(
        module: nn.Module,
        image_shape: tuple[int, int, int],
        name: str | None = None,
        num_classes: int | None = None,
    ) -> "TracedNetwork":
        """A network of a module of your own, checked by its trace and by a trial.

        Args:
          module: see the top of this file; with its initial channels.
          image_shape: (H, W, C) of the images that MACs are counted for.
          name: in reports; by default the module's class.
          num_classes: what the logits must have, by default the module's field of that name.

        Raises:
          ConfigError: a site has no gate, its width doesn't follow `channels`, a gate of zero is
            not the network without the channel, or the module can't be called as stated; the
            message names the site.
        """
        try:
            hash(module)
        except TypeError as error:
            raise ConfigError(
                f"the module's fields must be hashable, tuples not lists: {error}"
            ) from error
        return _traced_network(
            module, tuple(image_shape), name or type(module).__name__, num_classes
        )

    def layers(self, channels: Sequence[int]) -> tuple[Layer, ...]:
        """The table of layers, in order of computation."""
        return self.module(channels).layers(self.image_shape)

    def macs(self, channels: Sequence[int]) -> int:
        """Multiply-accumulates of one image."""
        return sum(layer.macs for layer in self.layers(channels))

    def params(self, channels: Sequence[int]) -> int:
        """Number of trained values."""
        return sum(layer.params for layer in self.layers(channels))

    def macs_formula(self) -> MacsModel | None:
        """MACs as a formula of the channels, which can be differentiated; None where none fits."""
        return fit_macs(
            lambda channels: [layer.factors for layer in self.layers(channels)],
            self.channels,
            self.multiple,
        )

    def params_formula(self) -> MacsModel | None:
        """Parameters as a formula of the channels; None where none fits."""
        return fit_macs(
            lambda channels: [p for layer in self.layers(channels) for p in layer.arrays],
            self.channels,
            self.multiple,
        )

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks in each stage; empty where a stage can't have others."""
        return getattr(self.template, "depths", ())

    def with_depths(self, depths: Sequence[int]) -> "Network":
        """This network with other numbers of blocks, see `furs_jax.networks.depths`.

        Raises:
          ConfigError: the network has no such stages.
        """
        depths = tuple(map(int, depths))
        if not self.depths:
            raise ConfigError(f"{self.name} has no blocks that come and go")
        if len(depths) != len(self.depths) or min(depths) < 1:
            raise ConfigError(
                f"depths={depths} must be {len(self.depths)} numbers of blocks, one for each stage "
                f"of {self.name}, each at least 1"
            )
        if depths == self.depths:
            return self
        return dataclasses.replace(self, template=self.template.with_depths(depths))

    def resized(self, values: Sequence[Any], depths: Sequence[int]) -> tuple:
        """One value for each site of the network with other numbers of blocks, from its own."""
        return resized(values, self.template.block_sites, self.depths, depths)

    def block_joins(self) -> tuple[Join, ...]:
        """Where each block of the stages of `depths` meets its shortcut."""
        return tuple(block.join for block in self.template.blocks())

    @property
    def site_names(self) -> tuple[str, ...]:
        """The name of each site's layer."""
        # Later rows win: a projection shortcut comes before the convolution whose site it shares.
        names = {layer.site: layer.name for layer in self.layers(self.channels)}
        return tuple(names[site] for site in range(len(self.channels)))


@dataclasses.dataclass(frozen=True)
class TracedNetwork(Network):
    """A network whose MACs and parameters are counted from its trace.

    Attributes:
      model, params_model: MACs and parameters as formulas of the channels; None where none was
        found, and each vector is traced.
      multiple: see `Network`.
    """

    model: MacsModel | None = None
    params_model: MacsModel | None = None
    multiple: int = 1

    depths = ()  # whatever a field of that name is

    def of(self, channels: Sequence[int], **fields: Any) -> "TracedNetwork":
        net = super().of(channels, **fields)
        # With other fields the formulas are not of this module.
        same = fields.keys() <= {"places"}
        return net if same else dataclasses.replace(net, model=None, params_model=None)

    def module(self, channels: Sequence[int], **fields: Any) -> nn.Module:
        known = {key: value for key, value in fields.items() if hasattr(self.template, key)}
        return super().module(channels, **known)

    def scaled(self, width_multiplier: float) -> "TracedNetwork":
        """The network with int(width_multiplier * c) channels at its sites, as it can be built."""
        unit = self.multiple
        channels = [max(int(width_multiplier * c) // unit, 1) * unit for c in self.channels]
        return self.of(channels)

    def macs(self, channels: Sequence[int]) -> int:
        return self._counted(self.model, self._traced_macs, channels)

    def params(self, channels: Sequence[int]) -> int:
        return self._counted(self.params_model, self._traced_params, channels)

    def macs_formula(self) -> MacsModel | None:
        return self.model

    def params_formula(self) -> MacsModel | None:
        return self.params_model

    def _counted(self, formula: MacsModel | None, traced: Callable, channels: Sequence[int]) -> int:
        if formula is not None:
            return formula(channels, getattr(self.template, "places", None))
        unit = self.multiple
        below = [max(math.floor(c / unit), 1) * unit for c in channels]
        # Marginal costs ask for widths between those that can be built, or below the least: on a
        # straight line.
        shares = [(c - b) / unit for c, b in zip(channels, below, strict=True)]
        above = [b + unit * (share != 0) for b, share in zip(below, shares, strict=True)]
        low = traced(below)
        if below == above:
            return low
        return round(low + max(shares, key=abs) * (traced(above) - low))

    def _traced_macs(self, channels: Sequence[int]) -> int:
        trace = trace_module(self.module(channels), self.image_shape)
        return sum(product.macs for product in trace.products)

    def layers(self, channels: Sequence[int]) -> tuple[Layer, ...]:
        return traced_layers(trace_module(self.module(channels), self.image_shape))

    def _traced_params(self, channels: Sequence[int]) -> int:
        variables = trace_module(self.module(channels), self.image_shape).variables
        return sum(size for _, size in sizes(variables.get("params", {})))

    @property
    def fans_out(self) -> bool:
        """Whether branches off one pass give what a pass for each site gives; tried once."""
        return fans_out(self.template, self.image_shape)


@functools.lru_cache(maxsize=16)
def _traced_network(
    module: nn.Module, image_shape: tuple[int, int, int], name: str, num_classes: int | None
) -> TracedNetwork:
    channels = getattr(module, "channels", None)
    if not isinstance(channels, tuple) or not all(isinstance(c, int) for c in channels):
        raise ConfigError(f"{name} needs a field `channels`, a tuple of ints, one for each site")
    if not channels or min(channels) < 1:
        raise ConfigError(f"{name} needs at least one site, and each a channel: {channels=}")
    net = TracedNetwork(name, module, image_shape)
    check_module(net, num_classes)
    multiple = least_multiple(net)

    def factors(vector: Sequence[int]) -> list[tuple[int, ...]]:
        trace = trace_module(net.module(vector), net.image_shape)
        return [product.factors for product in trace.products]

    def shapes(vector: Sequence[int]) -> list[tuple[int, ...]]:
        arrays = trace_module(net.module(vector), net.image_shape).variables.get("params", {})
        return [x.shape for x in jax.tree.leaves(arrays)]

    model, arrays = (fit_macs(of, net.channels, multiple) for of in (factors, shapes))
    net = dataclasses.replace(net, model=model, params_model=arrays, multiple=multiple)
    check_removal(net)
    return net
