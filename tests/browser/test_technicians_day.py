"""A technician's day in a real browser: what is wrong, which part, judged again, another model, what happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_runtime.recording.reader import JournalReader, PartFilter
from tests.browser.conftest import SIZES, Look, barriers, becomes, shoot, too_wide
from tests.serve.http_box import box
from tests.support.line_and_pages import Rig
from tests.support.waiting import until

PLACES = ("trends", "config", "test", "rollout", "drift", "alarms")


def a_reject(rig: Rig) -> int:
    with JournalReader(rig.line.state / "journal.db") as reader:
        rows = until(lambda: reader.newest(1, PartFilter(verdicts=["reject"], with_evidence=True)))
    return int(rows[0].id)


def go(page: Any, place: str, there: str) -> None:
    page.evaluate(f"location.hash = '#{place}'")
    page.wait_for_selector(there)


@pytest.mark.parametrize("size", SIZES)
def test_every_tab_has_a_face_that_fits_and_can_be_read_by_all(rig: Rig, look: Look, size: str) -> None:
    row = a_reject(rig)
    with look(rig.url + "/technician", size, scheme="dark" if size == "1280" else "light") as page:
        tabs = {"health": ".findings li, .notice", "parts": ".rows a",
                f"parts/{row}": "#again-model", "models": ".model .facts",
                "events": ".findings li", **dict.fromkeys(PLACES, ".notice")}  # fmt: skip
        for place, there in tabs.items():
            go(page, place, there)
            if place == f"parts/{row}":
                becomes(page, "document.querySelector('.picture .shot img').naturalWidth > 0")
            shoot(page, f"technician-{place.partition('/')[0]}{'-one' if '/' in place else ''}")
            assert too_wide(page) == [], place
        for place, there in tabs.items():  # after the pictures: without axe-core the test ends here
            go(page, place, there)
            assert barriers(page) == [], place


def test_a_part_is_found_by_what_it_was_and_judged_again(rig: Rig, look: Look) -> None:
    a_reject(rig)
    with look(rig.url + "/technician#parts", "360", locale="de-DE") as page:
        page.select_option("#by-verdict", "reject")
        becomes(page, "[...document.querySelectorAll('.rows a')].every(a => a.dataset.verdict === 'reject')")
        page.click(".rows a")
        page.wait_for_selector("#again-model")
        assert "Von der Lichtschranke zum Tor" in page.inner_text("main")
        page.click(".again .act")
        becomes(page, "document.querySelector('#again-result').textContent.startsWith('Dasselbe')")


def test_health_says_what_doctor_says_the_worst_first_also_without_a_line(tmp_path: Path, look: Look) -> None:
    with box(tmp_path) as server, look(server.url + "/technician", "360") as page:
        page.wait_for_selector(".findings li")
        shoot(page, "technician-health-no-line")
        assert "no edge-runtime is running here" in page.inner_text("main")
        found = [one["state"] for one in server.get("/api/health").json()["findings"]]
        assert found == sorted(found, key=["fail", "warn", "ok"].index)
        assert too_wide(page) == [] and barriers(page) == []
