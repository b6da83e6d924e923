"""Which images trainings, estimates and evaluations are of, when they are read, by which seed."""

import numpy as np

from furs_jax.jobs import dispatch, prepare
from furs_jax.machine import hosts
from furs_jax.options.parse import parse
from tests.jobs.recorded import (
    DATA,
    Estimate,
    Evaluation,
    Training,
    assert_same,
    same_images,
    small,
    workdir_lines,
)


def test_three_splits(recording, tmp_path):
    result = recording.search(tmp_path / "w")
    trainings, evaluations = recording.of(Training), recording.of(Evaluation)
    assert [t.phase for t in trainings[:3]] == ["round_00", "round_01", "round_02"]
    assert len(trainings) == 3 + 2 * 2
    # Weights of the rounds come from the training images alone, those of the finals from the
    # search split, too, which has done its work.
    for training in trainings[:3]:
        assert same_images(training.trainer.split, DATA.train)
    for training in trainings[3:]:
        assert same_images(training.trainer.split, DATA.train, DATA.search)
    # FURs, and what rounds are chosen by, from the search split.
    for estimate, evaluation, training in zip(
        recording.of(Estimate), evaluations, trainings[:3], strict=False
    ):
        assert same_images(estimate.split, DATA.search)
        assert same_images(evaluation.split, DATA.search)
        assert estimate.normalises
        assert estimate.variables == evaluation.variables == training.phase
        assert estimate.channels == evaluation.channels == training.trainer.channels
    # The test split is read once for each final training, after all else of the search.
    tested = [call for call in recording.calls if isinstance(call, Evaluation)][3:]
    assert all(same_images(evaluation.split, DATA.test) for evaluation in tested)
    assert [e.variables for e in tested] == [t.phase for t in trainings[3:]]
    assert recording.calls.index(tested[0]) > recording.calls.index(recording.of(Estimate)[-1])
    assert tested[-1].channels == tuple(result["searched"]["channels"])


def test_hosts_check_that_they_hold_the_same(recording, tmp_path, monkeypatch):
    checked = []
    monkeypatch.setattr(hosts, "agree", lambda what, value: checked.append((what, value)))
    recording.search(tmp_path / "w", **{"search.rounds": 2})
    vectors = [
        [record["next_channels"], None, record["next_parent"]]  # no other blocks
        for record in workdir_lines(tmp_path / "w", "rounds")
    ]
    names = ["the config", "the data", *["the next channel vector"] * 2]
    assert [what for what, _ in checked] == names
    assert checked[0][1]["network"] == "resnet8_cifar"
    assert [value for _, value in checked[2:]] == vectors
    images = DATA.test.images.copy()
    images[-1, 0, 0, 0] ^= 1
    other = DATA._replace(test=DATA.test._replace(images=images))
    monkeypatch.setattr(prepare, "load_dataset", lambda *_: other)
    prepare.prepare(parse(small()))
    assert checked[-1][0] == "the data"
    assert checked[-1][1] != checked[1][1]


def test_without_the_search_split_finals_are_trained_on_the_training_images(recording, tmp_path):
    recording.search(tmp_path / "w", **{"final.use_search_split": False})
    assert all(
        same_images(training.trainer.split, DATA.train) for training in recording.of(Training)
    )


def test_the_seed_is_that_of_everything_but_the_splits(recording, tmp_path):
    seeds = []
    for seed in (0, 1):
        recording.calls.clear()
        recording.search(tmp_path / str(seed), seed=seed)
        of_trainings = {training.phase: training.seed for training in recording.of(Training)}
        assert len(set(of_trainings.values())) == 3 + 2  # rounds differ, finals are in pairs
        seeds.append([*of_trainings.values(), *(e.seed for e in recording.of(Estimate))])
        assert recording.calls[0][0] == "data"
        assert recording.calls[0][4] == 0  # data.seed
    assert len({*seeds[0]} | {*seeds[1]}) == 2 * (5 + 3)


def test_furs_are_of_evenly_spread_images(recording, tmp_path):
    recording.search(tmp_path / "w", **{"furs.images": 7, "search.rounds": 1})
    (estimate,) = recording.of(Estimate)
    places = [0, 5, 11, 17, 22, 28, 34]  # of 40
    assert np.array_equal(estimate.split.images, DATA.search.images[places])


def test_fisher_furs_are_watched_on_one_image_for_40_trained_on(recording, tmp_path):
    options = {"furs.every_epochs": 1, "furs.metric": "accuracy", "search.rounds": 1}
    recording.search(tmp_path / "w", **options)
    watched, decided = recording.of(Estimate)
    assert (watched.estimator.method, watched.estimator.metric) == ("fisher", "loss")
    assert (decided.estimator.method, decided.estimator.metric) == ("dropout", "accuracy")
    assert len(watched.split.labels) == 96 // 40
    assert same_images(watched.split, DATA.search.take([0, 20]))
    (line,) = (r for r in workdir_lines(tmp_path / "w", "metrics") if "furs" in r)
    assert line["phase"] == "round_00"
    assert len(line["furs"]) == len(line["furs_stderr"]) == 6


def test_mode_train_trains_the_given_widths_by_the_final_recipe(recording, tmp_path):
    config = small(mode="train", channels=(5, 6, 7, 8, 9, 10))
    result = dispatch.do(parse(config), tmp_path / "w")["trained"]
    assert result["channels"] == [5, 6, 7, 8, 9, 10]
    trainings = recording.of(Training)
    assert len(trainings) == len({training.seed for training in trainings}) == 2
    for training in trainings:
        assert training.trainer.channels == (5, 6, 7, 8, 9, 10)
        assert training.trainer.recipe == parse(config).final.train
        assert same_images(training.trainer.split, DATA.train, DATA.search)
    assert recording.of(Estimate) == []
    assert all(same_images(evaluation.split, DATA.test) for evaluation in recording.of(Evaluation))
    # As final trainings of a search of the same seed are.
    recording.calls.clear()
    recording.search(tmp_path / "search")
    finals = recording.of(Training)[-2:]
    assert [t.seed for t in finals] == [t.seed for t in trainings]


def test_modes_evaluate_and_furs_look_at_the_checkpoint(recording, checkpoint):
    given, variables = checkpoint("resnet8_cifar", 0.25)
    dispatch.do(parse(small(mode="evaluate", init_from=given)), None)
    (evaluation,) = recording.of(Evaluation)
    assert_same(evaluation.variables, variables)
    assert same_images(evaluation.split, DATA.test)
    dispatch.do(parse(small(mode="furs", init_from=given, **{"furs.images": 10})), None)
    (estimate,) = recording.of(Estimate)
    assert_same(estimate.variables, variables)
    assert same_images(estimate.split, DATA.search.take(range(0, 40, 4)))
    assert estimate.num_layers == small().reallocate.num_layers
