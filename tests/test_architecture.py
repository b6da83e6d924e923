"""docs/ARCHITECTURE.md tells of the rooms what the sources do."""

import re
from collections.abc import Callable, Collection

import pytest

from tests import ROOT
from tests.test_rooms import MODULES, PACKAGE, imports

TEXT = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
DRAWINGS = re.findall(r"```mermaid\n(.*?)```", TEXT, re.S)
ROOMS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def room(module: str) -> str | None:
    return next((name for name in module.split(".")[1:2] if name in ROOMS), None)


IMPORTS = {
    name: {room(below) for module in MODULES if room(module) == name for below in imports(module)}
    - {name, None}
    for name in ROOMS
}


def reached(name: str, arrows: Callable[[str], Collection[str]] = IMPORTS.__getitem__) -> set[str]:
    """Whatever one needs, by way of others, too."""
    pending, seen = set(arrows(name)), set()
    while pending:
        seen |= pending
        pending = set().union(*map(arrows, pending)) - seen
    return seen


def test_the_table_goes_from_bottom_to_top():
    """And so no room imports one that imports it; each has a sentence."""
    table = re.findall(r"^\| `(\w+)` \| (.+) \|$", TEXT, re.M)
    order = [name for name, _ in table]
    assert set(order) == ROOMS
    assert len(order) == len(ROOMS)
    upwards = [
        (name, below) for i, name in enumerate(order) for below in IMPORTS[name] & set(order[i:])
    ]
    assert upwards == []


def test_what_lies_below_the_rooms_imports_none():
    below = re.search(r"Some files lie outside. (.*?) are below all rooms", TEXT, re.S)[1]
    files = re.findall(r"`(\w+)\.py`", below)
    assert {"errors", "gates"} <= set(files)
    for name in files:
        assert not set(map(room, reached(f"furs_jax.{name}", imports))) - {None}, name


def test_the_drawing_has_the_arrows_of_the_imports():
    """But for those that are ways round: a --> c beside a --> b --> c."""
    expected = {
        (name, below)
        for name in ROOMS
        for below in IMPORTS[name]
        if not any(below in reached(other) for other in IMPORTS[name])
    }
    drawn = re.findall(r"^    (\w+) --> (\w+)$", DRAWINGS[0], re.M)
    lines = "\n".join(f"    {above} --> {below}" for above, below in sorted(expected))
    assert len(drawn) == len(DRAWINGS[0].splitlines()) - 1
    assert sorted(drawn) == sorted(expected), f"the drawing must have\n{lines}"


@pytest.mark.parametrize("name", dict.fromkeys(re.findall(r"`([\w/]+\.(?:py|md))`", TEXT)))
def test_every_file_exists(name):
    assert any((folder / name).is_file() for folder in (ROOT, PACKAGE)), name


def test_readme_leads_to_it():
    assert "(docs/ARCHITECTURE.md)" in (ROOT / "README.md").read_text()
