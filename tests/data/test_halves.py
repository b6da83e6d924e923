"""Two halves of a split: disjoint, and each at its places of a batch."""

import numpy as np

from furs_jax.data.batches import steps_per_epoch, training_batches
from furs_jax.data.dataset import Split
from furs_jax.data.halves import halves


def numbered(count):
    images = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return Split(images, np.arange(count, dtype=np.int32))


def test_an_epoch_s_batches_hold_each_half_once_at_its_places():
    pairs = halves(numbered(101), 3)
    first, second = (set(half.labels.tolist()) for half in pairs)
    assert len(first) == len(second) == 50
    assert not first & second
    assert steps_per_epoch(pairs, 10) == 5
    batches = list(training_batches(pairs, 0, range(5), 10))
    labels = np.concatenate([batch["label"] for batch in batches])
    np.testing.assert_array_equal(
        labels, np.concatenate([batch["image"].ravel() for batch in batches])
    )
    assert set(labels[0::2].tolist()) == first
    assert set(labels[1::2].tolist()) == second
    assert len(labels) == 100


def test_hosts_read_their_parts_of_the_same_batches():
    pairs = halves(numbered(40), 1)
    whole = next(training_batches(pairs, 5, range(1), 8))
    parts = [next(training_batches(pairs, 5, range(1), 8, host, 2)) for host in range(2)]
    for key in ("image", "label"):
        np.testing.assert_array_equal(whole[key], np.concatenate([part[key] for part in parts]))


def test_the_halves_follow_from_the_seed():
    chosen = [halves(numbered(40), seed).labels.tolist() for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]
