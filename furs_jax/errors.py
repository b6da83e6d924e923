"""The errors that a user can act on; `furs_jax.main` prints them as one line."""


class FursError(Exception):
    """Base class. The message says what is wrong and what to do about it."""


class ConfigError(FursError, ValueError):
    """An option has a value that can't work, alone or together with another option."""


class DataError(FursError, ValueError):
    """A data set is unknown, missing or damaged."""


class BudgetError(FursError, ValueError):
    """No channel vector meets the budget."""


class WorkdirError(FursError, RuntimeError):
    """The run's folder holds something else than this run."""


class DamagedError(WorkdirError, ValueError):
    """A file of a run's folder is not as it was written."""


class WorkdirBusyError(WorkdirError):
    """Another process works on the run."""


class HostsError(FursError, RuntimeError):
    """The processes of a run can't work together."""


class DivergedError(FursError, RuntimeError):
    """What a training computes stopped being finite."""


class StoppedError(KeyboardInterrupt):
    """The process was asked to end, by the exit status `status`: no mistake, so no FursError."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


def how_to_install(extra: str) -> str:
    """What installs an extra of setup.py, from a clone, in either of the ways of README."""
    return (
        f"FURS_EXTRAS={extra} in front of bash launch/run.sh, or in an environment of your own, in "
        f"the project's folder, pip install -e '.[{extra}]'"
    )


class MissingExtraError(FursError, RuntimeError):
    """An optional dependency is not installed; `extra` is setup.py's name for it."""

    def __init__(self, purpose: str, package: str, extra: str):
        super().__init__(
            f"{purpose} need {package}, which is not installed: {how_to_install(extra)}"
        )
