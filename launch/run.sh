#!/usr/bin/env bash
# Installs furs_jax into ./.venv where needed and runs it:
#   bash launch/run.sh --config=configs/fashion.py --workdir=runs/fashion
#   bash launch/run.sh sweep --config=configs/fashion.py --workdir=runs/budgets \
#       --sweep.width_multiplier=0.5,0.8,1.0
#   bash launch/run.sh report runs/fashion
#   bash launch/run.sh export runs/fashion --format=onnx
#   bash launch/run.sh bench headroom --config=configs/fashion.py --workdir=runs/headroom
#   bash launch/run.sh glyphs runs/glyphs_data
# Without arguments: the demo, in runs/demo. Relative folders are relative to the one that
# you call this from; configs/ are found from there or from the project's folder.
set -euo pipefail
unset CDPATH # or cd may go elsewhere, and say so
called_from=$PWD
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=(-m furs_jax.main) extras=""
case "${1:-}" in
    sweep) program=("$project/launch/sweep.py") extras=report && shift ;;
    report) program=(-m furs_jax.report) extras=report && shift ;;
    export) program=(-m furs_jax.export) extras=export && shift ;;
    bench) program=(-m furs_jax.bench) extras=report && shift ;;
    glyphs) program=(-m furs_jax.data.glyphs) extras=images && shift ;;
    "") set -- --config=configs/demo.py --workdir="$project/runs/demo" ;;
esac
case "${PYTHON:-}" in [!/]*/*) PYTHON=$called_from/$PYTHON ;; esac
cd "$project"
. launch/venv.sh "$extras"
cd "$called_from"
# -P: no file here takes the place of a library's.
exec python -P "${program[@]}" "$@"
