"""How tests read images on disk, and what they compare."""

import dataclasses

import numpy as np

from furs_jax.data import Reading

READING = Reading(image_size=16, workers=3)


def numbered(split):
    """The split with each image's place for its label."""
    return dataclasses.replace(split, labels=np.arange(len(split.labels), dtype=np.int32))


def assert_same(batches, expected):
    for found, batch in zip(batches, expected, strict=True):
        assert found.keys() == batch.keys()
        for key in batch:
            np.testing.assert_array_equal(found[key], batch[key])
