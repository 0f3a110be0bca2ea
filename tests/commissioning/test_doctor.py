"""Doctor as a whole: every check has its turn, whatever another one does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.commissioning import doctor
from edge_runtime.commissioning.finding import Finding
from edge_runtime.config.load import Loaded, load
from edge_runtime.core.errors import DeviceError


def _well(_: Loaded) -> Iterator[Finding]:
    yield Finding("well", "ok", "well")


def _broken(_: Loaded) -> Iterator[Finding]:
    yield Finding("broken", "ok", "so far")
    raise KeyError("no such word")


def _gone(_: Loaded) -> Iterator[Finding]:
    raise DeviceError("no device", "plug it in")
    yield


def test_a_check_that_fails_is_a_finding_and_the_next_one_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (_broken, _gone))
    found = list(doctor.examine(load(None), [_well]))
    assert [finding["name"] for finding in found] == ["broken", "broken", "gone", "well"]
    assert found[1]["state"] == "fail" and "KeyError" in found[1]["detail"] and "no such word" in found[1]["detail"]
    assert found[1]["fix"] and (found[2]["detail"], found[2]["fix"]) == ("no device", "plug it in")


def test_the_demo_station_has_a_line_for_every_part_of_the_box(tmp_path: Path) -> None:
    found = list(doctor.examine(load(None, [f"recording.state_dir={tmp_path}"])))
    names = {finding["name"] for finding in found}
    assert {"python", "config", "daemon", "model", "camera", "controller", "microphone", "state", "clock"} <= names
    assert not [finding for finding in found if finding["state"] == "fail"]
