"""What a visit to the site would check, done by the box itself: each finding with its fix.

A check is a function that returns findings and never raises; `doctor` prints them and exits 1 when one failed.
Nothing here disturbs a running daemon: devices that it holds are asked through its control socket, not opened, and how
quick its model is, it says itself.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_runtime.commissioning.doctor_retention import retention_findings
from edge_runtime.commissioning.finding import Finding, Level, of_error
from edge_runtime.commissioning.silent_box import SILENT, silent_daemon, unasked
from edge_runtime.commissioning.station_check import remarks
from edge_runtime.config.load import Loaded
from edge_runtime.config.paths import socket_path, state_dir
from edge_runtime.core.errors import ConfigError, DeviceError, EdgeError
from edge_runtime.core.state import State

OLDEST_PYTHON = (3, 11)
LOW_MEMORY_MB = 150
HOT_C = 80.0  # a Raspberry Pi starts to throttle at 80 degrees C (Raspberry Pi documentation, "frequency management")
BESIDE_LINE_S = 20.0  # that the journal is read through; 1 GB of a good card
STEPS_BETWEEN_LOOKS = 100_000  # of SQLite's machine, some ms

EDIT = "edit the station file; `edge-runtime config show` lists what is in force"
LOOK = "the sentence names the file or device to mend"
LOOK_AT_CAMERAS = "`edge-runtime io cameras` lists what is there"
TELL = "a fault of this program: tell its maintainers, with what `edge-runtime doctor --json` says"

Check = Callable[[Loaded], Iterator[Finding]]


def examine(loaded: Loaded, more: Iterable[Check] = ()) -> Iterator[dict[str, Any]]:
    """Run every check in order, then `more`; each finding as a dict with `name, state, detail, fix`."""
    for check in (*CHECKS, *more):
        name = check.__name__.strip("_").removesuffix("_findings")
        try:
            for finding in check(loaded):
                yield asdict(finding)
        except EdgeError as err:
            yield asdict(of_error(name, "fail", err, EDIT if isinstance(err, ConfigError) else FIXES.get(check, LOOK)))
        except OSError as err:
            yield asdict(Finding(name, "fail", str(err), FIXES.get(check, LOOK)))
        except Exception as err:  # the others must have their turn
            yield asdict(Finding(name, "fail", f"the check itself failed: {type(err).__name__}: {err}", TELL))


def _python(_: Loaded) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    is_new = sys.version_info >= OLDEST_PYTHON
    yield Finding("python", "ok" if is_new else "fail", version, "" if is_new else "install Python 3.11 or newer")


def _config(loaded: Loaded) -> Iterator[Finding]:
    yield Finding("config", "ok", f"{loaded.origin}, digest {loaded.digest[:12]}, {len(loaded.given)} keys set")
    for remark in (*loaded.moved, *remarks(loaded.config)):
        yield Finding("config", "warn", remark, EDIT)


UNTROUBLED = (State.OK, State.STARTING)
ASK_S = 2.0
SINCE = "as it says; `journalctl -u edge-runtime-run` tells since when"


def _daemon(loaded: Loaded) -> Iterator[Finding]:
    from edge_runtime.process.ask_status import ask_status

    try:
        shot = ask_status(socket_path(loaded.config), ASK_S)
    except EdgeError as err:
        yield silent_daemon(err)
        return
    told = f"process {shot.pid} is {shot.state}, {shot.parts} parts"
    if shot.state in UNTROUBLED:
        yield Finding("daemon", "ok", told)
    else:
        yield Finding("daemon", "warn", told, "what ails it is told below")
    for name, health in shot.health.items():
        if health.state not in UNTROUBLED:
            level: Level = "fail" if health.state is State.FAILED else "warn"
            yield Finding(f"daemon.{name}", level, health.detail or health.state, SINCE)
    yield _scheduling(shot.report.scheduling)


def _scheduling(threads: Mapping[str, str]) -> Finding:
    ordinary = {name: policy for name, policy in threads.items() if policy != "fifo"}
    if not ordinary:
        return Finding("scheduling", "ok", f"real-time: {', '.join(sorted(threads))}")
    why = sorted(set(ordinary.values()))[0]
    fix = "set LimitRTPRIO=1 in the unit; without it the slowest 1 % wait 12 ms on a busy box, with it 0.2 ms"
    return Finding("scheduling", "warn", f"{', '.join(sorted(ordinary))}: {why}", fix)


def _runtime(loaded: Loaded) -> Iterator[Finding]:
    from edge_runtime.inference.engine import installed_runtimes, pick_runtime

    chosen = pick_runtime(loaded.config.model.runtime)
    others = [runtime.label for runtime in installed_runtimes() if runtime.label != chosen.label]
    detail = f"{chosen.label} is used" + (f" (also installed: {', '.join(others)})" if others else "")
    if chosen.name == "tflite":
        yield Finding("runtime", "warn", detail, "pip install ai-edge-litert: int8 models run 4 to 19 times faster")
    else:
        yield Finding("runtime", "ok", detail)
    for runtime in installed_runtimes():
        if runtime.problem:
            yield Finding("runtime", "warn", f"{runtime.label}: {runtime.problem}", runtime.problem)


def _model(loaded: Loaded) -> Iterator[Finding]:
    import numpy as np

    from edge_runtime.commissioning.far_side import running_box
    from edge_runtime.commissioning.line_speed import measured, of_running_line
    from edge_runtime.inference.native_noise import native_noise_hidden
    from edge_runtime.modelstore.store import open_store
    from edge_runtime.predictors.model_choice import station_bundle
    from edge_runtime.predictors.vision import open_vision_model

    cfg = loaded.config
    bundle = station_bundle(cfg.model.name, open_store(cfg))
    yield Finding("model", "ok", f"{bundle.label}, {len(bundle.manifest.files)} files as their digests say")
    try:
        box = running_box(cfg)
    except SILENT as err:
        yield unasked("model.speed", err)
        return
    if box is not None:
        yield of_running_line(box, cfg.decision.deadline_ms)
        return
    with native_noise_hidden():
        model = open_vision_model(bundle, cfg.model)
    picture = np.zeros((cfg.camera.height, cfg.camera.width, 3), np.uint8)
    delegated = "delegated" if model.engine.is_delegated else "NOT delegated"
    yield measured(lambda: model(picture), cfg.decision.deadline_ms, delegated)


def _camera(loaded: Loaded) -> Iterator[Finding]:
    from edge_runtime.capture.cameras.drivers import find_camera

    cfg = loaded.config.camera
    try:
        yield Finding("camera", "ok", f"driver {cfg.driver}, {find_camera(cfg)}")
    except DeviceError as err:
        yield Finding("camera", "fail", err.what, err.fix or LOOK_AT_CAMERAS)


def _controller(loaded: Loaded) -> Iterator[Finding]:
    from edge_runtime.commissioning.doctor_controller import controller_findings

    yield from controller_findings(loaded)


def _microphone(loaded: Loaded) -> Iterator[Finding]:
    from edge_runtime.commissioning.doctor_ears import microphone_findings

    yield from microphone_findings(loaded)


def _voice(loaded: Loaded) -> Iterator[Finding]:
    from edge_runtime.commissioning.doctor_ears import voice_findings

    yield from voice_findings(loaded)


def _sound(loaded: Loaded) -> Iterator[Finding]:
    from edge_runtime.commissioning.doctor_ears import sound_findings

    yield from sound_findings(loaded)


def _remote(loaded: Loaded) -> Iterator[Finding]:
    from edge_runtime.commissioning.doctor_remote import remote_findings

    yield from remote_findings(loaded)


def _storage(loaded: Loaded) -> Iterator[Finding]:
    state = state_dir(loaded.config)
    there = next(folder for folder in (state, *state.parents) if folder.exists())
    if not os.access(there, os.W_OK):
        yield Finding(
            "state", "fail", f"{there} may not be written", "chown it to the service's user, or set recording.state_dir"
        )
        return
    usage = shutil.disk_usage(there)
    free_mb, quota = usage.free / 1e6, loaded.config.recording.quota_mb
    detail = f"{state}, {free_mb:.0f} MB free, pictures may take {quota} MB"
    if free_mb < 200:
        yield Finding("state", "fail", detail, "make room: the journal needs space to keep its promise")
    elif free_mb < quota:
        yield Finding("state", "warn", detail, "make room or lower recording.quota_mb")
    else:
        yield Finding("state", "ok", detail)


def _journal(loaded: Loaded) -> Iterator[Finding]:
    from edge_runtime.config.paths import JOURNAL
    from edge_runtime.process.unix_socket import is_answering
    from edge_runtime.recording.database import open_for_reading
    from edge_runtime.recording.going_back import say_shortfall

    path = state_dir(loaded.config) / JOURNAL
    if not path.exists():
        yield Finding("journal", "ok", "none yet")
        return
    try:
        connection = open_for_reading(path)
        if is_answering(socket_path(loaded.config)):  # the line's log cannot be folded back while somebody reads
            until = time.monotonic() + BESIDE_LINE_S
            connection.set_progress_handler(lambda: time.monotonic() > until, STEPS_BETWEEN_LOOKS)
        try:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            rows = connection.execute("SELECT count(*) FROM part").fetchone()[0]
            short = say_shortfall(path, connection) if verdict == "ok" else ""
        finally:
            connection.close()
    except sqlite3.Error as err:
        if getattr(err, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
            what = f"{path.stat().st_size / 1e6:.0f} MB, too much to be read through beside a running line"
            yield Finding("journal", "warn", what, "ask again while the line stands still")
            return
        yield Finding(
            "journal", "fail", f"{path}: {err}", "mend the disk; a damaged file is set aside at the next start"
        )
        return
    if short:
        fix = "restart the daemon: it counts them; find out who deleted, restored or damaged the journal's files"
        yield Finding("journal", "fail", f"{path}: {short}", fix)
    elif verdict == "ok":
        yield Finding("journal", "ok", f"{rows} parts, {path.stat().st_size / 1e6:.1f} MB, intact")
    else:
        yield Finding(
            "journal", "fail", f"{path}: {verdict}", "restart the daemon: it sets the file aside and begins anew"
        )


def _clock(_: Loaded) -> Iterator[Finding]:
    from edge_runtime.recording.wall_clock import TimeQuality, time_quality

    quality = time_quality()
    if quality is TimeQuality.SYNCED:
        yield Finding("clock", "ok", "synchronised")
    else:
        fix = "timedatectl set-ntp true, or fit a clock module; records say free_running"
        yield Finding("clock", "warn", "not synchronised", fix)


def _machine(_: Loaded) -> Iterator[Finding]:
    facts = dict(
        line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemA")
    )
    free_mb = int(facts["MemAvailable"].split()[0]) / 1000
    level: Level = "ok" if free_mb > LOW_MEMORY_MB else "warn"
    yield Finding("memory", level, f"{free_mb:.0f} MB available", "" if level == "ok" else "stop what else runs here")
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > 2 * cores:
        yield Finding("load", "warn", f"load {load:.1f} on {cores} cores", "find out what else runs here: top")
    zones = [int(zone.read_text()) / 1000 for zone in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    if zones:
        hot = max(zones) >= HOT_C
        yield Finding(
            "temperature", "warn" if hot else "ok", f"{max(zones):.0f} C", "clean the fan, open the box" if hot else ""
        )


FIXES: Mapping[Check, str] = {
    _runtime: "pip install ai-edge-litert",
    _model: "edge-runtime models verify, then set model.name or install the bundle again",
    _storage: "make room or mend the permissions of the state folder",
    _journal: "mend the disk, then restart the daemon",
}
CHECKS: tuple[Check, ...] = (
    _python,
    _config,
    _daemon,
    _runtime,
    _model,
    _remote,
    _camera,
    _controller,
    _microphone,
    _voice,
    _sound,
    _storage,
    _journal,
    _clock,
    retention_findings,
    _machine,
)
