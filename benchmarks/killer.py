"""Work in a process of its own, killed at one of the calls by which it changes files."""

import builtins
import io
import os
import pathlib
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable

TORN = "torn write"


# Kills


class Killer:
    """Counts the calls that change files below a folder, and ends the process at one of them."""

    def __init__(self, folder: pathlib.Path, at: int = -1):
        self._folder, self._at = str(folder), at
        self.calls: list[str] = []

    def install(self) -> None:
        for name in ("replace", "rename", "mkdir", "unlink", "remove", "rmdir", "fsync"):
            setattr(os, name, self._counted(name, getattr(os, name)))
        opened = self._open(builtins.open)
        builtins.open = io.open = opened

    def _counted(self, name: str, call: Callable) -> Callable:
        def wrapper(path, *arguments, **options):
            self._count(name, path)
            return call(path, *arguments, **options)

        return wrapper

    def _count(self, name: str, path) -> bool:
        """Whether the process is to end at a call; ends it, but for a write."""
        path = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fspath(path)
        if not str(path).startswith(self._folder):
            return False
        self.calls.append(name)
        if len(self.calls) - 1 != self._at:
            return False
        if name != TORN:
            os._exit(137)
        return True

    def _open(self, call: Callable) -> Callable:
        def opened(path, mode="r", *arguments, **options):
            if isinstance(path, int) or not set(mode) & set("wax+"):
                return call(path, mode, *arguments, **options)
            self._count("open", path)
            file = call(path, mode, *arguments, **options)
            if not str(os.fspath(path)).startswith(self._folder):
                return file
            write = file.write

            def torn(data):
                if self._count(TORN, path):
                    write(data[: len(data) // 2])
                    file.flush()
                    os._exit(137)
                return write(data)

            try:
                file.write = torn
            except AttributeError:
                return _Torn(file, torn)
            return file

        return opened


class _Torn:
    """A file whose `write` is another; files in C let none be set."""

    def __init__(self, file, write):
        self._file, self.write = file, write

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *error):
        return self._file.__exit__(*error)


def in_child(work: Callable[[], None]) -> tuple[int, str]:
    """The exit status, and what the child printed, of work in a process of its own."""
    with tempfile.TemporaryFile("w+") as output:
        with warnings.catch_warnings():  # JAX warns of forks of processes that compute
            warnings.simplefilter("ignore")
            child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            try:
                work()
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        output.seek(0)
        return os.waitstatus_to_exitcode(status), output.read()
