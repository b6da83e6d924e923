"""The command line: python -m furs_jax.main --config=configs/x.py --workdir=DIR."""

import os
import sys

from absl import flags

from furs_jax import cli
from furs_jax.machine import huge_pages
from furs_jax.machine.stop import Stop
from furs_jax.options.schema import PREDICT, Options

_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "With several processes: host:port of the first. Slurm and Cloud TPUs need none of these.",
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_seconds", 60, "When a process was silent for so long, the others end.", 1
)


def main(arguments: list[str], options: Options, workdir: str | None) -> None:
    if arguments and options.mode != PREDICT:
        sys.exit(f"furs_jax: {arguments[0]!r} is no option; options look like --config.seed=1")
    with Stop().install() as stop:
        # Imported here, so that wrong options are reported without waiting for JAX.
        from furs_jax.machine import devices, hosts

        given = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
        if hosts.join(*given, _HEARTBEAT.value):
            devices.set_up(options.cpu_devices)
            if not hosts.is_first():
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        from furs_jax.jobs.dispatch import do

        do(options, workdir, stop, arguments)


if __name__ == "__main__":
    huge_pages.begin_again()
    cli.execute(main)
