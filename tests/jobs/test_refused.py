"""Runs that don't begin, or end early: what is wrong with them, and what they leave."""

import os

import pytest

from furs_jax.errors import BudgetError, ConfigError, DataError, DivergedError, WorkdirError
from furs_jax.jobs.search import search
from tests.small_runs import small_config


def test_a_folder_that_is_no_run_s_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(WorkdirError, match="no config.json"):
        search(small_config(), tmp_path, quiet=True)
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"network": "vgg"}, ConfigError, "unknown network 'vgg'"),
        ({"padding": "zero"}, ConfigError, "padding=.zero. must be one of max, local"),
        ({"data.name": "cifar"}, DataError, "unknown data set"),
        ({"data.name": "idx:/nowhere"}, DataError, "is missing"),
        ({"train.batch_size": 60}, ConfigError, "train.batch_size=60 .* give 56 or 64"),
        ({"furs.batch_size": 4}, ConfigError, "furs.batch_size=4"),
        ({"train.batch_size": 1200}, ConfigError, "more than the 1149 training images"),
        ({"furs.metric": "f1"}, ConfigError, "furs.metric"),
        ({"search.select": "first"}, ConfigError, "search.select"),
        ({"search.rounds": 0}, ConfigError, "search.rounds=0"),
        ({"dtype": "int8"}, ConfigError, "dtype='int8'"),
        ({"reallocate.min_channels": 40}, BudgetError, "budget .* can't be met"),
        ({"flops_budget": 100.0, "width_multiplier": 1.0}, BudgetError, "too small"),
        (
            {"flops_budget": 1e5},
            ConfigError,
            "must stay 1; it is 0.25 here: add --config.width_multiplier=1",
        ),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(tmp_path, changes, error, message):
    workdir = tmp_path / "w"
    with pytest.raises(error, match=message):
        search(small_config(**changes), workdir, quiet=True)
    assert not workdir.exists()


def test_a_nan_loss_says_where_and_keeps_the_run(tmp_path):
    config = small_config(**{"train.learning_rate": 1e30})
    with pytest.raises(DivergedError, match="round 1/2: the loss became .* epoch 1, step"):
        search(config, tmp_path / "w", quiet=True)
    assert (tmp_path / "w" / "config.json").exists()
    assert not (tmp_path / "w" / "rounds.jsonl").exists()
