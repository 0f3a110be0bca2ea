"""Pictures beside the flow: which are kept, that they are what the model saw, and what gives way under pressure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_runtime.config.schema import RecordingConfig
from edge_runtime.core.messages import Decision, Frame, PartKey, Prediction, Verdict
from edge_runtime.flow.components import State
from edge_runtime.recording.evidence import WAITING_PICTURES, Evidence, is_wanted, load_heat, load_picture
from edge_runtime.recording.shelf import heat_file

WAIT_S = 10.0


class Kept:
    """Stands in for the journal, and lets a test wait for a number of pictures."""

    def __init__(self) -> None:
        self.files: dict[PartKey, str] = {}
        self._changed = threading.Condition()

    def __call__(self, key: PartKey, file: str) -> None:
        with self._changed:
            self.files[key] = file
            self._changed.notify_all()

    def wait(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.files) >= count, WAIT_S)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def image() -> NDArray[np.uint8]:
    image = np.random.default_rng(1).integers(0, 256, (90, 160, 3), np.uint8)
    image.flags.writeable = False
    return image


def evidence(state: Path, kept: Kept, **keys: Any) -> Evidence:
    return Evidence(state, RecordingConfig(**keys), kept, reserve_bytes=0)


def frame(image: NDArray[np.uint8]) -> Frame:
    return Frame("cam0", 1, 0, 0, image)


def test_a_lossless_picture_is_what_the_model_saw(
    tmp_path: Path, kept: Kept, image: NDArray[np.uint8], make_part: Callable[..., Any]
) -> None:
    heat = np.linspace(0, 1, 50, dtype=np.float32).reshape(5, 10)
    writer = evidence(tmp_path, kept, format="png")
    writer.start()
    part = make_part(1, Verdict.REJECT)
    writer.decided(part.decision, frame(image), Prediction("m@1", 0.9, {}, (), heat))
    writer.stop()
    file = tmp_path / kept.files[part.key]
    assert np.array_equal(load_picture(file), image)
    stored = load_heat(heat_file(file))
    assert stored is not None and np.abs(stored - heat).max() <= 0.5 / 255 + 1e-6
    assert writer.health().state is State.STOPPED


def test_a_jpeg_is_close_and_small(tmp_path: Path, kept: Kept, make_part: Callable[..., Any]) -> None:
    smooth = np.repeat(np.linspace(0, 255, 160).astype(np.uint8)[None, :, None], 90, axis=0).repeat(3, axis=2)
    writer = evidence(tmp_path, kept)
    writer.start()
    writer.decided(make_part(1, Verdict.UNSURE).decision, frame(smooth), None)
    writer.stop()
    file = tmp_path / kept.files[make_part(1).key]
    assert file.suffix == ".jpg" and file.stat().st_size < smooth.nbytes / 8
    assert np.abs(load_picture(file).astype(int) - smooth).max() < 12
    assert load_heat(heat_file(file)) is None


def test_every_reject_and_unsure_and_a_fair_share_of_accepted_parts_is_wanted(make_part: Callable[..., Any]) -> None:
    assert all(is_wanted(make_part(n, verdict).decision, 0.0) for n in range(50) for verdict in ("reject", "unsure"))
    wanted = [n for n in range(20_000) if is_wanted(make_part(n).decision, 0.02)]
    assert 320 < len(wanted) < 480
    assert wanted == [n for n in range(20_000) if is_wanted(make_part(n).decision, 0.02)]
    assert not is_wanted(make_part(1).decision, 0.0) and is_wanted(make_part(1).decision, 1.0)


def test_a_part_without_a_frame_leaves_no_picture(tmp_path: Path, kept: Kept, make_part: Callable[..., Any]) -> None:
    writer = evidence(tmp_path, kept)
    writer.start()
    writer.decided(make_part(1, Verdict.UNSURE).decision, None, None)
    writer.stop()
    assert kept.files == {} and writer.missed == {}


def test_when_it_cannot_keep_up_rejects_take_the_places_of_accepted_parts(
    tmp_path: Path, kept: Kept, image: NDArray[np.uint8], make_part: Callable[..., Any]
) -> None:
    writer = evidence(tmp_path, kept, good_share=1.0)  # not started: nothing leaves the queue
    for number in range(WAITING_PICTURES + 2):
        writer.decided(make_part(number).decision, frame(image), None)
    for number in range(100, 104):
        writer.decided(make_part(number, Verdict.REJECT).decision, frame(image), None)
    assert writer.missed == {"accept.busy": 6}
    for number in range(200, 200 + WAITING_PICTURES):
        writer.decided(make_part(number, Verdict.REJECT).decision, frame(image), None)
    assert writer.missed == {"accept.busy": 8, "reject.busy": 4}
    writer.start()
    writer.stop()
    assert [key.part_id for key in kept.files] == [100, 101, 102, 103, 200, 201]
    assert writer.kept == {"reject": 6} and writer.report()["waiting"] == 0


def test_handing_over_costs_the_line_a_reference(
    tmp_path: Path, kept: Kept, image: NDArray[np.uint8], make_part: Callable[..., Any]
) -> None:
    writer = evidence(tmp_path, kept)
    decision, shown = make_part(1, Verdict.REJECT).decision, frame(image)
    begun = time.thread_time_ns()
    for _ in range(1000):
        writer.decided(decision, shown, None)
    assert (time.thread_time_ns() - begun) / 1000 < 100_000
    writer.stop()


def test_a_folder_that_cannot_be_written_is_told_and_lived_through(
    tmp_path: Path, kept: Kept, image: NDArray[np.uint8], make_part: Callable[..., Any]
) -> None:
    in_the_way = tmp_path / "evidence"
    in_the_way.write_text("")
    missed = threading.Event()
    writer = evidence(tmp_path, kept)
    real = writer._miss

    def miss(*args: Any) -> None:
        missed.set()
        real(*args)

    writer._miss = miss  # type: ignore[method-assign]
    writer.start()
    writer.decided(make_part(1, Verdict.REJECT).decision, frame(image), None)
    assert missed.wait(WAIT_S)
    in_the_way.unlink()
    writer.decided(make_part(2, Verdict.REJECT).decision, frame(image), None)
    kept.wait(1)
    writer.stop()
    assert make_part(2).key in kept.files


def test_a_full_disk_is_told_in_health_and_counted(
    tmp_path: Path, kept: Kept, image: NDArray[np.uint8], make_part: Callable[..., Any]
) -> None:
    writer = Evidence(tmp_path, RecordingConfig(), kept, reserve_bytes=2**60)
    writer.start()
    decision: Decision = make_part(1, Verdict.REJECT).decision
    writer.decided(decision, frame(image), None)
    writer.stop()
    assert writer.missed == {"reject.disk": 1}
    assert "no room for pictures" in writer._trouble


def test_a_picture_that_cannot_be_encoded_is_counted_and_the_next_one_kept(
    tmp_path: Path, kept: Kept, image: NDArray[np.uint8], make_part: Callable[..., Any]
) -> None:
    writer = evidence(tmp_path, kept)
    writer.decided(make_part(1, Verdict.REJECT).decision, frame(np.zeros((0, 0, 3), np.uint8)), None)
    writer.decided(make_part(2, Verdict.REJECT).decision, frame(image), None)
    writer.start()
    writer.stop()
    assert writer.missed == {"reject.fault": 1} and list(kept.files) == [make_part(2).key]
