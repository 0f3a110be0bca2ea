"""Commands that only look pay for no model: half a second of numpy and OpenCV is the line's on a small board."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("numpy", "cv2", "ai_edge_litert", "tflite_runtime", "pyaudio", "paho")
SAY = (
    "import sys; from edge_runtime.cli.main import main\ntry:\n main(sys.argv[1:])\nexcept SystemExit as end:\n pass\n"
    f"print('heavy:', [name for name in {HEAVY} if name in sys.modules])"
)


@pytest.mark.parametrize(
    "command",
    [
        "status",
        "config show",
        "models list",
        "models list --json",
        "models show scratch",
        "models stage scratch@1",
        "parts list",
        "spool status",
        "search bolt",
    ],
)
def test_a_command_that_looks_loads_no_library_of_a_model(tmp_path: Path, command: str) -> None:
    args = ["--set", f"recording.state_dir={tmp_path}", *command.split()]
    done = subprocess.run([sys.executable, "-c", SAY, *args], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "heavy: []", done.stdout + done.stderr
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr
