"""A station whose folder of pictures is not there: `config check` says so, and so does the end of `run`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime.cli.main import main
from edge_runtime.cli.run_cmd import summary_lines

RUN_WITHIN_S = 120


@pytest.fixture
def blind(tmp_path: Path) -> list[str]:
    settings = (f'recording.state_dir="{tmp_path}"', "camera.driver=folder", f"camera.folder.path={tmp_path}/nowhere")
    return ["--config", "embedded", *(word for one in settings for word in ("--set", one))]


def test_config_check_does_not_call_it_good(blind: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*blind, "config", "check"])
    said = capsys.readouterr()
    assert ended.value.code == 1 and "its line would see nothing" in said.out and "good" not in said.out
    assert "error: camera.folder.path" in said.err and "does not exist; set it to a folder of pictures" in said.err
    with pytest.raises(SystemExit):
        main([*blind, "config", "check", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False and "does not exist" in told["problems"][0] and told["remarks"] == []


@pytest.mark.real_processes
def test_the_end_of_run_says_why_nothing_was_seen(blind: list[str]) -> None:
    command = [sys.executable, "-m", "edge_runtime", *blind, "run", "--parts", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_WITHIN_S, check=False)
    document = json.loads(done.stdout)
    assert document["causes"]["no_frame"] == 2 and "does not exist" in document["why"]["no_frame"]
    assert any(line.startswith("why       no_frame: ") and "nowhere" in line for line in summary_lines(document))
