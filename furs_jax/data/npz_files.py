"""Arrays in a file of np.savez or np.savez_compressed; nothing in it is unpickled."""

import math
import os
import pathlib
import zipfile
import zlib
from collections.abc import Collection

import numpy as np

from furs_jax.data.arrays import Arrays
from furs_jax.errors import DataError

# A member that is compressed may claim so many bytes, or so many for each that it has.
_SMALL, _SHRINKS = 1 << 28, 100
_HEADER = 1 << 16  # bytes of an array's header, at most


def read(path: pathlib.Path, names: Collection[str]) -> Arrays:
    """The arrays of these names that the file has.

    Raises:
      DataError: there is no such file, it is damaged, or an array is no plain one.
    """
    if not path.is_file():
        raise DataError(f"npz:{path}: there is no such file")
    try:
        with zipfile.ZipFile(path) as file:
            members = [m for m in file.infolist() if m.filename.removesuffix(".npy") in names]
            found = {m.filename.removesuffix(".npy"): _read(file, m) for m in members}
            if len(found) < len(members):
                raise ValueError("it has two arrays of one name")
            others = [m.filename.removesuffix(".npy") for m in file.infolist()]
    except DataError as error:
        raise DataError(f"npz:{path}: {error}") from error
    except (
        *(ValueError, EOFError, OSError, RuntimeError, NotImplementedError, SyntaxError),
        *(OverflowError, MemoryError, zipfile.BadZipFile, zlib.error),
    ) as error:
        raise DataError(
            f"npz:{path} is no file of np.savez, or damaged ({error}); write it again"
        ) from error
    if not found:
        raise DataError(
            f"npz:{path} has none of the arrays {', '.join(names)}; it has "
            f"{', '.join(map(repr, others[:10])) or 'nothing'}"
        )
    return found


def _read(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    _check_claim(file, member)
    with file.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise ValueError(f"{member.filename} is of version {version}")
        shape, fortran, dtype = read_header(stream, max_header_size=_HEADER)
        if dtype.hasobject:
            raise DataError(
                f"{member.filename} holds Python objects, which are not read; give plain arrays"
            )
        size, there = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
        if size != there:
            raise ValueError(
                f"the header of {member.filename} claims {size:,} bytes, of {there:,} in the file"
            )
        content = stream.read()
    array = np.frombuffer(content, dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _check_claim(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raises ValueError where a member can't be as large as the zip claims, before it is read."""
    packed, there = member.compress_type != zipfile.ZIP_STORED, os.path.getsize(file.filename)
    most = max(_SMALL, _SHRINKS * there) if packed else there
    if member.compress_size > there or member.file_size > most:
        claimed = max(member.compress_size, member.file_size)
        raise ValueError(f"{member.filename} claims {claimed:,} bytes, of {there:,} in the file")
