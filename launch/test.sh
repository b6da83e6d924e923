#!/usr/bin/env bash
# Installs furs_jax into ./.venv where needed, then checks style and runs the tests:
#   bash launch/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. launch/venv.sh test,images,tfds,report,export,tensorboard
ruff check .
ruff format --check .
# One worker for each core; tests of one group share what they compile.
exec python -m pytest --numprocesses="${PYTEST_WORKERS:-auto}" --dist=loadgroup "$@"
