"""A cost: the channels of all sites together, of which the wide ones count more."""

from furs_jax.costs import Cost


class Width(Cost):
    name, unit = "width", "channels"

    def of(self, channels):
        return float(sum(c**1.5 for c in channels))
