"""The site in a browser, from the file system: pages load, search finds, links lead on, everyone can read."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlparse

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, ConsoleMessage, Page

FINDERS = {"search.html", "genindex.html"}  # pages of Sphinx's own


VIEWS = ((1280, "light"), (390, "dark"))  # widths and schemes


@dataclass
class Look:
    """A page as readers see it, in every view."""

    complaints: list[str] = field(default_factory=list)  # of the console, and requests to a network
    violations: list[str] = field(default_factory=list)  # what the accessibility checker found
    too_wide: list[int] = field(default_factory=list)  # widths that it does not fit
    broken_images: list[str] = field(default_factory=list)


def pages(site: Path) -> list[Path]:
    """Every page that Sphinx made; those of docs/interactive have tests of their own."""
    found = sorted(site.rglob("*.html"))
    return [page for page in found if not {"_static", "interactive"} & set(page.relative_to(site).parts)]


def looks(site: Path, browser: Browser, views_checked: int) -> dict[str, Look]:
    """All pages, one after the other in one tab: a new one costs more than what is in it.

    The accessibility checker reads ``views_checked`` of a page's views. If it is one, pages take turns, and
    of those of the API, which are long and all alike, one is read.
    """
    page, found, look = browser.new_page(), dict[str, Look](), Look()
    page.on("console", lambda said: complaint(said, look))
    page.on("pageerror", lambda error: look.complaints.append(str(error)))
    page.on("request", lambda asked: remote(asked.url, look))
    for number, path in enumerate(pages(site)):
        look = found[str(path.relative_to(site))] = Look()
        first = number % len(VIEWS)
        for count, (width, scheme) in enumerate(VIEWS[first:] + VIEWS[:first]):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
            if count < views_checked:
                page.goto(path.as_uri())  # anew: as it loads, a page prepares for its width and scheme
                page.wait_for_function("!window.MathJax || window.MathJax.startup.promise.then(() => true)")
                if views_checked > 1 or path.parent.name != "api" or path.name == "neurons.html":
                    look.violations += violations(page)
            if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
                look.too_wide.append(width)
        look.broken_images = page.evaluate(
            "[...document.images].filter(i => i.loading != 'lazy' && !i.naturalWidth).map(i => i.src)"
        )
    page.close()
    return found


def complaint(said: ConsoleMessage, look: Look) -> None:
    if said.type in ("error", "warning"):
        look.complaints.append(said.text)


def remote(address: str, look: Look) -> None:
    if not address.startswith(("file:", "data:")):
        look.complaints.append(f"asks for {address}")


def violations(page: Page) -> list[str]:
    page.evaluate("document.getAnimations().forEach(one => one.cancel())")  # colours between two schemes
    # without preload: it asks for the style sheets once more, which a file system refuses
    options = {"resultTypes": ["violations"], "preload": False}
    found: dict[str, Any] = Axe().run(page, options=options).response
    return [
        f"{one['id']}: {', '.join(str(node['target'][0]) for node in one['nodes'][:3])}"
        for one in found["violations"]
    ]


@pytest.mark.parametrize("views_checked", [1, pytest.param(len(VIEWS), marks=pytest.mark.slow)])
def test_every_page_loads_in_silence_fits_the_screen_and_is_accessible(
    site: Path, browser: Browser, views_checked: int
) -> None:
    """One test for all of it: a worker that has opened a page looks at everything."""
    found = looks(site, browser, views_checked)
    assert "index.html" in found and "api/neurons.html" in found
    for kind in fields(Look):
        wrong = {page: getattr(look, kind.name) for page, look in found.items() if getattr(look, kind.name)}
        assert wrong == {}, kind.name


def test_search_finds_a_neuron_from_the_file_system(site: Path, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"{(site / 'search.html').as_uri()}?q=MFPNode")
    page.wait_for_selector("ul.search li a")
    found = [str(link.get_attribute("href")) for link in page.query_selector_all("ul.search li a")]
    page.close()
    assert any("api/spikingjelly.html" in link for link in found)
    assert any("quickstart/spikingjelly.html" in link for link in found)


def test_the_search_button_leads_to_results(site: Path, browser: Browser) -> None:
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    page.keyboard.press("Control+k")
    page.keyboard.type("TimePool")
    page.keyboard.press("Enter")
    page.wait_for_selector("ul.search li a")
    assert "search.html?q=TimePool" in page.url
    page.close()


def test_dark_and_light_can_be_chosen_and_drawings_follow(site: Path, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.goto((site / "index.html").as_uri())
    visible = "[...document.querySelectorAll('img.drawing')].filter(image => image.offsetWidth)"
    shown = f"{visible}.map(image => image.src.match(/_(light|dark)/)[1])"
    assert set(page.evaluate(shown)) == {"light"}
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert set(page.evaluate(shown)) == {"dark"}
    page.close()


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
        assert "mfp-neurons 0." in tree.select_one(".navbar-brand").text, page.name
        if page.name not in FINDERS and tree.select(".bd-sidebar-secondary"):
            assert tree.select_one(".editthispage a")["href"].endswith((".md", ".ipynb")), page.name
