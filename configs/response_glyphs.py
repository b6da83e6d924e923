"""As configs/response_fashion.py, of an MBConv net on glyphs from its usual widths.

    bash launch/run.sh glyphs runs/glyphs_data  # first says which packages to install
    bash launch/run.sh sweep --config=configs/response_glyphs.py --workdir=runs/response_glyphs \
        --parallel=2

Both methods train ten times for three epochs on a quarter of the images, as do the final
trainings.
"""

from . import glyphs
from .default import adapt
from .response_fashion import LEAST_GAIN, METHODS, TRAININGS


def get_config(argument: str = ""):
    config = glyphs.get_config("mnasnet")
    config.data.search_fraction = 0.75
    for recipe in (config.train, config.final.train):
        recipe.epochs = 3
        recipe.batch_size = 64
        recipe.learning_rate = 0.1
    config.response.max_trainings = config.search.rounds = TRAININGS
    config.response.least_gain = LEAST_GAIN
    config.search.warm_epochs = config.train.epochs
    config.final.seeds = 10
    config.final.use_search_split = False
    return adapt(config, argument)


def sweep():
    for method in METHODS:  # one original will do
        yield {"method": method, "final.original": method == METHODS[0]}
