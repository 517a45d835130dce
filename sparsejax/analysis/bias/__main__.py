"""``python -m sparsejax.analysis.bias serve FOLDER``: show what ``Report.to_folder`` wrote, on this machine only."""

from __future__ import annotations

import argparse
import functools
import http.server
import sys
from collections.abc import Sequence
from pathlib import Path

from sparsejax._checks import message

_HOST = "127.0.0.1"


def server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server of the folder that only this machine reaches; port 0 takes a free one.

    Raises:
      FileNotFoundError: the folder holds no report.
    """
    if not (folder / "index.html").is_file():
        hint = "Write one with Report.to_folder or 'sparsejax bias --out FOLDER'."
        raise FileNotFoundError(message("serve", f"folder {str(folder)!r}", "no index.html", "a report", hint))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    return http.server.ThreadingHTTPServer((_HOST, port), handler)


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
            print(f"http://{_HOST}:{running.server_address[1]}/ (Ctrl-C stops)", flush=True)
            running.serve_forever()
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
