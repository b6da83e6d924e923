"""An objective: the focal loss (Lin et al., ICCV 2017), which tells how sure the network is."""

import jax
import jax.numpy as jnp

from furs_jax.objectives import Objective, Outcome


class Focal(Objective):
    def init(self, key, module):
        return {"gamma": jnp.float32(2.0)}

    def loss(self, network, extra, batch, key, step):
        logits, batch_stats = network(batch["gates"])
        own = batch["label"][:, None]
        log = jnp.take_along_axis(jax.nn.log_softmax(logits), own, axis=1)[:, 0]
        loss = -((1 - jnp.exp(log)) ** extra["gamma"]) * log
        return Outcome(loss.mean(), {"confidence": jnp.exp(log).mean()}, batch_stats)
