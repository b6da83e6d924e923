"""Transformable Architecture Search (Dong and Yang, NeurIPS 2019): widths by gradients.

One supernet holds all candidate widths; logits that say how likely each is are trained beside the
weights, and what is likeliest in the end is trained from scratch. As in the paper's code, but for
this: depth is not searched, nor the width of the stem, which is the original's; weights and logits
are updated at once and not in turn (`furs_jax.training.width_search`); the temperature falls with
each step and not with each epoch; and the likeliest widths are brought to the budget. A step moves
a logit by some 0.001, so that a short search hardly tells widths apart but by the budget: on
Fashion-MNIST the likeliest of 8 had a probability of 0.15 after 630 steps.
"""

from collections.abc import Sequence

import numpy as np

from furs_jax.data.batches import steps_per_epoch
from furs_jax.data.halves import Halves, halves
from furs_jax.errors import ConfigError
from furs_jax.machine import hosts
from furs_jax.machine.programs import release_programs
from furs_jax.methods import Channels, Method, Record
from furs_jax.networks.network import Network
from furs_jax.networks.supernet import candidate_widths, supernet, unmet_sites
from furs_jax.options.schema import Options
from furs_jax.run.context import Prepared, Run, derived_seed
from furs_jax.run.entries import compare_entry, training_macs
from furs_jax.run.phases import train_phase
from furs_jax.training.trainer import Trainer, make_trainer
from furs_jax.training.width_search import (
    Penalty,
    WidthSearch,
    adam,
    cosine_temperature,
    width_optimizer,
)
from furs_jax.widths.budget import fit_to_budget

_SEED = 6  # of `derived_seed`
_DIGITS = 6  # of probabilities in the journal


class TransformableSearch(Method):
    """Trains supernet and logits by config.train, each on one half of the training images.

    The widest network is that of config.prune.width_multiplier, `expand` times as wide. The
    search's only line in rounds.jsonl tells the candidates' probabilities, the expected MACs, the
    likeliest widths and the vector that they become.

    Attributes:
      expand: where config.prune.expand is None.
      temperatures: of the Gumbel-softmax, first and last.
      penalty_weight, tolerance: see `Penalty`.
      logit_rate, logit_betas, logit_decay: of the logits' Adam; the decay is L2.
    """

    expand = 1.0
    temperatures = (5.0, 0.1)
    penalty_weight, tolerance = 2.0, 0.05
    logit_rate, logit_betas, logit_decay = 1e-3, (0.5, 0.999), 1e-3
    unused = ("channels", "channels_from", "init_from")

    def check(self, options: Options, prepared: Prepared) -> None:
        if options.mode != "search":
            return
        if options.cost.resource != "macs":
            raise ConfigError(
                "method=tas needs the gradient of the cost, which cost.resource="
                f"{options.cost.resource} has not; give --config.cost.resource=macs"
            )
        net = prepared.task.net
        if unmet_sites(net) or net.macs_formula() is None:
            raise ConfigError(
                f"method=tas needs this package's ConvBatchNorm at each site, and MACs that follow "
                f"the widths; {net.name} has not, so take a ResNet, a plain net or another method"
            )
        size, images = options.train.batch_size, len(prepared.task.dataset.train.labels) // 2
        if size > images:
            raise ConfigError(
                f"train.batch_size={size} is more than half of the training images, {images}, "
                "which method=tas trains weights on"
            )
        if (most := net.macs(self.widest(options, prepared.unpruned))) < prepared.budget:
            raise ConfigError(
                f"method=tas searches among networks of at most {most:,} MACs, and the budget is "
                f"{prepared.budget:,}; give a larger prune.width_multiplier or prune.expand"
            )

    def search(self, run: Run) -> Channels:
        records = run.workdir.rounds.read()
        if not records:
            records = [self._searched(run)]
            hosts.agree("the widths", records[0]["channels"])
            run.workdir.rounds.append(records[0])
            release_programs()
        run.console.print(search_line(records[0]))
        return tuple(records[0]["channels"])

    def is_complete(self, run: Run) -> bool:
        return bool(run.workdir.rounds.read())

    def check_journal(self, run: Run) -> None:
        for index, record in enumerate(run.workdir.rounds.read()):
            try:
                if index:
                    raise ValueError("a search by TAS has one line")
                table = np.array(record["probabilities"], float)
                if table.shape != (len(run.start), 8):
                    raise ValueError("probabilities are not 8 for each site")
                compare_entry(record, self._told(run, table), "its")
            except (ValueError, KeyError, TypeError) as error:
                raise run.workdir.rounds.damaged(index + 1, str(error)) from error

    def check_result(self, options: Options, rounds: Sequence[Record], result: Record) -> None:
        compare_entry(result["searched"], {"channels": rounds[0]["channels"]}, "searched")

    def widest(self, options: Options, unpruned: Network) -> Channels:
        """The largest candidate of each site."""
        expand = options.prune.expand or self.expand
        return tuple(int(expand * width) for width in unpruned.channels)

    def trainer(self, run: Run) -> Trainer:
        """Of the supernet."""
        recipe, split = run.options.train, _split(run)
        epoch_steps = steps_per_epoch(split, recipe.batch_size)
        objective = WidthSearch(
            run.task.objective.of_recipe(recipe),
            self._penalty(run),
            cosine_temperature(*self.temperatures, recipe.epochs * epoch_steps),
        )
        widest = self.widest(run.options, run.unpruned)
        task = run.task._replace(net=supernet(run.task.net.of(widest)))
        of_logits = adam(self.logit_rate, self.logit_betas, self.logit_decay)
        optimizer = width_optimizer(recipe, of_logits)
        return make_trainer(task, widest, recipe, split, objective, optimizer)

    def _penalty(self, run: Run) -> Penalty:
        widths = candidate_widths(self.widest(run.options, run.unpruned))
        formula = run.task.net.macs_formula()
        return Penalty(formula, widths, run.budget, self.tolerance, self.penalty_weight)

    def _searched(self, run: Run) -> Record:
        """Trains the supernet; the journal's line."""
        state, trained = train_phase(run, self.trainer(run), "tas", "tas", (_SEED, 1))
        logits = np.asarray(state.params["logits"], float)
        shares = np.exp(logits - np.max(logits, axis=1, keepdims=True))
        table = np.round(shares / np.sum(shares, axis=1, keepdims=True), _DIGITS)
        return {
            "round": 0,
            "probabilities": table.tolist(),
            **self._told(run, table),
            "train_loss": trained["weights_loss"],
            "seconds": {"train": trained["seconds"]},
        }

    def _told(self, run: Run, table: np.ndarray) -> Record:
        """What follows from the probabilities, shape (L, 8)."""
        net = run.task.net
        widest = self.widest(run.options, run.unpruned)
        widths = candidate_widths(widest)
        expected = np.sum(table * widths, axis=1)
        likeliest = widths[np.arange(len(widths)), np.argmax(table, axis=1)].tolist()
        bounds = run.bounds._asdict()
        found = fit_to_budget(net, likeliest, run.budget, cost=run.cost, **bounds)
        forward = training_macs(net, widest, run.options.train, _split(run)) // 3
        return {
            "expected_macs": round(net.macs_formula()(expected)),
            "likeliest": likeliest,
            "likeliest_macs": net.macs(likeliest),
            "channels": list(found),
            "macs": net.macs(found),
            # All channels of all sites are computed. Both halves have a forward pass and one back
            # to the logits or weights, the weights' half their gradients, too.
            "train_macs": 5 * forward,
        }


PLUGIN = TransformableSearch


def search_line(record: Record) -> str:
    """The search in one line."""
    sure = np.mean(np.max(record["probabilities"], axis=1))
    return (
        f"tas  likeliest {record['likeliest']} of {record['likeliest_macs']:,} MACs (mean "
        f"probability {sure:.2f}), expected {record['expected_macs']:,} MACs  "
        f"found {record['channels']}  [train {record['seconds']['train']:.0f}s]"
    )


def _split(run: Run) -> Halves:
    return halves(run.task.dataset.train, derived_seed(run.options.seed, _SEED, 0))
