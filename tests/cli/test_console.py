"""Output where the terminal cannot show every sign: plain signs, the same lines, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime.cli.console import PLAIN

ENCODINGS = ["latin-1", "cp1252", "ascii", "cp437", "koi8-r", "iso8859-15"]


def words_of(encoding: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "edge_runtime", *words]
    return subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_signs_that_the_terminal_lacks_become_plain_ones(encoding: str, tmp_path: Path):
    (tmp_path / "§ größer ≤ 5 ✔ – 漢.toml").write_text("")
    words = ["--config", str(tmp_path / "§ größer ≤ 5 ✔ – 漢.toml"), "config", "check"]
    shown = words_of(encoding, *words)
    assert shown.returncode == 0, shown.stderr
    text = shown.stdout.decode(
        "utf-8" if encoding == "ascii" else encoding
    )  # click takes ASCII for UTF-8 set up wrongly
    assert "<= 5" in text or "≤ 5" in text
    assert text.splitlines()[0].count("?") <= 3  # of §, ß and 漢, those that it cannot show


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_every_sign_in_the_product_has_a_plain_one(encoding: str):
    product = Path(__file__).parents[2] / "edge_runtime"
    used = {sign for file in (product / "cli").glob("*.py") for sign in file.read_text() if not sign.isascii()}
    assert {"✔", "▲", "✖"} <= used
    assert used <= set(PLAIN), f"no plain sign for {used - set(PLAIN)}"
    assert all(plain.encode(encoding) for plain in PLAIN.values())
