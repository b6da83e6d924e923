"""The commands ask for large pages where the system gives them to those who ask."""

import os
import subprocess
import sys

import pytest

from furs_jax.machine.huge_pages import asking
from tests import ROOT

ASKED = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


@pytest.fixture
def switch(tmp_path):
    path = tmp_path / "enabled"
    path.write_text("always [madvise] never\n")
    return path


def test_pages_are_asked_for_where_that_changes_something(switch, tmp_path):
    assert asking({"HOME": "/x"}, switch) == {"HOME": "/x", **ASKED}
    assert asking({"GLIBC_TUNABLES": "glibc.malloc.arena_max=1"}, switch) is None
    assert asking({}, tmp_path / "of no other system") is None
    for word in ("[always] madvise never", "always madvise [never]"):
        switch.write_text(word)
        assert asking({}, switch) is None


def _python(*arguments):
    environment = {key: value for key, value in os.environ.items() if key not in ASKED}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, error = process.communicate()
    return process.pid, out, error


def test_a_program_begins_again_once_as_the_same_process(switch):
    program = (
        "import os, pathlib, sys\n"
        "from furs_jax.machine.huge_pages import begin_again\n"
        "begin_again(pathlib.Path(sys.argv[1]))\n"
        "print(os.getpid(), os.environ['GLIBC_TUNABLES'], sys.flags.safe_path, sys.argv[2:])\n"
    )
    pid, out, error = _python("-P", "-c", program, str(switch), "a b", "--c=d")
    assert out == f"{pid} {ASKED['GLIBC_TUNABLES']} True ['a b', '--c=d']\n", error


@pytest.mark.parametrize("module", ["furs_jax.main", "furs_jax.bench"])
def test_commands_do(module):
    program = (
        "import runpy, sys\n"
        "from furs_jax.machine import huge_pages\n"
        "huge_pages.begin_again = lambda: sys.exit('begun again')\n"
        f"runpy.run_module({module!r}, run_name='__main__')\n"
    )
    _, _, error = _python("-c", program)
    assert error == "begun again\n"
