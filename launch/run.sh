#!/usr/bin/env bash
# Installs furs_jax into ./.venv where needed and runs it:
#   bash launch/run.sh --config=configs/fashion.py --workdir=runs/fashion
# Without arguments: the digits demo, in runs/digits. A relative --workdir is relative to the
# folder that you call this from; configs/ are found from there or from the project's folder.
set -euo pipefail
called_from=$PWD
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$project"
. launch/venv.sh ""
if [ $# -eq 0 ]; then
    set -- --config=configs/digits.py --workdir="$project/runs/digits"
fi
arguments=()
for argument in "$@"; do
    case "$argument" in
        --workdir=/*) ;;
        --workdir=*) argument="--workdir=$called_from/${argument#--workdir=}" ;;
        --config=/*) ;;
        --config=*)
            path=${argument#--config=}
            [ -e "$called_from/${path%%:*}" ] && argument="--config=$called_from/$path"
            ;;
    esac
    arguments+=("$argument")
done
exec python -m furs_jax.main "${arguments[@]}"
