#!/usr/bin/env bash
# Lint, types, and a representative test of every layer: what to run after each change. tests/run.sh runs everything.
# Run it with the Python of the environment that sparsejax[test] is installed in: PYTHON=.venv/bin/python tests/quick.sh
set -euo pipefail
cd "$(dirname "$0")/.."
python="$(command -v "${PYTHON:-python}")"
python="$(cd "$(dirname "$python")" && pwd)/$(basename "$python")"  # absolute, links kept: a venv's python is one

"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m pyright --pythonpath "$("$python" -c 'import sys; print(sys.executable)')" &  # beside the tests
types=$!
cd tests  # away from the source tree, so that the installed package is what is tested
tests=(
  test_imports.py test_repository.py test_packaging.py     # the tree and the files around it
  pattern/test_pattern.py                                  # patterns
  kernels/test_bad_input.py kernels/test_geometry.py       # kernels: operands, shapes
  nn/test_sparse_linear.py                                 # layers
  pruning/test_prune_schedules.py pruning/test_prune_magnitude.py pruning/test_adding_a_method.py
  train/test_plan.py train/test_flops.py                   # training runs
  models/test_torch_names.py data/test_idx_files.py        # models and data
  analysis/bias/test_metrics_rates.py analysis/multisource/test_flea_filter.py analysis/transfer/test_tables.py
  benchmarks/test_shapes.py
)
"$python" -m pytest -c ../pyproject.toml --rootdir .. --quiet "${tests[@]}"
wait "$types"
