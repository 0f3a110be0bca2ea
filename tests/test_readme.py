"""The lines under "Look around" in the README, on what the demo leaves behind, one after the other, as a newcomer types
them. Each must do what it says; only a replay of JPEG pictures may find a difference."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.config.paths import SYSTEM_CONFIG

HOUSE = Path(__file__).parents[1]
PROGRAM = Path(sys.executable).with_name("edge-runtime")
LIMIT_S = 180
MAY_END_WITH = {"edge-runtime parts replay": (0, 1)}  # kept as JPEG: a verdict close to a threshold may differ


def lines_to_type() -> list[str]:
    """The first block of the chapter, without its comments."""
    chapter = (HOUSE / "README.md").read_text().split("## Look around")[1]
    block = re.findall(r"^```\n(.*?)^```$", chapter, re.MULTILINE | re.DOTALL)[0]
    return [line.partition("  #")[0].strip() for line in block.splitlines()]


class Newcomer:
    """Somebody at a shell, with a home of his own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._env = {
            name: value
            for name, value in os.environ.items()
            if name not in ("EDGE_RUNTIME_CONFIG", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_STATE_HOME")
        } | {"HOME": str(home), "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}
        self._behind: subprocess.Popen[bytes] | None = None

    def types(self, line: str) -> None:
        if line.startswith("export PATH="):
            return
        if line.endswith("&"):
            self._start(line.removesuffix("&").split())
        elif line == "kill %1":
            self.leaves()
        else:
            done = self._run(line)
            assert done.returncode in MAY_END_WITH.get(line, (0,)), f"{line}\n{done.stdout}\n{done.stderr}"
            assert done.stdout, line

    def leaves(self) -> None:
        behind, self._behind = self._behind, None
        if behind is not None:
            behind.send_signal(signal.SIGTERM)
            assert behind.wait(LIMIT_S) == 0

    def _run(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line],
            check=False,
            cwd=self.home,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )

    def _start(self, words: list[str]) -> None:
        with (self.home / "run.log").open("wb") as log:
            self._behind = subprocess.Popen(words, cwd=self.home, env=self._env, stdout=log, stderr=log)
        limit = time.monotonic() + LIMIT_S
        while self._run("edge-runtime status").returncode != 0:
            assert self._behind.poll() is None and time.monotonic() < limit, (self.home / "run.log").read_text()


@pytest.fixture
def newcomer() -> Iterator[Newcomer]:
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not installed: tools/setup")
    if SYSTEM_CONFIG.exists():
        pytest.skip(f"{SYSTEM_CONFIG} is here: a newcomer's machine has no station of its own")
    with tempfile.TemporaryDirectory(prefix="home-") as home:  # short, as homes are: a socket's path has 107 bytes
        somebody = Newcomer(Path(home))
        yield somebody
        somebody.leaves()


def test_the_lines_of_the_readme_run_on_what_the_demo_left(newcomer: Newcomer) -> None:
    newcomer.types("edge-runtime demo --parts 25 --json")
    lines = lines_to_type()
    assert len(lines) > 10 and lines[0].startswith("export PATH=")
    for line in lines:
        newcomer.types(line)
    assert (newcomer.home / "part.png").is_file()
