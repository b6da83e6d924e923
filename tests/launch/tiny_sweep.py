"""Sweeps of runs that are as little as a run can be."""

import argparse

from furs_jax.jobs.settings import Setting, plan
from launch import sweep

# As little as a run can be: random images, one round that changes nothing.
TINY = {
    "network": "resnet8_cifar",
    "width_multiplier": 0.25,
    "data.name": "random:8x8x1:10:64",
    "furs.method": "fisher",
    "reallocate.num_layers": 0,
    "search.rounds": 1,
    "train.epochs": 1,
    "final.train.epochs": 1,
    "final.seeds": 1,
    "final.timed": False,
    "checkpoint_seconds": 0.0,
    **dict.fromkeys(
        ("train.batch_size", "final.train.batch_size", "eval_batch_size", "furs.batch_size"), 16
    ),
}
OPTIONS = ["--config=configs/digits.py", *(f"--config.{k}={v}" for k, v in TINY.items())]


def plan_of(options: argparse.Namespace) -> list[Setting]:
    return plan(options.config, options.workdir, options.overrides, options.grid)


def planned(tmp_path, *arguments: str) -> list[Setting]:
    return plan_of(sweep.parse([*OPTIONS, f"--workdir={tmp_path}/w", *arguments]))
