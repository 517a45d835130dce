#!/usr/bin/env bash
# Everything that must pass before a change lands: lint, types, tests, documented examples.
# Run it with the Python of the environment that sparsejax[test] is installed in: PYTHON=.venv/bin/python tests/run.sh
set -euo pipefail
cd "$(dirname "$0")/.."
python="$(command -v "${PYTHON:-python}")"
python="$(cd "$(dirname "$python")" && pwd)/$(basename "$python")"  # absolute, links kept: a venv's python is one

"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m pyright --pythonpath "$("$python" -c 'import sys; print(sys.executable)')" &  # beside the tests
types=$!
cd tests  # away from the source tree, so that the installed package is what is tested
# A file's tests share what they prepare and compile: they stay in one process. conftest.py puts long files first.
workers=(--numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder)
"$python" -m pytest -c ../pyproject.toml --rootdir .. "${workers[@]}" .
wait "$types"
"$python" -m pytest -c ../pyproject.toml --rootdir .. "${workers[@]}" --doctest-modules --pyargs sparsejax
# The C++ by itself, with AddressSanitizer and UBSan; status 3: the compiler's runtimes for them are missing.
PYTHON="$python" bash ./sanitize.sh address,undefined handlers || [[ $? == 3 ]]
