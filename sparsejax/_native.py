"""The compiled module, or one sentence that says why it is not there."""

try:
    from sparsejax import _ffi as ffi
except ImportError as error:
    raise ImportError(
        "sparsejax: the compiled module sparsejax._ffi cannot be imported "
        f"({error}). If Python runs in the source folder, its uninstalled package hides the installed one: run it "
        "elsewhere, or install with 'pip install --no-build-isolation -e .'."
    ) from error

__all__ = ["ffi"]
