"""Batches as pure functions of (seed, step), so that a resumed run meets the same ones."""

import functools
from collections.abc import Iterator

import numpy as np

from furs_jax.data.dataset import AnySplit, Batch

Seed = int | tuple[int, ...]  # of one training, or of several at once


def steps_per_epoch(split: AnySplit, batch_size: int) -> int:
    """Whole batches in one epoch; the remainder is left out, another one every epoch."""
    return len(split.labels) // batch_size


def training_batch(split: AnySplit, seed: Seed, step: int, batch_size: int) -> Batch:
    """The batch of a training step: a new permutation of the split in every epoch.

    Returns:
      image uint8 (batch_size, H, W, C) and label int32 (batch_size,); of images on disk also
      damaged bool (batch_size,): whether another image stands in for a damaged one.
    """
    return _training_examples(split, seed, batch_size, step, np.arange(batch_size))


def training_batches(
    split: AnySplit,
    seed: Seed,
    steps: range,
    batch_size: int,
    host: int = 0,
    hosts: int = 1,
) -> Iterator[Batch]:
    """`training_batch` of each step in turn, read ahead where images are on disk.

    Close it (`contextlib.closing`) where it may not be read to its end.

    Args:
      seed: of several, the second axis of what is yielded is the seed, behind the images.
      host, hosts: to get only this host's part of every batch, of batch_size / hosts examples; in
        order of the hosts, the parts are the whole batch.
    """
    read = functools.partial(_training_examples, split, seed, batch_size)
    return split.batches(read, steps, host_places(batch_size, host, hosts))


def host_places(batch_size: int, host: int, hosts: int) -> np.ndarray:
    """The places of a batch that one of several hosts reads, shape (batch_size / hosts,)."""
    return np.arange(batch_size).reshape(hosts, -1)[host]


def _training_examples(
    split: AnySplit, seed: Seed, batch_size: int, step: int, places: np.ndarray
) -> Batch:
    epoch, position = divmod(step, steps_per_epoch(split, batch_size))
    several = isinstance(seed, tuple)
    orders = _orders(seed if several else (seed,), epoch, len(split.labels))
    chosen = orders[:, position * batch_size + places]
    if not several:
        return split.examples(chosen[0], (seed, epoch))
    parts = [split.examples(own, (s, epoch)) for s, own in zip(seed, chosen, strict=True)]
    return {key: np.stack([part[key] for part in parts], axis=1) for key in parts[0]}


@functools.lru_cache(maxsize=2)
def _orders(seeds: tuple[int, ...], epoch: int, count: int) -> np.ndarray:
    """Of the split's images for each seed, shape (seeds, count)."""
    return np.stack([np.random.default_rng((seed, epoch)).permutation(count) for seed in seeds])


def evaluation_batches(
    split: AnySplit, batch_size: int, host: int = 0, hosts: int = 1
) -> Iterator[Batch]:
    """Every image once, in order, in batches of one shape.

    The last batch is filled up with repeated images of weight zero. Damaged images that are to be
    skipped have weight zero, too.

    Args:
      host, hosts: as of `training_batches`.

    Yields:
      image uint8 (batch_size, H, W, C), label int32, index int32 (the image's place in the
      split) and weight float32 (1 or 0), each of shape (batch_size,).
    """
    steps = range(-(-len(split.labels) // batch_size))
    read = functools.partial(_evaluation_examples, split, batch_size)
    yield from split.batches(read, steps, host_places(batch_size, host, hosts))


def _evaluation_examples(split: AnySplit, batch_size: int, step: int, places: np.ndarray) -> Batch:
    places = step * batch_size + places
    index = np.minimum(places, len(split.labels) - 1)
    examples = split.examples(index)
    damaged = examples.pop("damaged", False)
    weight = (places < len(split.labels)) & ~np.asarray(damaged)
    return {**examples, "index": index.astype(np.int32), "weight": weight.astype(np.float32)}
