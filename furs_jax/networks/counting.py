"""What grows with channels, as a formula of them, since a search asks for thousands of vectors."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

# Of each convolution or product: numbers that multiply to its MACs; or an array's shape.
Factors = list[tuple[int, ...]]

_CHECKS = 10  # random vectors that the formula must agree with


@dataclasses.dataclass(frozen=True, eq=False)
class MacsModel:
    """Sum of products of factors, each affine in the channels or the largest of some of them.

    MACs are such a sum, of convolutions, and parameters, of arrays.

    Affine are sums and concatenations, and the inputs of a group; the largest is what a residual
    sum leaves whose narrower side is padded.

    Attributes:
      slopes: float64, shape (F, L).
      offsets: float64, shape (F,).
      largest: bool, shape (G, L): the sites of each factor of the second kind.
      least: float64, shape (G,): what such a factor is at least.
      second: int, shape (G,): where they stand among the F.
      products: number of products; the F factors are theirs in order, equally many each.
    """

    slopes: np.ndarray
    offsets: np.ndarray
    largest: np.ndarray
    least: np.ndarray
    second: np.ndarray
    products: int

    def __call__(
        self, channels: Sequence[int], places: Sequence[Sequence[int]] | None = None
    ) -> int:
        """The sum.

        Args:
          channels: the vector.
          places: of each site's channels, see `furs_jax.gates.Places`; None: the last ones.
        """
        return round(float(self.each(channels, places).sum()))

    def each(
        self, channels: Sequence[int], places: Sequence[Sequence[int]] | None = None
    ) -> np.ndarray:
        """The products, shape (products,)."""
        return self.factors(channels, places).reshape(self.products, -1).prod(axis=1)

    def smooth(self, widths: jax.Array) -> jax.Array:
        """MACs of widths that need not be whole, with a gradient; float32, shape ()."""
        slopes, offsets, least = (
            jnp.asarray(x, jnp.float32) for x in (self.slopes, self.offsets, self.least)
        )
        values = offsets + jnp.dot(slopes, widths, precision=jax.lax.Precision.HIGHEST)
        largest = jnp.max(jnp.where(self.largest, widths[None], 0.0), axis=1, initial=0.0)
        values = values.at[self.second].set(jnp.maximum(least, largest))
        return jnp.sum(jnp.prod(values.reshape(self.products, -1), axis=1))

    def factors(
        self, channels: Sequence[int], places: Sequence[Sequence[int]] | None = None
    ) -> np.ndarray:
        """All factors, shape (F,)."""
        channels = np.asarray(channels)
        values = self.offsets + self.slopes @ channels
        values[self.second] = np.maximum(
            self.least, np.max(np.where(self.largest, channels, 0), axis=1, initial=0)
        )
        if places is not None:  # a sum has all that any side has
            values[self.second] = [
                len(set(range(int(least))).union(*(places[site] for site in np.flatnonzero(sites))))
                for least, sites in zip(self.least, self.largest, strict=True)
            ]
        return values


def fit_macs(
    factors: Callable[[Sequence[int]], Factors], channels: Sequence[int], multiple: int
) -> MacsModel | None:
    """Finds the formula by L + 2 vectors and checks it by others.

    Args:
      factors: of a vector, by tracing it.
      channels: the initial vector.
      multiple: of the widths of all vectors tried.

    Returns:
      The formula; None where the factors are something else, such as a width rounded from another.
    """
    base = np.asarray(channels)
    wide = (2 * int(base.max()) // multiple + 1) * multiple
    rng = np.random.default_rng(0)
    probes = np.where(np.eye(len(base), dtype=bool), wide, base)
    narrow = np.full_like(base, multiple)
    checks = multiple * rng.integers(1, 3 * base // multiple + 1, (_CHECKS, len(base)))
    vectors = np.stack([base, narrow, *probes, *checks])
    try:
        found = [factors(vector) for vector in vectors.tolist()]
    except Exception:  # whatever the module raises at an unusual width
        return None
    lengths = [[len(product) for product in table] for table in found]
    if not found[0] or any(length != lengths[0] for length in lengths):
        return None
    longest = max(lengths[0])
    values = np.array(  # (vectors, F)
        [[n for p in table for n in (*p, *[1] * (longest - len(p)))] for table in found], float
    )
    return _fit(vectors, values, wide, len(found[0]))


def _fit(vectors: np.ndarray, values: np.ndarray, wide: int, products: int) -> MacsModel | None:
    base, sites = vectors[0], vectors.shape[1]
    probed = values[2 : 2 + sites]  # (L, F)
    slopes = ((probed - values[0]) / (wide - base)[:, None]).T
    offsets = values[0] - slopes @ base
    affine = np.all(np.isclose(offsets + vectors @ slopes.T, values), axis=0)
    second = np.flatnonzero(~affine)
    largest = (probed[:, second] == wide).T
    # The narrowest vector shows what is there beside the sites.
    least = np.where(values[1, second] > vectors[1, 0], values[1, second], 0)
    model = MacsModel(slopes, offsets, largest, least, second, products)
    agrees = all(
        np.allclose(model.factors(vector), value)
        for vector, value in zip(vectors, values, strict=True)
    )
    return model if agrees else None
