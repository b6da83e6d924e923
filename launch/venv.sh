# Sourced by the other scripts: makes ./.venv where there is none, installs this project in it
# with the extras $1, and activates it. PYTHON names the interpreter (3.11 or newer).
#
# Set FURS_EXTRAS to add extras, as in FURS_EXTRAS=cuda13 bash launch/run.sh ...

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "furs_jax needs Python 3.11 or newer; set PYTHON to one, as in PYTHON=python3.12" >&2
    exit 1
fi
extras=$(echo "$1,${FURS_EXTRAS:-}" | sed 's/^,*//; s/,*$//')
target=.${extras:+[$extras]}
# What is installed is stamped, so that a change of setup.py or of the extras installs anew.
stamp=$(echo "$target" | cat - setup.py | cksum)
if [ ! -x .venv/bin/python ]; then
    "$python" -m venv .venv || {
        echo "making .venv failed; on Debian: apt-get install python3-venv" >&2
        exit 1
    }
fi
if [ "$(cat ".venv/stamp-${extras:-base}" 2>/dev/null)" != "$stamp" ]; then
    echo "installing $target into .venv" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable "$target" || exit 1
    echo "$stamp" > ".venv/stamp-${extras:-base}"
fi
. .venv/bin/activate
