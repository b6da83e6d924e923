"""As configs/response_fashion.py, of an MBConv net on glyphs from its usual widths.

    python -m furs_jax.data.glyphs runs/glyphs_data  # first says which packages to install
    bash launch/run.sh sweep --config=configs/response_glyphs.py --workdir=runs/response_glyphs \
        --parallel=2

Both methods train ten times for an epoch on a quarter of the images, as do the final
trainings. What is found, and how long it takes: not measured.
"""

from . import glyphs
from .default import adapt
from .response_fashion import METHODS, TRAININGS


def get_config(argument: str = ""):
    config = glyphs.get_config("mnasnet")
    config.data.search_fraction = 0.75
    config.train.epochs = config.final.train.epochs = 1
    config.response.max_trainings = config.search.rounds = TRAININGS
    config.search.warm_epochs = 1
    config.final.seeds = 6
    config.final.use_search_split = False
    return adapt(config, argument)


def sweep():
    for method in METHODS:
        yield {"method": method}
