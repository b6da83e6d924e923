"""The final comparison: original and searched trained alike, read once on the test split."""

import json
from collections.abc import Sequence

from furs_jax.prepare import final_split, recipe_of
from furs_jax.report.statistics import difference_interval, mean_interval
from furs_jax.rounds import training_macs
from furs_jax.run import Record, Run, train_phase
from furs_jax.train import make_evaluator, make_trainer


def compare(run: Run, searched: tuple[int, ...]) -> Record:
    """Trains original and searched alike, from scratch, and reads the test split."""
    net, seeds = run.task.net, run.config.final.seeds
    networks = {"original": net.channels, "searched": searched}
    done = run.workdir.finals.read()
    split = final_split(run.config, run.task.dataset)
    result: Record = {"budget": run.budget, "method": "network_adjustment"}
    for name, channels in networks.items():
        scores = [record for record in done if record["network"] == name]
        scores += _final_seeds(run, name, channels, range(len(scores), seeds))
        result[name] = {
            "channels": list(channels),
            "macs": net.macs(channels),
            "params": net.params(channels),
            "seeds": [{key: s[key] for key in ("seed", "top1", "top5", "loss")} for s in scores],
            **{key: mean_interval([s[key] for s in scores]) for key in ("top1", "top5")},
        }
    result["difference"] = {
        key: difference_interval(
            *([seed[key] for seed in result[name]["seeds"]] for name in ("searched", "original"))
        )
        for key in ("top1", "top5")
    }
    result["search_macs"] = sum(record["train_macs"] for record in run.workdir.rounds.read())
    result["final_macs"] = training_macs(
        make_trainer(run.task, searched, recipe_of(run.config.final.train), split), searched
    )
    return json.loads(json.dumps(result))


def _final_seeds(run: Run, name: str, channels: Sequence[int], seeds: range) -> list[Record]:
    """Trains and tests one network with the seeds that are still to do."""
    if not seeds:
        return []
    config, records = run.config.final, []
    split = final_split(run.config, run.task.dataset)
    trainer = make_trainer(run.task, channels, recipe_of(config.train), split)
    evaluate = make_evaluator(run.task, channels)
    for seed in seeds:
        phase, title = f"final_{name}_{seed}", f"final {name} {seed + 1}/{config.seeds}"
        variables, _ = train_phase(run, trainer, phase, title, (3, seed))
        scores = evaluate(variables, run.task.dataset.test)
        records.append({"network": name, "seed": seed, **scores})
        run.workdir.finals.append(records[-1])
        run.console.final(title, scores)
    return records
