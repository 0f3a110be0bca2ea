"""`status` and `top` of a real box, of one that hangs, of one that refuses, and where none runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from edge_runtime.cli.main import main
from edge_runtime.cli.screen import draw
from edge_runtime.cli.status_cmd import text_lines
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.state import State
from edge_runtime.core.status import Status
from edge_runtime.process.control import ControlServer
from tests.support.real_box import RealBox, running_box, telling

COMMANDS = (["status"], ["status", "--json"], ["top", "--once"], ["top", "--json"])


def edge(capsys: pytest.CaptureFixture[str], state: Path, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([*words, "--config", "embedded", "--set", f"recording.state_dir={state}"])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealBox]:
    with running_box(tmp_path_factory.mktemp("box") / "state") as running:
        yield running


def refuse(_: Any) -> None:
    raise DeviceError("not you; become root")


def test_every_component_of_a_real_box_has_its_line(real_status: Status) -> None:
    lines = [click.unstyle(line) for line in text_lines(real_status)]
    named = {line.split()[0]: line.split()[1] for line in lines[-len(real_status.health) :]}
    assert named == {name: health.state.value for name, health in real_status.health.items()}
    assert lines[0].startswith(f"{real_status.station}  ") and f"model {real_status.model}" in lines[0]
    assert any(line.startswith("voice idle") and "(silent)" in line for line in lines)
    assert any(line.startswith("retention ") for line in lines)
    assert lines[1].startswith(f"parts {real_status.parts}  ") and re.search(r"  last part \d+ s ago$", lines[1])


def test_before_the_first_part_nothing_is_said_of_the_last_one(real_status: Status) -> None:
    none_yet = replace(real_status, parts=0, last_part_s=None)
    for screen in (text_lines(none_yet), draw(none_yet, None, 80)):
        assert "last part" not in "\n".join(screen)


def test_top_says_how_long_the_belt_has_been_empty_while_no_part_comes(real_status: Status) -> None:
    empty = replace(real_status, last_part_s=200.0)
    a_second_ago = replace(empty, uptime_s=empty.uptime_s - 1.0)
    assert "0.0 parts/s   last part 3 min 20 s ago" in click.unstyle("\n".join(draw(empty, a_second_ago, 200)))
    coming = replace(a_second_ago, parts=empty.parts - 7)
    assert "last part" not in click.unstyle("\n".join(draw(empty, coming, 200)))


def test_the_screen_shows_rates_components_and_the_newest_parts(real_status: Status) -> None:
    before = replace(real_status, uptime_s=real_status.uptime_s - 1.0, parts=real_status.parts - 7)
    screen = click.unstyle("\n".join(draw(real_status, before, 200)))
    for word in ("7.0 parts/s", "microphone", "sound", real_status.model, str(real_status.recent[-1].part)):
        assert word in screen, word
    assert len(draw(real_status, None, 60)) == len(draw(real_status, before, 60))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_box_that_runs_answers(capsys: pytest.CaptureFixture[str], box: RealBox, words: list[str]) -> None:
    code, out, _ = edge(capsys, box.state, *words)
    assert code == 0
    if "--json" in words:
        assert Status.from_json(json.loads(out)).pid == box.process.pid
    else:
        assert "photo-eye to verdict" in out and "controller" in out


def test_one_look_loads_no_more_of_the_document_than_it_shows(box: RealBox) -> None:
    """It has 0.15 s of processor time in all; the types of the reports alone take 0.02."""
    script = (
        "import sys\nfrom edge_runtime.cli.main import main\ntry:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n    code = end.code\n"
        "print(code, sorted({'numpy', 'pydantic', 'edge_runtime.core.status'} & set(sys.modules)))"
    )
    file = box.state / "station.toml"
    file.write_text(f"[recording]\nstate_dir = '{box.state}'\n")
    command = [sys.executable, "-c", script, "--config", str(file), "status"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout + done.stderr


def test_a_box_that_is_not_well_is_exit_code_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, real_status: Status
) -> None:
    for state, code in ((State.FAILED, 1), (State.STARTING, 1), (State.DEGRADED, 0)):
        with telling(tmp_path / "control.sock", replace(real_status, state=state)):
            assert edge(capsys, tmp_path, "status")[0] == code


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_absent_and_refusing_are_two_sentences(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str]
) -> None:
    code, _, err = edge(capsys, tmp_path, *words)
    assert code == 1 and "no edge-runtime is running here" in err
    server = ControlServer(tmp_path / "control.sock", {"status": refuse})
    server.start()
    try:
        code, _, err = edge(capsys, tmp_path, *words)
    finally:
        server.stop()
    assert code == 1 and "not you; become root" in err


@pytest.mark.parametrize("words", [["status"], ["top", "--once"]], ids=" ".join)
def test_a_box_that_hangs_is_a_third(capsys: pytest.CaptureFixture[str], box: RealBox, words: list[str]) -> None:
    with box.hung():
        code, _, err = edge(capsys, box.state, *words)
    assert code == 1 and "may hang" in err and "no edge-runtime" not in err


def test_what_is_no_status_is_a_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    server = ControlServer(tmp_path / "control.sock", {"status": lambda _: {"parts": 1}})
    server.start()
    try:
        code, _, err = edge(capsys, tmp_path, "status")
    finally:
        server.stop()
    assert code == 1 and "status has no 'station'" in err and "another version" in err
