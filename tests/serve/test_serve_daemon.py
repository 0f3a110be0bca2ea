"""`edge-runtime serve` as a process: ready, health, and a clean end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from edge_runtime.core.errors import DeviceError
from edge_runtime.flow.components import Health, State
from edge_runtime.serve.daemon import STALE_NS, ServeDaemon


class Part:
    def __init__(self, name, fails=False, progress_ns=None, log=None):
        self.name, self.fails, self.progress_ns = name, fails, progress_ns
        self.log = [] if log is None else log

    def start(self):
        if self.fails:
            raise DeviceError("no socket")
        self.log.append("start")

    def stop(self):
        self.log.append("stop")

    def health(self):
        return Health(State.OK, "", self.progress_ns)

    def report(self):
        return {}


def test_what_started_is_stopped_when_the_next_cannot_start():
    first, second = Part("first"), Part("second", fails=True)
    with pytest.raises(DeviceError):
        ServeDaemon([first, second]).run()
    assert (first.log, second.log) == (["start", "stop"], [])


def test_a_loop_that_hangs_is_stuck():
    hung = Part("speech", progress_ns=0)
    daemon = ServeDaemon([hung, Part("pages")], clock=lambda: STALE_NS + 1)
    assert daemon.stuck() == ["speech"]
    hung.progress_ns = STALE_NS
    assert daemon.stuck() == []
    assert daemon.line() == "speech ok; pages ok"


def test_stop_ends_it_in_order():
    told = []
    parts = [Part("one", log=told), Part("two", log=told)]
    daemon = ServeDaemon(parts)
    daemon.stop()
    daemon.run()
    assert told == ["start", "start", "stop", "stop"]


def test_the_process_says_ready_tells_its_health_and_ends_on_sigterm(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(60)
        station = tmp_path / "station.toml"
        station.write_text(f'[recording]\nstate_dir = "{tmp_path}"\n')
        env = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        command = [sys.executable, "-m", "edge_runtime", "serve", "--config", str(station)]
        process = subprocess.Popen([*command, "--port", "0"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            assert notify.recv(4096).startswith(b"READY=1")
            url = process.stdout.readline().decode().strip()
            with urllib.request.urlopen(f"{url}/healthz", timeout=60) as answer:
                assert json.load(answer)["components"]["http"] == {"state": "ok", "detail": url}
            asked = subprocess.run([*command, "--health", "--json"], capture_output=True, check=False, timeout=60)
            assert asked.returncode == 0
            about = json.loads(asked.stdout)
            assert about["state"] == "ok" and about["parts"]["pictures"]["detail"] == "model.predictor is 'local'"
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=5) == 0
            assert time.monotonic() - began < 5
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()
    assert not (tmp_path / "speech.sock").exists()


def test_health_of_nobody_is_a_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "edge_runtime", "serve", "--health", "--set", f'recording.state_dir="{tmp_path}"'],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "edge-runtime serve" in done.stderr and "Traceback" not in done.stderr


def test_the_token_and_the_fingerprint_are_told(tmp_path):
    settings = [
        "--set",
        f'recording.state_dir="{tmp_path}"',
        "--set",
        'serve.host="0.0.0.0"',
        "--set",
        "serve.tls=true",
    ]
    command = [sys.executable, "-m", "edge_runtime", "serve", "--token", *settings]
    told = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, timeout=60)
    about = json.loads(told.stdout)
    assert about["token"] == (tmp_path / "serve.token").read_text().strip()
    assert len(about["certificate_sha256"].split(":")) == 32


def test_a_port_that_is_taken_is_a_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ["--port", str(taken.getsockname()[1]), "--set", f'recording.state_dir="{tmp_path}"']
        done = subprocess.run(
            [sys.executable, "-m", "edge_runtime", "serve", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert "cannot listen" in done.stderr and "set serve.host and serve.port" in done.stderr
