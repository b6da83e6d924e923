"""Searches on a table of trained networks, asked for a vector after some numbers of trainings."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from furs_jax.widths.worth.decisions import RULES, Answer, decide
from furs_jax.widths.worth.spaces import Listed
from furs_jax.widths.worth.surface import Noise

Channels = tuple[int, ...]

_BAND = (0.9, 1.0)  # shares of the budget that searches of single networks draw from
_TEST_IMAGES = 10_000  # of CIFAR-10; how far seeds differ is guessed from it, then learned


class Table:
    """Vectors of whole steps, several runs of each; the budget is that of `level` steps at all.

    Attributes:
      vectors: (M, L).  scores: (M, runs), in per cent.  shares: (M,), of the budget.
      space: for `response`.
    """

    def __init__(self, vectors: np.ndarray, scores: np.ndarray, costs: np.ndarray, level: int):
        self.vectors, self.scores = vectors, scores
        self._places = {tuple(v): place for place, v in enumerate(vectors.tolist())}
        reference = (level,) * vectors.shape[1]
        budget = costs[self._places[reference]]
        self.shares = costs / budget
        steps = np.eye(len(reference), dtype=int)
        elasticities = [
            level * (self.share_of(reference + step) - self.share_of(reference - step)) / 2
            for step in steps
        ]
        self.space = Listed(vectors, costs, reference, np.array(elasticities), budget)
        self.band = np.flatnonzero((self.shares >= _BAND[0]) & (self.shares <= _BAND[1]))

    def place(self, vector: Sequence[int]) -> int:
        return self._places[tuple(int(c) for c in vector)]

    def share_of(self, vector: Sequence[int]) -> float:
        return self.shares[self.place(vector)]

    def has(self, vector: Sequence[int]) -> bool:
        return tuple(int(c) for c in vector) in self._places

    def train(self, vector: Sequence[int], rng: np.random.Generator) -> float:
        return float(rng.choice(self.scores[self.place(vector)]))


class Told(NamedTuple):
    """What a search says when it is asked after `asked` trainings, if it made no fewer."""

    asked: int
    trained: int
    vector: Channels
    answer: Answer | None = None


def response(table: Table, seed: int, counts: Sequence[int]) -> Iterator[Told]:
    """By the surface; each number of trainings is the most of a search of its own."""
    noise = Noise.of_accuracy(np.mean(table.scores) / 100, _TEST_IMAGES)
    noise = noise._replace(median=100 * noise.median)
    for count in counts:
        rng, rules = np.random.default_rng((seed, 9)), RULES._replace(most=count)
        tried, scores = [], []
        known = (noise, seed, rules)
        found, following = decide(table.space, tried, scores, *known)
        while following:
            tried.append(following[0])
            scores.append(table.train(following[0], rng))
            found, following = decide(table.space, tried, scores, *known)
        yield Told(count, len(tried), found.channels, found)


def random(table: Table, seed: int, counts: Sequence[int]) -> Iterator[Told]:
    """The best of so many random vectors close below the budget."""
    rng = np.random.default_rng((seed, 8))
    drawn = table.vectors[rng.choice(table.band, max(counts), replace=False)]
    yield from _best_so_far(drawn, [table.train(vector, rng) for vector in drawn], counts)


def evolution(table: Table, seed: int, counts: Sequence[int]) -> Iterator[Told]:
    """Aging evolution (Real et al., AAAI 2019) of few: 6 at once, the best of 3 is parent.

    The first is the uniform one. A child has one site wider and one narrower, by a step or two.
    """
    rng = np.random.default_rng((seed, 7))
    drawn, scores = [table.space.reference], []
    while len(scores) < max(counts):
        if len(drawn) > 6:
            young = np.arange(len(scores) - 6, len(scores))
            parent = max(rng.choice(young, 3, replace=False), key=lambda place: scores[place])
            drawn[-1] = _child(table, drawn[parent], rng)
        scores.append(table.train(drawn[-1], rng))
        drawn.append(tuple(table.vectors[rng.choice(table.band)].tolist()))
    yield from _best_so_far(drawn, scores, counts)


def _child(table: Table, parent: Channels, rng: np.random.Generator) -> Channels:
    for _ in range(1000):
        child = np.array(parent)
        wider, narrower = rng.choice(len(child), 2, replace=False)
        child[wider] += rng.integers(1, 3)
        child[narrower] -= rng.integers(1, 3)
        if table.has(child) and _BAND[0] <= table.share_of(child) <= _BAND[1]:
            return tuple(child.tolist())
    return parent


def greedy(table: Table, seed: int, counts: Sequence[int]) -> Iterator[Told]:
    """Steps as by FURs, each measured by retraining: L + 1 trainings a round.

    The network and, for each site, it with the site a step narrower (wider where there is none):
    what that changes per MAC says where the next vector has a step more and where one less: of all
    such vectors close below the budget it is the one that should gain most.
    """
    rng, left = np.random.default_rng((seed, 6)), sorted(counts)
    vector, trained = np.array(table.space.reference), 0
    steps = np.eye(len(vector), dtype=int)
    moves = np.array(list(itertools.product((-1, 0, 1), repeat=len(vector))))
    while left:
        base = table.train(vector, rng)
        worth = np.zeros(len(vector))
        trained += 1 + len(vector)
        while left and trained > left[0]:  # a round that isn't over tells nothing
            yield Told(left.pop(0), trained, tuple(vector.tolist()))
        for site, step in enumerate(steps):
            other = vector - step if table.has(vector - step) else vector + step
            worth[site] = (base - table.train(other, rng)) / np.sum(vector - other)
        reached = [move for move in moves if table.has(vector + move)]
        shares = np.array([table.share_of(vector + move) for move in reached])
        gains = np.where((shares >= _BAND[0]) & (shares <= _BAND[1]), reached @ worth, -np.inf)
        vector = vector + reached[int(np.argmax(gains))]
        while left and trained == left[0]:
            yield Told(left.pop(0), trained, tuple(vector.tolist()))


def uniform(table: Table, seed: int, counts: Sequence[int]) -> Iterator[Told]:
    """What gains are counted from."""
    del seed
    for count in counts:
        yield Told(count, 0, table.space.reference)


def _best_so_far(drawn, scores, counts) -> Iterator[Told]:
    for count in counts:
        best = int(np.argmax(scores[:count]))
        yield Told(count, count, tuple(int(c) for c in drawn[best]))
