"""Eight methods at three budgets: a small ResNet on Fashion-MNIST at 14x14, all trained alike.

    apt-get install dataset-fashion-mnist
    bash launch/run.sh --config=configs/compare_fashion.py --config.mode=train \
        --config.final.seeds=1 --workdir=runs/compare_fashion_unpruned
    bash launch/run.sh sweep --config=configs/compare_fashion.py --workdir=runs/compare_fashion \
        --parallel=2

The first trains the unpruned network, from whose weights SFP and FPGM are fine-tuned and which
teaches where there is distillation; the second runs `sweep()`, goes on where it was stopped, and
writes the table and the figure into runs/compare_fashion/report. docs/METHODS.md has them.
"""

from . import fashion
from .default import adapt

UNPRUNED = "runs/compare_fashion_unpruned/checkpoints/final_trained_0"
WIDTH = 0.5  # of the unpruned network
MACS = 630_752  # of it, at 14x14
SHARES = (1.0, 0.8, 0.5)  # of the MACs that are left
TAUGHT = 0.8  # the share at which all are trained with distillation, too
METHODS = (
    "uniform",
    "network_adjustment",
    "response",
    "sfp",
    "fpgm",
    "lccl",
    "tas",
    "autoslim",
)
FINE_TUNED = ("sfp", "fpgm")  # from the unpruned network's weights, too


def get_config(argument: str = ""):
    config = fashion.get_config("resnet14_14px")
    config.network = "resnet8_cifar"
    config.width_multiplier, config.flops_budget = 1.0, float(MACS)
    config.prune.width_multiplier = WIDTH
    config.prune.penalty = 0.3  # of LCCL: the least tried that came within half of the MACs
    config.final.original = False
    return adapt(config, argument)


def sweep():
    for share in SHARES:
        for taught in (False, True) if share == TAUGHT else (False,):
            for method in METHODS:
                yield _setting(method, share, taught)
                if method in FINE_TUNED and not taught:
                    yield _setting(method, share, taught) | {
                        "init_from": UNPRUNED,
                        "final.train.learning_rate": 0.05,
                    }


def _setting(method: str, share: float, taught: bool) -> dict:
    teacher = {"kd.teacher": UNPRUNED, "kd.width_multiplier": WIDTH} if taught else {}
    return {"method": method, "flops_budget": float(round(share * MACS)), **teacher}
