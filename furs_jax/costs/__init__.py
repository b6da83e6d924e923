"""What a network costs; one file a cost. See `furs_jax.widths.cost`."""
