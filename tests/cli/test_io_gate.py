"""`io gate`: one part is fired and measured, on the simulated line; nothing moves before somebody says yes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edge_runtime.cli.main import main
from edge_runtime.commissioning import fire_one

SMALL = ["--config", "embedded", "--set", "camera.width=160", "--set", "camera.height=90"]


def edge(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([*words])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    return [*SMALL, "--set", f"recording.state_dir={tmp_path}"]


def test_one_part_is_fired_at_its_count_and_the_sensor_sees_it(
    capsys: pytest.CaptureFixture[str], small: list[str]
) -> None:
    words = ["io", "gate", "--yes", "--json", "--beats", "30", "--set", "controller.confirm_counts=60"]
    code, out, err = edge(capsys, *words, *small)
    document = json.loads(out)
    assert code == 0, document
    assert document["outcome"] == "fired" and document["answer"] == "stored" and document["problem"] == ""
    assert abs(document["error_counts"]) <= 1 and abs(document["eye_to_gate_counts"] - 1000) <= 1
    assert document["is_confirmed"] is True
    assert document["beat_ms"]["n"] == 30 and document["beat_ms"]["p50"] <= document["beat_ms"]["p99"]
    assert "armed; waiting" in err


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_plc_is_fired_too(capsys: pytest.CaptureFixture[str], small: list[str], role: str) -> None:
    words = ["--set", "controller.protocol=modbus", "--set", f"controller.role={role}"]
    code, out, _ = edge(capsys, "io", "gate", "--yes", "--beats", "10", *words, *small)
    assert code == 0, out
    assert "fired" in out and "+0 counts from 1000" in out
    assert ("round trip" in out) == (role == "client")


def test_a_gate_that_is_stuck_is_found_by_the_sensor(capsys: pytest.CaptureFixture[str], small: list[str]) -> None:
    words = ["--set", "world.bad_days.stuck_gate=1.0", "--set", "controller.confirm_counts=60"]
    code, out, _ = edge(capsys, "io", "gate", "--yes", "--beats", "5", *words, *small)
    assert code == 1 and "the sensor behind the gate saw nothing: check air, valve" in out


def test_no_part_is_a_sentence(capsys: pytest.CaptureFixture[str], small: list[str]) -> None:
    words = ["--set", "world.parts_per_s=0.05", "--wait", "0.3", "--beats", "5"]
    code, _, err = edge(capsys, "io", "gate", "--yes", *words, *small)
    assert code == 1 and "no part broke the photo-eye" in err


def test_nothing_is_opened_before_yes(
    capsys: pytest.CaptureFixture[str], small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    monkeypatch.setattr(fire_one, "fire_one", lambda *_, **__: called.append(1))
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")
    code, _, _ = edge(capsys, "io", "gate", *small)
    assert code in (2, 130) and not called


def test_nobody_at_the_port_is_told(capsys: pytest.CaptureFixture[str], small: list[str],
                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(fire_one, "BEATS_WITHIN_S", 0.3)
    master, slave = os.openpty()
    try:
        words = ["--set", "controller.driver=serial", "--set", f"controller.port={os.ttyname(slave)}"]
        code, _, err = edge(capsys, "io", "gate", "--yes", *words, *small)
    finally:
        os.close(master)
        os.close(slave)
    assert code == 1 and "no controller answers" in err


def test_what_went_wrong_is_told_with_its_fix() -> None:
    good = {"outcome": "fired", "error_counts": 0, "is_confirmed": True, "has_confirm_sensor": True}
    assert fire_one._problem(good) == ""
    assert "raise controller.decide_counts" in fire_one._problem({**good, "outcome": "defaulted"})
    assert "+3 counts" in fire_one._problem({**good, "error_counts": 3})
    assert "did not say that it fired" in fire_one._problem({**good, "outcome": "unknown"})
    assert "nothing was heard of the sensor" in fire_one._problem({**good, "is_confirmed": None})
