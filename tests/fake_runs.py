"""Folders of runs that never ran, for the tests of what reads them."""

import json
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from configs import digits
from furs_jax.networks import get_network
from furs_jax.networks.recording import record_network
from furs_jax.report.run_record import RunRecord, read_run
from furs_jax.run.statistics import difference_interval, mean_interval

# XLA_FLAGS for runs of other processes that compile longer than they compute.
FAST_COMPILATION = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"

# Of the paper's repository: ResNet-18 0.8x on ImageNet.
RELEASED = [26, 53, 16, 62, 103, 96, 84, 89, 366, 162, 184, 174, 673, 283, 637, 833]


def fake_run(
    path: pathlib.Path,
    network: str = "resnet14_cifar",
    width: float = 0.5,
    data: str = "digits",
    rounds: int = 2,
    top1: tuple[float, float] = (0.9, 0.92),
    trained: int | None = None,
    start: Sequence[int] | None = None,
) -> RunRecord:
    """Writes a run's files and reads them.

    Args:
      path: the new folder.
      network, width, data: of the config.
      rounds: number of rounds that have ended.
      top1: mean accuracies of original and searched.
      trained: final trainings that have ended; None: all, and the run is finished.
      start: the vector that was given to begin with.
    """
    rng = np.random.default_rng(0)
    config = digits.get_config()
    config.network, config.width_multiplier, config.data.name = network, width, data
    config.search.rounds, config.final.seeds = max(rounds, 2), 3
    config.channels = start and tuple(start)
    shape, classes = ((8, 8, 1), 10) if data == "digits" else (None, 100)
    net = get_network(network, width, classes, image_shape=shape)
    path.mkdir(parents=True)
    content = {
        "config": json.loads(config.to_json_best_effort()),
        "channels": list(start or net.channels),
        "network": record_network(net, start or net.channels, classes),
    }
    (path / "config.json").write_text(json.dumps(content))
    channels, records = list(start or net.channels), []
    for index in range(rounds):
        furs = rng.normal(3e-7, 1e-7, len(channels))
        order = np.argsort(furs).tolist()
        following = [max(4, int(c * rng.uniform(0.8, 1.25))) for c in channels]
        records.append(
            {
                "round": index,
                "channels": channels,
                "macs": net.macs(channels),
                "params": net.params(channels),
                "search_loss": 1 / (index + 1),
                "furs": furs.tolist(),
                "furs_stderr": np.abs(0.1 * furs).tolist(),
                "increased": order[-2:],
                "decreased": order[:2],
                "next_channels": following,
                "next_macs": net.macs(following),
            }
        )
        channels = following
    _write_lines(path / "rounds.jsonl", records)
    finals = [
        {"network": name, "seed": seed, "top1": mean + 0.01 * (seed - 1), "top5": 0.99, "loss": 0.3}
        for name, mean in (
            ("original", top1[0]),
            *((("start", top1[0] - 0.01),) if start else ()),
            ("searched", top1[1]),
        )
        for seed in range(3)
    ]
    _write_lines(path / "finals.jsonl", finals[:trained])
    if trained is None:
        begun = {} if start is None else {"start": list(start)}
        vectors = {"original": list(net.channels), **begun, "searched": channels}
        result = _result(net, vectors, finals)
        (path / "result.json").write_text(json.dumps(result))
    return read_run(path)


def fake_training(
    path: pathlib.Path, init_from: str | None = None, ended: bool = True
) -> RunRecord:
    """A run of mode=train, of the original with one seed, or before that has ended."""
    run = fake_run(path, rounds=0, trained=0)
    content = json.loads((path / "config.json").read_text())
    content["config"] |= {"mode": "train", "init_from": init_from}
    content["config"]["final"]["seeds"] = 1
    (path / "config.json").write_text(json.dumps(content))
    if ended:
        finals = [{"network": "trained", "seed": 0, "top1": 0.9, "top5": 0.99, "loss": 0.3}]
        _write_lines(path / "finals.jsonl", finals)
        entry = {**content["network"]["start"], "seeds": finals}
        entry |= {key: mean_interval([finals[0][key]]) for key in ("top1", "top5")}
        (path / "result.json").write_text(json.dumps({"mode": "train", "trained": entry}))
    return read_run(run.path)


def _result(net, vectors: dict[str, list[int]], finals: list[dict]) -> dict:
    result = {"budget": net.macs(net.channels), "method": "network_adjustment"}
    for name, channels in vectors.items():
        seeds = [record for record in finals if record["network"] == name]
        sizes = {"macs": net.macs(channels), "params": net.params(channels)}
        scores = {key: mean_interval([s[key] for s in seeds]) for key in ("top1", "top5")}
        result[name] = {"channels": channels, **sizes, "seeds": seeds, **scores}
    result["difference"] = {
        key: difference_interval(
            *([s[key] for s in finals if s["network"] == name] for name in ("searched", "original"))
        )
        for key in ("top1", "top5")
    }
    return result


def _write_lines(path: pathlib.Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def rewrite(run: RunRecord, file: str, change: Callable[[dict], object]) -> RunRecord:
    """Changes the content of a JSON file of the run, and reads the run again."""
    content = json.loads((run.path / file).read_text())
    change(content)
    (run.path / file).write_text(json.dumps(content))
    return read_run(run.path)
