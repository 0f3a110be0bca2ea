"""A bar is for eyes: it is drawn where stderr is a terminal, and never takes what goes into a file."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
from edge_runtime.cli.progress import progress
with progress(is_quiet={quiet}) as told:
    told("judging", 1, 3)
    print("a result", flush=True)
    told("judging", 5, 3)  # there came more of them
"""


def run(quiet: bool = False) -> tuple[str, str]:
    """stdout, which is a pipe, and what a terminal on stderr shows."""
    master, slave = os.openpty()
    try:
        words = [sys.executable, "-c", PROGRAM.format(quiet=quiet)]
        env = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=slave, text=True, check=True, env=env, timeout=60)
        os.close(slave)
        shown = b""
        with pytest.raises(OSError):  # EIO: nobody has the other end open any more
            while True:
                shown += os.read(master, 4096)
    finally:
        os.close(master)
    return done.stdout, shown.decode()


def test_a_bar_is_drawn_and_what_is_printed_stays_on_standard_output():
    told, shown = run()
    assert told == "a result\n"
    assert "judging" in shown and "100%" in shown and "a result" not in shown


def test_a_quiet_one_shows_nothing():
    assert run(quiet=True) == ("a result\n", "")
