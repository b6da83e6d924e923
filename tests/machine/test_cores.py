"""How many cores a process may use."""

import os

from furs_jax.data import Reading
from furs_jax.machine.cores import usable_cores


def test_cores_are_counted_where_the_system_has_no_affinity(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 4, 7}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert usable_cores() == os.cpu_count()
    assert Reading().threads == os.cpu_count()
