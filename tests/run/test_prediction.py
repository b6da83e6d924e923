"""Predictions in figures and words, of lines as a search writes them."""

import numpy as np
import pytest

from furs_jax.run.prediction import conclusion, prediction, training_line

LINE = {
    "channels": [8, 8],
    "found": [6, 11],
    "gain": 0.1,
    "low": 0.02,
    "high": 0.2,
    "open": 0.01,
    "noise": 0.03,
    "share": 0.3,
    "share_low": 0.1,
    "share_high": 0.5,
    "wider": [1],
    "narrower": [],
}


def rounds(**changes):
    """Networks whose top-1 rises by 0.15 for each unit of the score, about."""
    scores = np.array([0.1, 0.5, 0.9])
    accuracies = 0.6 + 0.15 * scores + np.array([0.01, -0.02, 0.01])
    return [
        {**LINE, "score": s, "search_accuracy": a, **changes}
        for s, a in zip(scores, accuracies, strict=True)
    ]


def test_a_gain_of_the_loss_is_one_of_accuracy_as_networks_differ_in_both():
    told = prediction(rounds())
    found = [told[key] for key in ("gain", "low", "high")]
    assert found == pytest.approx([0.015, 0.003, 0.03])
    assert told["log_loss"] == [-0.1, -0.02, -0.2]
    assert told["trainings"] == 3


def test_networks_that_do_not_differ_tell_nothing_of_accuracy():
    alike = [{**line, "score": 0.5} for line in rounds()]
    assert prediction(alike)["gain"] == 0


def test_words():
    said = conclusion(rounds(), ("early", "late"))
    assert "a loss 9.5% (2.0 to 18.1) lower than the first" in said
    assert "a top-1 higher by 1.50 points (0.30 to 3.00): 6 11" in said
    assert "surely worth more than the first widths spend: late" in said
    assert "surely worth less" not in said
    assert "FURs explained 30% of what retraining showed (10% to 50%)" in said
    unsure = conclusion(rounds(low=-0.01), ("early", "late"))
    assert "that nothing is gained is not excluded: 6 11" in unsure


def test_a_training_says_what_is_known_after_it():
    seconds = {"train": 9.0, "furs": 2.0, "decide": 1.0, "compile": 4.0}
    line = {**LINE, "round": 2, "macs": 1000, "train_loss": 1.0, "search_loss": 0.5}
    line |= {"search_accuracy": 0.8, "seconds": seconds}
    said = training_line(line, 8)
    assert said.startswith("training 3/8  1,000 MACs  train loss 1.0000  search loss 0.5000")
    assert (
        "search accuracy 80.00%\n    the best should have a loss 9.5% (2.0 to 18.1) lower" in said
    )
    assert "[train 9s, FURs 2s, decide 1s, compile 4s]" in said
    stays = training_line({**line, "gain": 0.0, "low": 0.0, "high": 0.0}, 8)
    assert "nothing is expected to be better than the first widths  [" in stays
    vague = training_line({**line, "low": -2.0, "high": 2.0}, 8)
    assert "80.00%\n    what the best would gain can't be told yet  [" in vague


def test_words_where_nothing_is_known():
    said = conclusion(rounds(found=[8, 8], share_low=0.0, share_high=0.95), ("a", "b"))
    assert "after 3 trainings nothing that counts is to be gained: the first widths stay" in said
    assert "would lower the loss by 1.0%" in said
    assert "how much FURs explain of what retraining shows, these trainings don't tell" in said
