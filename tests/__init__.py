"""The tests; a folder for each room of the package."""

import pathlib

ROOT = pathlib.Path(__file__).parents[1]  # of the project
