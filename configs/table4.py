"""The systems of Chen et al., CVPR 2020, table 4, by one recipe: ResNet-18 on ImageNet.

    bash launch/run.sh --config=configs/table4.py --config.mode=train --config.final.seeds=1 \
        --workdir=runs/table4_unpruned
    bash launch/run.sh sweep --config=configs/table4.py --workdir=runs/table4 --slurm

Data, recipe and extras are those of configs/r18.py, for every method, so that only the widths
differ; table 4 itself has each paper's own figures. Cosine decay takes the place of the steps of
SFP's and FPGM's own recipes. As in the table SFP and FPGM are fine-tuned, TAS is distilled.
Accuracy and time: not measured; configs/table4.py:smoke runs a few steps on random images of 64x64
pixels.
"""

from . import r18
from .compare_fashion import FINE_TUNED, METHODS

UNPRUNED = "runs/table4_unpruned/checkpoints/final_trained_0"
MACS = {1.0: 1_814_073_344, 0.8: 1_170_000_000}  # by width multiplier
TAUGHT = ("uniform", "network_adjustment", "tas")


def get_config(argument: str = ""):
    config = r18.get_config(argument)
    config.prune.penalty = 0.3
    config.final.original = False
    return config


def sweep():
    for macs in MACS.values():
        for method in METHODS:
            setting = {"method": method, "flops_budget": float(macs)}
            yield setting
            if method in FINE_TUNED:
                yield setting | {"init_from": UNPRUNED, "final.train.learning_rate": 0.01}
            if method in TAUGHT:
                yield setting | {"kd.teacher": UNPRUNED, "kd.width_multiplier": 1.0}
