"""`tools/install` on a Debian 12 that has nothing but systemd, booted: from the README's line to a line that runs.

The program is the real one, as pip builds it there, with Debian's Python and the example station. Not enforced in a
container: MemoryMax and the device list.
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

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "bare_root"
CHECKOUT = "/root/edge_runtime"
INSTALL_S = 900  # apt-get and pip from a registry far away, on a busy machine


@pytest.fixture
def bare(request, tmp_path_factory) -> Iterator:
    """A booted bare Debian after `tools/install`."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if "EDGE_RUNTIME_BARE_ROOT" in os.environ:
        pytest.skip("this is a bare root already")
    for tool in ("mmdebstrap", "systemd-nspawn", "nsenter", "unshare", "setpriv"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} (apt-get install mmdebstrap systemd-container util-linux)")
    root = Path(tempfile.mkdtemp(prefix="edge-bare-root-"))
    box = None
    try:
        get = "apt-get update -qq && apt-get install -y -qq --no-install-recommends systemd systemd-sysv dbus"
        done = subprocess.run(
            [TOOL, "--root", root, "sh", "-c", get], capture_output=True, text=True, timeout=INSTALL_S, check=False
        )
        if done.returncode != 0:
            (pytest.fail if "CI" in os.environ else pytest.skip)(f"no bare root here: {done.stderr.strip()[-500:]}")
        machine = request.getfixturevalue("container_class")
        registries = ["sh", "-c", 'set -a; . /etc/bare-root.env; exec "$@"', "sh"]
        box = machine(tmp_path_factory.mktemp("bare") / "nspawn.log", [TOOL, "--root", root, "--boot"], registries)
        try:
            box.wait_booted()
        except (RuntimeError, AssertionError) as err:
            pytest.skip(f"no container boots here: {err}")
        box.told = box.good("sh", "-c", f"umask 077; {CHECKOUT}/tools/install", timeout_s=INSTALL_S)
        yield box
    finally:
        if box is not None:
            box.stop()
        subprocess.run(["rm", "-rf", "--one-file-system", root], check=False)


def status(box) -> dict:
    return json.loads(box.run("edge-runtime", "status", "--json").stdout)


def release(box) -> str:
    return box.good("readlink", "/opt/edge-runtime/bin").strip().removesuffix("/bin")


def the_line_runs_and_answers(bare):
    assert "wrote an example station" in bare.told
    assert bare.show("ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}
    bare.until(lambda: status(bare)["parts"] > 3, 60, "three parts")
    # A busy machine may keep the model from a part, and the link from its first beats.
    bare.until(lambda: status(bare)["state"] in ("ok", "degraded"), 60, "line that is well")


def the_doctor_finds_nothing_to_mend_in_the_installation(bare):
    findings = json.loads(bare.good("edge-runtime", "doctor", "--json", timeout_s=60))
    assert [finding for finding in findings if finding["state"] == "fail"] == []
    assert {"daemon", "controller", "model"} <= {finding["name"] for finding in findings}


def a_station_without_an_uplink_has_an_inactive_unit(bare):
    told = bare.show("ActiveState", "Result", unit=bare.sync_unit)
    assert told == {"ActiveState": "inactive", "Result": "exec-condition"}


def the_release_carries_the_compiled_core_and_reads_no_other(bare):
    (library,) = bare.good("find", release(bare), "-name", "libreject-*.so").split()
    pid = bare.show("MainPID")["MainPID"]
    loaded = bare.good("sh", "-c", f"grep -ho '[^ ]*libreject-.*' /proc/{pid}/maps | sort -u").split()
    assert loaded == [library]
    assert bare.run("test", "-e", "/var/lib/edge-runtime/.cache").returncode != 0


def once_more_changes_nothing_and_leaves_the_line_running(bare):
    before = bare.show("MainPID", "NRestarts"), release(bare)
    told = bare.run(f"{CHECKOUT}/tools/install", timeout_s=60)
    assert (told.returncode, "installing" in told.stderr) == (0, False), told.stderr
    assert (bare.show("MainPID", "NRestarts"), release(bare)) == before


def a_system_whose_python_went_away_says_so_once(bare):
    python = bare.good("readlink", "-f", f"{release(bare)}/bin/python3").strip()
    bare.good("mv", python, f"{python}.away")
    try:
        for unit in (bare.unit, bare.sync_unit):
            assert bare.run("systemctl", "restart", unit).returncode != 0
            told = bare.show("ActiveState", "ExecMainStatus", "NRestarts", unit=unit)
            assert told == {"ActiveState": "failed", "ExecMainStatus": "2", "NRestarts": "0"}
            assert "the Python of this installation is gone" in bare.journal(unit)
            assert "tools/install" in bare.journal(unit)
    finally:
        bare.good("mv", f"{python}.away", python)
        bare.restart()


def a_core_that_was_lost_is_said_once_and_the_doctor_finds_it(bare):
    (library,) = bare.good("find", release(bare), "-name", "libreject-*.so").split()
    (compiler,) = {bare.good("readlink", "-f", "/usr/bin/cc").strip()}
    for path in (library, compiler):
        bare.good("mv", path, f"{path}.away")
    try:
        assert bare.run("systemctl", "restart", bare.unit).returncode != 0
        told = bare.show("ActiveState", "ExecMainStatus", "NRestarts")
        assert told == {"ActiveState": "failed", "ExecMainStatus": "2", "NRestarts": "0"}
        (told,) = [line for line in bare.journal().splitlines() if line.startswith("error:")][-1:]
        assert "apt-get install gcc libc6-dev" in told
        findings = json.loads(bare.run("edge-runtime", "doctor", "--json", timeout_s=60).stdout)
        (found,) = [finding for finding in findings if finding["name"] == "controller.core"]
        assert (found["state"], "gcc" in found["fix"]) == ("fail", True)
    finally:
        for path in (library, compiler):
            bare.good("mv", f"{path}.away", path)
        bare.restart()


def uninstall_takes_the_program_and_leaves_what_it_knows(bare):
    assert "removed" in bare.good(f"{CHECKOUT}/tools/install", "--uninstall", timeout_s=60)
    for unit in (bare.unit, bare.sync_unit):
        assert bare.show("LoadState", "ActiveState", unit=unit) == {"LoadState": "not-found", "ActiveState": "inactive"}
    for path in ("/opt/edge-runtime", "/usr/local/bin/edge-runtime"):
        assert bare.run("test", "-e", path).returncode != 0
    bare.good("test", "-s", bare.station)
    bare.good("test", "-s", "/var/lib/edge-runtime/journal.db")


# One test, so that workers beside each other do not install it once each.
STEPS = (
    the_line_runs_and_answers,
    the_doctor_finds_nothing_to_mend_in_the_installation,
    a_station_without_an_uplink_has_an_inactive_unit,
    the_release_carries_the_compiled_core_and_reads_no_other,
    once_more_changes_nothing_and_leaves_the_line_running,
    a_system_whose_python_went_away_says_so_once,
    a_core_that_was_lost_is_said_once_and_the_doctor_finds_it,
    uninstall_takes_the_program_and_leaves_what_it_knows,
)


def test_from_the_first_install_to_the_uninstall_every_promise_holds(bare):
    for step in STEPS:
        step(bare)
