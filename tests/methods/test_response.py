"""A search by trainings of whole vectors: what it trains, believes, says, and writes."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest

from furs_jax.costs.macs import Macs
from furs_jax.errors import ConfigError, DamagedError
from furs_jax.jobs.search import search
from furs_jax.machine.sealed import write_json
from furs_jax.methods import _whole_vectors
from furs_jax.networks import get_network
from furs_jax.run.journal import Journal
from tests.jobs.conftest import record_calls
from tests.jobs.recorded import DATA, Estimate, Evaluation, Training, small
from tests.small_runs import content, small_config, timeless

OPTIONS = {
    "method": "response",
    "width_multiplier": 0.5,
    "reallocate.min_channels": 2,
    "response.max_trainings": 7,
    "response.least_gain": 0.0,
    "final.seeds": 1,
    "train.epochs": 2,
}
NET = get_network("resnet8_cifar", 0.5, 10, image_shape=(8, 8, 1))


def late_is_worth_more(channels):
    """A loss that falls by a power of the last two widths much faster than of the others."""
    powers = np.array([0.02, 0.02, 0.02, 0.02, 0.3, 0.4])
    return 0.4 * float(np.prod((np.asarray(channels) / NET.channels) ** -powers))


def costs_alone_are_right(channels):
    """The first widths are the best: every site is worth what it costs, and ever less."""
    offsets = np.log(np.asarray(channels) / NET.channels)
    costs = Macs(NET).marginals(NET.channels) * NET.channels / NET.macs(NET.channels)
    return 0.4 * float(np.exp(-costs @ (0.4 * offsets - 0.2 * offsets**2)))


@pytest.fixture
def recording(monkeypatch):
    return record_calls(monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A search, what it asked for, and what it printed."""
    folder, printed = tmp_path_factory.mktemp("found"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        recording = record_calls(patch)
        recording.loss_of = late_is_worth_more
        result = search(response_config(), folder)
    return recording, folder, result, printed.getvalue()


@pytest.fixture
def found(finished, recording, tmp_path):
    """Its folder, to be changed."""
    recording.loss_of = late_is_worth_more
    shutil.copytree(finished[1], tmp_path / "run")
    return recording, tmp_path / "run", finished[2]


def response_config(**changes):
    return small(**{**OPTIONS, **changes})


def lines(folder):
    return Journal(folder / "rounds.jsonl").read()


def test_trainings_are_of_the_start_then_of_others_and_read_off_on_the_search_split(finished):
    made, folder, result, _ = finished
    records, rounds = lines(folder), [t for t in made.of(Training) if t.phase.startswith("round")]
    assert [t.phase for t in rounds] == [f"round_{i:02}" for i in range(7)]
    assert [list(t.trainer.channels) for t in rounds] == [r["channels"] for r in records]
    assert rounds[0].trainer.channels == NET.channels
    assert len({t.seed for t in rounds}) == 7
    for training in rounds:
        assert training.trainer.recipe.epochs == 2
        assert training.trainer.split is DATA.train
    evaluated = [e for e in made.of(Evaluation) if e.variables.startswith("round")]
    assert len(evaluated) == 7
    assert all(e.split is DATA.search for e in evaluated)
    (furs,) = made.of(Estimate)  # once, of the first network
    assert (furs.variables, furs.channels) == ("round_00", NET.channels)
    for record in records:
        assert record["search_loss"] == late_is_worth_more(record["channels"])
        assert record["score"] == -np.log(record["search_loss"])
        assert record["macs"] == NET.macs(record["channels"])
        assert 0.5 < record["macs"] / result["budget"] < 1.6
    assert result["search_macs"] == sum(r["train_macs"] for r in records)


def test_it_finds_what_is_there_and_predicts_it(finished):
    _, folder, result, _ = finished
    records, channels = lines(folder), result["searched"]["channels"]
    assert channels == records[-1]["found"]
    assert NET.macs(channels) <= result["budget"] == NET.macs(NET.channels)
    assert channels[5] > 1.4 * NET.channels[5]
    told, gain = result["prediction"], np.log(late_is_worth_more(NET.channels))
    gain -= np.log(late_is_worth_more(channels))
    assert -told["log_loss"][1] <= gain <= -told["log_loss"][2]
    # The top-1 of a network is one minus its loss here.
    came = late_is_worth_more(NET.channels) - late_is_worth_more(channels)
    assert 0 < told["low"] <= came * 1.2
    assert came * 0.8 <= told["high"]
    assert result["difference"]["top1"][0] == pytest.approx(came)


def test_it_says_so_in_words(finished, capsys):
    _, folder, result, printed = finished
    assert "training 3/7  " in printed
    assert "after 7 trainings these widths should have a loss " in printed
    (more,) = [line for line in printed.splitlines() if "surely worth more" in line]
    assert "stage3_block1_conv" in more
    predicted = f"predicted after 7 trainings: {100 * result['prediction']['gain']:+.2f}"
    assert predicted in printed
    search(response_config(), folder)  # from result.json
    assert predicted in capsys.readouterr().out


def test_where_nothing_is_to_be_gained_it_stays_stops_early_and_trains_one_network(
    recording, tmp_path, capsys
):
    recording.loss_of = costs_alone_are_right
    changes = {"response.least_gain": 0.5, "response.max_trainings": 16}
    result = search(response_config(**changes), tmp_path)
    records = lines(tmp_path)
    assert 3 <= len(records) < 16
    assert records[-1]["following"] == []
    assert result["searched"]["channels"] == list(NET.channels)
    assert not {"original", "difference"} & result.keys()
    assert (result["prediction"]["gain"], result["prediction"]["high"]) == (0, 0)
    assert "nothing that counts is to be gained: the first widths stay" in capsys.readouterr().out
    (tmp_path / "result.json").unlink()
    assert timeless(search(response_config(**changes), tmp_path, quiet=True)) == timeless(result)


@pytest.mark.parametrize("kept", [2, 7])
def test_stopped_after_any_training_it_goes_on_as_if_it_never_was(found, kept):
    made, folder, result = found
    whole = content(folder)
    for name in ("result.json", "finals.jsonl"):
        (folder / name).unlink()
    journal = folder / "rounds.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:kept]))
    made.calls.clear()
    assert timeless(made.search(folder, **OPTIONS)) == timeless(result)
    assert content(folder)["rounds.jsonl"] == whole["rounds.jsonl"]
    assert sum(t.phase.startswith("round") for t in made.of(Training)) == 7 - kept


CHANGES = {
    "channels": lambda x: [*x[:-1], x[-1] + 1],
    "macs": lambda x: x + 1,
    "train_macs": lambda x: x + 1,
    "search_loss": lambda x: x / 2,
    "score": lambda x: x + 0.01,
    "found": lambda x: [x[0] + 1, *x[1:]],
    "gain": lambda x: x + 0.01,
    "low": lambda x: x - 0.01,
    "open": lambda x: x / 2,
    "share": lambda x: x / 2,
    "following": lambda x: [],
    "search_accuracy": lambda x: None,
}


def test_last_digits_of_another_processor_are_no_damage(found):
    made, folder, result = found
    records = lines(folder)
    for name in ("result.json", "finals.jsonl", "rounds.jsonl"):
        (folder / name).unlink()
    for record in records:
        rounded = {name: record[name] * (1 + 1e-8) for name in ("gain", "low", "open", "noise")}
        Journal(folder / "rounds.jsonl").append({**record, **rounded})
    again = made.search(folder, **OPTIONS)
    assert again["searched"]["channels"] == result["searched"]["channels"]


@pytest.mark.parametrize("name", CHANGES)
def test_a_line_that_does_not_follow_is_found(found, tmp_path_factory, name):
    made, folder, _ = found
    other = tmp_path_factory.mktemp("other")
    shutil.copy(folder / "config.json", other)
    for index, record in enumerate(lines(folder)[:2]):
        record.pop("crc32", None)
        if index:
            record = {**record, name: CHANGES[name](record[name])}
            if record[name] is None:
                del record[name]
        Journal(other / "rounds.jsonl").append(record)
    with pytest.raises(DamagedError, match=r"rounds.jsonl is damaged in line 2"):
        made.search(other, **OPTIONS)


def test_a_line_after_the_last_and_a_result_of_other_lines_are_found(found):
    made, folder, result = found
    changed = json.loads(json.dumps(result))
    changed["prediction"]["gain"] += 0.01
    write_json(folder / "result.json", changed)
    with pytest.raises(DamagedError, match=r"result.json is damaged: prediction is not what"):
        made.search(folder, **OPTIONS)
    for name in ("result.json", "finals.jsonl"):
        (folder / name).unlink()
    extra = {**lines(folder)[-1], "round": 7}
    extra.pop("crc32", None)
    Journal(folder / "rounds.jsonl").append(extra)
    with pytest.raises(DamagedError, match=r"line 8: no other training pays"):
        made.search(folder, **OPTIONS)


def test_furs_are_believed_as_slopes_of_log_widths(recording, tmp_path, monkeypatch):
    seen = []

    def decide(*arguments):
        seen.append(arguments[-1])
        return real(*arguments)

    real = _whole_vectors.decide
    monkeypatch.setattr(_whole_vectors, "decide", decide)
    recording.search(tmp_path, **{**OPTIONS, "response.max_trainings": 2})
    furs = np.array(lines(tmp_path)[0]["utilisation"]["furs"])
    channels = np.array(NET.channels)
    step = np.eye(len(channels), dtype=int)
    # Of accuracy for a channel more at a site, times its channels.
    macs = [(NET.macs(channels + e) - NET.macs(channels - e)) / 2 for e in step]
    expected = furs * macs * channels
    for direction in seen:
        np.testing.assert_allclose(
            direction / np.linalg.norm(direction), expected / np.linalg.norm(expected)
        )


def test_widths_are_multiples_and_none_is_too_narrow(recording, tmp_path):
    recording.loss_of = late_is_worth_more
    changes = {"reallocate.channel_multiple": 4, "reallocate.min_channels": 6}
    recording.search(tmp_path, **{**OPTIONS, **changes, "response.max_trainings": 4})
    for record in lines(tmp_path):
        for channels in (record["channels"], record["found"]):
            assert all(c % 4 == 0 and c >= 8 for c in channels)


def test_no_width_leaps_beyond_what_was_trained(finished):
    """From the sixth training on: those before are as the budget has them."""
    trained = np.array([record["channels"] for record in lines(finished[1])])
    for index in range(5, len(trained)):
        before = trained[:index]
        assert np.all(trained[index] <= 2 * np.max(before, axis=0))
        assert np.all(trained[index] >= np.min(before, axis=0) // 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_from": "somewhere"}, "no use for init_from: .*leave init_from out"),
        ({"furs.images": 1}, "FURs need at least two images"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_folder_is_made(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        search(small_config(method="response", **changes), tmp_path / "w", quiet=True)
    assert not (tmp_path / "w").exists()


def test_a_real_search_killed_after_its_first_training_ends_alike(tmp_path):
    config = small_config(
        **{"method": "response", "response.max_trainings": 2, "train.epochs": 1,
           "final.train.epochs": 1, "final.seeds": 1, "final.original": False}
    )  # fmt: skip
    whole = search(config, tmp_path, quiet=True)
    files = content(tmp_path)
    first, second = lines(tmp_path)
    assert first["following"] == second["channels"] != first["channels"]
    journal = tmp_path / "rounds.jsonl"
    for name in ("result.json", "finals.jsonl"):
        (tmp_path / name).unlink()
    journal.write_text(journal.read_text().splitlines(keepends=True)[0])
    assert timeless(search(config, tmp_path, quiet=True)) == timeless(whole)
    assert content(tmp_path) == files
