"""The README's first lines on a Debian 12 that was just installed, each in a root of its own, as root and as a user.

Takes minutes and needs the registries; what can be had from this machine's caches is not fetched again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

TOOL = Path(__file__).parents[2] / "tools" / "bare_root"
LIMIT_S = 900  # apt-get and pip from a registry far away, on a busy machine
PARTS = 25


class BareRoot:
    """One root, kept between commands. Each command runs in the checkout of its user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *command: str, user: bool = False, answer: str = "") -> subprocess.CompletedProcess[str]:
        words = ["--root", str(self.folder), *(["--user"] if user else []), *command]
        return subprocess.run(
            [TOOL, *words], input=answer, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )

    def good(self, *command: str, user: bool = False, answer: str = "") -> str:
        done = self.run(*command, user=user, answer=answer)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture
def bare() -> Iterator[BareRoot]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if "EDGE_RUNTIME_BARE_ROOT" in os.environ:
        pytest.skip("this is a bare root already")
    for tool in ("mmdebstrap", "systemd-nspawn", "setpriv"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} (apt-get install mmdebstrap systemd-container util-linux)")
    folder = Path(tempfile.mkdtemp(prefix="edge-bare-root-"))
    try:
        root = BareRoot(folder)
        done = root.run("true")
        if done.returncode != 0:  # no network, or a machine that lets nobody make namespaces
            (pytest.fail if "CI" in os.environ else pytest.skip)(f"no bare root here: {done.stderr.strip()[-500:]}")
        yield root
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", folder], check=False)


def demo(root: BareRoot, *, user: bool = False) -> None:
    document = json.loads(root.good("tools/demo", "--parts", str(PARTS), "--json", user=user))
    assert (document["parts"], document["unaccounted"]) == (PARTS, 0)
    assert document["uplink"]["records"] > PARTS


def test_the_demo_runs_to_its_end_for_root_and_then_from_roots_folder_for_a_user(bare):
    bare.good("sh", "-c", "command -v python3 cc git ps sudo || true; ! command -v python3 && ! command -v cc")
    demo(bare)
    bare.good("cp", "-r", "/root/edge_runtime", "/srv/theirs")  # its .venv is of another folder, and is made anew
    theirs = ("sh", "-c", "cd /srv/theirs && tools/demo --parts 1")
    told = bare.run(*theirs, user=True)
    assert told.returncode != 0
    assert told.stderr.splitlines()[-1].startswith("error: /srv/theirs belongs to root, and tech may not write here")
    bare.good("sh", "-c", "umask 077 && cd /srv/theirs && tools/demo --parts 1")
    bare.good(*theirs, user=True)


def test_a_user_without_sudo_is_told_the_line_to_type_and_after_it_the_demo_runs(bare):
    told = bare.run("tools/demo", "--parts", "1", user=True)
    (sentence,) = told.stderr.splitlines()
    assert (told.returncode, told.stdout, sentence[:7]) == (1, "", "error: ")
    line = sentence.split("as root: ")[1]
    assert line.startswith("apt-get update && apt-get install ")
    bare.good("sh", "-c", line, answer="y\n")
    demo(bare, user=True)


def test_the_quick_check_sets_itself_up_and_is_good_for_a_user_with_sudo(bare):
    sudo = "apt-get update -qq && apt-get install -y -qq --no-install-recommends sudo"
    bare.good("sh", "-c", f"{sudo} && echo 'tech ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/tech")
    told = bare.good("tools/check", "--quick", "-n", "0", "--first-cases", user=True)
    assert [line[3:] for line in told.splitlines() if line.startswith("== ")] == [
        "lint", "format", "layers", "pure tests", "types",
    ]  # fmt: skip
    assert " passed" in told
