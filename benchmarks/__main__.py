"""The process in which a benchmark runs: pinned first, everything else later."""

import os
import sys

from . import _cli
from .harness import _machine

if __name__ == "__main__":
    try:
        _machine.pin()
    except ValueError as error:
        sys.exit(f"error: {error}")
    if _machine.NOTHING_SET not in os.environ:
        import sparsejax

        sparsejax.configure()  # as the commands that train
    sys.exit(_cli.run_pinned(sys.argv[1:]))
