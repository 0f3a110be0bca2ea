"""`bin/edge-runtime`: what it says when a system upgrade has changed the Python under an installation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from edge_runtime.cli import main

ROOT = Path(__file__).parents[2]
START = ROOT / "edge_runtime" / "cli" / "start.sh"
VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"


class Installation:
    """A venv as tools/install makes it: its Python is a link, the program lies in the folder of that version."""

    def __init__(self, folder: Path) -> None:
        self.usr = folder / "usr"
        self.usr.mkdir()
        self.home = folder / "release"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.home], check=True)
        for link in (self.home / "bin").glob("python*"):
            link.unlink()
        (self.home / "bin" / "python3").symlink_to(Path(sys.executable).resolve())
        packages = self.home / "lib" / VERSION / "site-packages"
        (packages / "edge_runtime-0.1.0.dist-info").mkdir()
        (packages / "here.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
        self.program = self.home / "bin" / "edge-runtime"
        self.program.write_bytes(START.read_bytes())
        self.program.chmod(0o755)

    def python_becomes(self, name: str, script: str) -> None:
        other = self.usr / name
        other.write_text(f"#!/bin/sh\n{script}\n")
        other.chmod(0o755)
        link = self.home / "bin" / "python3"
        link.unlink()
        link.symlink_to(other)

    def run(self, *words: str, program: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program or self.program, *words], capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, **env}, cwd=self.usr,
        )  # fmt: skip


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def test_it_starts_what_is_installed_also_by_a_link_from_elsewhere(installed, tmp_path):
    by_link = tmp_path / "edge-runtime"
    by_link.symlink_to(installed.program)
    for program in (installed.program, by_link):
        done = installed.run("--version", program=program)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("edge-runtime, version ")


def test_a_module_in_the_current_folder_is_not_taken_for_the_program(installed):
    (installed.usr / "click.py").write_text("raise SystemExit('not this one')")
    assert installed.run("--version").returncode == 0


def test_without_a_venv_the_python_beside_it_comes_before_that_of_the_path(installed, tmp_path):
    """Conda, or a Python of one's own under /opt, called by its whole path as a unit does."""
    (installed.home / "pyvenv.cfg").unlink()
    other = tmp_path / "path"
    other.mkdir()
    (other / "python3").write_text("#!/bin/sh\nexit 99\n")
    (other / "python3").chmod(0o755)
    beside = installed.home / "bin" / "python3"
    beside.unlink()
    beside.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} "$@"\n')
    beside.chmod(0o755)
    assert installed.run("--version", PATH=f"{other}:{os.environ['PATH']}").returncode == 0


OTHERS = {
    "another version": ("python3.99", "exit 99"),
    "an older one": ("python3.5", "exit 99"),
    "another, told by no name": ("python", "echo 3.99"),
    "another, free of the lock": ("python3.99t", "echo 3.99t"),
    "one that does not start": ("python", "exit 127"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_python_is_a_sentence_and_exit_code_2(installed, other):
    installed.python_becomes(*OTHERS[other])
    done = installed.run("run", "--parts", "1")
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        line.startswith("error: ")
        and "ython" in line
        and line.endswith("run tools/install again (tools/setup in a checkout)")
    )


def test_a_python_that_is_gone_is_named(installed):
    (installed.home / "bin" / "python3").unlink()
    done = installed.run("run")
    assert done.returncode == 2
    assert f"{installed.home}/bin/python3" in done.stderr


def test_machines_and_the_journal_hear_it_in_their_way(installed):
    installed.python_becomes("python3.99", "exit 99")
    done = installed.run("status", "--json", JOURNAL_STREAM="8:1")
    assert "python3.99 now" in json.loads(done.stdout)["error"]
    assert done.stderr.startswith("<3>error: ")


def test_the_condition_of_the_uplink_lets_the_unit_say_it(installed):
    installed.python_becomes("python3.99", "exit 99")
    assert installed.run("sync", "--condition").returncode == 0
    assert installed.run("sync").returncode == 2


def test_a_name_that_tells_nothing_is_asked_for_its_version(installed):
    version = VERSION.removeprefix("python")
    installed.python_becomes("python", f'case $1 in -c) echo {version} ;; *) exec {sys.executable} "$@" ;; esac')
    assert installed.run("--version").returncode == 0


def test_a_library_that_is_not_there_is_a_sentence_and_exit_code_2(monkeypatch, capsys):
    monkeypatch.setitem(main.COMMANDS, "run", ("nothing_of_this_name", "run", ""))
    with pytest.raises(SystemExit) as end:
        main.main(["run"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "nothing_of_this_name" in line and "run tools/install again" in line
