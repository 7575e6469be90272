"""The site in a browser, from the file system: pages load, search finds, links lead on, everyone can read."""

from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import expect

from tests.docs.browser import Visit, show, violations

FINDERS = {"search.html", "genindex.html"}  # pages of Sphinx's own
VIEWS = ((1280, "light"), (390, "dark"))  # widths and schemes


def pages(site: Path) -> list[Path]:
    """Every page, those that Sphinx made and those of docs/interactive."""
    return [page for page in sorted(site.rglob("*.html")) if "_static" not in page.relative_to(site).parts]


@pytest.mark.parametrize("views_checked", [1, pytest.param(len(VIEWS), marks=pytest.mark.slow)])
def test_every_page_loads_in_silence_fits_the_screen_and_is_accessible(
    site: Path, visit: Visit, views_checked: int
) -> None:
    """One test for all of it: a worker that has opened a page looks at everything.

    The accessibility checker reads ``views_checked`` of a page's views. If it is one, pages take turns, and
    of those of the API, which are long and all alike, one is read.
    """
    wrong: list[str] = []
    names = {str(path.relative_to(site)) for path in pages(site)}
    assert {"index.html", "api/neurons.html", "interactive/digits.html"} <= names
    for number, path in enumerate(pages(site)):
        is_read = views_checked > 1 or path.parent.name != "api" or path.name == "neurons.html"
        first = number % len(VIEWS)
        for count, (width, scheme) in enumerate(VIEWS[first:] + VIEWS[:first]):
            if count < views_checked:  # anew: as it loads, a page prepares for its width and scheme
                page = visit(path.as_uri(), width, scheme)
                page.wait_for_function("!window.MathJax || window.MathJax.startup.promise.then(() => true)")
                wrong += [f"{path.name}, {scheme}: {rule}" for rule in (violations(page) if is_read else ())]
            else:
                show(page, width, scheme)
            if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
                wrong.append(f"{path.name} is wider than {width}")
        images = "[...document.images].filter(i => i.loading != 'lazy' && !i.naturalWidth).map(i => i.src)"
        wrong += [f"{path.name} lacks {image}" for image in page.evaluate(images)]
    assert wrong == []


def test_search_finds_a_neuron_from_the_file_system(site: Path, visit: Visit) -> None:
    page = visit(f"{(site / 'search.html').as_uri()}?q=MFPNode")
    # results are listed one after the other, and the page says when it has them all
    expect(page.locator("p.search-summary")).to_contain_text("Search finished", timeout=30_000)
    links = [str(link.get_attribute("href")) for link in page.query_selector_all("ul.search li a")]
    for expected in ("api/spikingjelly.html", "quickstart/spikingjelly.html"):
        assert any(expected in link for link in links)


def test_the_search_button_leads_to_results(site: Path, visit: Visit) -> None:
    page = visit((site / "index.html").as_uri())
    page.keyboard.press("Control+k")
    page.keyboard.type("TimePool")
    page.keyboard.press("Enter")
    expect(page.locator("p.search-summary")).to_contain_text("Search finished", timeout=30_000)
    assert "search.html?q=TimePool" in page.url


def test_dark_and_light_can_be_chosen_and_drawings_follow(site: Path, visit: Visit) -> None:
    page = visit((site / "index.html").as_uri())
    visible = "[...document.querySelectorAll('img.drawing')].filter(image => image.offsetWidth)"
    schemes = f"{visible}.map(image => image.src.match(/_(light|dark)/)[1])"
    assert set(page.evaluate(schemes)) == {"light"}
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert set(page.evaluate(schemes)) == {"dark"}


@pytest.fixture(scope="module")
def trees(site: Path) -> dict[Path, BeautifulSoup]:
    return {page: BeautifulSoup(page.read_text(), "html.parser") for page in pages(site)}


def test_internal_links_resolve_to_a_page_and_a_place_on_it(trees: dict[Path, BeautifulSoup]) -> None:
    ids = {page: {str(tag["id"]) for tag in tree.select("[id]")} for page, tree in trees.items()}
    broken = []
    for page, tree in trees.items():
        for tag in tree.select("a[href], link[href], img[src], script[src]"):
            address, place = urldefrag(str(tag.get("href") or tag.get("src")))
            if urlparse(address).scheme not in ("", "file"):
                continue
            path = Path(unquote(urlparse(address).path))
            target = (page.parent / path).resolve() if address else page
            if not target.exists() or (place and target in ids and unquote(place) not in ids[target]):
                broken.append(f"{page.name}: {tag.get('href') or tag.get('src')}")
    assert broken == []


def test_every_picture_says_what_it_shows(trees: dict[Path, BeautifulSoup]) -> None:
    silent = [
        f"{page.name}: {image.get('src')}"
        for page, tree in trees.items()
        for image in tree.select("article img")
        if len(str(image.get("alt", "")).split()) < 3
    ]
    assert silent == []


def test_every_page_has_an_edit_link_the_version_and_one_heading(trees: dict[Path, BeautifulSoup]) -> None:
    for page, tree in trees.items():
        assert len(tree.select("h1")) == 1, page.name
        if page.parent.name == "interactive":
            assert "mfp-neurons" in tree.select_one("a[href='../index.html']").text, page.name
            continue
        assert "mfp-neurons 0." in tree.select_one(".navbar-brand").text, page.name
        if page.name not in FINDERS and tree.select(".bd-sidebar-secondary"):
            assert tree.select_one(".editthispage a")["href"].endswith((".md", ".ipynb")), page.name
