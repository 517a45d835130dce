"""A server of one audit folder for the browser on this machine: the page, and the images that the page refers to."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import socket
import sys
import threading
import urllib.parse
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from sparsejax._checks import fail

HOST = "127.0.0.1"
_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?", re.IGNORECASE)
_CONNECTIONS = 16  # served at a time; more are closed at once
_IDLE = 10.0  # seconds without a byte after which a connection ends
_LIFETIME = 60.0  # seconds after which it ends in any case
_DATA = re.compile(r'<script type="application/json" id="gallery-data">(.*?)</script>', re.DOTALL)
_IMAGE = re.compile(r"images/[0-9]+\.png")
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def files_of(folder: Path) -> dict[str, str]:
    """Return path of a request -> name of a file: the page, and the images that it refers to.

    Raises:
      FileNotFoundError: the folder has no report, or its page is a link.
    """
    hint = "Write one with BiasAudit.to_folder or 'sparsejax bias --out FOLDER'."
    page = folder / "index.html"
    if not page.is_file() or page.is_symlink():
        fail("serve", f"folder {str(folder)!r}", "no index.html", "a report", hint, error=FileNotFoundError)
    data = _DATA.search(page.read_text(encoding="utf-8", errors="replace"))
    try:
        images = json.loads(data[1])["images"].values() if data else ()
    except (ValueError, TypeError, KeyError, AttributeError):
        images = ()
    named = {name for name in images if isinstance(name, str) and _IMAGE.fullmatch(name)}
    return {"/": page.name, f"/{page.name}": page.name, **{f"/{name}": name for name in named}}


def server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """Return a server of the folder that only this machine reaches; port 0 takes a free one.

    Requests with another ``Host`` than a loopback name are refused, so that no other site reads the report through a
    name of its own. Links are not followed, no folder is listed, and at most 16 connections are served at a time.

    Raises:
      FileNotFoundError: the folder has no report.
    """
    return _Server((HOST, port), folder, files_of(folder))


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], folder: Path, files: Mapping[str, str]) -> None:
        self.folder, self.files = folder, files
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        end = threading.Timer(_LIFETIME, _end, (request,))
        end.daemon = True
        end.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print errors, except those of a browser that closes the connection in the middle of an answer."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _end(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]
    server_version, sys_version = "sparsejax", ""
    timeout = _IDLE

    def do_GET(self) -> None:
        """Answer with a file of the report."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answer with the head of a file of the report."""
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1:
            return self._refuse(HTTPStatus.BAD_REQUEST)
        if not _LOOPBACK.fullmatch(hosts[0]):
            return self._refuse(HTTPStatus.FORBIDDEN)
        path = urllib.parse.unquote(self.path.partition("?")[0], errors="replace")
        if any(ord(character) < 32 or ord(character) == 127 for character in path):
            return self._refuse(HTTPStatus.BAD_REQUEST)
        content = self._content(self.server.files.get(path, ""))
        if content is None:
            return self._refuse(HTTPStatus.NOT_FOUND)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "image/png" if path.endswith(".png") else "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def _content(self, name: str) -> bytes | None:
        """Read a file of the folder; None for one that is absent, or is or lies behind a link."""
        path = self.server.folder / name
        if not name or path.resolve() != self.server.folder.resolve() / name or not path.is_file():
            return None
        try:
            with open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
                return file.read()
        except OSError:
            return None

    def _refuse(self, status: HTTPStatus) -> None:
        self.send_error(status, explain=status.phrase)

    def end_headers(self) -> None:
        """Add the headers that every answer has."""
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()
