"""Greedy slimming, of functions in place of networks."""

import numpy as np
import pytest

from furs_jax.widths.slimming import ladders, replay, share_of, slim


def test_ladders_go_down_by_a_group_at_a_time():
    assert ladders((20, 7), 10) == (
        (20, 18, 16, 14, 12, 10, 8, 6, 4, 2),
        (7, 6, 5, 4, 3, 2, 1),
    )
    assert ladders((24,), 4, unit=8) == ((24, 16, 8),)
    assert ladders((20, 3), 5, floor=6) == ((20, 16, 12, 8, 6), (3,))
    assert share_of((20, 3, 16), 0.1, 1) == (2, 1, 2)
    assert share_of((20, 16), 0.1, 4) == (4, 4)


def test_the_site_where_the_loss_is_lowest_goes_first():
    steps = ladders((10, 10, 10), 10)
    hurts = np.array([1.0, 0.1, 3.0])  # for each channel that is missing

    def loss(vector):
        return float(hurts @ (10 - np.array(vector)))

    told = []
    path = slim(
        steps,
        lambda vectors: [loss(v) for v in vectors],
        lambda v: sum(v) <= 17,
        lambda *removal: told.append(removal),
    )
    assert path.removed == (1,) * 9 + (0,) * 4
    assert path.channels == (6, 1, 10) == replay(steps, path.removed)
    assert path.losses == pytest.approx([0.1 * k for k in range(1, 10)] + [1.9, 2.9, 3.9, 4.9])
    assert tuple(told) == tuple(zip(path.removed, path.losses, strict=True))
    # Of equal ones the first.
    assert slim(steps, lambda vectors: [0.0] * len(vectors), lambda v: v[0] < 9).removed == (0, 0)
    with pytest.raises(ValueError, match="nothing is left to remove at site 1"):
        replay(steps, [1] * 10)
