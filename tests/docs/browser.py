"""A headless Chromium, from the system's packages; without it tests skip, or fail if MFP_REQUIRE_TOOLS=1.

Fixtures for conftest.py; a test file that wants a page takes ``visit``.
"""

from collections.abc import Callable, Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from tests.deploy.toolchain import tool

Visit = Callable[..., Page]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = tool("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def visit(browser: Browser) -> Iterator[Visit]:
    """Opens a page: visit(address, width=1280, scheme="light", tab=""). At the end, none has complained.

    It takes the place of what was open in the tab of that name: a new tab costs more than what is in it.
    """
    tabs: dict[str, Page] = {}
    complaints: list[str] = []

    def open_tab() -> Page:
        page = browser.new_page()
        page.on(
            "console",
            lambda said: said.type == "log" or complaints.append(f"{page.url}: {said.type}: {said.text}"),
        )
        page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
        page.on("request", lambda asked: _local(asked.url) or complaints.append(f"asks for {asked.url}"))
        return page

    def open_page(address: str, width: int = 1280, scheme: str = "light", tab: str = "") -> Page:
        page = tabs[tab] = tabs.get(tab) or open_tab()
        show(page, width, scheme)
        page.goto(address)
        return page

    yield open_page
    for page in tabs.values():
        page.close()
    assert complaints == []


def show(page: Page, width: int, scheme: str) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]


def violations(page: Page) -> list[str]:
    """What an accessibility checker finds, contrast included: rules and the first places that break them."""
    page.evaluate("document.getAnimations().forEach(one => one.cancel())")  # colours between two schemes
    # without preload: it would ask for the style sheets once more, which a file system refuses
    response = Axe().run(page, options={"resultTypes": ["violations"], "preload": False}).response
    return [
        f"{rule['id']}: {[node['target'] for node in rule['nodes'][:3]]}" for rule in response["violations"]
    ]


def _local(address: str) -> bool:
    return address.startswith(("file:", "data:"))
