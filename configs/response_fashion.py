"""A search by trainings of whole vectors beside one by FURs, on Fashion-MNIST at 14x14.

    apt-get install dataset-fashion-mnist
    bash launch/run.sh sweep --config=configs/response_fashion.py --workdir=runs/response_fashion \
        --parallel=2

A plain net of 14 layers from equal widths, from its own upside down, and from its own, and a ResNet
from its own. Both methods train ten times for two epochs, one from scratch, the other from the
weights of the round before. docs/RESPONSE.md has what came out.
"""

from . import fashion
from .default import adapt

EQUAL = (12,)
UPSIDE_DOWN = (16, 16, 16, 16, 8, 8, 8, 8, 4, 4, 4, 4)
METHODS = ("response", "network_adjustment")
TRAININGS = 10
LEAST_GAIN = 0.25  # of what seeds differ by: ten of them don't show less


def get_config(argument: str = ""):
    config = fashion.get_config("plain14_14px")
    config.train.epochs = config.final.train.epochs = 2
    config.response.max_trainings = config.search.rounds = TRAININGS
    config.response.least_gain = LEAST_GAIN
    config.search.warm_epochs = 2
    config.final.seeds = 10
    config.final.original = False
    return adapt(config, argument)


def sweep():
    yield from _pair(EQUAL)
    yield {"method": "response", "final.original": True}
    yield from _pair(UPSIDE_DOWN)
    yield {"method": "response", "network": "resnet14_cifar", "final.original": True}


def _pair(channels: tuple[int, ...]) -> list[dict]:
    return [{"method": method, "channels": channels} for method in METHODS]
