"""A method: every site as wide as any other, at the budget."""

from furs_jax.errors import ConfigError
from furs_jax.methods import Method
from furs_jax.widths.budget import fit_to_budget


class Equal(Method):
    def check(self, options, prepared):
        if len(prepared.start) < 2:
            raise ConfigError("a single site is equal to itself; take a deeper network")

    def search(self, run):
        equal = [max(run.start)] * len(run.start)
        bounds = run.bounds._asdict()
        found = fit_to_budget(run.task.net, equal, run.budget, cost=run.cost, **bounds)
        run.console.print(f"equal widths: {found}")
        return found
