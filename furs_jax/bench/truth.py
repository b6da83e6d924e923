"""The utilisation ratio by brute force, whether it leaves a gain, and which estimator predicts it.

Equation 2 of Chen et al. (CVPR 2020) taken literally: networks with wider and narrower sites are
trained anew, and the change of the search loss is divided by that of the MACs. All sites change at
once (see `bench.screening`). For networks small enough for 2 to 4 L trainings a seed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from furs_jax.bench import screening
from furs_jax.bench.predictors import predictions
from furs_jax.bench.retrain import check_sites, retrain, run_from_scratch
from furs_jax.costs.macs import Macs
from furs_jax.methods._following import step_widths
from furs_jax.networks.network import Network
from furs_jax.options.schema import Options
from furs_jax.run.context import Run
from furs_jax.run.journal import Journal
from furs_jax.run.statistics import Interval
from furs_jax.run.tables import format_table
from furs_jax.widths.reallocate import reallocate


def bench(options: Options, workdir: str) -> None:
    """Measures the truth and correlates every estimator with it; goes on where it stopped.

    Of the network that a search would begin with: the original, or that of the given channels.
    The changed networks are trained by config.final.train, the networks that FURs are estimated on
    by config.train, with config.final.seeds seeds each. The folder is a run's: truth.jsonl has one
    line a training of a changed network, result.json the outcome.

    Raises:
      ConfigError: weights are given, or the network has one site.
      WorkdirError: the folder holds another config's trainings, or a search.
    """
    run_from_scratch("truth", options, workdir, _measure, _table)


def _measure(run: Run) -> dict[str, Any]:
    net = run.task.net
    check_sites(run)
    initial = step_widths(run)
    net = net.of(run.start)  # where channels are given
    run = run._replace(task=run.task._replace(net=net))
    journal, seeds = Journal(run.workdir.path / "truth.jsonl"), run.options.final.seeds
    recipe, patterns = run.options.final.train, screening.design(len(net.channels))
    for place, signs in enumerate(patterns):
        what = f"changed network {place + 1} of {len(patterns)}"
        channels = screening.changed(net.channels, signs, net.multiple)
        retrain(run, channels, recipe, journal, what)
    found = predictions(run, range(seeds))
    return {
        "network": net.name,
        "sites": net.site_names,
        "data": run.task.dataset.name,
        "seeds": seeds,
        "trainings": len(patterns),
        **truth(net, journal.read()),
        "estimators": {
            name: {
                "furs": [one[name].tolist() for one in found],
                "next_channels": [_next_vector(run, initial, one[name]) for one in found],
            }
            for name in found[0]
        },
    }


def truth(net: Network, records: list[dict[str, Any]]) -> dict[str, Any]:
    """What the trainings of the changed networks say, as JSON holds it.

    Args:
      net: the network that was changed, of L sites.
      records: the journal's: channels, seed, search_loss and search_top1 of each training.

    Returns:
      "furs", "furs_stderr": utilisation ratios (fall of the loss per MAC), length L. "by_seed": of
      each seed alone. "p_even": the probability of ratios as uneven if all were equal. "top1":
      the linear model of top-1 that changes of several sites are predicted by.
    """
    log_widths = np.log([r["channels"] for r in records]) - np.log(net.channels)
    seeds = np.array([r["seed"] for r in records])
    loss, top1 = (np.array([r[key] for r in records]) for key in ("search_loss", "search_top1"))
    macs = np.array(net.channels) * Macs(net).marginals(net.channels)
    fall, rise = (screening.fit(log_widths, values, seeds) for values in (-loss, top1))
    each = [screening.fit(log_widths[s], -loss[s], seeds[s]) for s in _masks(seeds)]
    return {
        "furs": (fall.slopes / macs).tolist(),
        "furs_stderr": (fall.stderr() / macs).tolist(),
        "by_seed": [(one.slopes / macs).tolist() for one in each],
        "p_even": screening.chance_of_even(fall, macs),
        "channels": list(net.channels),
        "top1": {
            "slopes": rise.slopes.tolist(),
            "covariance": rise.covariance.tolist(),
            "freedom": rise.freedom,
        },
    }


def _masks(seeds: np.ndarray) -> list[np.ndarray]:
    return [seeds == seed for seed in np.unique(seeds)]


def _next_vector(run: Run, initial: Sequence[int], furs: np.ndarray) -> tuple[int, ...]:
    """What a search's first round would make of these FURs."""
    options = run.options.reallocate
    return reallocate(
        run.task.net,
        run.task.net.channels,
        furs,
        initial=initial,
        budget=run.budget,
        num_layers=options.num_layers,
        step=options.step,
        step_decay=options.step_decay,
        cost=run.cost,
        **run.bounds._asdict(),
    )


def _table(result: dict[str, Any]) -> str:
    """Every estimator beside the truth; then the truth of every site."""
    furs, seeds = np.array(result["furs"]), result["seeds"]
    effects = screening.Effects(**{k: np.array(v) for k, v in result["top1"].items()})

    def gain(vectors: Sequence[Sequence[int]]) -> str:
        moved = np.mean(np.log(vectors), axis=0) - np.log(result["channels"])
        return Interval(*screening.predicted(effects, moved)).format(sign=True)

    rows = []
    for name, of in result["estimators"].items():
        rank = stats.spearmanr(np.mean(of["furs"], axis=0), furs)
        single = np.mean([stats.spearmanr(one, furs).statistic for one in of["furs"]])
        numbers = (rank.statistic, rank.pvalue, single, _agreement(of["furs"]))
        rows.append((name, *(f"{x:.2f}" for x in numbers), gain(of["next_channels"])))
    rows.append(("the truth", "", "", "", f"{_agreement(result['by_seed']):.2f}", ""))
    header = ("estimator", "Spearman", "p", "one network", "between seeds", "a round's top-1")
    sites = [
        (name, width, f"{1e9 * ratio:.2f}", f"{1e9 * error:.2f}")
        for name, width, ratio, error in zip(
            result["sites"], result["channels"], furs, result["furs_stderr"], strict=True
        )
    ]
    return (
        f"{format_table(header, rows)}\n\n"
        f"{format_table(('site', 'channels', 'loss per GMAC', 's.e.'), sites)}\n"
        f"{result['network']}, {len(furs)} sites, {result['data']}; truth: search loss of "
        f"{result['trainings']} networks, {seeds} seed{'s' if seeds > 1 else ''} each, whose sites "
        f"are wider or narrower by a factor of about {screening.FACTOR:g}.\n"
        "Spearman: of the mean over seeds with the truth; one network: of a single one, mean; "
        "between seeds: mean Spearman of two seeds; a round's top-1: points on the search split "
        "(95 %) that the trainings say for the vector one round would make of these FURs.\n"
        f"{verdict(result['p_even'])}"
    )


def verdict(p_even: float) -> str:
    """Whether channels are worth more at one site than at another, in words."""
    chance = f"ratios so uneven come of noise alone with a probability of {p_even:.2g}"
    if p_even < 0.05:
        return f"Channels are worth more at some sites than at others ({chance}): a search may gain"
    return (
        f"Channels are not shown to be worth more at some sites than at others ({chance}): so many "
        "trainings leave no gain to be seen near these widths"
    )


def _agreement(each: Sequence[Sequence[float]]) -> float:
    """Mean Spearman correlation of two rows; NaN where there is one."""
    pairs = [stats.spearmanr(a, b).statistic for i, a in enumerate(each) for b in each[i + 1 :]]
    return float(np.mean(pairs)) if pairs else float("nan")
