#!/usr/bin/env bash
# Runs furs_jax on all workers of a Cloud TPU VM and fetches the results:
#   ZONE=us-central2-b bash launch/tpu_vm.sh NAME --config=configs/r18.py --workdir=runs/r18
# The same command again goes on with the run. Paths among the options but --workdir are the VM's,
# relative to the project's folder there. Set also, where needed:
#   CREATE=v4-8       make the VM when there is none of that name; SPOT=1 for a spot VM,
#                     RUNTIME for its software (default tpu-ubuntu2204-base, up to v4; for v5e
#                     v2-alpha-tpuv5-lite, for v6e v2-alpha-tpuv6e)
#   DELETE=1          delete it when the run has finished
#   PROJECT           of Google Cloud, when it isn't gcloud's default
#   REMOTE_RUNS       where runs are kept on the VM (default furs_runs, in the home folder). A
#                     preempted VM loses its disk; a mounted bucket keeps the run.
#   CHECKPOINTS=1     fetch the checkpoints too
set -euo pipefail
unset CDPATH
fail() {
    echo "tpu_vm.sh: $1" >&2
    exit 1
}
case "${1:--}" in -*) fail "give the VM's name first, as in tpu_vm.sh my-tpu --config=..." ;; esac
name=$1 && shift
[ -n "${ZONE:-}" ] || fail "set ZONE, as in ZONE=us-central2-b bash launch/tpu_vm.sh ..."
command -v gcloud >/dev/null || fail "gcloud is not installed: https://cloud.google.com/sdk"
workdir="" arguments=()
while [ $# -gt 0 ]; do
    case "$1" in
        --workdir=*) workdir=${1#--workdir=} ;;
        --workdir) workdir=${2:-} && shift $(($# > 1)) ;;
        *) arguments+=("$1") ;;
    esac
    shift
done
case "$workdir" in
    "") fail "give the run's folder on this machine, as in --workdir=runs/r18" ;;
    *://*) fail "--workdir=$workdir is an address; give a folder of this machine, for the results" ;;
    "~" | "~/"*) workdir=$HOME${workdir#"~"} ;;
esac
case "$workdir" in /*) ;; *) workdir=$PWD/$workdir ;; esac
[ ! -d "$workdir" ] || workdir=$(cd "$workdir" && pwd)
# Behind $HOME, which is the VM's, names are quoted for its shell.
remote=${REMOTE_RUNS:-furs_runs}/$(basename "$workdir")
case "$remote" in
    /*) remote=$(printf '%q' "$remote") ;;
    *) remote="\"\$HOME\"/$(printf '%q' "$remote")" ;;
esac
where=(--zone="$ZONE" ${PROJECT:+--project="$PROJECT"} --quiet)
vm() { # command, arguments
    local command=$1 && shift
    gcloud compute tpus tpu-vm "$command" "$@" "${where[@]}"
}
on_workers() { # which, command
    vm ssh "$name" --worker="$1" --command="$2"
}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT

state=$(vm describe "$name" --format='value(state)' 2>/dev/null || true)
case "$state" in
    READY) ;;
    "" | PREEMPTED | TERMINATED)
        [ -n "${CREATE:-}" ] || fail "there is no running VM $name in $ZONE; CREATE=v4-8 makes one"
        [ -z "$state" ] || vm delete "$name"
        vm create "$name" --accelerator-type="$CREATE" \
            --version="${RUNTIME:-tpu-ubuntu2204-base}" ${SPOT:+--spot}
        ;;
    *) fail "the VM $name is $state; wait until it is READY" ;;
esac

echo "copying the project to $name" >&2
tar -czf "$files/furs_jax.tgz" --exclude-vcs --exclude=.venv --exclude=runs --exclude=__pycache__ .
vm scp "$files/furs_jax.tgz" "$name:" --worker=all
# The VM's own Python is older than 3.11.
on_workers all "mkdir -p furs_jax $remote && tar -xzf furs_jax.tgz -C furs_jax && \
python3 -m pip install --user --quiet uv && ~/.local/bin/uv python install --quiet 3.12 && \
cd furs_jax && export FURS_EXTRAS=tpu PYTHON=\$(~/.local/bin/uv python find 3.12) && \
. launch/venv.sh ''"

status=0
quoted=$(printf ' %q' "${arguments[@]}")
on_workers all "cd furs_jax && export FURS_EXTRAS=tpu PYTHON=\$(~/.local/bin/uv python find 3.12) \
&& bash launch/run.sh$quoted --workdir=$remote" || status=$?

echo "fetching the results into $workdir" >&2
keep="--exclude=./checkpoints"
[ -z "${CHECKPOINTS:-}" ] || keep=""
on_workers 0 "tar -czf furs_run.tgz $keep -C $remote ."
mkdir -p "$workdir"
vm scp "$name:furs_run.tgz" "$files/run.tgz" --worker=0
tar -xzf "$files/run.tgz" -C "$workdir"
if [ "$status" = 0 ] && [ -n "${DELETE:-}" ]; then vm delete "$name"; fi
exit "$status"
