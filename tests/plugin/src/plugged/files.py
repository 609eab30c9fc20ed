"""Where the TOML files are: two tasks, a recipe, a suite."""

from pathlib import Path

FOLDER = Path(__file__).parent


def recipe():
    return FOLDER / "plugged-decay.toml"


def blobs():
    return FOLDER / "plugged-blobs-v1.toml"


def corridor():
    return FOLDER / "plugged-corridor-v1.toml"


def suite():
    return FOLDER / "suite-plugged-v1.toml"
