"""An operator's day at the screen, in a real browser, against a real line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.recording.reader import JournalReader
from tests.browser.conftest import SIZES, Look, barriers, becomes, shoot, too_wide
from tests.support.line_and_pages import Rig
from tests.support.waiting import until


def wait_for_text(page: Any, selector: str) -> str:
    becomes(page, f"document.querySelector('{selector}')?.textContent.trim()")
    return str(page.text_content(selector)).strip()


def labels(rig: Rig, part: str) -> list[tuple[str | None, bool]]:
    """What was said about a part on the page: label, and whether it was taken back."""
    with JournalReader(rig.line.state / "journal.db") as reader:
        row = next(row for row in reader.newest(500) if row.part == part)
        return [(one.label, one.is_undone) for one in reader.history(row.id)]


@pytest.mark.parametrize("size", SIZES)
def test_the_screen_shows_the_line_and_takes_a_wrong_verdict_and_its_undo(rig: Rig, look: Look, size: str) -> None:
    with look(rig.url + "/", size, scheme="dark" if size == "1280" else "light") as page:
        assert wait_for_text(page, "#automation") == "Full automation"
        page.wait_for_selector('body[data-face="running"]')
        page.wait_for_selector("#verdict:not([data-verdict=''])")
        becomes(page, "document.querySelector('#shot').naturalWidth > 0")
        page.wait_for_selector("#strip button img")
        assert too_wide(page) == []
        shoot(page, "operator")

        page.locator("#strip li:has(img) button").first.click()
        page.wait_for_selector("#back:not([hidden])")
        part = str(page.text_content("#caption")).split()[1].rstrip(",")
        page.locator("#heat-switch").click()
        becomes(page, "document.querySelector('#heat').naturalWidth > 0")
        page.locator("#wrong").click()
        page.locator("#was-good").click()
        page.wait_for_selector(".toast button")
        shoot(page, "noted")
        assert labels(rig, part)[-1] == ("accept", False)
        page.locator(".toast button").click()
        until(lambda: labels(rig, part)[-2:] == [("accept", True), (None, False)])
        assert too_wide(page) == []
        assert barriers(page) == []


def test_a_line_is_held_by_one_and_every_screen_says_by_whom(rig: Rig, look: Look) -> None:
    with look(rig.url + "/", "1920") as one, look(rig.url + "/", "360", locale="de-DE") as other:
        for page in (one, other):
            page.wait_for_selector('body[data-face="running"]')
        one.keyboard.press("p")
        one.wait_for_selector("#hold-ask[open]")
        one.keyboard.press("Enter")
        for page in (one, other):
            page.wait_for_selector('body[data-face="held"]')
            shoot(page, "held")
            assert too_wide(page) == []
        assert rig.line.look().held_by == "stop line"
        assert "by the operator since" in str(one.text_content("#face-title"))
        assert "angehalten von dem Bediener" in str(other.text_content("#face-title"))
        assert barriers(one) == []
        other.locator("#face-go").click()
        one.wait_for_selector('body:not([data-face="held"])')
        until(lambda: rig.line.look().held_by == "")


def test_a_whole_day_goes_by_keys(rig: Rig, look: Look) -> None:
    with look(rig.url + "/", "1280") as page:
        page.wait_for_selector("#strip button")
        page.wait_for_selector("#verdict:not([data-verdict=''])")
        page.keyboard.press("ArrowRight")
        page.wait_for_selector('#strip [aria-pressed="true"]')
        page.keyboard.press("w")
        page.keyboard.press("b")
        page.wait_for_selector(".toast button")
        page.keyboard.press("z")
        becomes(page, "!document.querySelector('.toast button')")
        page.keyboard.press("Escape")
        page.wait_for_selector("#back", state="hidden")
        page.keyboard.press("r")
        page.wait_for_selector(".toast")
        page.fill("#search-text", "display glass")
        page.keyboard.press("Enter")
        becomes(page, "document.querySelector('#found').textContent.includes('A742')")
        shoot(page, "found")
        page.fill("#search-text", "<img src=x onerror=alert(1)>")
        page.keyboard.press("Enter")
        becomes(page, "document.querySelector('#heard').textContent.includes('onerror')")
        assert page.locator("#heard img").count() == 0


def test_the_language_switch_is_kept(rig: Rig, look: Look) -> None:
    with look(rig.url + "/", "1280") as page:
        page.wait_for_selector('body[data-face="running"]')
        page.locator("#language").click()
        becomes(page, "document.querySelector('#state').textContent === 'LÄUFT'")
        page.reload()
        becomes(page, "document.querySelector('#state').textContent === 'LÄUFT'")
        assert page.get_attribute("html", "lang") == "de"
        page.wait_for_selector("#verdict[data-verdict='reject']")
        spills = "[...document.querySelectorAll('#verdict, #talk, #hold')].map(e => e.scrollWidth - e.clientWidth)"
        assert page.evaluate(spills) == [0, 0, 0]
        shoot(page, "german")


def test_every_write_of_the_day_is_in_the_audit(rig: Rig) -> None:
    lines = [json.loads(line) for line in Path(rig.line.state / "serve-audit.jsonl").read_text().splitlines()]
    assert {"/api/label", "/api/undo", "/api/hold", "/api/resume"} <= {line["path"] for line in lines}
    assert {line["status"] for line in lines} == {200}
