"""The HTTP server's unit: what it promises, and the real one under a real systemd, asked over its own network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNIT = SYSTEMD / "edge-runtime-serve.service"
MOST_EXPOSURE = 1.5
STATION = """
[camera]
width = 320
height = 180
[world]
parts_per_s = 4.0
[model]
name = "tiny@1"
store = "/opt/under-test/models"
[serve]
files = "/opt/bare"
"""
ASK = """
import json, ssl, sys, urllib.request
url, *ca = sys.argv[1:]
context = ssl.create_default_context(cafile=ca[0]) if ca else None
request = urllib.request.Request(url, sys.stdin.buffer.read() or None)
with urllib.request.urlopen(request, timeout=20, context=context) as said:
    print(said.read().decode())
"""


@pytest.fixture
def runnable(tmp_path: Path) -> Path:
    """A copy of the unit that starts something which every machine has."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze (apt-get install systemd)")
    copy = tmp_path / UNIT.name
    copy.write_text(re.sub(r"(?m)^(Exec\w+)=.*$", r"\1=/bin/true", UNIT.read_text()))
    return copy


def analyze(*words: str | Path) -> str:
    done = subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout + done.stderr


def settings() -> list[tuple[str, str]]:
    lines = [line for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return [(key, value) for key, value in (line.split("=", 1) for line in lines)]


def test_systemd_has_nothing_to_say_about_the_unit(runnable):
    assert analyze("verify", runnable) == ""


def test_the_service_is_hardly_exposed(runnable):
    text = analyze("security", "--offline=true", "--no-pager", runnable)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", text)
    assert found, text
    assert float(found[1]) <= MOST_EXPOSURE


@pytest.mark.parametrize(
    "promise",
    [
        ("Type", "notify"),
        ("Restart", "always"),
        ("StartLimitIntervalSec", "0"),
        ("RestartPreventExitStatus", "2"),
        ("User", "edge-runtime"),
        ("PrivateDevices", "yes"),
        ("DevicePolicy", "closed"),
        ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
        ("SocketBindAllow", "tcp"),
        ("ProtectSystem", "strict"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("MemoryMax", "25%"),
    ],
    ids=lambda promise: promise[0],
)
def test_a_promise_is_kept_by_a_line(promise):
    assert promise in settings()


def test_every_setting_is_explained():
    text = (SYSTEMD / "README.md").read_text()
    assert [key for key, _ in settings() if key not in text] == []


# -- under a real systemd ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(installed):
    """The unit up with an ordinary station, and with a bare file; a test that changes it puts it back."""
    installed.write(installed.station, STATION)
    installed.write("/run/ask.py", ASK)
    installed.good("install", "-D", "-m", "644", f"{installed.model}/model.tflite", "/opt/bare/bare.tflite")
    installed.restart(installed.serve_unit)
    return installed


def asked(box, path: str, body: dict | None = None, base: str = "http://127.0.0.1:8080", *words: str) -> dict:
    box.write("/run/body.json", json.dumps(body) if body else "")
    line = " ".join([box.python, "/run/ask.py", f"{base}{path}", *words])
    return json.loads(box.good("sh", "-c", f"{line} < /run/body.json"))


def shown(box, *names: str) -> dict[str, str]:
    return box.show(*names, unit=box.serve_unit)


@pytest.mark.root
def test_it_answers_and_asks_models_inside_its_walls(server):
    assert asked(server, "/healthz")["state"] == "ok"
    about = asked(server, "/v2/models/tiny")["inputs"][0]
    data = [100] * (32 * 32 * 3)
    question = {"inputs": [{"name": about["name"], "datatype": "INT8", "shape": [1, 32, 32, 3], "data": data}]}
    assert asked(server, "/v2/models/tiny/infer", question)["outputs"][0]["shape"] == [1, 4, 4, 1]
    assert "http ok" in shown(server, "StatusText")["StatusText"]
    threads = server.good(
        "ps", "-L", "-o", "cls=", "-p", server.show("MainPID", unit=server.serve_unit)["MainPID"]
    ).split()
    assert "IDL" in threads and "TS" in threads  # the model's own, and what answers
    token = server.good("edge-runtime", "serve", "--token").strip()
    owner = server.good("stat", "-c", "%U %a", "/var/lib/edge-runtime/serve.token").split()
    assert owner == ["edge-runtime", "600"] and len(token) >= 43


@pytest.mark.root
def test_a_bare_file_runs_in_its_child_inside_the_walls(server):
    assert asked(server, "/v2/models/bare")["name"] == "bare"


@pytest.mark.root
def test_it_needs_no_line_and_its_stop_is_clean_and_within_five_seconds(server):
    server.good("systemctl", "stop", server.unit)
    server.good("test", "-S", "/run/edge-runtime/speech.sock")
    assert asked(server, "/healthz")["state"] == "ok"
    started = time.monotonic()
    server.good("systemctl", "stop", server.serve_unit)
    assert time.monotonic() - started < 5.0
    assert shown(server, "Result", "ExecMainStatus") == {"Result": "success", "ExecMainStatus": "0"}


@pytest.mark.root
def test_to_the_network_only_with_tls_by_a_certificate_of_its_own(server):
    server.write(server.station, STATION + 'host = "0.0.0.0"\n')
    assert server.run("systemctl", "restart", server.serve_unit).returncode != 0
    server.until(lambda: shown(server, "ActiveState")["ActiveState"] == "failed", 20, "failure")
    assert shown(server, "ExecMainStatus", "NRestarts") == {"ExecMainStatus": "2", "NRestarts": "0"}
    assert "set tls = true" in server.journal(server.serve_unit)
    server.write(server.station, STATION + 'host = "0.0.0.0"\ntls = true\n')
    server.restart(server.serve_unit)
    assert asked(server, "/healthz", None, "https://127.0.0.1:8080", "/var/lib/edge-runtime/serve.pem")["state"] == "ok"


@pytest.mark.root
def test_a_killed_or_hung_process_is_replaced(server):
    folder = f"/run/systemd/system/{server.serve_unit}.d"
    server.write(server.station, STATION)
    server.write(f"{folder}/test.conf", "[Service]\nRestartSec=100ms\nWatchdogSec=2\n")
    server.good("systemctl", "daemon-reload")
    server.restart(server.serve_unit)
    for number, signal in enumerate(("-KILL", "-STOP"), 1):
        server.good("kill", signal, shown(server, "MainPID")["MainPID"])
        server.until(lambda n=number: shown(server, "NRestarts")["NRestarts"] == str(n), 30, f"restart after {signal}")
        server.until(lambda: shown(server, "ActiveState")["ActiveState"] == "active", 30, "a server again")
    assert asked(server, "/healthz")["state"] == "ok"
    server.good("rm", "-rf", folder)
    server.good("systemctl", "daemon-reload")


PROBE = """
import json, os, socket
from pathlib import Path

def outcome(action):
    try:
        action()
        return "done"
    except OSError as err:
        return err.strerror or str(err)

def write(path):
    def act():
        with open(path, "w") as file:
            file.write("x")
        os.unlink(path)
    return outcome(act)

status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
    "seccomp": int(status["Seccomp"]),
    "devices": [path for path in ("/dev/video0", "/dev/ttyS0", "/dev/ttyUSB0", "/dev/sda") if os.path.exists(path)],
    "inet": outcome(lambda: socket.socket(socket.AF_INET).close()),
    "raw": outcome(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "netlink": outcome(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    "writes": {path: write(path) for path in PATHS},
    "home": outcome(lambda: os.listdir("/root")),
    "absent": Path(os.environ["CREDENTIALS_DIRECTORY"], "serve.key").read_text(),
    "port 80": outcome(lambda: socket.socket(socket.AF_INET).bind(("127.0.0.1", 80))),
}))
"""


@pytest.mark.root
def test_from_inside_there_are_no_devices_and_only_its_folders_can_be_written(server):
    unit = server.good("cat", f"/etc/systemd/system/{server.serve_unit}")
    unit = re.sub(r"(?m)^(Exec\w+|Type|Restart|WatchdogSec|NotifyAccess)=.*\n", "", unit)
    program = f"Type=oneshot\nExecStart={server.python} /run/probe3.py\nStandardOutput=file:/run/probe3.json\n"
    paths = ["/etc/x", "/opt/edge-runtime/x", "/var/x", "/run/x", "/etc/edge-runtime/keys/x"]
    own = ["/tmp/x", "/var/lib/edge-runtime/x", "/run/edge-runtime/x"]
    server.write("/run/probe3.py", f"PATHS = {paths + own!r}\n{PROBE}")
    server.write("/run/systemd/system/edge-probe3.service", unit.replace("[Service]", f"[Service]\n{program}"))
    server.good("systemctl", "daemon-reload")
    server.restart("edge-probe3.service")
    seen = json.loads(server.good("cat", "/run/probe3.json"))
    assert [path for path, told in seen["writes"].items() if told == "done"] == own
    assert (seen["capabilities"], seen["seccomp"], seen["devices"]) == (0, 2, [])
    unknown = "Address family not supported by protocol"
    assert (seen["inet"], seen["raw"], seen["netlink"]) == ("done", unknown, unknown)
    assert (seen["home"], seen["port 80"]) == ("Permission denied", "Permission denied")
    assert seen["absent"] == "missing"
