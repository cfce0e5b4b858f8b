#!/bin/sh
# Make .venv ready, or return at once when it is. Finds a Python that fits, then hands over to
# bootstrap.py. PYTHON names the interpreter to use, VENV another folder than .venv.
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}

# What the environment was made from; another answer means: make it again.
wanted=$(
    printf '%s|%s|' "$(pwd -P)" "${PYTHON:-}"
    cksum pyproject.toml requirements/*.lock tools/bootstrap.py | tr '\n' '|'
)
if [ "$(cat "$venv/.ready" 2>/dev/null || true)" = "$wanted" ] &&
    "$venv/bin/python" -c '' 2>/dev/null; then
    exit 0
fi

# A candidate is run, not only found: shims of version managers exist and still fail.
version_of() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null </dev/null || true
}

seen=''
for candidate in ${PYTHON:+"$PYTHON"} $([ -n "${PYTHON:-}" ] || echo python3 python3.13 python3.12 python3.11 python); do
    version=$(version_of "$candidate")
    case $version in
        3.11 | 3.12 | 3.13)
            exec "$candidate" tools/bootstrap.py "$venv" "$wanted"
            ;;
        ?*) seen="$seen, $candidate is $version" ;;
    esac
done

echo "Python 3.11, 3.12 or 3.13 is needed${PYTHON:+, and PYTHON=$PYTHON is not one of them} (found: ${seen:-, none}):" \
    'install one (Debian, Ubuntu: sudo apt-get install python3 python3-venv) or name it: make ... PYTHON=/path/to/python3.12' |
    sed 's/(found: , /(found: /' >&2
exit 1
