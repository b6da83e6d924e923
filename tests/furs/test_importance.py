"""How much a channel matters: against its definition, one image at a time."""

import jax
import jax.numpy as jnp
import numpy as np

from furs_jax.furs.importance import channel_importance
from tests.conftest import random_variables
from tests.training.test_step import random_split


def test_importance_is_the_summed_squared_gradient_on_any_number_of_devices(tiny):
    variables = random_variables(tiny, tiny.channels)
    module, split = tiny.module(tiny.channels), random_split(16)

    def apply(variables, images, gates):
        return module.apply(variables, images.astype(jnp.float32), gates)

    batch = {
        "image": split.images,
        "label": split.labels,
        "weight": np.array([1.0] * 15 + [0.0], np.float32),
    }
    found = [
        channel_importance(apply, tiny.channels, variables, [batch], jax.devices()[:devices])
        for devices in (1, 8)
    ]
    expected = [np.zeros(c) for c in tiny.channels]
    for n in range(15):

        def loss(gates, n=n):
            logits = apply(variables, jnp.asarray(split.images[n : n + 1]), gates)
            return -jax.nn.log_softmax(logits)[0, split.labels[n]]

        gradients = jax.grad(loss)([jnp.ones((1, 1, 1, c)) for c in tiny.channels])
        expected = [e + np.square(g).reshape(-1) for e, g in zip(expected, gradients, strict=True)]
    for sites in zip(*found, expected, strict=True):
        for site in sites[:2]:
            np.testing.assert_allclose(site, sites[2], rtol=2e-3, atol=1e-6 * np.max(sites[2]))
