"""Sites and gates: the one mechanism by which a network's channels are dropped, scored or masked.

A *site* is the output of a searchable layer, after its BatchNorm and activation. `gates` is None
(no gates) or a sequence with one multiplicative array per site, broadcastable to (N, H, W, C_l).
A gate of zero is exactly the network without that channel.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name


class FanOut(NamedTuple):
    """Gates of which each belongs to copies of the batch that branch off at its site.

    With site l gated alone, everything before site l equals the ungated pass. So the batch carries
    a stack of streams along its leading axis: stream 0 is never gated, then come R streams for
    each site, in order, as far as they have branched off; those that have not equal stream 0.
    Later layers see a bigger batch. Networks must treat images independently (as in evaluation),
    and pass all sides of a sum or a concatenation through `match_streams`.

    Attributes:
      gates: one array per site, shape (R, N, 1, 1, C_l), N being the images of one stream; or
        (R, N, 1, 1, 1), one number for all of a site's channels.
      sites: what the gates are of, in order; None: of every site.
    """

    gates: tuple[jax.Array, ...]
    sites: tuple[int, ...] | None = None

    def split(self, outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The network's outputs, shape ((1 + L R) N, K), as (N, K) and (L, R, N, K)."""
        draws, images = self.gates[0].shape[:2]
        rest = outputs[images:].reshape(len(self.gates), draws, images, outputs.shape[-1])
        return outputs[:images], rest

    def grow(self, x: jax.Array, size: int) -> jax.Array:
        """x with copies of stream 0 appended up to a leading axis of `size`."""
        images = self.gates[0].shape[1]
        if x.shape[0] >= size:
            return x
        return jnp.concatenate([x, *[x[:images]] * ((size - x.shape[0]) // images)])

    def apply(self, x: jax.Array, site: int) -> jax.Array:
        """x with the site's streams gated, which join the stack where they have not yet."""
        if self.sites is not None:
            if site not in self.sites:
                return x
            site = self.sites.index(site)
        value = self.gates[site].astype(x.dtype)
        draws, images = value.shape[:2]
        start, stop = images * (1 + site * draws), images * (1 + (site + 1) * draws)
        x = self.grow(x, start)
        if x.shape[0] == start:
            branches = x[None, :images] * value
            return jnp.concatenate([x, branches.reshape(-1, *x.shape[1:])])
        gated = x[start:stop] * value.reshape(-1, *value.shape[2:])
        return jnp.concatenate([x[:start], gated, x[stop:]])


class SiteMarks(NamedTuple):
    """Gates that leave their input as it is and note where they were met, for a trace.

    Attributes:
      met: the site and the input's shape, at each call of `gate`.
    """

    met: list[tuple[int, tuple[int, ...]]]

    def apply(self, x: jax.Array, site: int) -> jax.Array:
        self.met.append((site, x.shape))
        return checkpoint_name(x, f"{SITE_MARK}{site}")


SITE_MARK = "furs_site_"  # and the site: the mark's name in a traced computation

Gates = Sequence[jax.Array] | FanOut | SiteMarks | None


def gate(x: jax.Array, gates: Gates, site: int) -> jax.Array:
    """Multiplies x, shape (N, H, W, C_l), by the gate of `site`; x itself where gates is None.

    A layer whose channels are normalised where they are read, and not where they are made, has its
    gate applied by every reader. Under `FanOut` the gate meets the site's own streams only.
    """
    if gates is None:
        return x
    if isinstance(gates, FanOut | SiteMarks):
        return gates.apply(x, site)
    return x * gates[site].astype(x.dtype)


def match_streams(gates: Gates, *values: jax.Array) -> tuple[jax.Array, ...]:
    """Gives all values as many streams, so that they can be summed or concatenated.

    A stream that branched off on one side only equals stream 0 on the others. Without `FanOut`
    the values are returned as they are.
    """
    if not isinstance(gates, FanOut):
        return values
    most = max(x.shape[0] for x in values)
    return tuple(gates.grow(x, most) for x in values)


def fit_width(x: jax.Array, width: int) -> jax.Array:
    """Pads x with zero channels, or cuts it, in front: the last channels stay aligned.

    So layers of different widths are summed. A site whose channels are cut with others gates the
    sum.
    """
    missing = width - x.shape[-1]
    if missing < 0:
        return x[..., -missing:]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (missing, 0)))


# Where channels lie, in their order: counted from the end of a site's full width, falling. Sums
# align the last channels, so that in all that is summed the same number is the same channel.
Places = Sequence[int]


def site_places(
    channels: Sequence[int], places: Sequence[Places] | None = None
) -> tuple[Places, ...]:
    """Of each site: as given, or without any the last ones.

    Raises:
      ValueError: what is given is of other widths.
    """
    if places is None:
        return tuple(range(width - 1, -1, -1) for width in channels)
    if tuple(map(len, places)) != tuple(channels):
        raise ValueError(f"places of {tuple(map(len, places))} channels for {tuple(channels)}")
    return tuple(places)


def joined_places(*sides: Places) -> Places:
    """Of a sum, which has all that any side has."""
    if all(isinstance(side, range) for side in sides):
        return max(sides, key=len)
    return tuple(sorted(set().union(*sides), reverse=True))


def fit_places(x: jax.Array, own: Places, wanted: Places) -> jax.Array:
    """The channels of x at the places wanted, zero where it has none; see `fit_width`.

    Args:
      x: shape (N, H, W, len(own)).
      own: of its channels, from `site_places` or `joined_places`. Wanted, too.
    """
    if isinstance(own, range) and isinstance(wanted, range):
        return fit_width(x, len(wanted))
    if tuple(own) == tuple(wanted):
        return x
    index = {place: channel for channel, place in enumerate(own)}
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1)))
    return x[..., np.array([index.get(place, len(own)) for place in wanted])]


def sample_noise(keys: jax.Array, channels: Sequence[int]) -> jax.Array:
    """Draws the random numbers behind dropout gates, independent of rates and of the noise.

    Args:
      keys: one PRNG key per image, shape (N,). Keys belong to images, not to batches or devices,
        so that an image meets the same noise however the batch is split.
      channels: widths of the sites.

    Returns:
      Uniform in [0, 1), float32, shape (N, sum(channels)).
    """
    return jax.vmap(lambda key: jax.random.uniform(key, (sum(channels),), jnp.float32))(keys)


def dropout_gates(
    sample: jax.Array, rates: jax.Array, channels: Sequence[int], noise: str = "bernoulli"
) -> tuple[jax.Array, ...]:
    """SpatialDropout gates (Tompson et al., CVPR 2015), mean one, whole channels at a time.

    Bernoulli(1 - p_l) / (1 - p_l), or Gaussian N(1, p_l / (1 - p_l)), which has the same variance
    (Srivastava et al., JMLR 2014, section 10). A rate of zero gives gates of exactly one.

    Args:
      sample: from `sample_noise`, shape (N, sum(channels)).
      rates: drop rates p_l in [0, 1), shape (L,).
      channels: widths of the sites.
      noise: "bernoulli" or "gaussian".

    Returns:
      One float32 array per site, shape (N, 1, 1, C_l).
    """
    offsets = [sum(channels[:site]) for site in range(1, len(channels))]
    gates = []
    for site, part in enumerate(jnp.split(sample, offsets, axis=1)):
        rate = rates[site]
        if noise == "bernoulli":
            value = jnp.where(part >= rate, 1.0 / (1.0 - rate), 0.0)
        else:
            # The ends of the interval have no finite quantile.
            normal = jax.scipy.special.ndtri(jnp.clip(part, 2.0**-24, 1.0 - 2.0**-24))
            value = 1.0 + normal * jnp.sqrt(rate / (1.0 - rate))
        gates.append(value[:, None, None, :])
    return tuple(gates)
