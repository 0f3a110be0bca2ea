"""Which tests drive real processes, brokers or threads by the wall clock: those alone have a second try.

A machine that stands still for a second fails such a test now and then, and says nothing about the product. A test that
only computes gives the same answer each time, and has one try.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

MARK = "real_processes"
TESTS = Path(__file__).parents[1]
WAIT_S = 5  # for what made the machine stand still

ROOMS = frozenset(
    [
        *(
            "actuation",
            "bare_root",
            "browser",
            "capture",
            "cli",
            "commissioning",
            "contract",
            "faults",
            "fleet",
            "lines",
            "process",
        ),
        *("recording", "serve", "simulation", "station", "sync", "systemd", "tools"),
    ]
)
# ... but for the files of these rooms that only compute
COMPUTE = frozenset(
    [
        "actuation/test_beeper.py",
        *(f"capture/test_{name}.py" for name in ("microphone_wav", "pairing", "settling", "shared_microphone")),
        *(f"cli/test_{name}.py" for name in ("io_cmds", "numbers", "search")),
        *(f"commissioning/test_{name}.py" for name in ("doctor", "station_check")),
        "fleet/test_fleet_records.py",
        "lines/test_picture_watch.py",
        *(
            f"recording/test_{name}.py"
            for name in ("clips", "clock_watch", "picture", "records", "shelf", "wall_clock")
        ),
        *(f"simulation/test_{name}.py" for name in ("microphone", "phone_scene")),
        "station/test_operator_desk.py",
        *(f"sync/test_{name}.py" for name in ("commands", "sparkplug_check", "sparkplug_node", "sparkplug_payload")),
        "sync/test_tally.py",
        *("tools/test_certs.py", "tools/test_programs.py"),
    ]
)
# ... and the files elsewhere that start a process, a server or a thread whose end they wait for
FILES = frozenset(
    [
        "dataset/test_replay.py",
        *(f"firmware_bridge/test_{name}.py" for name in ("adapters", "modbus_peers", "plc_firmware")),
        *(f"firmware_bridge/test_{name}.py" for name in ("port", "port_trouble", "port_watch")),
        *(f"flow/test_{name}.py" for name in ("priority", "stage_runner")),
        *(f"inference/test_{name}.py" for name in ("engine", "grammar", "probe", "remote_speech")),
        *(f"learning/test_{name}.py" for name in ("sound", "teach")),
        "modelstore/test_slots_together.py",
        *(f"predictors/test_{name}.py" for name in ("model_choice", "predict", "vision")),
        "test_reference.py",
    ]
)


def drives_real_processes(file: PurePosixPath) -> bool:
    """file: of a test, relative to `tests/`."""
    return str(file) in FILES or (file.parts[0] in ROOMS and str(file) not in COMPUTE)


def give_second_tries(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark who may have one; it is given where pytest-rerunfailures is installed."""
    has_reruns = config.pluginmanager.hasplugin("rerunfailures")
    for item in items:
        if item.path.is_relative_to(TESTS) and drives_real_processes(PurePosixPath(item.path.relative_to(TESTS))):
            item.add_marker(MARK)
            if has_reruns:
                item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=WAIT_S))


def tell_second_tries(reporter: pytest.TerminalReporter) -> None:
    """How many of those that may have a second try needed it; pytest's `-rR` names them."""
    ended = [report for kind in ("passed", "failed") for report in reporter.stats.get(kind, [])]
    may = {report.nodeid for report in ended if MARK in report.keywords}
    needed = {report.nodeid for report in reporter.stats.get("rerun", [])}
    if may:
        reporter.write_line(f"second tries: {len(needed)} of {len(may)} tests that drive real processes needed one")
