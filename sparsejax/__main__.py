"""``python -m sparsejax``: the command line."""

import sys

from sparsejax.cli import main

if __name__ == "__main__":
    sys.exit(main())
