#!/usr/bin/env bash
# Builds the C++ with sanitizers, away from the source tree, and runs the kernel tests with it. Any report is a failure.
#   PYTHON=.venv/bin/python tests/sanitize.sh address,undefined   tests/cpp/handlers_test.cc, then pytest
#   PYTHON=.venv/bin/python tests/sanitize.sh address,undefined handlers   without pytest and one call that takes minutes
#   PYTHON=.venv/bin/python tests/sanitize.sh thread              tests/cpp/handlers_test.cc
# tests/run.sh runs the second of them.
# handlers_test has neither Python nor XLA in it. Nothing else can be run with ThreadSanitizer: XLA is not compiled with
# it, so what orders two tasks in XLA's thread pool is invisible, and every hand-over would be reported as a race.
# Needs GCC with its sanitizer runtimes; exit status 3 says that they are missing.
set -euo pipefail
sanitizers="${1:-}"
[[ "$sanitizers" == address,undefined || "$sanitizers" == thread ]] || {
  echo "usage: tests/sanitize.sh address,undefined [handlers] | thread" >&2
  exit 2
}
alone=""
[[ "$sanitizers" == thread || "${2:-}" == handlers ]] && alone=1
cd "$(dirname "$0")/.."
python="$(command -v "${PYTHON:-python}")"
runtime() { "${CXX:-c++}" -print-file-name="lib$1.so"; }
[[ -e "$(runtime asan)" && "$("${CXX:-c++}" --version)" == *"Free Software Foundation"* ]] || {
  echo "tests/sanitize.sh: expected GCC with its sanitizer runtimes (libasan, libubsan, libtsan); CXX may name it" >&2
  exit 3
}

work="$(mktemp -d)"
finish() {
  local status=$?
  kill $(jobs -p) 2> /dev/null || true
  cat "$work"/report.* >&2 2> /dev/null || true  # of AddressSanitizer; the tests hold back what their processes write
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT

# An interpreter of its own, because an editable installation goes before PYTHONPATH; nothing goes before its packages.
unset PYTHONPATH
"$python" -m venv --without-pip "$work/venv"
site="$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')"
settings=(build-dir="$work/build" cmake.build-type=Debug cmake.define.SPARSEJAX_SANITIZE="$sanitizers")
# For handlers_test alone, the Python module is neither built nor installed: no component has the name "none".
[[ "$alone" ]] && settings+=(build.targets=handlers_test install.components=none)
"$python" -m pip install --quiet --no-deps --target "$site" "${settings[@]/#/--config-settings=}" .
"$python" -c 'import sysconfig; print(*{sysconfig.get_path(p) for p in ("purelib", "platlib")}, sep="\n")' \
  > "$site/parent.pth"

# The runtimes take fixed parts of the address space, which a large random offset of the program can hit.
fixed=()
if setarch "$(uname -m)" -R true 2> /dev/null; then fixed=(setarch "$(uname -m)" -R); fi

export TSAN_OPTIONS=halt_on_error=1
export ASAN_OPTIONS=detect_stack_use_after_return=1:log_path="$work/report"
"${fixed[@]}" "$work/build/handlers_test" &
ordinary=$!
[[ "$sanitizers" == thread ]] || "${fixed[@]}" "$work/build/handlers_test" "$([[ "$alone" ]] && echo large || echo largest)"
wait "$ordinary"
[[ "$alone" ]] && exit

# CPython and XLA keep memory to the end, so leaks are looked for above only. Nearly all the time goes into XLA's
# compiler and its allocations: so they are recorded briefly, little is optimised, a quarter of the parameter sets of
# every test is run, and the files about what JAX makes of the kernels are left out. Files are named to leave them out
# only: a new one is run.
ASAN_OPTIONS+=:detect_leaks=0:handle_segv=2:malloc_context_size=1:quarantine_size_mb=64
export JAX_DISABLE_MOST_OPTIMIZATIONS=1 SPARSEJAX_TEST_SAMPLE=4
export LD_PRELOAD="$(runtime asan) $(runtime ubsan) $(runtime stdc++)"
cd tests
"${fixed[@]}" "$work/venv/bin/python" -m pytest -c ../pyproject.toml --rootdir .. -p no:cacheprovider -q --capture=sys \
  --numprocesses auto --maxprocesses 4 --dist loadfile kernels --ignore=kernels/test_{conv_shapes,layout,sharding_export,transformations}.py
