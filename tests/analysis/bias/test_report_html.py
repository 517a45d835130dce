"""The report: what is in the page, and the page in a real browser."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from helpers.browser import Browser, chromium
from sparsejax.analysis import bias


@pytest.fixture(scope="module")
def page(report):
    return report.to_html()


def test_one_file_and_no_address_in_it(page, report, tmp_path):
    report.to_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == page
    assert not re.findall(r"(?:src|href|url\()\s*=?\s*[\"']?(?:https?:)?//", page)
    assert "default-src 'none'" in page
    for section in ("overview", "attributes", "groups", "reliability", "criteria", "gallery"):
        assert f'<section id="{section}"' in page


def test_the_same_input_gives_the_same_bytes(page, inputs):
    images = np.random.default_rng(1).random((600, 10, 10))
    assert bias.compare(**inputs, n_boot=50, images=images).to_html() == page


def test_names_are_escaped(inputs):
    names = ["<script>alert(1)</script>", "a&b", 'q"', "</script>"]
    text = bias.compare(**(inputs | {"attribute_names": names})).to_html()
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert text.count("</script>") == 2  # the data and the program


def test_ids_can_be_hidden_and_images_stay_out(inputs):
    ids = [f"person-{i}" for i in range(600)]
    found = bias.compare(**inputs, sample_ids=ids)
    assert "person-1" in found.to_html() and "person-1" not in found.to_html(hash_ids=True)
    assert "data:image" not in found.to_html()


def test_notebook_form(report):
    text = report._repr_html_()
    assert text.startswith("<table>") and "99 %" in text and len(text) < 5000


def test_colour_pictures_and_large_ones_become_thumbnails(inputs):
    images = np.random.default_rng(0).integers(0, 255, (600, 300, 200, 3), dtype=np.uint8)
    text = bias.compare(**inputs, images=images).to_html()
    assert 0 < text.count("data:image/png") <= 200 and len(text) < 12_000_000


def test_a_report_without_groups_validation_or_defined_values():
    report = bias.compare([1.0, -1.0, 2.0], [1.0, 1.0, 2.0], [1, 1, 1])
    text = report.to_html()
    assert "The comparison has no groups" in text and "No defined value" in text


@pytest.mark.parametrize("groups", [None, [0] * 40, ["x", "y", "z", "$a$"] * 10, ["日本", "<b>"] * 20])
def test_one_sparsity_few_samples_and_odd_names_are_drawn(groups):
    t = np.arange(40) % 2
    z = 2.0 * t - 1
    audit = bias.compare(z, {("$x", 0.9): z, ("$x", 0.99): -z, ("b", 0.9): z}, t, groups, n_boot=2, min_count=1)
    text = audit.to_html()
    assert text == audit.to_html() and text.count("<svg") >= 8 and "$x" in text
    one = bias.compare(z, z, t, groups, sparsity=0.5).to_html()
    assert "<svg" in one


def test_charts_are_the_same_whatever_the_style_of_the_caller(page, report):
    import matplotlib

    with matplotlib.rc_context({"axes.grid": True, "font.size": 20, "svg.fonttype": "path", "axes.facecolor": "red"}):
        assert report.to_html() == page


def test_charts_have_the_colours_of_the_page_and_a_description(page):
    charts = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(charts) == 8 + 3 * 5
    for chart in charts:
        assert "var(--" in chart and not re.search(r": #[0-9a-f]{6}", chart) and "<metadata" not in chart
        assert re.match(r'<svg [^>]*role="img" aria-label="[^"]{20,}"', chart)
        names = re.findall(r' id="([^"]*)"', chart)
        assert len(names) == len(set(names)) and all(page.count(f' id="{name}"') == 1 for name in names)
        assert {name for name in re.findall(r'(?:href="|url\()#([^")]*)', chart)} <= set(names)


def test_a_missing_package_is_named(report, monkeypatch):
    for package in ("jinja2", "matplotlib"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, package, None)
            with pytest.raises(ImportError, match=rf"BiasAudit.to_html: .* no {package}; .*sparsejax\[all\]"):
                report.to_html()


needs_browser = pytest.mark.skipif(chromium() is None, reason="no chromium on the PATH")


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page, encoding="utf-8")
    with Browser(chromium() or "") as opened:
        opened.open(path)
        yield opened


COLUMN = """(() => [...document.querySelectorAll('#attributes .panel:not([hidden]) table.sortable tbody tr')]
    .map(row => row.cells[%d].dataset.key))()"""


@needs_browser
def test_columns_sort_both_ways(browser):
    def click(column):
        browser.run(
            f"document.querySelectorAll('#attributes .panel:not([hidden]) table.sortable th button')[{column}].click()"
        )

    for column, convert in ((0, str), (3, float)):
        click(column)
        up = [convert(key) for key in browser.run(COLUMN % column)]
        click(column)
        down = [convert(key) for key in browser.run(COLUMN % column)]
        assert up == sorted(up) and down == sorted(down, reverse=True) and len(set(up)) > 1
    assert browser.run("document.querySelectorAll('th[aria-sort=descending]').length") == 1
    # The last column holds an undefined number (the attribute that is its own group): last in both directions.
    click(11)
    assert browser.run(COLUMN % 11)[-1] == ""
    click(11)
    assert browser.run(COLUMN % 11)[-1] == ""


@needs_browser
def test_the_keyboard_sorts_too(browser):
    browser.run("document.querySelector('#attributes .panel:not([hidden]) th button').focus()")
    before = browser.run("document.activeElement.closest('th').getAttribute('aria-sort')")
    browser.press("Enter", text="\r", windowsVirtualKeyCode=13)
    after = browser.run("document.activeElement.closest('th').getAttribute('aria-sort')")
    assert before != after and after in ("ascending", "descending")
    browser.run("document.body.focus(); document.activeElement.blur()")
    order = []
    for _ in range(9):
        browser.press("Tab", windowsVirtualKeyCode=9)
        order.append(browser.run("document.activeElement.id || document.activeElement.textContent"))
    assert len(set(order)) == 9  # every Tab reaches another control


@needs_browser
def test_the_choice_of_the_model_changes_the_panels(browser):
    shown = "[...document.querySelectorAll('#groups .panel')].findIndex(panel => !panel.hidden)"
    assert browser.run(shown) == 2
    choose = "(v => { const s = document.getElementById('model'); s.value = v; s.dispatchEvent(new Event('change')) })"
    browser.run(f"{choose}('0')")
    assert browser.run(shown) == 0
    browser.run(f"{choose}('2')")


@needs_browser
def test_gallery_filters(browser):
    def choose(name, value):
        browser.run(
            f"(() => {{ const s = document.getElementById('gallery-{name}'); s.value = '{value}';"
            "s.dispatchEvent(new Event('change', {bubbles: true})) })()"
        )
        return browser.run("[...document.querySelectorAll('.card')].map(card => card.innerText)")

    everything = choose("attribute", "0")
    assert len(everything) > 20
    blond = choose("group", "1,1")
    assert 0 < len(blond) < len(everything) and all("hair blond" in card for card in blond)
    choose("group", "")
    changed = choose("kind", "flip")
    assert 0 < len(changed) < len(everything)
    for card in changed:
        before, after = (float(p) for p in re.search(r"p ([\d.]+) → ([\d.]+)", card).groups())
        assert (before > 0.5) != (after > 0.5)
    exemplars = choose("kind", "pie")
    assert exemplars and all("PIE" in card for card in exemplars)
    moved = choose("kind", "")
    drawn = choose("order", "random")
    assert sorted(moved) == sorted(drawn) and moved != drawn
    assert f"{len(drawn)} samples shown" == browser.run("document.getElementById('gallery-count').textContent")
    assert browser.run("[...document.querySelectorAll('.card img')].every(i => i.naturalWidth > 0 && i.alt)")


@needs_browser
def test_light_and_dark(browser):
    def brightness(what):
        colour = browser.run(f"getComputedStyle(document.body).{what}")
        return sum(int(part) for part in re.findall(r"\d+", colour)[:3])

    browser.prefer("light")
    assert brightness("backgroundColor") > 600 and brightness("color") < 200
    browser.prefer("dark")
    assert brightness("backgroundColor") < 150 and brightness("color") > 600
    browser.prefer("light")


@needs_browser
def test_nothing_is_requested_and_nothing_complains(browser, tmp_path):
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    assert [url for url in browser.requests() if not url.endswith("/report.html")] == []
    assert browser.complaints() == []
