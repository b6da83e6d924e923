"""Journals and results that were changed by hand: whether each line follows from those before."""

import copy
import itertools
import json

import numpy as np
import pytest

from furs_jax.errors import DamagedError, DivergedError
from furs_jax.jobs import compare
from furs_jax.jobs.prepare import prepare
from furs_jax.jobs.search import check_journals, search
from furs_jax.machine.programs import CompileClock
from furs_jax.machine.stop import Stop
from furs_jax.methods import _following, network_adjustment
from furs_jax.options.parse import as_record, parse
from furs_jax.run.console import Console
from furs_jax.run.context import Run
from furs_jax.run.folder import Workdir
from furs_jax.run.phases import train_phase
from furs_jax.training.checkpoint import Checkpoints
from tests.small_runs import small_config

METHOD = network_adjustment.NetworkAdjustment()
SCORES = {"loss": 0.5, "top1": 0.75, "top5": 1.0}


@pytest.fixture(scope="module")
def prepared():
    return prepare(parse(small_config()))


@pytest.fixture
def run(prepared, tmp_path):
    """A search of two rounds and two seeds that has computed nothing yet."""
    options = parse(small_config())
    workdir = Workdir(tmp_path / "w", as_record(options))
    workdir.start(as_record(options), {})
    yield Run(options, *prepared[1:], workdir, Console(True), CompileClock(), Stop())
    workdir.close()


def lines(run):
    """Of network_adjustment.jsonl, as measured FURs would make them."""
    records, rng = [], np.random.default_rng(0)
    for _ in range(2):
        record = {
            **_following.given_by(run, records),
            "train_loss": 1.0,
            "search_loss": 1.0,
            "search_accuracy": 0.5,
            "spread": 9.0,
            "furs": rng.random(6).tolist(),
            "furs_stderr": [0.1] * 6,
        }
        following = _following.next_network(run, [*records, record])
        seconds = {"train": 1.0, "furs": 1.0, "compile": 1.0}
        records.append({**record, **following, "seconds": seconds})
    return records


def journal(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def finals(networks=("original", "searched")):
    pairs = itertools.product(networks, range(2))
    return [{"network": name, "seed": seed, **SCORES} for name, seed in pairs]


def wide(records):
    records[-1]["next_channels"] = [2 * c for c in records[-1]["next_channels"]]


def macs_too(records):
    records[-1]["macs"] -= 1


def longer(records):
    records[-1]["next_channels"].append(8)


def half(records):
    records[-1]["next_channels"][0] += 0.5


def twice(records):
    records.append(copy.deepcopy(records[-1]))


def cut(records):
    del records[0]


def reversed_furs(records):
    records[-1]["furs"].reverse()


def other_sites(records):
    records[-1]["increased"].reverse()


def another_parent(records):
    records[-1]["next_parent"] = 0


def no_loss(records):
    del records[-1]["search_loss"]


def text(records):
    records[-1]["furs"][0] = "much"


def no_furs(records):
    records[-1]["furs"] = None


CHANGES = (
    wide, macs_too, longer, half, twice, cut, reversed_furs, other_sites, another_parent, no_loss,
    text, no_furs,
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_line_of_rounds_is_refused(run, change):
    """Lines without digests, as a hand or an earlier version writes them."""
    records = lines(run)
    journal(run.workdir.rounds.path, records)
    check_journals(run, METHOD)
    change(records)
    journal(run.workdir.rounds.path, records)
    with pytest.raises(DamagedError, match=r"rounds.jsonl is damaged in line [123]: .*delete"):
        check_journals(run, METHOD)


@pytest.mark.parametrize(
    "wrong",
    [
        [0, 1, 1],  # a seed twice
        [0, 0],
        [1],
        [0, 2, 3],
        [2, 3, 0, 1],
    ],
)
def test_each_seed_is_once_in_the_finals(run, wrong):
    journal(run.workdir.rounds.path, lines(run))
    for count in range(5):
        journal(run.workdir.finals.path, finals()[:count])
        check_journals(run, METHOD)
    journal(run.workdir.finals.path, [finals()[place] for place in wrong])
    with pytest.raises(DamagedError, match=r"finals.jsonl is damaged in line [123]: it is of"):
        check_journals(run, METHOD)


def test_finals_that_cannot_be_are_refused(run):
    journal(run.workdir.rounds.path, lines(run))
    more = [*finals(), {"network": "searched", "seed": 2, **SCORES}]
    other = finals(("original", "trained"))
    for records in (more, other):
        journal(run.workdir.finals.path, records)
        with pytest.raises(DamagedError, match="finals.jsonl is damaged in line"):
            check_journals(run, METHOD)
    for change in ({"top1": 75.0}, {"loss": None}, {"seed": 0.0}, {"network": 1}):
        journal(run.workdir.finals.path, [{**finals()[0], **change}])
        with pytest.raises(DamagedError, match="finals.jsonl is damaged in line 1"):
            check_journals(run, METHOD)


def test_finals_without_all_rounds_are_refused(run):
    journal(run.workdir.rounds.path, lines(run)[:1])
    journal(run.workdir.finals.path, finals()[:1])
    with pytest.raises(DamagedError, match="rounds.jsonl lacks rounds.*delete finals.jsonl"):
        check_journals(run, METHOD)


def test_a_result_is_what_the_journals_tell(run, monkeypatch):
    records, config = lines(run), small_config()
    journal(run.workdir.rounds.path, records)
    journal(run.workdir.finals.path, finals())
    monkeypatch.setattr(compare, "_train", None)
    searched = tuple(records[-1]["next_channels"])
    result = json.loads(json.dumps(compare.compare(run, METHOD, searched)))
    run.workdir.result.write_text(json.dumps(result))
    run.workdir.close()
    assert search(config, run.workdir.path, quiet=True) == result
    for change in (
        lambda x: x["searched"]["channels"].reverse(),
        lambda x: x["searched"]["seeds"].reverse(),
        lambda x: x["original"]["seeds"][0].update(top1=0.76),
        lambda x: x["original"].update(macs=1),
        lambda x: x["searched"].update(top1=[0.8, 0.0]),
        lambda x: x.update(difference={}),
        lambda x: x.update(search_macs=1),
        lambda x: x["seconds"].update(search=-1.0),
        lambda x: x.pop("original"),
        lambda x: x.clear(),
    ):
        changed = copy.deepcopy(result)
        change(changed)
        run.workdir.result.write_text(json.dumps(changed))
        with pytest.raises(DamagedError, match="result.json is damaged: .*makes it again"):
            search(config, run.workdir.path, quiet=True)
    run.workdir.finals.path.unlink()
    run.workdir.result.write_text(json.dumps(result))
    with pytest.raises(DamagedError, match="finals.jsonl holds no training of"):
        search(config, run.workdir.path, quiet=True)


@pytest.mark.parametrize("step", [None, 7])
def test_a_training_that_diverged_names_what_is_there_and_a_way_on(run, monkeypatch, step):
    def diverge(*_):
        if step:
            with Checkpoints(run.workdir.checkpoints / "round_00") as checkpoints:
                checkpoints.save(step, {"x": np.zeros(3)}, {"step": step})
        raise DivergedError("the loss became nan; lower the learning rate")

    monkeypatch.setattr("furs_jax.run.phases.train", diverge)
    trainer = network_adjustment._trainer(run, run.start, [], ())
    kept = (
        rf"Its state after step 7 is finite: init_from={run.workdir.checkpoints}/round_00 begins"
        if step
        else "There is no checkpoint of it"
    )
    with pytest.raises(DivergedError, match=rf"in another --workdir, .*\. {kept}"):
        train_phase(run, trainer, "round_00", "round 1/2", (1, 0))
