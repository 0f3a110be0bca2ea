"""A reviewer's day in a real browser: judged blind, by keys, with an undo; what others said comes after one's own."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote_plus

import pytest

from edge_runtime.recording.reader import JournalReader
from tests.browser.conftest import SIZES, Look, barriers, becomes, shoot, too_wide
from tests.support.line_and_pages import Rig
from tests.support.waiting import until


def sayings(rig: Rig, row: int) -> list[tuple[str, str | None, str, str | None]]:
    with JournalReader(rig.line.state / "journal.db") as reader:
        return [(one.by, one.label, one.defect, one.saw_model) for one in reader.history(row)]


def begin(page: Any, name: str) -> int:
    """Say who reviews; the row that is shown to them first. New parts come all the time: it is not that of before."""
    page.wait_for_selector("#accept:not([disabled])")
    with page.expect_response(lambda response: f"by={quote_plus(name)}" in response.url) as got:
        page.fill("#who", name)
        page.keyboard.press("Enter")
    row = int(got.value.json()["queue"][0]["row"])
    becomes(page, shows(row))
    return row


def shows(row: int) -> str:
    return f"document.querySelector('#shot').src.endsWith('/{row}/picture')"


@pytest.mark.parametrize("size", SIZES)
def test_a_key_judges_blind_and_shows_the_next(rig: Rig, look: Look, size: str) -> None:
    name = f"Ann {size}"
    with look(rig.url + "/review", size, scheme="dark" if size == "1280" else "light") as page:
        row = begin(page, name)
        before = sayings(rig, row)
        assert not {"REJECT", "GOOD", "UNSURE"} & set(str(page.text_content("main")).split())
        page.keyboard.press("1")
        shoot(page, "review")
        page.keyboard.press("r")
        becomes(page, f"!{shows(row)}")
        until(lambda: sayings(rig, row) == [*before, (name, "reject", "scratch", None)])
        becomes(page, "document.querySelectorAll('#after p').length >= 2")
        shoot(page, "review-after")
        assert too_wide(page) == []
        assert barriers(page) == []
        page.keyboard.press("z")
        until(lambda: sayings(rig, row)[-1][1] is None)
        becomes(page, shows(row))


def test_what_others_said_is_told_after_ones_own_answer(rig: Rig, look: Look) -> None:
    with look(rig.url + "/review", "1280") as page:
        row = begin(page, "Ben")
        page.keyboard.press("a")
        until(lambda: ("Ben", "accept") in [one[:2] for one in sayings(rig, row)])
        refused = rig.server.get(f"/api/parts/{row}/answers?by=Cleo")
        assert (refused.status, "has not answered" in refused.error) == (400, True)
        waiting = rig.server.get("/api/review?by=Cleo").json()
        assert row in [one["row"] for one in waiting["queue"]]
        assert {key for one in waiting["queue"] for key in one} == {"row", "part", "at_ms", "day", "kind"}
        assert row not in [one["row"] for one in rig.server.get("/api/review?by=Ben").json()["queue"]]


def test_a_box_is_kept_in_fractions_of_the_picture(rig: Rig, look: Look) -> None:
    with look(rig.url + "/review", "1280") as page:
        row = begin(page, "Dora")
        becomes(page, "document.querySelector('#shot').naturalWidth > 0")
        room = page.locator("#shot").bounding_box()
        wide = min(room["width"], room["height"] * 16 / 9)  # the picture in its frame
        left, top = room["x"] + (room["width"] - wide) / 2, room["y"] + (room["height"] - wide * 9 / 16) / 2
        page.keyboard.press("b")
        page.mouse.move(left + wide * 0.25, top + wide * 9 / 16 * 0.25)
        page.mouse.down()
        page.mouse.move(left + wide * 0.5, top + wide * 9 / 16 * 0.75, steps=3)
        page.mouse.up()
        shoot(page, "review-box")
        assert page.locator("#box rect").count() == 1 and not page.is_visible("#zoom")
        page.keyboard.press("r")
        until(lambda: ("Dora", "reject") in [one[:2] for one in sayings(rig, row)])
        with JournalReader(rig.line.state / "journal.db") as reader:
            box = reader.history(row)[-1].box
        assert box is not None
        assert [box.x, box.y, box.w, box.h] == pytest.approx([0.25, 0.25, 0.25, 0.5], abs=0.01)
        assert page.locator("#box rect").count() == 0  # the next part has none
