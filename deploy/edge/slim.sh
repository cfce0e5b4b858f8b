#!/bin/sh
# Take out of an installation what a vehicle never runs, and compile what is left without its
# docstrings: 20 MB less on the disk, 3 MB less in memory. Called by install.sh and by the bench.
#   slim.sh FOLDER      a virtual environment with the agent in it
set -eu

folder=$1
[ -x "$folder/bin/python" ] || { echo "slim.sh: $folder is no virtual environment" >&2; exit 2; }

find "$folder/lib" -type d \( -name tests -o -name __pycache__ -o -path '*/numpy/distutils' \
    -o -path '*/numpy/f2py' -o -path '*/numpy/array_api' \
    -o -path '*/site-packages/cffi' -o -path '*/site-packages/pycparser' \) \
    -prune -exec rm -rf {} +
# numpy's own tests alone load _simd; cryptography needs of cffi its compiled half, beside the folder.
find "$folder/lib" -type f \( -name '_simd.*.so' -o -name '*.pyi' -o -name '*.a' -o -name '*.h' \) \
    -exec rm -f {} +
"$folder/bin/python" -OO -m compileall -q "$folder/lib"
# The program looks for that bytecode, whoever starts it.
if [ -e "$folder/bin/edge-agent" ]; then
    sed -i '1s,/python[0-9.]*$,& -OO,' "$folder/bin/edge-agent"
fi
