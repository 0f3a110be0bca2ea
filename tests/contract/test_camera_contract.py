"""What every camera promises, simulated or real: one test over all drivers."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest

from edge_runtime.capture.cameras.camera import Camera
from edge_runtime.capture.cameras.drivers import DRIVERS, find_camera, open_camera
from edge_runtime.capture.cameras.v4l2_devices import list_devices
from edge_runtime.config.schema import CameraConfig, Section, WorldConfig
from edge_runtime.core.clock import MS, monotonic_ns
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.messages import Frame, PartKey, Trigger
from edge_runtime.core.status import CameraReport
from edge_runtime.core.typed_json import from_json
from edge_runtime.flow.components import State
from edge_runtime.simulation.renderer import lone_belt

HOUSE = Path(__file__).parents[2]
WIDTH, HEIGHT = 96, 64
FRAME_WITHIN_S = 20.0


@dataclass
class Rig:
    """A camera on the bench, and how to make it take a picture."""

    camera: Camera
    shape: tuple[int, int]  # height, width; (0, 0) where the device decides
    shots: int = 0
    keys: list[PartKey] = field(default_factory=list)

    def shoot(self) -> None:
        self.shots += 1
        self.keys.append(PartKey(9, self.shots))
        self.camera.trigger(Trigger(self.keys[-1], 0, monotonic_ns()))

    def frame(self) -> Frame:
        self.shoot()
        limit = time.monotonic() + FRAME_WITHIN_S
        while time.monotonic() < limit:
            frame = self.camera.read(0.5)
            if frame is not None:
                return frame
        raise AssertionError("no frame")


def camera_of(driver: str, path: Path | str) -> CameraConfig:
    """Every driver but the simulated one has the key `path`: `io capture --path` sets it, too."""
    return CameraConfig.model_validate({"driver": driver, driver: {"path": str(path)}})


@contextmanager
def sim_rig(folder: Path) -> Iterator[Rig]:
    world = WorldConfig(parts_per_s=40.0, counts_per_s=10_000)
    with lone_belt(world, CameraConfig(width=WIDTH, height=HEIGHT)) as camera:
        yield Rig(open_camera(camera, monotonic_ns), (HEIGHT, WIDTH))


@contextmanager
def folder_rig(folder: Path) -> Iterator[Rig]:
    for n in range(3):
        cv2.imwrite(str(folder / f"{n}.png"), np.full((HEIGHT, WIDTH, 3), 40 * n, np.uint8))
    yield Rig(open_camera(camera_of("folder", folder), monotonic_ns), (HEIGHT, WIDTH))


@contextmanager
def video_rig(folder: Path) -> Iterator[Rig]:
    path = folder / "belt.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (WIDTH, HEIGHT))
    for n in range(5):
        writer.write(np.full((HEIGHT, WIDTH, 3), 50 * n, np.uint8))
    writer.release()
    yield Rig(open_camera(camera_of("video", path), monotonic_ns), (HEIGHT, WIDTH))


@contextmanager
def v4l2_rig(folder: Path) -> Iterator[Rig]:
    devices = [device for device in list_devices() if device.index == 0 and device.is_readable]
    if not devices:
        pytest.skip("no /dev/video* on this machine")
    yield Rig(open_camera(camera_of("v4l2", devices[0].path), monotonic_ns), (0, 0))


RIGS: dict[str, Callable[[Path], AbstractContextManager[Rig]]] = {
    "sim": sim_rig,
    "folder": folder_rig,
    "video": video_rig,
    "v4l2": v4l2_rig,
}


@pytest.fixture(params=sorted(DRIVERS))
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    assert request.param in RIGS, f"driver '{request.param}' has no rig: write one, and its row in RIGS of this file"
    with RIGS[request.param](tmp_path) as rig:
        yield rig
        rig.camera.stop()


def test_frames_are_read_only_rgb_of_the_right_shape(rig: Rig) -> None:
    rig.camera.start()
    frame = rig.frame()
    assert frame.camera == rig.camera.name
    assert frame.image.dtype == np.uint8 and frame.image.ndim == 3 and frame.image.shape[2] == 3
    assert rig.shape in ((0, 0), frame.image.shape[:2])
    assert not frame.image.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        frame.image[0, 0, 0] = 1


def test_frames_carry_the_stamp_they_pair_by(rig: Rig) -> None:
    rig.camera.start()
    frame = rig.frame()
    assert rig.camera.pairs_by in ("part", "encoder", "time")
    if rig.camera.pairs_by == "part":
        assert frame.part in rig.keys
    if rig.camera.pairs_by == "encoder":
        assert frame.encoder is not None and 0 <= frame.encoder < 2**32


def test_sequence_and_time_of_capture_only_grow_also_over_a_restart(rig: Rig) -> None:
    rig.camera.start()
    frames = [rig.frame() for _ in range(3)]
    rig.camera.stop()
    rig.camera.start()
    frames += [rig.frame() for _ in range(3)]
    pairs = list(pairwise(frames))
    assert all(later.seq > earlier.seq for earlier, later in pairs)
    assert all(later.captured_ns > earlier.captured_ns for earlier, later in pairs)


def test_capture_is_now_and_not_in_the_future(rig: Rig) -> None:
    rig.camera.start()
    frame = rig.frame()
    assert 0 <= monotonic_ns() - frame.captured_ns < 2000 * MS


def test_read_gives_up_at_its_timeout(rig: Rig) -> None:
    rig.camera.start()
    for timeout_s in (0.0, 0.001, 0.01, 0.05):
        began = time.monotonic()
        frame = rig.camera.read(timeout_s)
        took_s = time.monotonic() - began
        assert frame is not None or took_s >= timeout_s
        assert took_s < timeout_s + FRAME_WITHIN_S / 4


def test_start_and_stop_may_be_called_twice(rig: Rig) -> None:
    rig.camera.stop()
    rig.camera.start()
    rig.camera.start()
    assert rig.frame()
    rig.camera.stop()
    rig.camera.stop()
    assert rig.camera.read(0.0) is None


def test_stop_from_another_thread_ends_a_read(rig: Rig) -> None:
    rig.camera.start()
    got: list[Frame | None] = []
    is_reading = threading.Event()

    def read_until_nothing_comes() -> None:
        while True:
            is_reading.set()
            got.append(rig.camera.read(FRAME_WITHIN_S))
            if got[-1] is None:
                return

    reader = threading.Thread(target=read_until_nothing_comes)
    reader.start()
    assert is_reading.wait(FRAME_WITHIN_S)
    rig.camera.stop()
    reader.join(FRAME_WITHIN_S / 2)
    assert not reader.is_alive()


def test_health_and_report_answer_in_every_state(rig: Rig) -> None:
    def look() -> State:
        from_json(CameraReport, rig.camera.report(), "camera")  # what the status document understands
        return rig.camera.health().state

    assert look() is State.STOPPED
    rig.camera.start()
    rig.frame()
    assert look() is State.OK
    assert rig.camera.health().progress_ns is not None
    assert rig.camera.report()["frames"] >= 1
    rig.camera.stop()
    assert look() is State.STOPPED


def test_failed_start_leaves_nothing_behind(tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    nowhere = str(tmp_path / "nowhere")
    for driver in sorted(DRIVERS):
        place = "attach" if driver == "sim" else "path"
        broken = open_camera(CameraConfig.model_validate({"driver": driver, driver: {place: nowhere}}), monotonic_ns)
        with pytest.raises(DeviceError, match="nowhere"):
            broken.start()
        broken.stop()
        assert broken.health().state is State.STOPPED
    assert set(threading.enumerate()) == threads


def test_every_driver_is_in_each_place_that_names_drivers() -> None:
    readme = (HOUSE / "README.md").read_text()
    told = re.findall(r"^Camera drivers: (.*?)\. ", readme, re.MULTILINE)
    places = {
        "the names of CameraConfig.driver in config/schema.py": {
            *get_args(CameraConfig.model_fields["driver"].annotation)
        },
        "the sections of CameraConfig in config/schema.py": {
            name for name, info in CameraConfig.model_fields.items() if isinstance(info.default, Section)
        },
        "RIGS of this file": {*RIGS},
        "'Camera drivers: ...' under Layout in README.md": {*re.findall("`([^`]+)`", " ".join(told))},
    }
    differ = {place: sorted(names ^ set(DRIVERS)) for place, names in places.items() if names != set(DRIVERS)}
    assert not differ, f"not as in DRIVERS of capture/cameras/drivers.py: {differ}"


@pytest.mark.parametrize("driver", sorted(set(DRIVERS) - {"sim"}))
def test_a_camera_that_is_not_there_is_told_without_opening_it(driver: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="nowhere") as caught:
        find_camera(camera_of(driver, tmp_path / "nowhere"))
    assert re.search(r"\bset (it|camera\.)", caught.value.fix), (
        f"DeviceError(what, fix): the fix has to say which key to set, and is {caught.value.fix!r}"
    )
