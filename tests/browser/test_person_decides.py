"""A part waits for a person at the screen: they see it, answer once, and the box says so; who is late is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from edge_runtime.process.control import Refused, ask
from edge_runtime.recording.reader import JournalReader
from tests.browser.conftest import Look, barriers, becomes, shoot, too_wide
from tests.serve.http_box import box
from tests.support.line_and_pages import SETTINGS, Rig
from tests.support.real_box import running_box
from tests.support.waiting import until

SLOW = (
    *SETTINGS, "world.parts_per_s=0.5", 'decision.automation="human_only"', "decision.deadline_ms=8000",
    "controller.decide_counts=17000", "controller.fire_counts=17500",
)  # fmt: skip


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    state = tmp_path_factory.mktemp("asks") / "state"
    with running_box(state, *SLOW) as line, box(state, *SLOW) as server:
        yield Rig(line, server.url, server)


def decided(rig: Rig, part: str) -> Any:
    with JournalReader(rig.line.state / "journal.db") as reader:
        return next((row for row in reader.newest(100) if row.part == part and row.verdict), None)


def test_a_person_decides_a_part_that_waits_and_nobody_decides_it_again(asking: Rig, look: Look) -> None:
    with look(asking.url + "/", "1280") as page, look(asking.url + "/", "360", locale="de-DE") as phone:
        page.wait_for_selector("#person:not([hidden])")
        becomes(page, "document.querySelector('#shot').naturalWidth > 0")
        phone.wait_for_selector("#person:not([hidden])")
        for one in (page, phone):
            assert too_wide(one) == []
            shoot(one, "asks")
        assert (page.text_content("#cause"), page.locator("#marks path").count()) == ("", 0)  # the model keeps out
        bottom = "document.querySelector('#person-reject').getBoundingClientRect().bottom"
        assert page.evaluate(f"{bottom} < document.querySelector('#verdict').getBoundingClientRect().bottom")
        part = str(page.get_attribute("#person", "data-part"))
        page.keyboard.press("b")
        until(lambda: decided(asking, part))
        row = decided(asking, part)
        assert (row.verdict, row.cause, row.reason.partition(";")[0]) == ("reject", "human", "page")
        with JournalReader(asking.line.state / "journal.db") as reader:
            assert [(one.by, one.label, one.where) for one in reader.history(row.id)] == [
                ("operator", "reject", "page")
            ]
        boot, _, number = part.partition("-")
        with pytest.raises(Refused, match=r"too late: part .* waits for nobody any more; it was decided reject"):
            answer_again = {"boot_id": int(boot, 16), "part_id": int(number), "verdict": "accept", "by": "ben"}
            ask(asking.line.socket, "decide", **answer_again)
        becomes(page, f"document.querySelector('#person').dataset.part !== '{part}'")
        assert barriers(page) == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"boot_id": 1, "part_id": 1, "verdict": "unsure", "by": "ben"}, "is none of accept, reject"),
        ({"boot_id": "1", "part_id": 1, "verdict": "accept", "by": "ben"}, "name a part"),
        ({"boot_id": 1, "part_id": 2**32, "verdict": "accept", "by": "ben"}, "name a part"),
        ({"boot_id": 1, "part_id": 1, "verdict": "accept", "by": "\x1b"}, "not the name of who decides"),
        ({"boot_id": 65535, "part_id": 77, "verdict": "accept", "by": "ben"}, "it is none of the last parts"),
    ],
)
def test_an_answer_that_names_no_part_or_nobody_moves_nothing(asking: Rig, words: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why):
        ask(asking.line.socket, "decide", **words)
