"""The report as a folder with all pictures of its gallery, and its server."""

import http.client
import io
import os
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from sparsejax.analysis import bias
from sparsejax.analysis.bias import _server
from sparsejax.analysis.bias.__main__ import main
from sparsejax.analysis.bias._server import server

PIL = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 255, (600, 120, 20, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(inputs, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit") / "new"
    bias.compare(**inputs, images=images).to_folder(folder, hash_ids=True)
    return folder


@pytest.fixture
def address(folder):
    with server(folder, 0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running.server_address
        running.shutdown()


def test_pictures_are_files_in_full_and_not_in_the_page(folder, images):
    page = (folder / "index.html").read_text(encoding="utf-8")
    files = sorted((folder / "images").iterdir())
    assert len(files) > 200  # what one file would hold
    assert "data:image/png" not in page and "img-src data: 'self'" in page
    assert all(f'"images/{file.name}"' in page for file in files)
    first = np.asarray(PIL.open(files[0]))
    np.testing.assert_array_equal(first, images[int(files[0].stem)])


def test_it_is_served_to_this_machine_only(address, folder):
    host, port = address
    assert host == "127.0.0.1"
    with urllib.request.urlopen(f"http://{host}:{port}/") as answer:
        assert answer.read() == (folder / "index.html").read_bytes()
    name = next((folder / "images").iterdir()).name
    with urllib.request.urlopen(f"http://{host}:{port}/images/{name}") as answer:
        assert PIL.open(io.BytesIO(answer.read())).size == (20, 120)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://{host}:{port}/../../etc/passwd")


def test_a_folder_without_a_report_is_refused(tmp_path, capsys):
    assert main(["serve", str(tmp_path)]) == 2
    assert "has no index.html; expected a report" in capsys.readouterr().err


def ask(address, path="/", *, method="GET", **headers):
    connection = http.client.HTTPConnection(*address, timeout=5)
    try:
        connection.request(method, path, headers={"Host": "localhost"} | headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST:80", "127.0.0.1:8000", "[::1]:8000"])
def test_loopback_names_are_answered(address, host):
    assert ask(address, Host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["example.org", "example.org:8000", "localhost.example.org", "127.0.0.1.nip.io", "127.0.0.2", "", "localhost:x"],
)
def test_other_names_are_refused(address, host):
    """A page of another site that points its own name to this machine cannot read the report."""
    status, body, _ = ask(address, Host=host)
    assert status == 403 and b"gallery" not in body


def raw(address, request):
    with socket.create_connection(address, timeout=5) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_no_host_and_two_hosts_are_bad_requests(address):
    for heads in (b"", b"Host: localhost\r\nHost: localhost\r\n"):
        assert b" 400 " in raw(address, b"GET / HTTP/1.1\r\n" + heads + b"\r\n").partition(b"\r\n")[0]
    assert b"gallery" not in raw(address, b"GET /\r\n\r\n")


@pytest.mark.parametrize("path", ["/%00", "/index.html%00", "/images/%00.png", "/%0d%0aX:%20y", "/%7f"])
def test_control_characters_are_bad_requests(address, path):
    assert ask(address, path)[0] == 400


@pytest.mark.parametrize(
    "path",
    ["/images", "/images/", "/./", "//", "/..", "/%2e%2e/", "/index.html/", "/images/../index.html", "/favicon.ico"],
)
def test_nothing_is_listed(address, path):
    status, body, _ = ask(address, path)
    assert status == 404 or (path == "//" and b"gallery-data" in body)
    assert b".png</a>" not in body and b"Directory listing" not in body


@pytest.fixture
def copied(folder, tmp_path):
    """A folder of its own, with files that the report does not refer to and links out of it."""
    shutil.copytree(folder, tmp_path / "audit")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "audit" / "notes.txt").write_text("secret")
    (tmp_path / "audit" / "images" / "99999999.png").write_bytes(b"secret")
    return tmp_path / "audit"


def serving(folder):
    running = server(folder, 0)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    return running


def test_files_that_the_report_does_not_name_are_not_served(copied):
    with serving(copied) as running:
        for path in ("/notes.txt", "/images/99999999.png", "/images/notes.txt"):
            assert ask(running.server_address, path)[0] == 404
        running.shutdown()


def test_links_are_not_followed(copied):
    image, other, third = sorted((copied / "images").iterdir())[:3]
    image.unlink()
    image.symlink_to(copied.parent / "secret.png")
    third.unlink()
    os.mkfifo(third)
    with serving(copied) as running:
        address = running.server_address
        assert ask(address, f"/images/{other.name}")[0] == 200
        assert ask(address, f"/images/{image.name}")[0] == 404
        assert ask(address, f"/images/{third.name}")[0] == 404
        shutil.move(copied / "images", copied.parent / "elsewhere")
        (copied / "images").symlink_to(copied.parent / "elsewhere")
        assert ask(address, f"/images/{other.name}")[0] == 404
        running.shutdown()
    (copied / "index.html").rename(copied.parent / "index.html")
    (copied / "index.html").symlink_to(copied.parent / "index.html")
    with pytest.raises(FileNotFoundError, match=r"no index\.html; expected a report"):
        server(copied, 0)


def test_methods_and_headers(address):
    status, body, headers = ask(address, method="HEAD")
    assert status == 200 and body == b"" and int(headers["Content-Length"]) > 1000
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
    assert "Python" not in headers["Server"]
    assert ask(address, method="POST")[0] == 501
    assert ask(address, "/?x=1")[0] == 200


def test_connections_are_bounded_in_number_and_in_time(folder, monkeypatch):
    monkeypatch.setattr(_server, "_CONNECTIONS", 3)
    monkeypatch.setattr(_server, "_LIFETIME", 1.5)
    monkeypatch.setattr(_server._Handler, "timeout", 0.5)
    with serving(folder) as running:
        address = running.server_address
        silent = [socket.create_connection(address, timeout=5) for _ in range(3)]
        time.sleep(0.1)
        with socket.create_connection(address, timeout=5) as fourth:
            assert fourth.recv(1) == b""  # closed at once
        assert [connection.recv(1) for connection in silent] == [b""] * 3  # closed for being idle
        for connection in silent:
            connection.close()
        assert ask(address)[0] == 200
        start = time.monotonic()
        with socket.create_connection(address, timeout=5) as slow, pytest.raises(OSError):
            while time.monotonic() - start < 10:  # one byte at a time, never idle
                slow.sendall(b"G")
                time.sleep(0.1)
        assert time.monotonic() - start < 8
        running.shutdown()
