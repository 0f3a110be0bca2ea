"""The unit file and what is installed with it: what they promise, as far as that can be read from them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_runtime.config.load import load

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNIT = SYSTEMD / "edge-runtime-run.service"
MOST_EXPOSURE = 2.0


@pytest.fixture
def runnable(tmp_path: Path) -> Path:
    """A copy of the unit that starts something which every machine has."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze (apt-get install systemd)")
    if not Path("/run/systemd").exists() and os.geteuid() != 0:
        pytest.skip("systemd-analyze wants to make /run/systemd, which takes root here")
    copy = tmp_path / UNIT.name
    copy.write_text(re.sub(r"(?m)^ExecStart=.*$", "ExecStart=/bin/true", UNIT.read_text()))
    return copy


def analyze(*words: str | Path) -> str:
    done = subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout + done.stderr


def settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


def test_systemd_has_nothing_to_say_about_the_unit(runnable):
    assert analyze("verify", runnable) == ""


def test_verify_would_speak_up(runnable):
    runnable.write_text(runnable.read_text().replace("WatchdogSec=10", "WatchdogSecs=10"))
    assert "WatchdogSecs" in analyze("verify", runnable)


def test_the_service_is_hardly_exposed(runnable):
    text = analyze("security", "--offline=true", "--no-pager", runnable)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", text)
    assert found, text
    assert float(found[1]) <= MOST_EXPOSURE


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Type", "notify"),
        ("Restart", "always"),
        ("StartLimitIntervalSec", "0"),
        ("RestartPreventExitStatus", "2"),
        ("User", "edge-runtime"),
        ("PrivateNetwork", "yes"),
        ("RestrictAddressFamilies", "AF_UNIX"),
        ("DevicePolicy", "closed"),
        ("ProtectSystem", "strict"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("StateDirectory", "edge-runtime"),
        ("RuntimeDirectory", "edge-runtime"),
        ("LimitRTPRIO", "1"),
        ("WantedBy", "multi-user.target"),
    ],
)
def test_a_promise_is_kept_by_a_line(key, value):
    assert settings()[key] == [value]


def test_only_cameras_microphones_and_serial_ports_are_allowed():
    allowed = {value.split()[0] for value in settings()["DeviceAllow"]}
    tty = {f"char-tty{kind}" for kind in ("USB", "ACM", "AMA", "S")}
    assert allowed == {"char-video4linux", "char-media", "char-alsa", *tty, "char-pts", "/dev/ptmx"}


def test_the_kernel_may_be_asked_whether_the_clock_is_right():
    """Retention waits for that word. Without capabilities the same calls set nothing."""
    filters = settings()["SystemCallFilter"]
    assert {"adjtimex", "clock_adjtime", "clock_adjtime64"} <= set(filters[-1].split()), "after what is taken away"
    assert "ProtectClock" not in settings(), "it forbids to ask, whatever the filter says"


def test_no_setting_is_younger_than_debian_12():
    younger = {"RestartSteps", "RestartMaxDelaySec", "RestartMode", "PrivatePIDs"}  # 254 and on
    assert not younger & settings().keys()


def test_every_setting_is_explained():
    text = (SYSTEMD / "README.md").read_text()
    assert [key for key in settings() if key not in text] == []


def test_the_example_station_is_good():
    assert load(SYSTEMD / "station.toml").config.camera.driver == "sim"


def test_the_commented_keys_of_the_example_are_good_too(tmp_path):
    text = (SYSTEMD / "station.toml").read_text()
    for section in ("camera", "controller"):
        text = text.replace(f'[{section}]\ndriver = "sim"\n', f"[{section}]\n")
    text = re.sub(r"(?m)^enabled = false.*\n", "", text)
    real = tmp_path / "station.toml"
    real.write_text(re.sub(r"(?m)^# (\w+ = )", r"\1", text))
    config = load(real).config
    assert (config.camera.driver, config.controller.driver) == ("v4l2", "serial")
    assert (config.sync.enabled, config.sync.cert_file, config.sync.commands) == (True, "box.pem", "signature")
