"""Entries of JAX's cache on disk that were cut off are compiled and written anew."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from furs_jax.machine import devices, program_cache
from furs_jax.machine.program_cache import remove_damaged


@pytest.fixture
def compiled(tmp_path):
    """Compiles a program with a cache of its own; returns its entries and the number read."""
    options = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, option) for option in options]
    read = []

    def listen(event, **_):
        read.extend([event] if event.endswith("/cache_hits") else [])

    def compile_once():
        jax.clear_caches()
        read.clear()
        jax.jit(lambda x: jnp.sin(x) + 41.5)(jnp.ones(7)).block_until_ready()
        return {path: path.read_bytes() for path in tmp_path.glob("*-cache")}, len(read)

    for option, value in zip(options, (str(tmp_path), 0.0), strict=True):
        jax.config.update(option, value)
    compilation_cache.reset_cache()
    jax.monitoring.register_event_listener(listen)
    yield compile_once
    jax.monitoring.unregister_event_listener(listen)
    for option, value in zip(options, before, strict=True):
        jax.config.update(option, value)
    compilation_cache.reset_cache()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content[:1],
        lambda content: b"",
        lambda content: bytes(len(content)),
    ],
)
@pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache")
def test_a_damaged_entry_is_written_anew(compiled, tmp_path, damage):
    whole, _ = compiled()
    assert whole
    assert compiled() == (whole, len(whole))
    assert remove_damaged(tmp_path) == []
    for path, content in whole.items():
        path.write_bytes(damage(content))
    assert compiled()[1] == 0  # JAX can't read them, and leaves them as they are
    devices.set_up()
    again, read = compiled()
    assert (again.keys(), read) == (whole.keys(), 0)
    assert compiled() == (again, len(again))


def test_what_is_known_as_sound_is_not_read_again_and_what_is_unknown_stays(tmp_path, monkeypatch):
    for name, content in (("a-cache", b"another compression"), ("b-atime", b""), ("c-cache", b"")):
        (tmp_path / name).write_bytes(content)
    assert remove_damaged(tmp_path) == ["c-cache"]
    monkeypatch.setattr(program_cache, "_is_whole", lambda content: content == b"new")
    (tmp_path / "d-cache").write_bytes(b"new")
    assert remove_damaged(tmp_path) == []
    (tmp_path / "a-cache").write_bytes(b"changed")
    assert remove_damaged(tmp_path) == ["a-cache"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".checked", "b-atime", "d-cache"]


@pytest.mark.parametrize("folder", ["nothing", "gs://bucket/folder", ""])
def test_folders_that_are_not_there_are_no_mistake(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert remove_damaged(folder) == []
    assert not list(tmp_path.iterdir())
