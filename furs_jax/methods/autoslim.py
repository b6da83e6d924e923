"""AutoSlim (Yu & Huang, arXiv 1903.11728): greedy slimming of one slimmable network.

A network wider than the unpruned one is trained at all widths at once, and then loses channels, a
group at a time, where it suffers least, until it meets the budget. What is found is trained anew.

Different from the authors' code: a removal is judged by the loss on images of the search split, not
by the top-1 error of one batch (neither is per MAC); the stem is the original's, and its width is
not searched; the last removal overshoots the budget, which single channels then use up.
"""

from collections.abc import Sequence

from furs_jax.errors import ConfigError
from furs_jax.machine import hosts
from furs_jax.machine.programs import release_programs
from furs_jax.methods import Channels, Method, Record
from furs_jax.networks.axes import grows_in_front
from furs_jax.networks.network import Network
from furs_jax.options.schema import Options
from furs_jax.options.units import amount
from furs_jax.run.context import Prepared, Run
from furs_jax.run.entries import compare_entry, training_macs, vector_entry
from furs_jax.run.lines import rounded
from furs_jax.run.phases import train_phase
from furs_jax.training.slimmable import Sandwich, whole_batches, width_losses
from furs_jax.training.step import TrainState
from furs_jax.training.trainer import make_trainer
from furs_jax.widths.bounds import fixed_sites, site_bounds
from furs_jax.widths.budget import fit_to_budget
from furs_jax.widths.slimming import ladders, replay, share_of, slim

_PHASE = "slimmable"


class AutoSlim(Method):
    """Trains a slimmable network and slims it.

    Attributes:
      expand: times the unpruned network's widths, where `prune.expand` gives none.
      least: share of the channels of the smallest network.
      randoms: widths drawn in a step, beside the largest and the smallest.
      groups: of a site's channels, one of which a removal takes.
      images: of the search split, that removals are judged on.
      in_place: whether narrower networks learn the largest one's outputs (in-place distillation):
        described in the paper, and not in its code.
    """

    expand = 1.5
    least = 0.1
    randoms = 2
    groups = 10
    images = 512
    in_place = False
    unused = ("channels", "channels_from", "init_from")

    def check(self, options: Options, prepared: Prepared) -> None:
        if options.mode != "search":
            return
        cost, steps = prepared.cost, self.ladders(options, prepared.unpruned)
        most, least = (cost.of([widths[end] for widths in steps]) for end in (0, -1))
        if not cost.within([widths[-1] for widths in steps]):
            raise ConfigError(
                "method=autoslim slims to a tenth of each site, which still exceeds "
                "config.cost.limits: give larger ones, or a smaller prune.width_multiplier"
            )
        if not least <= prepared.budget < most:
            raise ConfigError(
                f"method=autoslim slims a network of {amount(most)} {cost.unit} to at least "
                f"{amount(least)}, and the budget must lie between: change prune.width_multiplier "
                "or prune.expand"
            )

    def largest(self, options: Options, unpruned: Network) -> Channels:
        """The widths of the slimmable network."""
        expand = options.prune.expand or self.expand
        unit, fixed = unpruned.multiple, fixed_sites(options.reallocate, unpruned)
        return tuple(
            c if site in fixed else max(int(expand * c) // unit, 1) * unit
            for site, c in enumerate(unpruned.channels)
        )

    def ladders(self, options: Options, unpruned: Network) -> tuple[Channels, ...]:
        """The widths that each site may get, from the largest down."""
        bounds = site_bounds(options.reallocate, unpruned)
        widest, unit = self.largest(options, unpruned), bounds.channel_multiple
        return ladders(widest, self.groups, bounds.min_channels, unit)

    def search(self, run: Run) -> Channels:
        journal = run.workdir.rounds
        for compute in (self._train, self._slim)[len(journal.read()) :]:
            journal.append(compute(run))
        return tuple(journal.read()[-1]["channels"])

    def is_complete(self, run: Run) -> bool:
        return len(run.workdir.rounds.read()) == 2

    def check_journal(self, run: Run) -> None:
        rounds = run.workdir.rounds
        for index, stored in enumerate(rounds.read()):
            try:
                if index > 1:
                    raise ValueError("a search by autoslim has two lines")
                told = self._slimmed(run, stored["removed"]) if index else self._trained(run)
                compare_entry(stored, {"round": index, **told}, "its")
                if index and len(stored["losses"]) != len(stored["removed"]):
                    raise ValueError("it has not one loss for each removal")
            except (ValueError, LookupError, TypeError) as error:
                raise rounds.damaged(index + 1, str(error)) from error

    def check_result(self, options: Options, rounds: Sequence[Record], result: Record) -> None:
        expected = {name: rounds[1][name] for name in ("channels", "macs", "params")}
        compare_entry(result["searched"], expected, "searched")

    def _train(self, run: Run) -> Record:
        """Trains the slimmable network; a line of the journal."""
        spent = run.clock.span()
        _, trained = self._slimmable(run)
        seconds = {"train": trained["seconds"] - spent.compiled, "compile": spent.compiled}
        losses = {"train_loss": trained["loss"], "smallest_loss": trained["smallest"]}
        return {"round": 0, **self._trained(run), **losses, "seconds": rounded(seconds)}

    def _slimmable(self, run: Run) -> tuple[TrainState, Record]:
        """The trained slimmable network and its last epoch."""
        options, channels = run.options, self.largest(run.options, run.unpruned)
        objective = Sandwich(
            run.task.objective.of_recipe(options.train),
            smallest=share_of(channels, self.least, run.unpruned.multiple),
            least=self.least,
            unit=run.unpruned.multiple,
            randoms=self.randoms,
            cuts=grows_in_front(run.task.net),
            in_place=self.in_place,
        )
        task, recipe = run.task, options.train
        trainer = make_trainer(task, channels, recipe, task.dataset.train, objective)
        return train_phase(run, trainer, _PHASE, "slimmable network", (5, 0))

    def _trained(self, run: Run) -> Record:
        """What the options tell of the training's line."""
        net, channels = run.task.net, self.largest(run.options, run.unpruned)
        smallest = share_of(channels, self.least, net.multiple)
        full = 1 + self.randoms + (not grows_in_front(net))  # a masked pass is a full one
        passes = [channels] * full + [smallest] * grows_in_front(net)
        split, recipe = run.task.dataset.train, run.options.train
        macs = sum(training_macs(net, vector, recipe, split) for vector in passes)
        return {**vector_entry(run.task.net, run.cost, channels), "train_macs": macs}

    def _slim(self, run: Run) -> Record:
        """Slims the trained network; a line of the journal."""
        state, _ = self._slimmable(run)
        spent = run.clock.span()

        def on_removal(site: int, loss: float) -> None:
            name = run.task.net.site_names[site]
            run.console.print(f"removed a group of {name}: search loss {loss:.4f}")

        options, unpruned = run.options, run.unpruned
        steps, channels = self.ladders(options, unpruned), self.largest(options, unpruned)
        images = whole_batches(run.task.dataset.search, self.images, run.task.eval_batch_size)
        losses = width_losses(run.task, channels, state.variables, images)
        path = slim(steps, losses, lambda channels: _fits(run, channels), on_removal)
        hosts.agree("the removals", path.removed)
        seconds = {"slim": spent.worked, "compile": spent.compiled}
        release_programs()
        return {
            "round": 1,
            **self._slimmed(run, path.removed),
            "losses": list(path.losses),
            "seconds": rounded(seconds),
        }

    def _slimmed(self, run: Run, removed: Sequence[int]) -> Record:
        """What the removals tell of the line that they are in.

        Raises:
          ValueError: they are not those that the budget needs.
        """
        steps = self.ladders(run.options, run.unpruned)
        reached = replay(steps, removed)
        if not _fits(run, reached) or _fits(run, replay(steps, removed[:-1])):
            raise ValueError("its removals don't end where the budget is met")
        bounds = site_bounds(run.options.reallocate, run.unpruned)._asdict()
        found = fit_to_budget(run.task.net, reached, run.budget, cost=run.cost, **bounds)
        return {
            "removed": list(removed),
            "reached": list(reached),
            **vector_entry(run.task.net, run.cost, found),
        }


PLUGIN = AutoSlim


def _fits(run: Run, channels: Channels) -> bool:
    return run.cost.of(channels) <= run.budget and run.cost.within(channels)
