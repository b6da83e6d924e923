"""Benchmarks: python -m furs_jax.bench NAME --config=configs/x.py --workdir=DIR."""
