"""A real browser before a real line: `run` on the simulated line, `serve` beside it, Debian's chromium.

look      opens a page of a size; at its end nothing may have been said on its console or asked of another machine
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
SCREENS = ROOT / "build" / "screens"  # what the pages looked like, for people to look through
AXE = ROOT / ".venv" / "browser-peers" / "node_modules" / "axe-core" / "axe.min.js"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WAIT_MS = 30_000
SIZES = {"360": (360, 740), "1280": (1280, 720), "1920": (1920, 1080)}


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no chromium here; apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


Look = Callable[..., Any]


@pytest.fixture
def look(chromium: Any) -> Look:
    """`with look(url, "1280") as page`; scheme: light or dark; locale: of the browser."""

    @contextmanager
    def opened(url: str, size: str, *, scheme: str = "light", locale: str = "en-GB", may_fail: bool = False) -> Any:
        width, height = SIZES[size]
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, locale=locale, has_touch=width < 500
        )
        context.set_default_timeout(WAIT_MS)
        page, said, asked = context.new_page(), [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda err: said.append(str(err)))
        page.on("request", lambda request: asked.append(request.url))
        try:
            page.goto(url)
            yield page
            assert {urlsplit(one).netloc for one in asked} == {urlsplit(url).netloc}, "a page asked another machine"
            assert may_fail or said == [], "something was said on the console"
        finally:
            context.close()

    return opened


def shoot(page: Any, name: str) -> None:
    SCREENS.mkdir(parents=True, exist_ok=True)
    is_phone = page.viewport_size["width"] < 500
    page.screenshot(path=SCREENS / f"{name}-{page.viewport_size['width']}.png", full_page=is_phone)


def becomes(page: Any, claim: str) -> None:
    """Wait until an expression of the page is true. Not its own wait_for_function: the page forbids it to evaluate."""
    until(lambda: page.evaluate(claim), within_s=WAIT_MS / 1000, why=claim)


def too_wide(page: Any) -> list[str]:
    """What is wider than the screen; empty when all fits."""
    return list(
        page.evaluate(
            "document.documentElement.scrollWidth <= window.innerWidth ? [] : [...document.querySelectorAll('*')]"
            ".filter(e => e.getBoundingClientRect().right > window.innerWidth).map(e => e.tagName + '#' + e.id)"
        )
    )


def barriers(page: Any) -> list[str]:
    """What axe-core finds serious or critical."""
    if not AXE.is_file():
        pytest.skip("no axe-core here; tools/browser_peers brings it")
    page.evaluate(AXE.read_text(encoding="utf-8") + ";0")
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:120]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
