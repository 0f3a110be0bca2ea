"""All commands as a technician meets them: at 80 columns, in any locale, as root, in the box's group, as a stranger."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVICE, GROUP, STRANGER = 64_001, 64_002, 64_003  # numbers that nobody on the machine has
WHO = {
    "the user who started it": "self",
    "of the group": f"{STRANGER}:{STRANGER}:{GROUP}",
    "a stranger": f"{STRANGER}:{STRANGER}",
}
STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def state() -> Iterator[Path]:
    """What a run of three parts left behind, in a folder with a name as short as an installed box has."""
    above = Path(tempfile.mkdtemp(prefix="er-"))
    above.chmod(0o755)
    folder = above / "state"
    run = [sys.executable, "-m", "edge_runtime", "--set", f"recording.state_dir={folder}", "run", "--parts", "3"]
    subprocess.run(run, capture_output=True, check=True, timeout=120)
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, SERVICE, GROUP)
            path.chmod(0o2750 if path.is_dir() else 0o640)
    yield folder
    shutil.rmtree(above)


@pytest.mark.parametrize(
    ("who", "locale", "encoding"),
    [
        ("the user who started it", "de_DE.ISO-8859-1", "iso-8859-1"),
        ("of the group", "de_DE.UTF-8", "utf-8"),
        ("a stranger", "C", "ascii"),
    ],
)
def test_every_command_says_what_is_the_matter(state: Path, who: str, locale: str, encoding: str) -> None:
    if os.geteuid() != 0 and WHO[who] != "self":
        pytest.skip("only root can become somebody else")
    env = {**os.environ, "LC_ALL": locale, "LANG": locale, "PYTHONIOENCODING": encoding, "TERM": "xterm"}
    child = [sys.executable, "-m", "tests.support.console_child", str(state), WHO[who]]
    done = subprocess.run(child, capture_output=True, check=False, env=env, timeout=60)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
    told = json.loads(done.stdout)
    assert len(told) > 45
    for name, answer in told.items():
        said = STYLE.sub("", answer["said"])
        assert answer["code"] in (0, 1, 2), (name, answer)
        assert "not all is installed" not in said, (name, said)
        assert "Traceback" not in said and "unexpected" not in said, (name, said)
        assert answer["code"] == 0 or said.strip(), name
        wide = [line for line in said.splitlines() if len(line) > 80 and line.startswith(("error:", "note:"))]
        assert not [line for line in wide if max(map(len, line.split())) < 60], (name, said)
    if who == "of the group":
        for name in ("parts list", "parts show", "models list", "models show", "search", "config show"):
            assert told[name]["code"] == 0, (name, told[name]["said"])
    if who == "a stranger":
        assert "join the group of the service" in told["models list"]["said"]
        assert "chown" not in told["predict"]["said"] + told["models stage"]["said"]
