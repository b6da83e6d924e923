"""What becomes of damaged files, flipped bits and kills: counts of what is refused, and of wrong.

    python benchmarks/damage.py files       # damages each file of a run, then goes on with it
    python benchmarks/damage.py bits        # flips bits of a checkpoint's files, then reads it
    python benchmarks/damage.py crashes     # kills a search at its n-th write, then goes on

Each prints a table. "refused" is an error of one line that names the file, "same" the result of
the run that nothing happened to; anything else, a traceback or another result, is "wrong", is
shown, and makes the exit status 1. --every=N takes every N-th case; --folder=DIR keeps the run and
what it compiled.
"""

import argparse
import collections
import itertools
import json
import pathlib
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator

import jax
import numpy as np

from benchmarks.killer import Killer, in_child
from configs import digits
from furs_jax.errors import FursError
from furs_jax.jobs.search import search
from furs_jax.run.folder import Files
from furs_jax.run.tables import format_table
from furs_jax.training.checkpoint import Checkpoints, latest_step

OPTIONS = {
    "network": "resnet8_cifar",
    "width_multiplier": 0.25,
    "data.name": "random:8x8x1:10:200",
    "search.rounds": 2,
    "search.warm_start": True,  # reads the checkpoint of the round before
    "search.warm_epochs": 1,
    "train.epochs": 2,
    "final.train.epochs": 2,
    "final.seeds": 2,
    "final.timed": False,
    "furs.draws": 2,
    "reallocate.num_layers": 2,
    "reallocate.step": 0.5,
    "checkpoint_seconds": 0.0,
    "cpu_devices": 1,
    **dict.fromkeys(("train.batch_size", "final.train.batch_size"), 32),
    **dict.fromkeys(("eval_batch_size", "furs.batch_size"), 32),
}
printed: list = []  # errors that no one can catch, and Python prints
Outcome = tuple[str, str]  # "refused", "same" or "wrong", and what was said


def run(folder: pathlib.Path) -> None:
    config = digits.get_config()
    config.update_from_flattened_dict(OPTIONS)
    search(config, folder, quiet=True)


def content(folder: pathlib.Path) -> dict:
    """What a run leaves behind, without its timings."""
    files = Files(folder)
    journals = (files.metrics, files.rounds, files.finals)
    lines = [
        [{key: value for key, value in record.items() if key != "seconds"} for record in records]
        for records in (journal.read() for journal in journals)
    ]
    return {"lines": lines, "result": files.result.read_text()}


# Damaged files


def unfinished(source: pathlib.Path, folder: pathlib.Path) -> None:
    """The run as a kill leaves it within its last training."""
    shutil.copytree(source, folder)
    files, phase = Files(folder), "final_searched_1"
    files.result.unlink()
    files.finals.keep(lambda r: (r["network"], r["seed"]) != ("searched", 1))
    files.metrics.keep(lambda r: r["phase"] != phase or r["epoch"] < 2)
    checkpoints = files.checkpoints / phase
    shutil.rmtree(checkpoints / str(latest_step(checkpoints)))


def damages(path: pathlib.Path, rng: np.random.Generator) -> Iterator[tuple[str, Callable]]:
    """Names of damages and functions that do them to the file."""
    data = path.read_bytes()
    yield "removed", path.unlink
    yield "emptied", lambda: path.write_bytes(b"")
    yield "cut in half", lambda: path.write_bytes(data[: len(data) // 2])
    yield "zeros at its end", lambda: path.write_bytes(data[: len(data) // 2] + bytes(99))
    yield "overwritten begin", lambda: path.write_bytes(b"{damaged\n" + data[9:])
    yield "a folder", lambda: (path.unlink(), path.mkdir())
    for place in rng.integers(max(len(data), 1), size=6):
        changed = bytearray(data)
        if changed:
            changed[place] ^= 1 << int(rng.integers(8))
        yield "a flipped bit", lambda changed=changed: path.write_bytes(changed)
    if path.suffix == ".jsonl":
        lines = data.splitlines(keepends=True)
        yield "first line removed", lambda: path.write_bytes(b"".join(lines[1:]))
        yield "last line removed", lambda: path.write_bytes(b"".join(lines[:-1]))
        yield "last line twice", lambda: path.write_bytes(data + lines[-1])
        yield "two lines swapped", lambda: path.write_bytes(b"".join([*lines[1::-1], *lines[2:]]))
    if path.suffix in (".jsonl", ".json"):
        for number in rng.integers(99, size=4):
            yield "an edited number", lambda n=number: path.write_text(_edited(data.decode(), n))


def _edited(text: str, number: int) -> str:
    """Another digit, for one that is a number's."""
    places = [i for i, (a, b) in enumerate(itertools.pairwise(text)) if a in " [." and b.isdigit()]
    place = places[number % len(places)] + 1
    return text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]


def attempt(folder: pathlib.Path, path: pathlib.Path, reference: dict) -> Outcome:
    """Goes on with a run one of whose files is damaged."""
    printed.clear()
    try:
        run(folder)
    except FursError as error:
        text = str(error)
        places = [p for p in path.parents if folder in (p, *p.parents)]
        named = path.name in text or any(str(place) in text for place in places)
        return "wrong" if "\n" in text or printed or not named else "refused", text
    except Exception:
        return "wrong", traceback.format_exc()
    same = (folder / "result.json").read_text() == reference["result"]
    return ("same", "") if same and not printed else ("wrong", f"another result, or {printed}")


def files(base: pathlib.Path, every: int) -> list[tuple[str, str, Outcome]]:
    source, part = finished(base), base / "unfinished"
    reference = content(source)
    shutil.rmtree(part, ignore_errors=True)
    unfinished(source, part)
    step = f"checkpoints/final_searched_1/{latest_step(part / 'checkpoints/final_searched_1')}"
    cases = []
    for whole, names in (
        (source, ["config.json", "metrics.jsonl", "rounds.jsonl", "finals.jsonl", "result.json"]),
        (part, ["config.json", "metrics.jsonl", "rounds.jsonl", "finals.jsonl"]),
        (part, [str(p.relative_to(part)) for p in sorted((part / step).rglob("*")) if p.is_file()]),
    ):
        for name in names:
            copy = base / "damaged"
            # The damages are of the original's bytes; which there are is the same for the copy.
            kinds = [kind for kind, _ in damages(whole / name, np.random.default_rng(0))]
            cases += [(whole, copy, name, place, kind) for place, kind in enumerate(kinds)]
    found = []
    for whole, copy, name, place, kind in cases[::every]:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy)
        list(damages(copy / name, np.random.default_rng(0)))[place][1]()
        outcome = attempt(copy, copy / name, reference)
        group = "a checkpoint's file" if name.startswith("checkpoints") else name
        found.append((f"{whole.name}: {group}", f"{name}: {kind}", outcome))
    return found


# Flipped bits


def bits(base: pathlib.Path, every: int) -> list[tuple[str, str, Outcome]]:
    """One bit in each of the bytes of a checkpoint's files."""
    folder = finished(base) / "checkpoints/final_searched_1"
    step, copy = latest_step(folder), base / "flipped"
    state = _restored(folder)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    rng, found = np.random.default_rng(0), []
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / str(step), copy / str(step))
    paths = [path for path in sorted(copy.rglob("*")) if path.is_file()]
    places = [(path, place) for path in paths for place in range(path.stat().st_size)]
    for path, place in places[::every]:
        data = path.read_bytes()
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        name = str(path.relative_to(copy / str(step)))
        group = "arrays" if "/d/" in name else name
        found.append((group, f"{name}, byte {place}", _read(copy, abstract, state)))
        path.write_bytes(data)
    return found


def _restored(folder: pathlib.Path) -> dict:
    """All arrays as a tree of their names; the state's own type is not needed to compare."""
    from furs_jax.jobs.prepare import prepare  # the devices are made by it
    from furs_jax.options.parse import parse
    from furs_jax.training.trainer import make_trainer

    config = digits.get_config()
    config.update_from_flattened_dict(OPTIONS)
    options, task, *_ = prepare(parse(config))
    with Checkpoints(folder, read_only=True) as checkpoints:
        channels = checkpoints.record()["channels"]
        trainer = make_trainer(task, channels, options.train, task.dataset.train)
        return jax.tree.map(np.asarray, checkpoints.restore(trainer.abstract()))


def _read(folder: pathlib.Path, abstract: dict, expected: dict) -> Outcome:
    printed.clear()
    try:
        with Checkpoints(folder, read_only=True) as checkpoints:
            record, state = checkpoints.record(), checkpoints.restore(abstract)
    except FursError as error:
        text = str(error)
        return "wrong" if "\n" in text or printed or str(folder) not in text else "refused", text
    except Exception:
        return "wrong", traceback.format_exc()
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True)
    same = record is not None and all(np.array_equal(a, b) for a, b in pairs)
    return ("same", "") if same else ("wrong", "other arrays")


# Kills


def crashes(base: pathlib.Path, every: int) -> list[tuple[str, str, Outcome]]:
    """Kills before each call, and in the middle of each write; then the same command goes on."""
    reference, log = content(finished(base)), base / "calls.json"
    folder = base / "killed"

    def count() -> None:
        killer = Killer(folder)
        killer.install()
        run(folder)
        calls = list(killer.calls)
        log.write_text(json.dumps(calls))

    shutil.rmtree(folder, ignore_errors=True)
    status, _ = in_child(count)
    assert status == 0
    calls, found = json.loads(log.read_text()), []
    for place in range(0, len(calls), every):
        shutil.rmtree(folder, ignore_errors=True)
        killed, _ = in_child(lambda at=place: (Killer(folder, at).install(), run(folder)))
        status, said = in_child(lambda: run(folder))
        same = status == 0 and content(folder) == reference
        name = calls[place] if killed == 137 else "not killed: threads took another order"
        found.append((name, f"call {place}", ("same" if same else "wrong", said)))
    return found


def finished(base: pathlib.Path) -> pathlib.Path:
    """A run to damage, made once."""
    folder = base / "finished"
    if not (folder / "result.json").exists():
        status, said = in_child(lambda: run(folder))
        if status:
            sys.exit(said)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser("benchmarks/damage.py", description=__doc__)
    parser.add_argument("what", choices=("files", "bits", "crashes"))
    parser.add_argument("--folder", metavar="DIR", help="kept; a temporary one otherwise")
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        base = pathlib.Path(options.folder or temporary).absolute()
        base.mkdir(parents=True, exist_ok=True)
        # Thousands of attempts compile the same programs.
        jax.config.update("jax_compilation_cache_dir", str(base / "cache"))
        sys.unraisablehook = printed.append
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        found = globals()[options.what](base, options.every)
    table = collections.defaultdict(collections.Counter)
    for group, case, (outcome, said) in found:
        table[group][outcome] += 1
        if outcome == "wrong":
            print(f"wrong: {group}, {case}: {said[-2000:]}", file=sys.stderr)
    outcomes = ("refused", "same", "wrong")
    rows = [(group, *(counts[key] for key in outcomes)) for group, counts in table.items()]
    rows.append(("all", *(sum(row[i] for row in rows) for i in range(1, 4))))
    print(format_table((options.what, *outcomes), rows))
    sys.exit(bool(rows[-1][3]))


if __name__ == "__main__":
    main()
