"""Each state of the line on the screen: what a real box says of itself, with that state in it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_runtime.core.glance import ComponentHealth
from edge_runtime.core.state import State
from edge_runtime.core.status import Status
from edge_runtime.process.control import ControlServer
from edge_runtime.serve.pages.faces import Face
from tests.browser.conftest import Look, barriers, shoot, too_wide
from tests.serve.http_box import box
from tests.support.line_and_pages import Rig


def sick(name: str, why: str, state: State = State.FAILED) -> Callable[[Status], Status]:
    return lambda status: replace(status, health={**status.health, name: ComponentHealth(state, why, None)})


def disarmed(status: Status) -> Status:
    controller = replace(status.report.controller, phase="hello")
    told = sick("controller", "no answer on /dev/serial/by-id/usb-controller", State.DEGRADED)(status)
    return replace(told, report=replace(status.report, controller=controller))


STATES: dict[Face, Callable[[Status], Status]] = {
    Face.STARTING: lambda status: replace(status, state=State.STARTING),
    Face.NO_PARTS: lambda status: replace(status, parts=0),
    Face.HELD: lambda status: replace(status, held_by="stop line"),
    Face.CAMERA_LOST: sick("camera", "camera 'cam0' lost: no frame for 2.0 s"),
    Face.CONTROLLER_SILENT: disarmed,
    Face.MODEL_FAILED: sick("model", "2 hung calls left behind"),
    Face.DISK_FULL: sick("journal", "the journal cannot be written: no space left on device"),
    Face.WAITS_FOR_PERSON: lambda status: replace(status, report=replace(status.report, waiting_for_person=1)),
}


def test_each_state_has_a_face_that_says_what_it_means_and_what_to_do(rig: Rig, look: Look, tmp_path: Path) -> None:
    status = rig.line.look()
    told = [status]
    control = ControlServer(tmp_path / "control.sock", {"status": lambda _: told[0].to_json(), "preview": lambda _: {}})
    control.start()
    with ExitStack() as opened:
        opened.callback(control.stop)
        server = opened.enter_context(box(tmp_path))
        pages = [
            opened.enter_context(look(server.url + "/", size, scheme=scheme, may_fail=True))
            for size, scheme in (("360", "light"), ("1280", "dark"), ("1920", "light"))
        ]
        for face, change in STATES.items():
            told[0] = change(status)
            for page in pages:
                check(page, face)
        assert barriers(pages[1]) == []  # the dark one
        control.stop()
        for page in pages:
            check(page, Face.RUN_GONE)
            assert page.text_content("#alarms-open") == "1 alarm"
        server.components["pages"].stop()
        server.components["http"].stop()
        for page in pages:
            check(page, "offline")
            assert "goes on judging" in str(page.text_content("#face-belt"))


def check(page: Any, face: str) -> None:
    page.wait_for_selector(f'body[data-face="{face}"]')
    said = [str(page.text_content(f"#face-{what}")) for what in ("title", "belt", "do")]
    assert all(len(text) > 8 and "{" not in text and "face." not in text for text in said), said
    assert (face, page.is_visible("#face"), too_wide(page)) == (face, True, [])
    shoot(page, f"face-{face}")
