"""LCCL (Dong et al., "More is Less", CVPR 2017): a low-cost layer says where a convolution is zero.

Each site's 3x3 convolution is multiplied, before its BatchNorm, by relu(BN(conv1x1)) of its input,
of one channel; where that is zero the convolution could be skipped. Dense hardware skips nothing:
what is reported as theoretical are (1 - share of zeros on the test images) of each convolution's
MACs, with all of the low-cost layers' and of the layers without one.

Different from the authors' code: theirs are pre-activation ResNets, ours have BatchNorm and ReLU
behind the convolution; a low-cost layer costs inputs * height * width MACs, where they count its
outputs for its inputs. They have neither budget nor penalty: without `prune.penalty` the network
reaches what it reaches. The penalty, which steers it towards the budget, is our addition. Nothing
holds a network to the budget exactly: a small weight may not reach it, and of a large one many
low-cost layers are shut for good, since their ReLU passes no gradient.
"""

from furs_jax.errors import ConfigError
from furs_jax.methods import Channels, Finished, Method
from furs_jax.networks.network import Network, TracedNetwork
from furs_jax.objectives import Objective
from furs_jax.options.schema import Options
from furs_jax.run.context import Prepared, Run
from furs_jax.training.skipping import SkipPenalty, measure_zeros, skippable
from furs_jax.training.step import TrainState


class LowCostLayers(Method):
    """Trains the network of `prune.width_multiplier` with low-cost layers, from scratch.

    That training is all there is to search.
    """

    prunes = True
    unused = ("channels", "channels_from", "init_from")

    def check(self, options: Options, prepared: Prepared) -> None:
        if options.mode != "search":
            return
        net = prepared.unpruned
        if isinstance(net, TracedNetwork) or not hasattr(net.template, "skips"):
            raise ConfigError(
                f"method=lccl has no low-cost layers for {net.name}; it is for this package's "
                "ResNets, PyramidNets and plain networks"
            )
        if options.prune.penalty and options.cost.resource != "macs":
            raise ConfigError(
                "prune.penalty counts MACs, and the budget is of cost.resource="
                f"{options.cost.resource}; leave one of them out"
            )
        if not prepared.cost.on(net).within(net.channels):
            raise ConfigError(
                "method=lccl trains the network of prune.width_multiplier as it is, which exceeds "
                "config.cost.limits; give a smaller prune.width_multiplier"
            )

    def network(self, run: Run) -> Network:
        net = run.unpruned
        return net.of(net.channels, skips=tuple(range(len(net.channels))))

    def check_journal(self, run: Run) -> None:
        if run.workdir.rounds.read():
            raise run.workdir.rounds.damaged(1, "method=lccl writes none")

    def objective(self, run: Run, objective: Objective) -> Objective:
        penalty = run.options.prune.penalty
        if not penalty:
            return objective
        return SkipPenalty(objective, skippable(run.task.net), run.budget, penalty)

    def finish(self, run: Run, channels: Channels, state: TrainState) -> Finished:
        net, test = run.task.net.of(channels), run.task.dataset.test
        zeros = measure_zeros(run.task._replace(net=net), state.variables, test)
        macs = round(skippable(net).left(zeros))
        run.console.print(
            f"{macs:,} theoretical MACs of {net.macs(channels):,}; zeros at the sites: "
            + " ".join(f"{100 * share:.0f}%" for share in zeros)
        )
        return Finished(net, state.variables, {"theoretical_macs": macs, "zeros": zeros})


PLUGIN = LowCostLayers
