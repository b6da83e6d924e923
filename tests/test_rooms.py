"""The house: how rooms and files may hang together, read from the sources; nothing is imported."""

import ast
import collections
import functools
import itertools
import pathlib
import subprocess
import sys

from tests import ROOT

PACKAGE = ROOT / "furs_jax"
MOST_LINES, MOST_LINES_OF_MAIN, MOST_FLAT, LONGEST_CHAIN = 349, 69, 8, 12


def module_name(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
# Families of networks name their classes and files as papers do.
NAMED = {name: path for name, path in MODULES.items() if ".families." not in name}


@functools.cache
def imports(module: str) -> frozenset[str]:
    """The modules of the package that one imports, be it in a function or when asked."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_EXPORTS":
            exported = ast.literal_eval(node.value).values()  # by a door, when asked for them
            found |= {name for part in exported for name in (part, f"{module}.{part}")}
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by dots"
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {part if part in MODULES else node.module for part in parts}
    return frozenset(found & MODULES.keys()) - {module}


@functools.cache
def chain(module: str) -> tuple[str, ...]:
    """The longest way down from a module, itself included."""
    return (module, *max(map(chain, imports(module)), key=len, default=()))


def circles() -> list[tuple[str, ...]]:
    """Modules that import themselves by way of others."""
    ended: set[str] = set()

    def follow(way: tuple[str, ...]) -> list[tuple[str, ...]]:
        if way[-1] in way[:-1]:
            return [way[way.index(way[-1]) :]]
        if way[-1] in ended:
            return []
        found = [circle for name in sorted(imports(way[-1])) for circle in follow((*way, name))]
        ended.add(way[-1])
        return found

    return list(itertools.chain.from_iterable(follow((name,)) for name in MODULES))


def test_no_file_imports_itself_by_way_of_others():
    assert circles() == []


def test_no_chain_of_imports_is_long():
    assert circles() == []  # or a chain has no end
    assert [chain(name) for name in MODULES if len(chain(name)) > LONGEST_CHAIN] == []


def test_no_two_modules_share_a_name():
    """Rooms count, too; what a file alone is called tells which one it is."""
    places = collections.defaultdict(list)
    for name in NAMED:
        if not name.endswith(".__main__"):
            places[name.rpartition(".")[2]].append(name)
    assert [names for names in places.values() if len(names) > 1] == []


def test_no_two_public_classes_share_a_name():
    places = collections.defaultdict(list)
    for name, path in NAMED.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def lines(path: pathlib.Path) -> int:
    return len(path.read_text().splitlines())


def test_every_file_can_be_read_in_one_go():
    folders = (ROOT / name for name in ("furs_jax", "configs", "launch", "benchmarks", "tests"))
    files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    long = {str(path.relative_to(ROOT)): lines(path) for path in files if lines(path) > MOST_LINES}
    assert long == {}
    assert lines(PACKAGE / "main.py") <= MOST_LINES_OF_MAIN


def test_few_files_lie_outside_the_rooms():
    flat = sorted(path.name for path in PACKAGE.glob("*.py"))
    assert len(flat) <= MOST_FLAT, flat


def test_imports_run_downwards_only():
    """The contract of .importlinter, which names the rooms from top to bottom."""
    # In a process of its own: it silences all loggers that there are.
    program = (
        "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=1))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
