"""The process in which a benchmark runs: pinned first, everything else later."""

import sys

from . import _cli
from .harness import _machine

if __name__ == "__main__":
    try:
        _machine.pin()
    except ValueError as error:
        sys.exit(f"error: {error}")
    import sparsejax

    sparsejax.configure()  # as the commands that train
    sys.exit(_cli.run_pinned(sys.argv[1:]))
