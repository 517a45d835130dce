"""The report as a folder with all pictures of its gallery, and its server."""

import io
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest

from sparsejax.analysis import bias
from sparsejax.analysis.bias.__main__ import main, server

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
