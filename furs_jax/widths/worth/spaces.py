"""Which vectors a search may train and answer with, and the best of them by a surface."""

from collections.abc import Sequence

import numpy as np

from furs_jax.widths.worth.surface import features

Channels = tuple[int, ...]


class Space:
    """Vectors around a reference.

    Attributes:
      reference: the vector whose cost is the budget, about, and that gains are counted from.
      elasticities: d log cost / d log width of each site there, shape (L,).
    """

    reference: Channels
    elasticities: np.ndarray

    def offsets(self, vectors: Sequence[Channels]) -> np.ndarray:
        """Log widths above the reference's, (N, L)."""
        vectors = np.reshape(np.asarray(vectors, float), (-1, len(self.reference)))
        return np.log(vectors / self.reference)

    def best(self, worth: np.ndarray) -> Channels:
        """Of all vectors within the budget the one of the highest worth, b and q: shape (2L,)."""
        raise NotImplementedError

    def nearly_best(self, worth: np.ndarray) -> Channels:
        """One that is about as good, where that is found much faster."""
        return self.best(worth)

    def near(self, offsets: np.ndarray, share: float) -> Channels:
        """A vector of about these proportions to the reference, at a share of the budget."""
        raise NotImplementedError


class Listed(Space):
    """The vectors of a list, such as those that somebody has trained already."""

    def __init__(
        self,
        vectors: np.ndarray,
        costs: np.ndarray,
        reference: Channels,
        elasticities: np.ndarray,
        budget: float,
    ):
        """Vectors, (M, L), and their costs, (M,)."""
        self.reference, self.elasticities = tuple(reference), np.asarray(elasticities, float)
        self.vectors = np.asarray(vectors)
        self._shares = np.log(np.asarray(costs, float) / budget)
        self._all = self.offsets(self.vectors)
        self._within = np.flatnonzero(self._shares <= 0)
        self._seen = features(self._all[self._within])

    def best(self, worth: np.ndarray) -> Channels:
        place = self._within[np.argmax(self._seen @ worth)]
        return tuple(self.vectors[place].tolist())

    def near(self, offsets: np.ndarray, share: float) -> Channels:
        apart = self._all - offsets
        apart = apart - np.mean(apart, axis=1, keepdims=True)  # all wider, or narrower
        far = np.sum(apart**2, axis=1) + len(offsets) * (self._shares - np.log(share)) ** 2
        return tuple(self.vectors[np.argmin(far)].tolist())
