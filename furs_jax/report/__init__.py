"""What a run tells its user: a page, tables and figures.

In Python, and inline in a notebook (the figures are matplotlib's):

    from furs_jax import report
    run = report.read_run("runs/digits")
    report.comparison([run])            # Table 4's columns; shows as a table
    report.draw_network(run.network, run.before, run.channels)
    report.draw_furs(run), report.draw_channels(run), report.draw_accuracy([run])
    report.write_page(run, pathlib.Path("page.html"))    # needs no matplotlib

On the command line: python -m furs_jax.report RUN...
"""

import importlib
from typing import Any

from furs_jax.errors import MissingExtraError

# name -> module. Imported when asked for: runs print tables without matplotlib.
_EXPORTS = {
    "compare_methods": "method_table",
    "comparison": "table4",
    "published_table": "table4",
    "read_run": "run_record",
    "RunRecord": "run_record",
    "draw_network": "diagram",
    "draw_accuracy": "accuracy",
    "draw_channels": "figures",
    "draw_furs": "figures",
    "draw_methods": "method_figure",
    "compare_furs": "figures",
    "save": "style",
    "write_page": "page",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'furs_jax.report' has no attribute {name!r}")
    try:
        module = importlib.import_module(f"furs_jax.report.{_EXPORTS[name]}")
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise MissingExtraError("figures", "matplotlib", "report") from error
    return getattr(module, name)
