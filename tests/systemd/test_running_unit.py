"""The real unit under a real systemd, in a throw-away container: started, hung, killed, stopped, seen from inside."""

from __future__ import annotations

import json
import time

import pytest

pytestmark = pytest.mark.root

# Run in the unit's own sandbox: what a program taken over by an attacker, or a bug, could do.
PROBE = """
import ctypes, json, mmap, os, resource, socket
from pathlib import Path
from edge_runtime.predictors.vision import open_vision_model
from edge_runtime.modelstore.bundle import load_bundle

def outcome(action):
    try:
        return action() or "done"
    except OSError as err:
        return err.strerror or str(err)

def write(path):
    def act():
        with open(path, "w") as file:
            file.write("x")
        os.unlink(path)
    return outcome(act)

ADJ_STATUS = 0x10
def adjtimex(modes):
    timex = ctypes.create_string_buffer(512)
    timex[0] = modes
    return ctypes.CDLL(None).adjtimex(timex)

status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "user": os.getuid(),
    "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
    "no_new_privileges": int(status["NoNewPrivs"]),
    "seccomp": int(status["Seccomp"]),
    "interfaces": [line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]],
    "inet": outcome(lambda: socket.socket(socket.AF_INET)),
    "inet6": outcome(lambda: socket.socket(socket.AF_INET6)),
    "netlink": outcome(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    "unix": outcome(lambda: socket.socket(socket.AF_UNIX).close()),
    "writes": {path: write(path) for path in PATHS},
    "homes": [outcome(lambda: ",".join(os.listdir(path))) for path in ("/root", "/home")],
    "sees_init": os.path.exists("/proc/1"),
    "writable_code": outcome(lambda: mmap.mmap(-1, 4096, prot=7).close()),  # read, write and execute
    "fifo_1": outcome(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))),
    "fifo_2": outcome(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))),
    "delegated": open_vision_model(load_bundle(Path(MODEL))).engine.is_delegated,
    "normal": outcome(lambda: os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))),
    "most_fifo": resource.getrlimit(resource.RLIMIT_RTPRIO)[1],
    "clock": [adjtimex(0), adjtimex(ADJ_STATUS)],
    "mounted": ctypes.CDLL(None).mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0,
}))
"""


def parts(box) -> int:
    return json.loads(box.good("edge-runtime", "status", "--json"))["parts"]


def main_pid(box) -> int:
    return int(box.show("MainPID")["MainPID"])


def restarts(box) -> int:
    return int(box.show("NRestarts")["NRestarts"])


def is_active(box) -> bool:
    return box.show("ActiveState")["ActiveState"] == "active"


def drop_in(box, text: str) -> None:
    box.write(f"/run/systemd/system/{box.unit}.d/test.conf", text)
    box.good("systemctl", "daemon-reload")


def test_it_becomes_ready_and_says_how_it_is(box):
    box.until(lambda: parts(box) >= 2, 20, "two parts")
    box.until(lambda: "parts, accept" in box.show("StatusText")["StatusText"], 10, "status line")
    shown = box.good("systemctl", "status", "--no-pager", box.unit)
    assert 'Status: "ok: ' in shown
    assert "active (running)" in shown


def test_it_starts_with_the_machine(box):
    box.good("systemctl", "stop", box.unit)
    box.good("systemctl", "start", "multi-user.target")  # what the machine starts into
    box.until(lambda: is_active(box), 30, "start with the machine")


def test_udev_understands_every_rule(box):
    if box.run("sh", "-c", "command -v udevadm").returncode:
        pytest.skip("needs udevadm (apt-get install udev)")
    done = box.run("udevadm", "test", "/sys/devices/virtual/mem/null")
    said = [line for line in (done.stdout + done.stderr).splitlines() if "99-edge-runtime.rules" in line]
    assert said == ["Reading rules file: /etc/udev/rules.d/99-edge-runtime.rules"]


def test_installing_again_changes_nothing(box):
    before = box.good("cat", box.station), main_pid(box)
    box.good(f"{box.source}/tools/install", "--no-python")
    assert (box.good("cat", box.station), main_pid(box)) == before


def test_the_box_is_asked_by_root_and_by_members_of_its_group(box):
    ask = ("edge-runtime", "status", "--json")
    group = box.good("getent", "group", "edge-runtime").split(":")[2]
    as_member = ("setpriv", "--reuid=4711", "--regid=4711", f"--groups={group}")
    as_stranger = ("setpriv", "--reuid=4711", "--regid=4711", "--clear-groups")
    box.until(lambda: parts(box) >= 2, 20, "two parts")
    assert json.loads(box.good(*ask))["state"] == "ok"
    assert json.loads(box.good(*as_member, *ask))["state"] == "ok"
    assert "accept" in box.good(*as_member, "edge-runtime", "parts", "list")
    refused = box.run(*as_stranger, *ask)
    assert refused.returncode == 1
    assert "join the group" in refused.stderr


def test_a_hung_process_is_aborted_and_replaced(box):
    drop_in(box, "[Service]\nWatchdogSec=2\n")
    box.restart()
    first, before = main_pid(box), restarts(box)
    box.good("kill", "-STOP", str(first))
    box.until(lambda: restarts(box) == before + 1 and is_active(box), 30, "restart of a hung box")
    assert main_pid(box) != first
    log = box.journal()
    assert "Watchdog timeout" in log
    assert "Fatal Python error: Aborted" in log  # and where each thread stood
    box.until(lambda: parts(box) >= 1, 20, "a part after the restart")


def test_a_killed_process_is_back_at_once_and_no_part_is_lost_from_the_books(box):
    box.until(lambda: parts(box) >= 2, 20, "two parts")
    first = main_pid(box)
    box.good("kill", "-KILL", str(first))
    took = box.until(lambda: main_pid(box) not in (0, first), 10, "new process")
    assert took < 4.0  # RestartSec is 1 s; the rest is for a busy machine
    box.until(lambda: is_active(box), 30, "ready after a kill")
    box.until(lambda: parts(box) >= 2, 20, "two parts after the kill")
    box.good("systemctl", "stop", box.unit)
    rows, undecided, crashed, clean = json.loads(box.good(box.python, "-c", BOOKS))
    assert rows >= 4
    assert undecided == 0
    assert crashed >= 1 and clean >= 1


BOOKS = """
import json, sqlite3
db = sqlite3.connect("file:/var/lib/edge-runtime/journal.db?mode=ro", uri=True)
one = lambda sql: db.execute(sql).fetchone()[0]
print(json.dumps([
    one("SELECT count(*) FROM part"),
    one("SELECT count(*) FROM part WHERE verdict IS NULL"),
    one("SELECT count(*) FROM run WHERE ended = 'crashed'"),
    one("SELECT count(*) FROM run WHERE ended = 'clean'"),
]))
"""


def test_it_fails_more_often_than_systemd_bears_by_default_and_is_tried_again(box):
    drop_in(box, "[Service]\nRestartSec=50ms\nExecStart=\nExecStart=/bin/false\n")
    box.run("systemctl", "--no-block", "restart", box.unit)
    before = restarts(box)
    box.until(lambda: restarts(box) > before + 5, 20, "sixth restart")
    box.good("rm", "-rf", f"/run/systemd/system/{box.unit}.d")
    box.good("systemctl", "daemon-reload")
    box.until(lambda: is_active(box), 30, "recovery by itself")


def test_stop_is_clean_and_within_five_seconds(box):
    box.until(lambda: parts(box) >= 1, 20, "a part")
    started = time.monotonic()
    box.good("systemctl", "stop", box.unit)
    took = time.monotonic() - started
    shown = box.show("Result", "ExecMainStatus", "ActiveState")
    assert shown == {"Result": "success", "ExecMainStatus": "0", "ActiveState": "inactive"}
    assert took < 5.0
    assert box.run("test", "-e", "/run/edge-runtime/control.sock").returncode == 1


def test_a_wrong_station_stops_and_says_why_instead_of_spinning(box):
    box.write(box.station, "[camera]\nfsp = 3\n")
    assert box.run("systemctl", "restart", box.unit).returncode != 0
    box.until(lambda: box.show("ActiveState")["ActiveState"] == "failed", 10, "failure")
    assert box.show("ExecMainStatus", "NRestarts") == {"ExecMainStatus": "2", "NRestarts": "0"}
    assert "did you mean 'camera.fps'" in box.journal()


def test_the_process_has_a_network_of_its_own_with_nothing_in_it(box):
    pid = main_pid(box)
    assert box.good("readlink", f"/proc/{pid}/ns/net") != box.good("readlink", "/proc/1/ns/net")
    devices = box.good("cat", f"/proc/{pid}/net/dev").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]
    user = box.good("ps", "-o", "user=", "-p", str(pid)).strip()
    assert user in ("edge-runtime", "edge-ru+")


@pytest.fixture(scope="session")
def seen(installed):
    """What the probe finds in the sandbox of the real unit; only the program and its folders are other ones."""
    unit = installed.good("cat", f"/etc/systemd/system/{installed.unit}").replace("=edge-runtime\n", "=edge-probe\n")
    unit = unit.replace("User=edge-probe", "User=edge-runtime").replace("Group=edge-probe", "Group=edge-runtime")
    program = (
        f"ExecStart={installed.python} /run/probe.py\nStandardOutput=file:/run/probe.json\nStandardError=journal\n"
    )
    changed = {"Type=notify": "Type=oneshot", "Restart=always": "", "WatchdogSec=10": "", "NotifyAccess=main": ""}
    for old, new in changed.items():
        assert old in unit
        unit = unit.replace(old, new)
    unit = "\n".join(line for line in unit.splitlines() if not line.startswith("ExecStart="))
    paths = ["/etc/x", "/opt/edge-runtime/x", "/usr/x", "/var/x", "/var/lib/edge-runtime/x", "/run/x", "/dev/shm/x"]
    own = ["/tmp/x", "/var/lib/edge-probe/x", "/run/edge-probe/x"]
    installed.write("/run/probe.py", f"PATHS = {paths + own!r}\nMODEL = {installed.model!r}\n{PROBE}")
    installed.write("/run/systemd/system/edge-probe.service", unit.replace("[Service]", f"[Service]\n{program}"))
    installed.good("systemctl", "daemon-reload")
    installed.restart("edge-probe.service")
    return json.loads(installed.good("cat", "/run/probe.json"))


def test_from_inside_there_is_no_way_to_a_network(seen):
    assert seen["interfaces"] == ["lo"]
    refused = "Address family not supported by protocol"
    assert (seen["inet"], seen["inet6"], seen["netlink"], seen["unix"]) == (refused, refused, refused, "done")


def test_from_inside_only_its_own_folders_can_be_written(seen):
    assert [path for path, told in seen["writes"].items() if told == "done"] == [
        "/dev/shm/x",
        "/tmp/x",
        "/var/lib/edge-probe/x",
        "/run/edge-probe/x",
    ]


def test_from_inside_there_are_no_rights_to_be_had(seen):
    assert seen["user"] != 0
    assert (seen["capabilities"], seen["no_new_privileges"], seen["seccomp"]) == (0, 1, 2)
    assert seen["homes"] == ["Permission denied", "Permission denied"]
    assert seen["sees_init"] is False
    assert seen["mounted"] is False


def test_from_inside_the_clock_can_be_asked_whether_it_is_right_and_not_be_set(seen):
    state, refused = seen["clock"]
    assert state >= 0, "or no box with chrony, ntpd or PTP would ever be synchronised, and retention would always wait"
    assert refused == -1


def test_from_inside_the_model_runs_at_full_speed_although_code_cannot_be_written(seen):
    assert seen["writable_code"] != "done"
    assert seen["delegated"] is True


def test_from_inside_the_line_threads_may_ask_for_their_priority(seen):
    assert seen["normal"] == "done"  # the call is not filtered
    if seen["most_fifo"] == 0:
        pytest.skip("root of this machine may not raise RLIMIT_RTPRIO, so the unit cannot hand it on")
    assert (seen["most_fifo"], seen["fifo_1"], seen["fifo_2"]) == (1, "done", "Operation not permitted")
