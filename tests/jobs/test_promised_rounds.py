"""What rounds and final trainings begin with: widths, recipes, weights and teachers."""

import pytest

from furs_jax.errors import ConfigError
from furs_jax.jobs import dispatch
from furs_jax.methods import network_adjustment
from furs_jax.options.parse import parse
from furs_jax.widths.reallocate import reallocate
from furs_jax.widths.sites import choose_sites
from tests.jobs.recorded import DATA, Training, assert_same, same_images, small, workdir_lines


def test_original_start_and_searched_are_trained_alike(recording, tmp_path):
    recording.search(tmp_path / "w", channels=(12, 8, 8, 8, 8, 8), **{"final.train.epochs": 7})
    finals = recording.of(Training)[3:]
    names = [
        f"final_{name}_{seed}" for name in ("original", "start", "searched") for seed in (0, 1)
    ]
    assert [training.phase for training in finals] == names
    original, start, searched = finals[:2], finals[2:4], finals[4:]
    recipe = parse(small(**{"final.train.epochs": 7})).final.train
    for others in zip(original, start, searched, strict=True):
        assert len({training.seed for training in others}) == 1
        for training in others:
            assert training.trainer.recipe == recipe
            assert training.state["params"] == {}
            assert training.teacher is None
    assert original[0].seed != original[1].seed
    assert len({training.trainer.channels for training in finals}) == 3


def test_rounds_follow_from_the_last_one_s_furs(recording, tmp_path):
    recording.search(tmp_path / "w", **{"search.rounds": 2, "furs.method": "fisher"})
    first, second = workdir_lines(tmp_path / "w", "rounds")
    net = recording.of(Training)[0].trainer.task.net
    options = small().reallocate
    expected = reallocate(
        net, first["channels"], first["furs"], initial=net.channels, budget=net.macs(net.channels),
        num_layers=options.num_layers, step=options.step, step_decay=options.step_decay,
    )  # fmt: skip
    assert tuple(first["next_channels"]) == expected == tuple(second["channels"])
    assert second["channels"] != first["channels"]
    for training in recording.of(Training)[:2]:  # each from scratch
        assert training.state["params"] == {}
        assert training.trainer.recipe == parse(small()).train


def test_controls_change_what_sites_are_chosen_by(recording, tmp_path):
    chosen = {}
    for direction in ("fur", "reversed", "random"):
        folder = tmp_path / direction
        recording.search(
            folder, **{"reallocate.direction": direction, "reallocate.num_layers_decay": 0.0,
                       "reallocate.num_layers": 2},
        )  # fmt: skip
        rounds_ = workdir_lines(folder, "rounds")
        chosen[direction] = [(r["increased"], r["decreased"]) for r in rounds_]
        by_furs = [choose_sites(r["furs"], 2) for r in rounds_]
        if direction != "random":
            up, down = zip(*by_furs, strict=True)
            ways = (up, down) if direction == "fur" else (down, up)
            assert chosen[direction] == list(zip(*ways, strict=True))
    recording.search(tmp_path / "other", seed=1, **{"reallocate.direction": "random"})
    random_ = chosen["random"]
    assert len({str(sites) for sites in random_}) > 1  # others every round
    assert random_[0] != (workdir_lines(tmp_path / "other", "rounds")[0]["increased"][:2])


def test_a_given_checkpoint_s_weights_begin_the_first_round_or_a_training(
    recording, tmp_path, checkpoint
):
    given, variables = checkpoint("resnet8_cifar", 0.25)
    recording.search(tmp_path / "search", init_from=given)
    first, *others = recording.of(Training)
    assert_same(first.state.variables, variables)
    assert first.state["opt_state"] == {}
    assert all(training.state["params"] == {} for training in others)
    recording.calls.clear()
    dispatch.do(parse(small(mode="train", init_from=given)), tmp_path / "train")
    trainings = recording.of(Training)
    assert [training.phase for training in trainings] == ["final_trained_0", "final_trained_1"]
    for training in trainings:
        assert_same(training.state.variables, variables)
    with pytest.raises(ConfigError, match="init_from=.* has channels .* not those to train"):
        recording.search(tmp_path / "other", init_from=given, channels=(12, 8, 8, 8, 8, 8))


def test_warm_rounds_go_on_from_the_network_that_they_change(recording, tmp_path):
    recording.losses.update(round_00=0.3, round_01=0.4, round_02=0.5)
    recording.search(
        tmp_path / "w",
        **{"search.warm_start": True, "search.warm_epochs": 3, "search.warm_learning_rate": 0.02,
           "search.patience": 1, "reallocate.step": 0.8, "reallocate.step_decay": 0.3},
    )  # fmt: skip
    records = workdir_lines(tmp_path / "w", "rounds")
    assert [record["next_parent"] for record in records] == [0, 0, 0]
    assert [record["next_step_scale"] for record in records] == [1, 0.5, 0.25]
    net = recording.of(Training)[0].trainer.task.net
    for index, record in enumerate(records):
        expected = reallocate(
            net,
            records[0]["channels"],
            records[0]["furs"],
            initial=net.channels,
            budget=net.macs(net.channels),
            num_layers=network_adjustment.layers_in_round(small().reallocate, index),
            step=0.8 * 0.5**index,
            step_decay=0.3 * 0.5**index,
        )
        assert tuple(record["next_channels"]) == expected
    scratch, *warm = recording.of(Training)[:3]
    assert scratch.trainer.recipe.epochs == small().train.epochs
    for training in warm:
        assert training.state["params"] == "of round_00"
        assert training.state["opt_state"] == "of round_00"  # with its momentum
        recipe = training.trainer.recipe
        assert (recipe.epochs, recipe.learning_rate, recipe.dropout_by_epoch) == (3, 0.02, False)
    for call in recording.calls:
        if isinstance(call, tuple) and call[0] == "importance":
            assert call[1:3] == ("round_00", tuple(records[0]["channels"]))
            assert same_images(call[3].split, DATA.search)
    for training in recording.of(Training)[3:]:  # the finals are from scratch all the same
        assert training.state["params"] == {}
        assert training.trainer.recipe.epochs == small().final.train.epochs


def test_the_best_vector_can_be_selected(recording, tmp_path):
    recording.losses.update(round_00=0.5, round_01=0.3, round_02=0.4)
    for select in ("best", "last"):
        result = recording.search(tmp_path / select, **{"search.select": select})
        records = workdir_lines(tmp_path / select, "rounds")
        best, last = records[1]["channels"], records[2]["next_channels"]
        assert result["searched"]["channels"] == {"best": best, "last": last}[select]


@pytest.mark.parametrize(("spread", "rounds_"), [(0.1, 1), (20.0, 3)])
def test_a_search_may_end_when_no_sites_differ(recording, tmp_path, spread, rounds_):
    recording.spread = spread
    recording.search(tmp_path / "w", **{"search.stop_when_equal": True})
    assert len(workdir_lines(tmp_path / "w", "rounds")) == rounds_
    recording.search(tmp_path / "all")
    assert len(workdir_lines(tmp_path / "all", "rounds")) == 3


def test_the_run_s_original_of_the_same_seed_teaches_the_others(recording, tmp_path):
    options = {"kd.teacher": "original", "kd.alpha": 0.6, "kd.temperature": 3.0}
    recording.search(tmp_path / "w", channels=(12, 8, 8, 8, 8, 8), **options)
    for training in recording.of(Training):
        name, _, seed = training.phase.rpartition("_")
        if name in ("round", "final_original"):
            assert training.teacher is None
            continue
        assert training.teacher.variables["params"] == f"final_original_{seed}"
        assert (training.teacher.alpha, training.teacher.temperature) == (0.6, 3.0)


def test_another_run_s_network_teaches_both(recording, tmp_path, checkpoint):
    given, variables = checkpoint("resnet14_cifar", 0.5)
    options = {"kd.teacher": given, "kd.network": "resnet14_cifar", "kd.width_multiplier": 0.5}
    recording.search(tmp_path / "w", **options)
    for training in recording.of(Training):
        if training.phase.startswith("round"):
            assert training.teacher is None
        else:
            assert_same(training.teacher.variables, variables)
            assert training.teacher.module.channels[0] == 8
