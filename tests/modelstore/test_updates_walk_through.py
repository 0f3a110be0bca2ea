"""The lines of UPDATES.md, typed one after the other: each prints what stands under it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime.modelstore import updates
from edge_runtime.modelstore.bundle import load_bundle, seal_bundle

HOUSE = Path(__file__).parents[2]
PAGE = Path(updates.__file__).parent / "UPDATES.md"
LIMIT_S = 120


def blocks() -> list[tuple[str, str]]:
    """(language, text) of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def desk(tmp_path):
    """A folder with the tools, the new bundle and the station file of the page."""
    (tmp_path / "tools").symlink_to(HOUSE / "tools")
    bundle = load_bundle(HOUSE / "models" / "scratch" / "1")
    shutil.copytree(bundle.folder, tmp_path / "scratch-2")
    seal_bundle(tmp_path / "scratch-2", bundle.manifest.model_copy(update={"version": "2"}))
    toml = next(text for language, text in blocks() if language == "toml")
    (tmp_path / "station.toml").write_text(f'{toml}\n[recording]\nstate_dir = "{tmp_path}/state"\n')
    return tmp_path


@pytest.mark.real_processes
def test_every_line_of_the_page_prints_what_stands_under_it(desk):
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "EDGE_RUNTIME_CONFIG": str(desk / "station.toml"),
    }
    typed = 0
    for language, text in blocks():
        if language:
            continue
        for command, *shown in (part.splitlines() for part in text.split("$ ") if part):
            done = subprocess.run(
                command, shell=True, cwd=desk, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False
            )
            said = done.stdout + done.stderr
            assert done.returncode == 0, f"{command}\n{said}"
            for line in shown:
                pattern = ".*".join(re.escape(part) for part in line.split("..."))
                assert re.search(f"^{pattern}$", said, re.MULTILINE), f"{command}\n{line}\n{said}"
            typed += 1
    assert typed >= 15
