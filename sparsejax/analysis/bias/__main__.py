"""``python -m sparsejax.analysis.bias serve FOLDER``: show what `BiasAudit.to_folder` wrote, on this machine only."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sparsejax.analysis.bias._server import HOST, server


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C.

    Returns:
      Exit status: 0, or 2 after an error of the user.
    """
    parser = argparse.ArgumentParser(prog="python -m sparsejax.analysis.bias", description=__doc__)
    command = parser.add_subparsers(required=True).add_parser("serve", help="show a report on this machine")
    command.add_argument("folder", type=Path)
    command.add_argument("--port", type=int, default=8000, help="0 takes a free one (default 8000)")
    options = parser.parse_args(argv)
    try:
        with server(options.folder, options.port) as running:
            print(f"http://{HOST}:{running.server_address[1]}/ (Ctrl-C stops)", flush=True)
            running.serve_forever()
    except KeyboardInterrupt:
        return 0
    except (OSError, OverflowError) as error:
        print(f"error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
