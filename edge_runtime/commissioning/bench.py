"""`bench`: what this box can do with its model, for a technician before a line is promised to anyone.

The model by itself, the whole line around it, the journal, the wire to the simulated controller, the disk, and how many
parts a second the box keeps up with. Frames come from memory, so that a simulated camera takes no time from what is
measured. The developer's comparison with a bare loop, side by side, is tools/bench/hot_path.

Beside a running line nothing is measured: that would take parts from it, and measure the contention of the two. Its own
figures are told instead.
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime import __version__
from edge_runtime.commissioning.bench_line import BenchLine, Measured, Schedule, ramp
from edge_runtime.commissioning.bench_models import draw_frames
from edge_runtime.commissioning.far_side import running_box
from edge_runtime.commissioning.line_speed import line_figures
from edge_runtime.config.load import Loaded
from edge_runtime.config.paths import state_dir
from edge_runtime.core.errors import StorageError
from edge_runtime.inference.engine import pick_runtime
from edge_runtime.modelstore.bundle import Bundle
from edge_runtime.modelstore.store import open_store
from edge_runtime.predictors.model_choice import station_bundle
from edge_runtime.predictors.vision import open_vision_model
from edge_runtime.station.snapshot import rss_mb

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_runtime.config.schema import EdgeConfig

Say = Callable[[str], None]

FRAMES = 12
RATE = 10.0  # parts/s at which the line is timed: the pace of the demo station
LINE_S, RAMP_S, RAMPS, CALLS = 10.0, 6.0, 3, 60
QUICK_LINE_S, QUICK_RAMP_S, QUICK_RAMPS, QUICK_CALLS = 2.0, 2.0, 1, 15
DISK_MB = 16
SYNCS = 20
HEADROOM = 0.7  # of the rate at which the first part was late: what may be promised


def measure(loaded: Loaded, is_quick: bool, say: Say) -> dict[str, Any]:
    """Run everything; JSON types only. say: told what goes on, a line at a time. Raises EdgeError."""
    cfg = loaded.config
    if (running := running_box(cfg)) is not None:
        say(f"process {running.pid} runs the line: these are its own figures; stop it to measure the box")
        about = {"pid": running.pid, "model": running.model, "uptime_s": running.uptime_s}
        return {"box": _about_box(cfg), "running": {**about, **line_figures(running)}}
    bundle = station_bundle(cfg.model.name, open_store(cfg))
    with _bench_folder(cfg) as name:
        folder = Path(name)
        say(f"frames: drawing {FRAMES} of {cfg.camera.width}x{cfg.camera.height}")
        frames = draw_frames(folder / "frames.npy", FRAMES, cfg.camera.width, cfg.camera.height)
        say(f"model: {bundle.label}")
        model = time_model(bundle, cfg, frames, QUICK_CALLS if is_quick else CALLS)
        say(f"line: {RATE:.0f} parts/s")
        line = run_line(bundle, cfg, frames, QUICK_LINE_S if is_quick else LINE_S, folder / "line")
        memory_mb = rss_mb() - frames.nbytes / 1e6
        say("disk")
        disk = time_disk(folder)
        say("limit: ever more parts/s")
        ramps, ramp_s = (QUICK_RAMPS, QUICK_RAMP_S) if is_quick else (RAMPS, RAMP_S)
        limits = [
            find_limit(bundle, cfg, frames, ramp(model["total_ms"], ramp_s), folder / f"ramp-{number}")
            for number in range(ramps)
        ]
    first_late = statistics.median(limits)
    return {
        "box": _about_box(cfg),
        "model": {"name": bundle.label, **model},
        "line": {**_line_figures(line, model["paced_ms"]), "rss_mb": round(memory_mb, 1)},
        "journal": {"commit_ms": line.reports["journal"]["commit_ms"]},
        "serial": {"round_trip_ms": {p: line.reports["controller"][f"verdict_ms_{p}"] for p in ("p50", "p99")}},
        "disk": disk,
        "limit": {
            "first_late_parts_per_s": round(first_late, 1),
            "promise_parts_per_s": round(HEADROOM * first_late, 1),
        },
    }


def time_model(bundle: Bundle, cfg: EdgeConfig, frames: NDArray[np.uint8], calls: int) -> dict[str, float]:
    """Medians of one picture through the model, back to back; `paced_ms` is the whole at the line's pace."""
    model = open_vision_model(bundle, cfg.model)
    stages: dict[str, list[float]] = {"prepare": [], "invoke": [], "decode": []}
    for number in range(calls):
        for stage, took in model(frames[number % len(frames)]).timings_ms.items():
            stages[stage].append(took)
    paced = []
    for number in range(calls // 3):
        time.sleep(1.0 / RATE)  # caches go cold between parts, on the line as here
        begun = time.perf_counter()
        model(frames[number % len(frames)])
        paced.append((time.perf_counter() - begun) * 1e3)
    medians = {f"{stage}_ms": round(statistics.median(took), 3) for stage, took in stages.items()}
    return {**medians, "total_ms": round(sum(medians.values()), 3), "paced_ms": round(statistics.median(paced), 3)}


def run_line(bundle: Bundle, cfg: EdgeConfig, frames: NDArray[np.uint8], seconds: float, state: Path) -> Measured:
    schedule = Schedule(RATE, round(RATE * seconds), is_alone=True)
    with BenchLine(bundle, cfg, list(frames), schedule, state) as bench:
        bench.begin()
        return bench.finish()


def find_limit(bundle: Bundle, cfg: EdgeConfig, frames: NDArray[np.uint8], schedule: Schedule, state: Path) -> float:
    """Parts/s at which the first part was late; where none was, the most that was tried."""
    with BenchLine(bundle, cfg, list(frames), schedule, state) as bench:
        bench.begin()
        first = bench.finish().first_late
    return schedule.rate_at(first.index if first else schedule.parts - 1)


def time_disk(folder: Path) -> dict[str, float]:
    """Writing and syncing a large file, and the small synced writes that a journal lives by."""
    block = os.urandom(1 << 20)
    file = folder / "disk"
    begun = time.perf_counter()
    with file.open("wb") as out:
        for _ in range(DISK_MB):
            out.write(block)
        out.flush()
        os.fsync(out.fileno())
        large_s = time.perf_counter() - begun
        synced = []
        for _ in range(SYNCS):
            begun = time.perf_counter()
            out.write(block[:4096])
            out.flush()
            os.fdatasync(out.fileno())
            synced.append((time.perf_counter() - begun) * 1e3)
    return {
        "write_mb_s": round(DISK_MB * (1 << 20) / 1e6 / large_s, 1),
        "sync_ms_p50": round(statistics.median(synced), 3),
        "sync_ms_max": round(max(synced), 3),
    }


def _bench_folder(cfg: EdgeConfig) -> tempfile.TemporaryDirectory[str]:
    """Beside the station's own records: another disk would tell about another disk."""
    state = state_dir(cfg)
    try:
        state.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix="bench-", dir=state)
    except OSError as err:
        raise StorageError(
            f"cannot write to state folder {state}: {err.strerror}", "mend its permissions or set recording.state_dir"
        ) from err


def _line_figures(line: Measured, alone_ms: float) -> dict[str, Any]:
    decided = sorted(part.decided_ms for part in line.passed if part.decided_ms is not None)
    p50 = _share(decided, 0.5)
    return {
        "parts": len(line.passed),
        "frame_to_verdict_ms": {"p50": p50, "p99": _share(decided, 0.99), "max": _share(decided, 1.0)},
        "overhead_ms": None if p50 is None else round(p50 - alone_ms, 3),
        "cpu_ms_per_part": round(1e3 * line.cpu_s / max(1, len(line.passed)), 2),
        "not_by_model": sum(part.decision.score is None for part in line.passed),
        "unaccounted": line.unaccounted,
        "scheduling": line.reports["scheduling"],
    }


def _share(ordered: Sequence[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if ordered else None


def _about_box(cfg: EdgeConfig) -> dict[str, Any]:
    return {
        "machine": _processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "runtime": pick_runtime(cfg.model.runtime).label,
        "version": __version__,
    }


def _processor() -> str:
    try:
        facts = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    names = ("model name", "Model")  # x86; a Raspberry Pi names the board
    return next((line.split(":", 1)[1].strip() for line in facts if line.split("\t")[0].strip() in names), "")
