"""The uplink's unit: what it promises, and the real one under a real systemd with a real broker and credentials."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNIT = SYSTEMD / "edge-runtime-sync.service"
MOST_EXPOSURE = 1.5
CREDENTIALS = "/etc/edge-runtime/credentials"
BROKER = "/run/test-broker"
STATION_OFF = "[camera]\nwidth = 320\nheight = 180\n[world]\nparts_per_s = 4.0\n"


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
        ("StateDirectory", "edge-runtime"),
        ("PrivateDevices", "yes"),
        ("DevicePolicy", "closed"),
        ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
        ("SocketBindDeny", "any"),
        ("ProtectSystem", "strict"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
    ],
    ids=lambda promise: promise[0],
)
def test_a_promise_is_kept_by_a_line(promise):
    assert promise in settings()


def test_every_setting_is_explained():
    text = (SYSTEMD / "README.md").read_text()
    assert [key for key, _ in settings() if key not in text] == []


def test_every_credential_may_be_missing():
    loaded = {value.split(":")[0] for key, value in settings() if key == "LoadCredential"}
    assert loaded == {value.split(":")[0] for key, value in settings() if key == "SetCredential"}
    assert loaded == {"ca.pem", "box.pem", "box.key", "mqtt.password"}


# -- under a real systemd ----------------------------------------------------------------------------------------------


def station(broker: str) -> str:
    return f"""
[station]
name = "box-1"
site = "plant"
[camera]
width = 320
height = 180
[world]
parts_per_s = 4.0
[model]
name = "tiny@1"
store = "/opt/under-test/models"
[sync]
enabled = true
{broker}
reconnect_max_s = 0.5
"""


TLS = 'host = "localhost"\nport = 8883\ntls = true\nca_file = "ca.pem"\ncert_file = "box.pem"\nkey_file = "box.key"'


@pytest.fixture(scope="module")
def site(installed):
    """A broker inside the container, with the example files and certificates of `tools/certs`."""
    for program in ("mosquitto", "openssl"):
        if installed.run("sh", "-c", f"command -v {program} || test -x /usr/sbin/{program}").returncode:
            pytest.skip(f"needs {program}")
    certs, examples = f"{installed.source}/tools/certs", f"{installed.source}/systemd/examples"
    installed.good(certs, "authority", BROKER)
    installed.good(certs, "broker", BROKER, "localhost")
    installed.good(certs, "client", BROKER, "box-1")
    for source, target in (("ca.pem", "ca.pem"), ("box-1.pem", "box.pem"), ("box-1.key", "box.key")):
        installed.good("install", "-m", "600", f"{BROKER}/{source}", f"{CREDENTIALS}/{target}")
    conf = installed.good("cat", f"{examples}/mosquitto.conf").replace(
        "/etc/mosquitto/edge/edge.acl", f"{examples}/edge.acl"
    )
    conf = "user root\n" + conf.replace("/etc/mosquitto/edge", BROKER).replace("persistence true", "persistence false")
    installed.write(f"{BROKER}/broker.conf", conf)
    installed.good("systemd-run", "--unit=test-broker", "/usr/sbin/mosquitto", "-c", f"{BROKER}/broker.conf")
    return installed


@pytest.fixture
def uplink(site):
    """The unit up and well with TLS, whatever the test before did."""
    site.write(site.station, station(TLS))
    for unit in (site.unit, site.sync_unit):
        site.run("rm", "-rf", f"/run/systemd/system/{unit}.d")
    site.good("systemctl", "daemon-reload")
    site.restart(site.sync_unit)
    return site


def status(box) -> dict:
    done = box.run("edge-runtime", "sync", "status", "--json")
    return json.loads(done.stdout)


def is_well(box) -> bool:
    return status(box).get("state") == "ok"


def shown(box, *names: str) -> dict[str, str]:
    return box.show(*names, unit=box.sync_unit)


@pytest.mark.root
def test_a_station_without_an_uplink_leaves_the_unit_inactive_and_not_failed(installed):
    installed.write(installed.station, STATION_OFF)
    installed.restart(installed.sync_unit)
    told = shown(installed, "ActiveState", "Result", "NRestarts")
    assert told == {"ActiveState": "inactive", "Result": "exec-condition", "NRestarts": "0"}
    assert installed.good("systemctl", "is-enabled", installed.sync_unit).strip() == "enabled"


@pytest.mark.root
def test_it_delivers_with_certificates_that_only_it_can_read(uplink):
    uplink.until(lambda: is_well(uplink), 30, "an uplink that is well")
    told = shown(uplink, "ActiveState", "StatusText", "MainPID")
    assert told["ActiveState"] == "active"
    folder = f"/run/credentials/{uplink.sync_unit}"
    as_stranger = ("setpriv", "--reuid=4711", "--regid=4711", "--clear-groups")
    assert uplink.run(*as_stranger, "cat", f"{folder}/box.key").returncode != 0
    assert uplink.run(*as_stranger, "cat", f"{CREDENTIALS}/box.key").returncode != 0
    assert uplink.good("ps", "-o", "user=", "-p", told["MainPID"]).strip() in ("edge-runtime", "edge-ru+")
    uplink.until(lambda: "delivered" in shown(uplink, "StatusText")["StatusText"], 20, "status line")


@pytest.mark.root
def test_records_of_the_running_line_go_out_and_the_spool_says_so(uplink):
    uplink.restart()
    uplink.until(lambda: status(uplink).get("records", {}).get("delivered", 0) > 10, 40, "ten records")
    assert "all delivered" in uplink.good("edge-runtime", "spool", "flush", "--timeout", "20")
    assert json.loads(uplink.good("edge-runtime", "spool", "status", "--json"))["sync_runs"] is True


@pytest.mark.root
def test_it_needs_no_line_and_the_line_needs_no_uplink(uplink):
    uplink.good("systemctl", "stop", uplink.unit)
    uplink.restart(uplink.sync_unit)
    uplink.until(lambda: is_well(uplink), 30, "an uplink without a line")
    uplink.good("systemctl", "stop", uplink.sync_unit)
    uplink.restart()
    assert uplink.show("ActiveState")["ActiveState"] == "active"


@pytest.mark.root
def test_stop_is_clean_and_within_five_seconds_with_and_without_a_broker(uplink):
    uplink.until(lambda: is_well(uplink), 30, "an uplink that is well")
    for broker in (TLS, 'host = "192.0.2.1"\nport = 1883'):  # an address that never answers
        uplink.write(uplink.station, station(broker))
        uplink.restart(uplink.sync_unit)
        started = time.monotonic()
        uplink.good("systemctl", "stop", uplink.sync_unit)
        assert time.monotonic() - started < 5.0
        assert shown(uplink, "Result", "ExecMainStatus") == {"Result": "success", "ExecMainStatus": "0"}


@pytest.mark.root
def test_a_killed_or_hung_process_is_replaced_and_nothing_is_lost(uplink):
    uplink.write(f"/run/systemd/system/{uplink.sync_unit}.d/test.conf", "[Service]\nRestartSec=100ms\nWatchdogSec=2\n")
    uplink.good("systemctl", "daemon-reload")
    uplink.restart(uplink.sync_unit)
    uplink.until(lambda: is_well(uplink), 30, "an uplink that is well")
    before = status(uplink)["records"]
    for number, signal in enumerate(("-KILL", "-STOP"), 1):
        uplink.good("kill", signal, shown(uplink, "MainPID")["MainPID"])
        uplink.until(lambda n=number: shown(uplink, "NRestarts")["NRestarts"] == str(n), 30, f"restart after {signal}")
        uplink.until(lambda: is_well(uplink), 30, "an uplink that is well again")
    after = status(uplink)["records"]
    assert after["epoch"] == before["epoch"]
    assert after["last_seq"] >= before["last_seq"]
    assert "Watchdog timeout" in uplink.journal(uplink.sync_unit)


@pytest.mark.root
def test_a_credential_that_is_not_there_is_named(uplink):
    uplink.write(uplink.station, station(TLS + '\nusername = "x"\npassword_file = "mqtt.password"'))
    assert uplink.run("systemctl", "restart", uplink.sync_unit).returncode != 0
    uplink.until(lambda: shown(uplink, "ActiveState")["ActiveState"] == "failed", 20, "failure")
    assert shown(uplink, "ExecMainStatus", "NRestarts") == {"ExecMainStatus": "2", "NRestarts": "0"}
    assert f"{CREDENTIALS}/mqtt.password is not there" in uplink.journal(uplink.sync_unit)


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
    "credential": Path(os.environ["CREDENTIALS_DIRECTORY"], "ca.pem").read_text()[:10],
    "absent": Path(os.environ["CREDENTIALS_DIRECTORY"], "mqtt.password").read_text(),
}))
"""


@pytest.mark.root
def test_from_inside_there_are_no_devices_and_only_its_folder_can_be_written(uplink):
    unit = uplink.good("cat", f"/etc/systemd/system/{uplink.sync_unit}")
    unit = re.sub(r"(?m)^(Exec\w+|Type|Restart|WatchdogSec|NotifyAccess)=.*\n", "", unit)
    program = f"Type=oneshot\nExecStart={uplink.python} /run/probe2.py\nStandardOutput=file:/run/probe2.json\n"
    paths = ["/etc/x", "/opt/edge-runtime/x", "/var/x", "/run/x", "/etc/edge-runtime/keys/x"]
    own = ["/tmp/x", "/var/lib/edge-runtime/x"]
    uplink.write("/run/probe2.py", f"PATHS = {paths + own!r}\n{PROBE}")
    uplink.write("/run/systemd/system/edge-probe2.service", unit.replace("[Service]", f"[Service]\n{program}"))
    uplink.good("systemctl", "daemon-reload")
    uplink.restart("edge-probe2.service")
    seen = json.loads(uplink.good("cat", "/run/probe2.json"))
    assert [path for path, told in seen["writes"].items() if told == "done"] == own
    assert (seen["capabilities"], seen["seccomp"], seen["devices"]) == (0, 2, [])
    unknown = "Address family not supported by protocol"
    assert (seen["inet"], seen["raw"], seen["netlink"]) == ("done", unknown, unknown)
    assert seen["home"] == "Permission denied"
    assert (seen["credential"], seen["absent"]) == ("-----BEGIN", "missing")
