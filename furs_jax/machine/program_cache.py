"""JAX's cache of compiled programs on disk, kept free of entries that a kill cut off.

JAX writes an entry in place, can't read a cut one, and doesn't replace it: its program would be
compiled at every start. What JAX keeps there is its own; only what surely is damaged is removed.
"""

import os
import pathlib
import zlib
from collections.abc import Callable
from contextlib import suppress

_ENTRY = "-cache"  # how names of entries end
_CHECKED = ".checked"  # names the entries that were sound, so that each is read once
_ZLIB, _ZSTANDARD = b"\x78", b"\x28\xb5\x2f\xfd"  # how they begin, by JAX's compressions


def remove_damaged(folder: str | os.PathLike) -> list[str]:
    """Removes damaged entries of a local folder, and returns their names."""
    removed, sound = [], []
    with suppress(OSError):  # no folder yet, or not ours
        known = _read_known(pathlib.Path(folder, _CHECKED))
        for entry in os.scandir(folder):
            if not entry.name.endswith(_ENTRY):
                continue
            state = entry.stat()
            line = f"{entry.name} {state.st_size} {state.st_mtime_ns}"
            if line in known or _is_whole(pathlib.Path(entry.path).read_bytes()):
                sound.append(line)
            else:
                os.remove(entry.path)
                removed.append(entry.name)
        if known != set(sound):
            pathlib.Path(folder, _CHECKED).write_text("\n".join(sound))
    return removed


def _read_known(path: pathlib.Path) -> set[str]:
    return set(path.read_text(errors="replace").splitlines()) if path.exists() else set()


def _is_whole(content: bytes) -> bool:
    """False where an entry can't be decompressed; what is of no known kind is left to JAX."""
    if len(content.strip(b"\0")) < 8:  # all zeros, as a power failure may leave it, or no header
        return False
    if content.startswith(_ZSTANDARD):
        decompress = _zstandard()
    else:
        decompress = zlib.decompress if content.startswith(_ZLIB) else None
    if decompress is None:
        return True
    try:
        decompress(content)
    except MemoryError:
        return True
    except Exception:  # each library has errors of its own
        return False
    return True


def _zstandard() -> Callable[[bytes], bytes] | None:
    """Where it is installed, as for JAX."""
    with suppress(ImportError):
        from compression import zstd

        return zstd.decompress
    with suppress(ImportError):
        import zstandard

        return zstandard.ZstdDecompressor().decompress
    return None


def cache_folder() -> pathlib.Path:
    """Where things are kept that can be made again."""
    root = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return root / "furs_jax"
