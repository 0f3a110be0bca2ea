"""A second try is for who drives real processes, and the summary says how many needed it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from tests.support.second_try import COMPUTE, FILES, ROOMS, TESTS, drives_real_processes

UNSTEADY = """
import pathlib

def fails_first(name):
    mark = pathlib.Path(__file__).with_name(name)
    if not mark.exists():
        mark.touch()
        raise AssertionError("the machine stood still")
"""
HOOKS = """
import tests.support.second_try as second_try
from pathlib import Path
second_try.TESTS, second_try.WAIT_S = Path(__file__).parent, 0

def pytest_collection_modifyitems(config, items):
    second_try.give_second_tries(config, items)

def pytest_terminal_summary(terminalreporter):
    second_try.tell_second_tries(terminalreporter)
"""


def test_every_named_file_is_there() -> None:
    assert [name for name in sorted(COMPUTE | FILES) if not (TESTS / name).is_file()] == []
    assert [name for name in sorted(ROOMS) if not (TESTS / name).is_dir()] == []
    assert [name for name in sorted(COMPUTE) if PurePosixPath(name).parts[0] not in ROOMS] == []


def test_who_only_computes_has_one_try() -> None:
    for name in ("core/test_events.py", "decision/test_ledger.py", "features/test_mel.py", "sync/test_tally.py"):
        assert not drives_real_processes(PurePosixPath(name))
    for name in (
        "sync/test_faults.py",
        "faults/test_bad_days.py",
        "sync/test_of_tomorrow.py",
        "inference/test_probe.py",
    ):
        assert drives_real_processes(PurePosixPath(name))


def test_a_test_that_drives_real_processes_has_a_second_try_and_is_counted(tmp_path: Path) -> None:
    pytest.importorskip("pytest_rerunfailures", reason="no second tries here: pip install pytest-rerunfailures")
    for room in ("sync", "core"):
        (tmp_path / room).mkdir()
        body = f"{UNSTEADY}\ndef test_it():\n    fails_first('{room}')\n\ndef test_steady():\n    pass\n"
        (tmp_path / room / "test_unsteady.py").write_text(body)
    (tmp_path / "conftest.py").write_text(HOOKS)
    words = [sys.executable, "-m", "pytest", "-c", TESTS.parent / "pyproject.toml", f"--rootdir={tmp_path}", tmp_path]
    done = subprocess.run(
        [*words, "-p", "no:cacheprovider", "-n", "0", "-rfR"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1 and "FAILED core/test_unsteady.py::test_it" in done.stdout, done.stdout + done.stderr
    assert "RERUN sync/test_unsteady.py::test_it" in done.stdout
    assert "second tries: 1 of 2 tests that drive real processes needed one" in done.stdout
