"""Between rounds: patience, and weights that are inherited."""

import pytest

from furs_jax.rounds import parent_and_scale
from furs_jax.search import search
from tests.test_search import content, small_config


def test_patience_goes_back_to_the_best_network_with_half_the_step():
    records = []
    for index, loss in enumerate([0.5, 0.4, 0.45, 0.41, 0.42, 0.43, 0.3, 0.31]):
        parent, scale = parent_and_scale(records, 2) if records else (None, 1.0)
        records.append({"round": index, "search_loss": loss, "step_scale": scale})
        if parent:
            records[-1]["parent"] = parent["round"]
    assert [r["parent"] for r in records[1:]] == [0, 1, 2, 1, 4, 1, 6]
    assert [r["step_scale"] for r in records] == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25]
    assert parent_and_scale(records, 0) == (records[-1], 0.25)


def test_a_warm_search_inherits_and_resumes(tmp_path):
    options = {
        "search.warm_start": True, "search.warm_epochs": 2, "search.rounds": 3,
        "train.epochs": 4, "final.train.epochs": 1, "final.seeds": 1, "search.patience": 1,
    }  # fmt: skip
    whole = search(small_config(**options), tmp_path / "whole", quiet=True)
    rounds = content(tmp_path / "whole")["rounds.jsonl"]
    # Two epochs from inherited weights end below where the same two from scratch would.
    metrics = content(tmp_path / "whole")["metrics.jsonl"]
    first = {r["phase"]: r["loss"] for r in metrics if r["epoch"] == 1}
    assert first["round_01"] < 0.8 * first["round_00"]
    assert [r["train_macs"] < rounds[0]["train_macs"] for r in rounds] == [False, True, True]
    assert whole["search_macs"] == sum(r["train_macs"] for r in rounds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("furs_jax.search.compare", None)
        config = small_config(**options)
        with pytest.raises(TypeError):
            search(config, tmp_path / "parts", quiet=True)
        journal = tmp_path / "parts" / "rounds.jsonl"
        journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:2]))
        (tmp_path / "parts" / "checkpoints" / "round_02").rename(tmp_path / "gone")
    assert search(config, tmp_path / "parts", quiet=True) == whole
