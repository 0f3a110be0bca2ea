"""The commands of PACK.md, as they stand there: a file of one's own judges parts on the line within five of them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime.cli.main import main
from edge_runtime.config.paths import SYSTEM_CONFIG
from tests.packing.test_metadata import with_zip
from tests.support import spot_models

PAGE = Path(__file__).parents[2] / "edge_runtime/packing/PACK.md"
MOST_COMMANDS = 5
RUN_WITHIN_S = 120

ULTRALYTICS = {"task": "detect", "imgsz": [64, 64], "names": {"0": "clean", "1": "spot"}}
WALKS = {  # chapter -> the engineer's file, and the verdict on each part of the folder that it is shown
    "A classifier": ("surface", spot_models.classifier(), "reject"),
    "An SSD detector": ("ssd", spot_models.ssd(), "accept"),
    "A YOLO detector": ("yolo", with_zip({"metadata.json": json.dumps(ULTRALYTICS)}, spot_models.yolo(8)), "reject"),
}


def commands_of(chapter: str) -> list[list[str]]:
    text = PAGE.read_text().split(f"## {chapter}\n")[1]
    block = re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[0]
    return [shlex.split(line)[1:] for line in block.splitlines()]


@pytest.fixture
def desk(tmp_path, parts, monkeypatch) -> Path:
    """Where the engineer sits: pictures, label file, a home of their own."""
    if SYSTEM_CONFIG.exists():
        pytest.skip(f"{SYSTEM_CONFIG} is here: a newcomer's machine has no station of its own")
    shutil.copytree(parts, tmp_path / "parts")
    (tmp_path / "labels.txt").write_text("clean\nspot\n")
    for name in ("EDGE_RUNTIME_CONFIG", "STATE_DIRECTORY", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(words: list[str], capsys) -> str:
    """What the command says; it must end well. `run` is a daemon and has a process of its own."""
    words = [str(path) for word in words for path in (sorted(Path().glob(word)) if "*" in word else [word])]
    if words[0] == "run":
        line = [sys.executable, "-m", "edge_runtime", *words]
        done = subprocess.run(line, capture_output=True, text=True, timeout=RUN_WITHIN_S, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr()
    assert ended.value.code == 0, f"{words}\n{said.out}\n{said.err}"
    return str(said.out)


@pytest.mark.real_processes
@pytest.mark.parametrize("chapter", WALKS)
def test_a_file_of_ones_own_judges_parts_within_five_commands(chapter, desk, capsys):
    name, content, verdict = WALKS[chapter]
    (desk / f"{name}.tflite").write_bytes(content)
    commands = commands_of(chapter)
    assert len(commands) <= MOST_COMMANDS
    said = {" ".join(words[:2]): typed(words, capsys) for words in commands}
    assert f"packed {name}@1" in said["models pack"]
    judged = next(text for words, text in said.items() if words.startswith("predict")).splitlines()
    assert len(judged) >= 5 and all(line.startswith(verdict) for line in judged)
    told = said["run --set"]
    assert "5 parts, 0 unaccounted for, 0 late" in told and f"{verdict} 5" in told and f"model {name}@1" in told
    assert "truth" not in told  # the simulated belt does not know what the pictures of a folder show
