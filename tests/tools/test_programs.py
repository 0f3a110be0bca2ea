"""Linter and type checker read every tool: a program without a suffix is named to them, since they would pass it by."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def programs() -> set[str]:
    """Python programs of tools/ that have no suffix."""
    files = [path for path in (ROOT / "tools").rglob("*") if path.is_file() and not path.suffix]
    return {str(path.relative_to(ROOT)) for path in files if b"python" in path.read_bytes().partition(b"\n")[0]}


def test_ruff_and_mypy_are_told_of_every_program() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert len(programs()) > 20
    assert set(tool["ruff"]["extend-include"]) == programs()
    assert programs() <= set(tool["mypy"]["files"])
    assert {"edge_runtime", "firmware_bridge", "tools/*.py", "tools/*/*.py"} <= set(tool["mypy"]["files"])
