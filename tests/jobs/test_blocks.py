"""Searches in which whole blocks move, with networks that are neither trained nor looked at."""

import json

import numpy as np
import pytest

from furs_jax.errors import ConfigError
from furs_jax.jobs.prepare import prepare
from furs_jax.methods import _block_rounds
from furs_jax.options.parse import parse
from furs_jax.widths.block_moves import changed
from tests.jobs.recorded import Training, small, workdir_lines

STARVED = {
    "network": "resnet14_cifar",
    "width_multiplier": 0.5,
    "depths": (1, 3, 2),
    "search.blocks": True,
}


def diminishing(depths):
    """The deeper a stage, the less its last block gives."""
    return [1 / n for n in depths]


def test_a_starved_stage_is_repaired_at_equal_macs(recording, tmp_path):
    recording.block_furs = diminishing
    result = recording.search(tmp_path / "w", **STARVED)
    rounds = workdir_lines(tmp_path / "w", "rounds")
    assert [line["depths"] for line in rounds] == [[1, 3, 2], [2, 2, 2], [2, 2, 2]]
    assert [(line["deeper"], line["shallower"]) for line in rounds] == [(0, 1), *[(None, None)] * 2]
    np.testing.assert_array_equal(rounds[0]["block_furs"], [1, 1 / 3, 1 / 2])
    trained = [training.trainer for training in recording.of(Training)]
    assert [trainer.task.net.depths for trainer in trained[:3]] == [(1, 3, 2), *[(2, 2, 2)] * 2]
    assert {trainer.task.net.depths for trainer in trained[3:5]} == {(1, 3, 2)}
    assert {trainer.task.net.depths for trainer in trained[5:]} == {(2, 2, 2)}
    judged = [c for c in recording.calls if isinstance(c, tuple) and c[0] == "branches"]
    assert [sites for _, _, sites in judged] == [(1, 7, 11), *[(3, 7, 11)] * 2]
    for line, trainer in zip(rounds, trained, strict=False):
        assert line["channels"] == list(trainer.channels)
        assert line["macs"] == trainer.task.net.macs(trainer.channels)
        assert 0 <= result["budget"] - line["next_macs"] <= 0.001 * result["budget"]
    for name, trainer in (("original", trained[3]), ("searched", trained[5])):
        entry, net = result[name], trainer.task.net
        assert entry["depths"] == list(net.depths)
        assert entry["channels"] == list(trainer.channels)
        assert (entry["macs"], entry["params"]) == (
            net.macs(trainer.channels),
            net.params(trainer.channels),
        )
    # The same lines follow again, when the finals are gone.
    for name in ("result.json", "finals.jsonl"):
        (tmp_path / "w" / name).unlink()
    again = recording.search(tmp_path / "w", **STARVED)
    assert again["searched"] == result["searched"]
    assert recording.search(tmp_path / "w", **STARVED) == again  # checked against the journals


def test_warm_rounds_begin_new_blocks_as_the_identity(recording, tmp_path):
    recording.block_furs = diminishing
    warm = {"search.warm_start": True, "search.warm_epochs": 1, "search.rounds": 2}
    recording.search(tmp_path / "w", **STARVED, **warm)
    first, _ = workdir_lines(tmp_path / "w", "rounds")
    importance = [c for c in recording.calls if isinstance(c, tuple) and c[0] == "importance"]
    assert {call[2] for call in importance} == {tuple(first["channels"])}
    orders = [c for c in recording.calls if isinstance(c, tuple) and c[0] == "order"]
    assert {frozenset(silent) for *_, silent in orders} == {frozenset({"stage1_block2_conv2"})}
    assert [len(own) for own in orders[0][1]] == first["channels"]  # of the sites that there were
    # New blocks are not judged: the first stage is by its first one.
    judged = [c for c in recording.calls if isinstance(c, tuple) and c[0] == "branches"]
    assert judged == [
        ("branches", (1, 3, 2), (1, 7, 11)),
        ("branches", (2, 2, 2), (1, 7, 11)),
    ]


def test_the_best_network_is_gone_back_to_with_its_blocks(recording, tmp_path):
    recording.block_furs = lambda depths: [3, 2, 1] if depths == (1, 3, 2) else [1, 2, 3]
    recording.losses.update(round_00=0.3, round_01=0.4, round_02=0.5)
    result = recording.search(
        tmp_path / "w", **STARVED, **{"search.patience": 1, "search.select": "best"}
    )
    rounds = workdir_lines(tmp_path / "w", "rounds")
    assert [line["next_parent"] for line in rounds] == [0, 0, 0]
    assert [line["depths"] for line in rounds] == [[1, 3, 2], [2, 3, 1], [2, 3, 1]]
    assert result["searched"]["depths"] == [1, 3, 2]
    assert result["searched"]["channels"] == result["original"]["channels"]


def test_blocks_do_not_come_and_go(recording, tmp_path):
    recording.block_furs = lambda depths: [depths[0] == 1, 0.5, depths[0] > 1]
    recording.search(tmp_path / "w", **STARVED)
    rounds = workdir_lines(tmp_path / "w", "rounds")
    # The third stage has lost a block, the first got one: neither is taken back.
    assert [line["next_depths"] for line in rounds] == [[2, 3, 1]] * 3


def test_controls_move_blocks_the_other_way_or_anywhere(recording, tmp_path):
    recording.block_furs = lambda depths: [3, 2, 1]
    moves = {}
    for direction in ("fur", "reversed", "random"):
        for seed in range(1 if direction != "random" else 4):
            changes = {"reallocate.direction": direction, "search.rounds": 1, "seed": seed}
            recording.search(tmp_path / f"{direction}{seed}", **STARVED, **changes)
            (line,) = workdir_lines(tmp_path / f"{direction}{seed}", "rounds")
            moves.setdefault(direction, []).append((line["deeper"], line["shallower"]))
    assert moves["fur"] == [(0, 2)]
    assert moves["reversed"] == [(2, 1)]  # the worst that has one to give
    assert len(set(moves["random"])) > 1


def test_a_search_goes_on_while_blocks_move(recording, tmp_path):
    recording.block_furs, recording.spread = diminishing, 0.1
    recording.search(tmp_path / "w", **STARVED, **{"search.stop_when_equal": True})
    assert len(workdir_lines(tmp_path / "w", "rounds")) == 2


def test_a_block_comes_only_where_the_budget_can_pay_for_it(recording, tmp_path):
    recording.block_furs = diminishing
    run = []
    keep = _block_rounds._can_pay
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_block_rounds, "_can_pay", lambda own, d: run.append(own) or keep(own, d))
        recording.search(tmp_path / "w", **STARVED, **{"search.rounds": 1})
    own, next_depths = run[0], changed((1, 3, 2), 0, 1)
    assert keep(own, next_depths)
    least = own.task.net.with_depths(next_depths).macs([4] * 12)
    assert not keep(own._replace(budget=least - 1), next_depths)
    assert keep(own._replace(budget=least), next_depths)


def test_widths_of_other_depths_are_taken_with_them(recording, tmp_path):
    recording.block_furs = diminishing
    result = recording.search(tmp_path / "w", **STARVED, **{"search.rounds": 1})
    given = {"mode": "train", "channels_from": str(tmp_path / "w" / "result.json")}
    base = {key: STARVED[key] for key in ("network", "width_multiplier")}
    told = r"is of a network with 2,2,2 blocks in its stages; add --config.depths='\(2,2,2\)'"
    with pytest.raises(ConfigError, match=told):
        prepare(parse(small(**base, **given, depths=(1, 3, 2))))
    prepared = prepare(parse(small(**base, **given, depths=(2, 2, 2))))
    assert list(prepared.start) == result["searched"]["channels"]
    assert prepare(parse(small(**base, **given))).start == prepared.start


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "plain14_cifar"}, "plain14_cifar has none that come and go"),
        ({"padding": "local"}, "give padding=max"),
        ({"network": "mnasnet_cifar", "depths": (1, 1, 1, 1)}, "fewer than two whose branch"),
        ({"method": "response"}, "method=response does not move blocks; give search.blocks=False"),
        ({"mode": "truth"}, "mode=truth does not move blocks"),
        ({"depths": (1, 3)}, r"depths=\(1, 3\) must be 3 numbers of blocks"),
        ({"depths": (1, 0, 2)}, "depths=.* must be None or numbers of blocks as"),
    ],
    ids=lambda x: next(iter(x.values())) if isinstance(x, dict) else "",
)
def test_what_can_not_be_searched_is_refused_in_one_line(recording, changes, message):
    config = small(**{"network": "resnet14_cifar", "search.blocks": True, **changes})
    with pytest.raises(ConfigError, match=message) as error:
        prepare(parse(config))
    assert "\n" not in str(error.value)


def test_other_runs_tell_nothing_of_blocks(recording, tmp_path):
    result = recording.search(tmp_path / "w", **{"search.rounds": 1})
    told = json.dumps([result, workdir_lines(tmp_path / "w", "rounds")])
    assert not any(word in told for word in ("depths", "block", "deeper"))
