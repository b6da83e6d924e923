"""The final comparison: original and searched trained alike, read once on the test split.

A search that begins with other widths than the original's has a third network, its start.
"""

from collections.abc import Sequence

from furs_jax.distill import ORIGINAL, Teacher, load_network
from furs_jax.prepare import final_split, first_recipe, recipe_of, teacher_network
from furs_jax.report.statistics import difference_interval, mean_interval
from furs_jax.rounds import training_macs
from furs_jax.run import Record, Run, from_weights, train_phase
from furs_jax.runtime import release_programs
from furs_jax.train import make_evaluator, make_trainer


def compare(run: Run, searched: tuple[int, ...]) -> Record:
    """Trains original, start and searched alike, from scratch, and reads the test split."""
    net, config = run.task.net, run.config
    networks = {ORIGINAL: net.channels, "searched": searched}
    if run.start != net.channels:
        networks = {ORIGINAL: net.channels, "start": run.start, "searched": searched}
    result: Record = {"budget": run.budget, "method": "network_adjustment"}
    for name, channels in networks.items():
        result[name] = train_seeds(run, name, channels)
    result["difference"] = _difference(result["searched"], result[ORIGINAL])
    if "start" in result:
        result["difference_from_start"] = _difference(result["searched"], result["start"])
    result["search_macs"] = sum(record["train_macs"] for record in run.workdir.rounds.read())
    split = final_split(config, run.task.dataset)
    recipe = recipe_of(config.final.train)
    result["final_macs"] = training_macs(net, searched, recipe, split)
    return result


def _difference(network: Record, reference: Record) -> Record:
    return {
        key: difference_interval(
            *([seed[key] for seed in one["seeds"]] for one in (network, reference))
        )
        for key in ("top1", "top5")
    }


def train_seeds(run: Run, name: str, channels: Sequence[int], init_from: bool = False) -> Record:
    """Trains and tests one network with all seeds; those done before are read from the journal.

    Args:
      name: of the network, in the journal and in the folder of its checkpoints.
      channels: its vector.
      init_from: begin with the weights of config.init_from, where that is given.

    Returns:
      channels, macs, params, each seed's figures and their means with intervals.
    """
    config, net = run.config.final, run.task.net
    scores = [record for record in run.workdir.finals.read() if record["network"] == name]
    evaluate = make_evaluator(run.task, channels)
    trainer = None
    for seed in range(len(scores), config.seeds):
        teacher = teacher_of(run, name, seed)
        if trainer is None:
            split = final_split(run.config, run.task.dataset)
            if init_from:
                recipe = first_recipe(run.config, config.train)
                made = make_trainer(run.task, channels, recipe, split, teacher)
                trainer = from_weights(run, made)
            else:
                trainer = make_trainer(run.task, channels, recipe_of(config.train), split, teacher)
        elif teacher is not None:
            trainer = trainer._replace(teacher=teacher.variables)
        phase, title = final_phase(name, seed), f"final {name} {seed + 1}/{config.seeds}"
        variables, _ = train_phase(run, trainer, phase, title, (3, seed))
        scores.append({"network": name, "seed": seed, **evaluate(variables, run.task.dataset.test)})
        run.workdir.finals.append(scores[-1])
        run.console.final(title, scores[-1])
    release_programs()
    return {
        "channels": list(channels),
        "macs": net.macs(channels),
        "params": net.params(channels),
        "seeds": [{key: s[key] for key in ("seed", "top1", "top5", "loss")} for s in scores],
        **{key: mean_interval([s[key] for s in scores]) for key in ("top1", "top5")},
    }


def final_phase(name: str, seed: int) -> str:
    return f"final_{name}_{seed}"


def teacher_of(run: Run, name: str, seed: int) -> Teacher | None:
    """Who teaches a final training, as `config.kd` says; the run's own original is not taught."""
    options = run.config.kd
    if options.teacher is None or (options.teacher == ORIGINAL and name == ORIGINAL):
        return None
    if options.teacher == ORIGINAL:
        path, net = run.workdir.checkpoints / final_phase(ORIGINAL, seed), run.task.net
    else:
        path, net = options.teacher, teacher_network(run.config, run.task.dataset)
    channels, variables = load_network(str(path), net, "kd.teacher")
    module = net.module(channels, dtype=run.task.dtype)
    return Teacher(module, variables, options.alpha, options.temperature)
