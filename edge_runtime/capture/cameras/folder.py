"""Driver "folder": real pictures as parts. Each trigger takes the next file of a folder, sorted by name.

For trying a model on recorded pictures, and for teaching without a camera. A thread of its own reads and decodes ahead,
so that decoding is not in the latency, and simplejpeg gives the interpreter lock up meanwhile. A file that cannot be
decoded uses up its trigger: that part has no frame, as on a day on which the camera failed. At the end it starts again,
unless told otherwise, with the files that lie there then.

A folder on a share that hangs blocks whoever reads in it. The thread that hangs there is left behind when the camera is
stopped, and what it still brings is nobody's; the line opens the camera again until the folder answers.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_runtime.capture.cameras.camera import CameraLost
from edge_runtime.config.schema import CameraConfig
from edge_runtime.core.clock import MS, SECOND, Clock
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.messages import Frame, PartKey, Trigger
from edge_runtime.core.wording import counted, printable
from edge_runtime.flow.components import Health, State
from edge_runtime.media.picture import KINDS, PictureError, decode_picture, pictures_in

log = logging.getLogger(__name__)

END_WITHIN_S = 1.0
AHEAD = 3  # pictures decoded ahead
WAITING_TRIGGERS = 64  # more than may be under way; past it the oldest part goes without a picture
MAX_FILE_BYTES = 400_000_000  # a BMP of the largest size that is decoded is half of it


class _Picture(NamedTuple):
    """A file that was read, and what it shows; None: it could not be decoded."""

    file: str
    image: NDArray[np.uint8] | None


class _Shot(NamedTuple):
    """A part that was triggered and waits for its picture."""

    key: PartKey
    exposed_ns: int


def open_camera(cfg: CameraConfig, clock: Clock) -> FolderCamera:
    return FolderCamera(cfg, clock)


def find_camera(cfg: CameraConfig) -> str:
    return f"{len(_list_pictures(cfg))} pictures in {cfg.folder.path}"


class FolderCamera:
    """Pictures of a folder, one for each trigger."""

    pairs_by = "part"

    def __init__(self, cfg: CameraConfig, clock: Clock, loops: bool = True) -> None:
        self.name = cfg.name
        self._cfg, self._clock, self._loops = cfg, clock, loops
        self._folder = Path(cfg.folder.path).expanduser()
        self._delay_ns = round(cfg.delay_ms * MS)
        self._changed = threading.Condition()
        self._files: list[Path] = []
        self._ready: deque[_Picture] = deque()
        self._shots: deque[_Shot] = deque(maxlen=WAITING_TRIGGERS)
        self._is_running = self._is_at_end = False
        self._thread: threading.Thread | None = None
        self._next_file = 0
        self._is_decoding = False  # a file that counts as read already
        self._bad: dict[Path, str] = {}
        self._mended: set[Path] = set()  # read all the same, with something left out
        self._seq = -1
        self._delivered = 0
        self._progress_ns: int | None = None

    def start(self) -> None:
        if self._is_running:
            return
        self._files = _list_pictures(self._cfg)
        self._ready.clear()
        self._shots.clear()
        self._is_running, self._is_at_end = True, False
        self._next_file %= len(self._files)
        self._progress_ns = self._clock()
        self._thread = threading.Thread(target=self._decode_ahead, name=f"{self.name}-decode", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._is_running = False
            self._changed.notify_all()
            thread, self._thread = self._thread, None
        is_left_behind = False
        if thread is not None:
            thread.join(END_WITHIN_S)
            is_left_behind = thread.is_alive()
        if is_left_behind:
            log.warning("picture thread left behind camera=%s folder=%s", self.name, self._folder)
        with self._changed:
            # What was decoded and not shown is shown first after a restart; what nobody could read is passed over.
            self._next_file -= len(self._ready) + (self._is_decoding and not is_left_behind)
            self._is_decoding = False
            self._ready.clear()

    def health(self) -> Health:
        if not self._is_running:
            return Health(State.STOPPED)
        bad = list(self._bad)  # a copy in one go: the decoding thread changes it
        if bad:
            detail = f"{counted(len(bad), 'unreadable picture')} in {self._folder}: {printable(bad[-1].name)}"
            return Health(State.DEGRADED, detail, self._progress_ns)
        return Health(State.OK, f"{counted(len(self._files), 'picture')} in {self._folder}", self._progress_ns)

    def report(self) -> Mapping[str, Any]:
        return {
            "driver": "folder",
            "frames": self._delivered,
            "pictures": len(self._files),
            "unreadable": len(self._bad),
            "mended": len(self._mended),
            "waiting_triggers": len(self._shots),
        }

    def trigger(self, trigger: Trigger) -> None:
        with self._changed:
            if self._is_running:
                self._shots.append(_Shot(trigger.key, self._clock() + self._delay_ns))
                self._changed.notify_all()

    def read(self, timeout_s: float) -> Frame | None:
        give_up_ns = self._clock() + round(timeout_s * SECOND)
        with self._changed:
            while True:
                self._progress_ns = now_ns = self._clock()
                if not self._is_running:
                    return None
                if self._shots and self._ready:
                    frame = self._show(self._shots.popleft(), self._ready.popleft())
                    self._changed.notify_all()
                    if frame is not None:
                        return frame
                elif self._is_at_end and not self._ready:
                    raise CameraLost(f"camera '{self.name}': all {len(self._files)} pictures have been shown")
                elif now_ns >= give_up_ns:
                    return None
                else:
                    self._changed.wait((give_up_ns - now_ns) / SECOND)

    def _show(self, shot: _Shot, picture: _Picture) -> Frame | None:
        self._seq += 1
        if picture.image is None:
            return None
        self._delivered += 1
        exposure_us = self._cfg.exposure_us
        return Frame(
            self.name, self._seq, shot.exposed_ns, exposure_us, picture.image, part=shot.key, file=picture.file
        )

    def _decode_ahead(self) -> None:
        """Outermost loop of the decoding thread."""
        me = threading.current_thread()
        while True:
            with self._changed:
                while self._thread is me and len(self._ready) >= AHEAD:
                    self._changed.wait()
                if self._thread is not me:
                    return
                if self._next_file >= len(self._files) and not self._loops:
                    self._is_at_end = True
                    self._changed.notify_all()
                    return
                is_round_over = self._next_file > 0 and self._next_file % len(self._files) == 0
            if is_round_over:
                self._look_again()
            with self._changed:
                if self._thread is not me:
                    return
                path = self._files[self._next_file % len(self._files)]
                self._next_file += 1
                self._is_decoding = True
            picture = _Picture(printable(path.name), self._decode(path))
            with self._changed:
                if self._thread is not me:  # left behind: a successor reads from here on
                    return
                self._is_decoding = False
                self._ready.append(picture)
                self._changed.notify_all()

    def _look_again(self) -> None:
        """At the end of a round: files may have come, or gone. The ones of before where the folder cannot be read."""
        try:
            files = _list_pictures(self._cfg)
        except (DeviceError, OSError) as err:
            log.warning("folder unreadable folder=%s %s", self._folder, err)
            return
        if files == self._files:
            return
        log.info("folder changed folder=%s pictures=%d before=%d", self._folder, len(files), len(self._files))
        with self._changed:
            if self._thread is threading.current_thread():
                self._files, self._next_file = files, 0
                gone = set(self._bad) - set(files)
                self._bad = {path: why for path, why in self._bad.items() if path not in gone}

    def _decode(self, path: Path) -> NDArray[np.uint8] | None:
        try:
            notes: list[str] = []
            image = decode_picture(_read(path), notes)
        except (PictureError, OSError, MemoryError) as err:
            self._complain(path, str(err))
            return None
        except Exception as err:
            log.exception("picture failed file=%s", path)
            self._complain(path, f"{type(err).__name__}: {err}")
            return None
        self._bad.pop(path, None)
        if notes and path not in self._mended:
            self._mended.add(path)
            log.warning("picture mended file=%s %s", path, "; ".join(notes))
        image.flags.writeable = False
        return image

    def _complain(self, path: Path, why: str) -> None:
        if path not in self._bad:
            log.warning("picture unreadable file=%s why=%s", path, why)
        self._bad[path] = why


def _list_pictures(cfg: CameraConfig) -> list[Path]:
    folder = Path(cfg.folder.path).expanduser()
    if not cfg.folder.path:
        raise DeviceError("camera.folder.path is empty", "set it to a folder of pictures")
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DeviceError(f"camera.folder.path = '{folder}' {what}", "set it to a folder of pictures")
    try:
        found = pictures_in(folder)
    except OSError as err:
        raise DeviceError(f"camera.folder.path = '{folder}' cannot be read: {err.strerror}") from err
    if not found:
        raise DeviceError(f"no pictures in '{folder}' ({KINDS})", "set camera.folder.path")
    return found


def _read(path: Path) -> bytes:
    """A regular file's bytes. A pipe under a picture's name is refused: opening one would wait for its writer."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise PictureError("no regular file")
        if about.st_size > MAX_FILE_BYTES:
            raise PictureError(f"{about.st_size / 1e6:.0f} MB is no picture of a part")
        return file.read()
