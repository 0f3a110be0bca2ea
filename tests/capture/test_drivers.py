"""What is particular to each camera driver: bad files, missing devices, lost lines."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_runtime.capture.cameras import folder as folder_camera
from edge_runtime.capture.cameras.camera import Camera, CameraLost
from edge_runtime.capture.cameras.folder import AHEAD, FolderCamera
from edge_runtime.capture.cameras.opencv_capture import QUEUED, GrabbingCamera, Picture
from edge_runtime.capture.cameras.v4l2 import MOST_DAMAGED, V4l2Device
from edge_runtime.capture.cameras.v4l2_devices import list_devices
from edge_runtime.capture.cameras.video import VideoFile
from edge_runtime.config.schema import CameraConfig, WorldConfig
from edge_runtime.core.clock import SECOND, monotonic_ns
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.messages import Frame, PartKey, Trigger
from edge_runtime.flow.components import State
from edge_runtime.simulation.camera import SimCamera
from edge_runtime.simulation.renderer import Renderer
from edge_runtime.simulation.world import Belt, World
from tests.support.waiting import until

LONG_S = 20.0
MS = 1_000_000


@contextmanager
def running(camera: Camera) -> Iterator[Any]:
    camera.start()
    try:
        yield camera
    finally:
        camera.stop()


def camera_of(driver: str, path: str, **camera: Any) -> CameraConfig:
    return CameraConfig.model_validate({"driver": driver, driver: {"path": path}, **camera})


def sim_camera(socket_path: Path) -> SimCamera:
    return SimCamera(CameraConfig.model_validate({"sim": {"attach": str(socket_path)}}), monotonic_ns)


def folder(path: Path, **camera: Any) -> FolderCamera:
    return FolderCamera(camera_of("folder", str(path), **camera), monotonic_ns)


def picture(path: Path, value: int, size: tuple[int, int] = (8, 12)) -> None:
    cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))


def shoot(camera: FolderCamera, n: int) -> None:
    camera.trigger(Trigger(PartKey(1, n), 0, monotonic_ns()))


# -- folder --


def test_folder_shows_its_pictures_in_order_and_starts_again(tmp_path: Path) -> None:
    for n, name in enumerate(("a.PNG", "b.bmp", "c.png")):
        picture(tmp_path / name, 60 * n)
    (tmp_path / "notes.txt").write_text("not a picture")
    with running(folder(tmp_path)) as camera:
        shown = []
        for n in range(4):
            shoot(camera, n)
            frame = camera.read(LONG_S)
            shown.append((frame.part.part_id, int(frame.image[0, 0, 0])))
    assert shown == [(0, 0), (1, 60), (2, 120), (3, 0)]


def test_folder_without_a_trigger_shows_nothing(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    with running(folder(tmp_path)) as camera:
        assert camera.read(0.01) is None


def test_damaged_picture_costs_its_part_the_frame_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture(tmp_path / "a.jpg", 10)
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:200])
    (tmp_path / "c.png").write_bytes(b"")
    picture(tmp_path / "d.png", 40)
    with running(folder(tmp_path)) as camera:
        for n in range(8):
            shoot(camera, n)
        parts = [camera.read(LONG_S).part.part_id for _ in range(4)]
        assert parts == [0, 3, 4, 7]
        assert camera.health().state is State.DEGRADED
        assert camera.report()["unreadable"] == 2
    assert sum("b.jpg" in record.getMessage() for record in caplog.records) == 1


def test_picture_of_a_hundred_megapixels_is_refused_by_its_header(tmp_path: Path) -> None:
    header = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, 12_000, 9_000, 1, 24, 0, 0, 0, 0, 0, 0)
    (tmp_path / "a.bmp").write_bytes(header)
    picture(tmp_path / "b.png", 7, size=(1, 1))
    with running(folder(tmp_path)) as camera:
        shoot(camera, 0)
        shoot(camera, 1)
        frame = camera.read(LONG_S)
    assert frame.part.part_id == 1
    assert frame.image.shape == (1, 1, 3)


@pytest.mark.parametrize("kind", ["pipe", "folder", "dangling link", "gone"])
def test_what_took_the_place_of_a_picture_costs_its_part_and_no_more(tmp_path: Path, kind: str) -> None:
    for n in range(4 * AHEAD):
        picture(tmp_path / f"{n:02}.png", n)
    camera = folder(tmp_path)
    with running(camera):
        last = tmp_path / f"{4 * AHEAD - 1:02}.png"
        last.unlink()
        if kind == "pipe":
            os.mkfifo(last)  # opening one waits for somebody who writes
        elif kind == "folder":
            last.mkdir()
        elif kind == "dangling link":
            last.symlink_to(tmp_path / "nowhere")
        for n in range(4 * AHEAD + 1):
            shoot(camera, n)
        shown = [camera.read(LONG_S).part.part_id for _ in range(4 * AHEAD)]
    assert shown == [*range(4 * AHEAD - 1), 4 * AHEAD]


def test_folder_on_a_share_that_hangs_stops_in_time_and_comes_back(tmp_path: Path, monkeypatch) -> None:
    for n in range(5):
        picture(tmp_path / f"{n}.png", n)
    hangs, answers, read = threading.Event(), threading.Event(), folder_camera._read

    def read_from_share(path: Path) -> bytes:
        if path.name == "1.png" and not answers.is_set():
            hangs.set()
            answers.wait(LONG_S)
        return read(path)

    monkeypatch.setattr(folder_camera, "_read", read_from_share)
    monkeypatch.setattr(folder_camera, "END_WITHIN_S", 0.05)
    camera = folder(tmp_path)
    with running(camera):
        assert hangs.wait(LONG_S)
        shoot(camera, 0)
        assert camera.read(LONG_S).part.part_id == 0
        shoot(camera, 1)
        assert camera.read(0.01) is None
    answers.set()  # the thread that was left behind wakes beside its successor
    with running(camera):
        for n in range(2, 6):
            shoot(camera, n)
        frames = [camera.read(LONG_S) for _ in range(4)]
    assert [frame.part.part_id for frame in frames] == [2, 3, 4, 5]
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [2, 3, 4, 0]


def test_folder_that_does_not_loop_says_that_it_is_over(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    cfg = camera_of("folder", str(tmp_path))
    with running(FolderCamera(cfg, monotonic_ns, loops=False)) as camera:
        shoot(camera, 0)
        shoot(camera, 1)
        assert camera.read(LONG_S).part.part_id == 0
        with pytest.raises(CameraLost, match="all 1 pictures"):
            camera.read(LONG_S)


def test_folder_goes_on_where_it_was_after_a_restart(tmp_path: Path) -> None:
    for n in range(6):
        picture(tmp_path / f"{n}.png", n)
    camera, shown = folder(tmp_path), []
    for n in range(4):
        with running(camera):
            shoot(camera, n)
            frame = camera.read(LONG_S)
            assert frame is not None
            shown.append(int(frame.image[0, 0, 0]))
    assert shown == [0, 1, 2, 3]


@pytest.mark.parametrize("before", [1, 2, 5])
@pytest.mark.parametrize("change", ["added behind", "added before", "one gone", "all replaced", "folder away"])
def test_folder_shows_in_the_next_round_what_lies_there_then(tmp_path: Path, before: int, change: str) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for n in range(before):
        picture(pictures / f"m{n}.png", 10 + n)
    camera, shown = folder(pictures), []
    now = set(range(10, 10 + before))
    with running(camera):
        for n in range(4 * (before + AHEAD)):
            if n == 1:
                if change.startswith("added"):
                    picture(pictures / ("z.png" if change.endswith("behind") else "a.png"), 99)
                    now |= {99}
                elif change == "one gone" and before > 1:
                    (pictures / "m0.png").unlink()
                    now -= {10}
                elif change == "all replaced":
                    picture(pictures / "z.png", 99)
                    for old in range(before):
                        (pictures / f"m{old}.png").unlink()
                    now = {99}
                elif change == "folder away":
                    pictures.rename(tmp_path / "elsewhere")
            shoot(camera, n)
            frame = camera.read(LONG_S if change.startswith("added") else 0.05)
            shown.append(int(frame.image[0, 0, 0]) if frame else -1)
    if change != "folder away":
        assert set(shown[-len(now) :]) == now


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda _: "", "camera.folder.path is empty"),
        (lambda at: at / "nowhere", "does not exist"),
        (lambda at: at / "file", "is a file, not a folder"),
        (lambda at: at / "empty", "no pictures in"),
    ],
)
def test_folder_that_is_none_is_told_in_a_sentence(tmp_path: Path, make: Callable[[Path], Any], says: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DeviceError, match=says):
        folder(make(tmp_path)).start()


# -- video --


def video(path: Path, frames: int = 4, fps: float = 50.0) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (32, 16))
    for n in range(frames):
        writer.write(np.full((16, 32, 3), (10, 20, 60 * n), np.uint8))  # BGR
    writer.release()
    return path


def video_camera(path: Path, loops: bool = True) -> GrabbingCamera:
    cfg = camera_of("video", str(path))
    return GrabbingCamera("video", cfg, monotonic_ns, lambda: VideoFile(cfg, monotonic_ns, loops))


def test_video_plays_at_its_own_rate_in_rgb_and_starts_again(tmp_path: Path) -> None:
    with running(video_camera(video(tmp_path / "v.avi"))) as camera:
        frames: list[Frame] = [camera.read(LONG_S) for _ in range(6)]
    reds = [int(frame.image[8, 16, 0]) for frame in frames]
    assert all(abs(red - 60 * (n % 4)) < 12 for n, red in enumerate(reds))
    gaps = [b.captured_ns - a.captured_ns for a, b in pairwise(frames)]
    assert min(gaps) == 20 * MS


def test_video_that_does_not_loop_says_that_it_is_over(tmp_path: Path) -> None:
    with running(video_camera(video(tmp_path / "v.avi", frames=2), loops=False)) as camera:
        assert [camera.read(LONG_S).seq for _ in range(2)] == [0, 1]
        with pytest.raises(CameraLost, match="is over"):
            camera.read(LONG_S)
        assert camera.health().state is State.FAILED


def test_file_that_is_no_video_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "v.avi").write_bytes(b"RIFF" + bytes(100))
    with pytest.raises(DeviceError, match="is no video that OpenCV can play"):
        video_camera(tmp_path / "v.avi").start()
    with pytest.raises(DeviceError, match="does not exist"):
        video_camera(tmp_path / "nowhere.avi").start()


class HeldSource:
    """Gives what the test lets it; blocks like a driver otherwise, deaf to `stop`."""

    settles = False
    damaged = 0

    def __init__(self) -> None:
        self.let = threading.Semaphore(1)
        self.given = 0
        self.closed = threading.Event()

    def open(self) -> str:
        return "held"

    def take(self, stop: threading.Event) -> Picture | None:
        self.let.acquire()
        self.given += 1
        return Picture(np.zeros((2, 2, 3), np.uint8), self.given)

    def close(self) -> None:
        self.closed.set()


def test_slow_reader_loses_the_oldest_frames_and_they_are_counted() -> None:
    source = HeldSource()
    camera = GrabbingCamera("held", CameraConfig(), monotonic_ns, lambda: source)
    camera.start()
    source.let.release(QUEUED + 2)
    until(lambda: camera.report()["overrun"] == 3)
    frame = camera.read(LONG_S)
    assert frame is not None and frame.seq == 3
    source.let.release(10)
    camera.stop()


def test_source_that_hangs_is_left_behind_and_closes_nobody_elses_device() -> None:
    made: list[HeldSource] = []

    def make() -> HeldSource:
        made.append(HeldSource())
        return made[-1]

    camera = GrabbingCamera("held", CameraConfig(), monotonic_ns, make)
    camera.start()
    assert camera.read(LONG_S)
    camera.stop()  # returns although `take` hangs
    camera.start()
    assert camera.read(LONG_S)
    made[0].let.release()
    assert made[0].closed.wait(LONG_S)
    assert not made[1].closed.is_set()
    assert camera.read(0.0) is None
    made[1].let.release()
    camera.stop()


# -- v4l2 --


def test_missing_camera_is_told_with_what_was_found() -> None:
    device = V4l2Device(camera_of("v4l2", "/dev/video99"), monotonic_ns)
    with pytest.raises(
        DeviceError, match=r"no camera '/dev/video99' \(found: .*\); check the cable or set camera.v4l2.path"
    ):
        device.open()


def test_plain_file_is_no_camera(tmp_path: Path) -> None:
    (tmp_path / "video0").touch()
    device = V4l2Device(camera_of("v4l2", str(tmp_path / "video0")), monotonic_ns)
    with pytest.raises(DeviceError, match="is no video device"):
        device.open()


def test_devices_are_listed_with_those_that_take_pictures_first(tmp_path: Path) -> None:
    for number, index in ((0, 1), (2, 0), (10, 0)):
        (tmp_path / f"video{number}").touch()
        node = tmp_path / "sysfs" / f"video{number}"
        node.mkdir(parents=True)
        (node / "name").write_text("Cam\n")
        (node / "index").write_text(f"{index}\n")
    (tmp_path / "video-codec").touch()
    found = list_devices(tmp_path, tmp_path / "sysfs")
    assert [Path(device.path).name for device in found] == ["video2", "video10", "video0"]
    assert found[0].name == "Cam" and str(found[0]).endswith("video2 (Cam)")


PI_5 = [(n, "rp1-cfe-csi2_ch0", 0) for n in range(8)] + [(n, "pispbe-input", 0) for n in range(20, 36)]
PI_4 = [
    *[(10 + n, f"bcm2835-codec-{what}", 0) for n, what in enumerate(["decode", "encode", "isp"])],
    *[(13 + n, f"bcm2835-isp-{what}", 0) for n, what in enumerate(["output0", "capture0", "capture1", "stats0"])],
    (18, "bcm2835-codec-encode_image", 0),
    (0, "unicam-image", 0),
    (1, "unicam-embedded", 0),
    (19, "rpi-hevc-dec", 0),
]
ROCKCHIP = [(0, "rockchip-rga", 0), (1, "rkisp_mainpath", 0), (2, "hantro-vpu", 0), (3, "rkvdec", 0)]
IMX = [(0, "coda-video-decoder", 0), (1, "mxc-jpeg codec", 0), (2, "pxp-video", 0)]


def board(root: Path, nodes: list[tuple[int, str, int]], usb: set[int] = frozenset()) -> None:  # type: ignore[assignment]
    (root / "bus" / "usb").mkdir(parents=True)
    for number, name, index in nodes:
        (root / f"video{number}").touch()
        node = root / "sysfs" / f"video{number}"
        (node / "device").mkdir(parents=True)
        (node / "name").write_text(f"{name}\n")
        (node / "index").write_text(f"{index}\n")
        if number in usb:
            (node / "device" / "subsystem").symlink_to(root / "bus" / "usb")


@pytest.mark.parametrize("others", [PI_5, PI_4, ROCKCHIP, IMX], ids=["pi 5", "pi 4", "rockchip", "i.mx"])
@pytest.mark.parametrize(
    "name", ["HD Pro Webcam C920", "USB2.0 HD UVC WebCam", "vivid", "imx219 10-0010", "tegra-video"]
)
def test_the_nodes_of_codecs_and_receivers_are_not_taken_for_the_camera(tmp_path, others, name) -> None:
    board(tmp_path, [*others, (60, name, 0), (61, name, 1)])
    found = list_devices(tmp_path, tmp_path / "sysfs")
    assert [device.path for device in found if device.takes_pictures] == [str(tmp_path / "video60")]
    assert found[0].name == name and len(found) == len(others) + 2


@pytest.mark.parametrize("name", ["eMPIA ISP Camera", "MPEG Encoder Cam", "Decoder Box"])
def test_what_hangs_on_usb_is_a_camera_whatever_it_is_called(tmp_path, name) -> None:
    board(tmp_path, [*PI_4, (60, name, 0)], usb={60})
    assert list_devices(tmp_path, tmp_path / "sysfs")[0].name == name


class FakeCapture:
    """cv2.VideoCapture of a camera whose cable is pulled after three pictures of an exposure that stands."""

    def __init__(self, path: str, stamp_ms: Callable[[], float]) -> None:
        self.left, self.settings, self.released, self._stamp_ms = 3, {}, False, stamp_ms  # type: ignore[var-annotated]

    def isOpened(self) -> bool:
        return True

    def set(self, key: int, value: float) -> bool:
        self.settings[key] = value
        return True

    def get(self, key: int) -> float:
        return self._stamp_ms() if key == cv2.CAP_PROP_POS_MSEC else self.settings.get(key, 0.0)

    def grab(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def retrieve(self) -> tuple[bool, np.ndarray[Any, Any] | None]:
        return True, np.full((4, 6, 3), (101, 102, 103), np.uint8)

    def release(self) -> None:
        self.released = True


@pytest.mark.parametrize("kernel_stamps", [True, False])
def test_v4l2_pictures_carry_the_kernels_stamp_where_it_makes_sense(tmp_path: Path, kernel_stamps: bool) -> None:
    node = tmp_path / "video0"
    node.touch()
    clock_ns = 1000 * SECOND
    stamp_ns = clock_ns - 12 * MS if kernel_stamps else 5 * SECOND
    cfg = camera_of("v4l2", str(node), exposure_us=4000)
    made: list[FakeCapture] = []

    def open_device(path: str) -> FakeCapture:
        made.append(FakeCapture(path, lambda: stamp_ns / MS))
        return made[-1]

    camera = GrabbingCamera("v4l2", cfg, lambda: clock_ns, lambda: V4l2Device(cfg, lambda: clock_ns, open_device))
    camera.start()
    frame = camera.read(LONG_S)
    assert frame is not None
    assert frame.captured_ns == (stamp_ns if kernel_stamps else clock_ns - 4 * MS)
    assert frame.image[0, 0].tolist() == [103, 102, 101]
    assert made[0].settings[cv2.CAP_PROP_EXPOSURE] == 40
    until(lambda: made[0].released)
    with pytest.raises(CameraLost, match="check the cable"):
        for _ in range(QUEUED):
            camera.read(LONG_S)
    camera.stop()


class DamagedCapture(FakeCapture):
    """A camera of whose pictures, counted from 1, some arrive damaged: grabbed, and not to be decoded."""

    def __init__(self, path: str, is_damaged: Callable[[int], bool]) -> None:
        super().__init__(path, lambda: 0.0)
        self.number, self._is_damaged = 0, is_damaged

    def grab(self) -> bool:
        self.number += 1
        return True

    def retrieve(self) -> tuple[bool, np.ndarray[Any, Any] | None]:
        if self._is_damaged(self.number):
            return False, None
        return True, np.full((4, 6, 3), (101, 102, 103), np.uint8)


def damaged_camera(tmp_path: Path, is_damaged: Callable[[int], bool]) -> GrabbingCamera:
    node = tmp_path / "video0"
    node.touch()
    cfg = camera_of("v4l2", str(node))
    source = V4l2Device(cfg, monotonic_ns, lambda path: DamagedCapture(path, is_damaged))
    return GrabbingCamera("v4l2", cfg, monotonic_ns, lambda: source)


@pytest.mark.parametrize(
    "is_damaged",
    [
        lambda number: number == 60,
        lambda number: number % 3 == 0,
        lambda number: number > 60 and number % 10,
        lambda number: 1 < number < MOST_DAMAGED,
    ],
    ids=["one", "each third", "nine of ten", "all of the first second but one"],
)
def test_damaged_pictures_are_left_out_and_counted_and_the_camera_goes_on(tmp_path: Path, is_damaged) -> None:
    camera = damaged_camera(tmp_path, is_damaged)
    camera.start()
    try:
        for _ in range(200):
            assert camera.read(LONG_S) is not None
        until(lambda: camera.report()["damaged"] >= 1)
        assert camera.health().state is State.OK
    finally:
        camera.stop()


def test_a_camera_of_which_every_picture_is_damaged_is_lost_and_says_so(tmp_path: Path) -> None:
    camera = damaged_camera(tmp_path, lambda number: number > 60)
    camera.start()
    try:
        with pytest.raises(CameraLost, match="only damaged pictures; check the cable"):
            while camera.read(LONG_S) is not None:
                pass
    finally:
        camera.stop()


# -- sim --


@contextmanager
def drawing(folder: Path, **world: Any) -> Iterator[tuple[Belt, SimCamera]]:
    cfg = WorldConfig.model_validate({"parts_per_s": 50.0, "counts_per_s": 10_000, **world})
    the_world = World.from_config(cfg)
    renderer = Renderer(the_world, 96, 64, folder / "camera.sock")
    renderer.start()
    camera = sim_camera(folder / "camera.sock")
    try:
        renderer.wait_ready()
        camera.start()
        yield the_world.belt, camera
    finally:
        camera.stop()
        renderer.stop()


def test_no_frame_comes_before_the_belt_moves_and_each_at_its_moment(tmp_path: Path) -> None:
    with drawing(tmp_path) as (belt, camera):
        until(lambda: camera.report()["prefetched"] >= 2)
        assert camera.read(0.0) is None
        belt.begin(monotonic_ns())
        for index in range(10):
            frame = camera.read(LONG_S)
            assert frame is not None
            assert frame.seq == index and frame.captured_ns == belt.eye_ns(index)
            assert frame.encoder == belt.eye_counts(index) % 2**32
            assert monotonic_ns() >= frame.captured_ns + frame.exposure_us * 1000


def test_dropped_frames_leave_holes_and_shift_nothing(tmp_path: Path) -> None:
    bad = {"drop_frames": 0.4}
    with drawing(tmp_path, bad_days=bad) as (belt, camera):
        belt.begin(monotonic_ns())
        frames = [camera.read(LONG_S) for _ in range(20)]
    world = World(belt, drop_frames=0.4)
    kept = [index for index in range(200) if world.has_frame(index)]
    seen = [frame.seq for frame in frames if frame]
    assert set(seen) <= set(kept) and len(seen) == 20 and seen[-1] > 22
    assert all(frame.encoder == belt.eye_counts(frame.seq) % 2**32 for frame in frames if frame)


def test_camera_that_stops_is_silent_for_its_parts_and_comes_back_when_reopened(tmp_path: Path) -> None:
    with drawing(tmp_path, bad_days={"camera_stops_at": 6, "camera_stops_for": 30}) as (belt, camera):
        belt.begin(monotonic_ns())
        before = [camera.read(LONG_S) for _ in range(5)]
        assert [frame.seq for frame in before if frame] == [0, 1, 2, 3, 4]
        assert camera.read(0.1) is None
        camera.stop()
        camera.start()
        frame = camera.read(LONG_S)
        assert frame is not None and frame.seq >= 35


def test_every_frame_dropped_is_a_quiet_day_and_not_a_busy_loop(tmp_path: Path) -> None:
    with drawing(tmp_path, bad_days={"drop_frames": 1.0}) as (belt, camera):
        belt.begin(monotonic_ns())
        assert camera.read(0.3) is None
        assert camera.health().state is State.OK


def test_camera_is_lost_when_its_line_ends_and_found_when_another_comes(tmp_path: Path) -> None:
    camera = sim_camera(tmp_path / "camera.sock")
    renderers: list[Renderer] = []
    try:
        for _ in range(2):
            renderer = Renderer(World(Belt(parts_per_s=50.0)), 96, 64, tmp_path / "camera.sock")
            renderers.append(renderer)
            renderer.start()
            renderer.wait_ready()
            camera.stop()
            camera.start()
            renderer.stop()
            with pytest.raises(CameraLost, match=r"has ended|broke off"):
                camera.read(LONG_S)
            assert camera.health().state is State.FAILED
    finally:
        camera.stop()
        for renderer in renderers:
            renderer.stop()


def test_frame_numbers_go_on_when_the_line_starts_from_its_beginning(tmp_path: Path) -> None:
    camera = sim_camera(tmp_path / "camera.sock")
    seqs = []
    for _ in range(2):
        world = World(Belt(parts_per_s=50.0))
        renderer = Renderer(world, 96, 64, tmp_path / "camera.sock")
        renderer.start()
        try:
            renderer.wait_ready()
            camera.start()
            world.belt.begin(monotonic_ns())
            seqs += [frame.seq for frame in (camera.read(LONG_S), camera.read(LONG_S)) if frame]
        finally:
            camera.stop()
            renderer.stop()
    assert len(seqs) == 4 and sorted(set(seqs)) == seqs


def test_something_else_behind_the_socket_is_told(tmp_path: Path) -> None:
    path = tmp_path / "camera.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)
        camera = sim_camera(path)

        def answer() -> None:
            with listener.accept()[0] as client:
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\nmore than a header's worth")

        server = threading.Thread(target=answer)
        server.start()
        with pytest.raises(DeviceError, match="not a simulated camera"):
            camera.start()
        server.join()
