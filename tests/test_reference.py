"""The reference pages say what the code says: every command and every config key is in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from edge_runtime.config.load import leaves
from edge_runtime.config.schema import EdgeConfig

HOUSE = Path(__file__).parents[1]


def test_pages_are_what_the_code_says():
    tool = HOUSE / "tools" / "reference"
    done = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_key_is_documented():
    page = (HOUSE / "edge_runtime/config/STATION.md").read_text()
    for key, _ in leaves(EdgeConfig()):
        section, name = key.rsplit(".", 1)
        assert f"## `[{section}]`" in page and f"| `{name}` |" in page, key
