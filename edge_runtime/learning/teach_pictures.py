"""Pictures of good parts: read from a folder, and varied the way parts and lamps vary."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import UsageError
from edge_runtime.core.manifest import InputSpec
from edge_runtime.features.image import shrink
from edge_runtime.features.picture_validity import odd_pictures
from edge_runtime.media.picture import SUFFIXES, PictureError, decode_picture, pictures_in

MOST_PICTURES = 150  # more teach nothing new; evenly spaced ones of a larger folder are taken
MAX_FILE_BYTES = 64 << 20
MEMORY_BYTES = 450_000_000  # for all pictures of a folder: 150 of a 1 megapixel camera as they are, 40 of four
LOOK_SIDE, ALIKE_LEVELS = 128, 0.5  # pictures no further apart at this size, on average, are copies or one part twice
SHIFT, TURN_DEGREES, ZOOM = 0.03, 1.5, 0.03  # how parts lie: share of the side, degrees, relative
GAIN, OFFSET = 0.15, 10.0  # how lamps age: relative, grey levels

Picture = NDArray[np.uint8]

MIRRORED: dict[str, Callable[[Picture], Picture]] = {
    "left to right": lambda picture: np.ascontiguousarray(picture[:, ::-1]),
    "upside down": lambda picture: np.ascontiguousarray(picture[::-1]),
    "both ways": lambda picture: np.ascontiguousarray(picture[::-1, ::-1]),
}


@dataclass(frozen=True, slots=True)
class Pictures:
    """A folder's readable pictures, and one line for each file that was left out."""

    images: list[Picture] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    digest: str = ""  # SHA-256 over the digests of the files that were read, in order of their names
    names: list[str] = field(default_factory=list)  # of the images

    def without_copies(self) -> Pictures:
        """Without those that show what another shows: a part that counts twice teaches that parts never differ.

        Copies that were saved again with losses are not told from shots of one part that lies still: many of either
        are told, and kept.
        """
        first: dict[bytes, int] = {}
        told, kept = [], []
        for number, image in enumerate(self.images):
            same = first.setdefault(_identity(image), number)
            if same == number:
                kept.append(number)
            else:
                told.append(f"{self.names[number]}: the same picture as {self.names[same]}")
        return self._only(kept, told + _much_alike([self.images[number] for number in kept]))

    def without_odd(self, spec: InputSpec | None) -> Pictures:
        """Without those that show nothing, or are nothing like the others under `spec`; each is told as skipped."""
        odd = odd_pictures(self.images, spec)
        kept = [number for number in range(len(self.images)) if number not in odd]
        told = [f"{self.names[number]}: {fault}" for number, fault in sorted(odd.items())]
        return self._only(kept, told)

    def _only(self, kept: Sequence[int], told: list[str]) -> Pictures:
        images, names = [self.images[number] for number in kept], [self.names[number] for number in kept]
        return Pictures(images, self.skipped + told, self.digest, names)


def load_pictures(folder: Path) -> Pictures:
    """Read at most MOST_PICTURES pictures of a folder, in order of their names, in at most MEMORY_BYTES: larger ones
    are shrunk as they are read. Raises UsageError when it has none."""
    try:
        files = pictures_in(folder)
    except OSError as err:
        raise UsageError(f"{folder}: cannot be read ({err.strerror or err})") from err
    if not files:
        raise UsageError(f"{folder}: no pictures ({', '.join(SUFFIXES)}) in this folder")
    taken = (
        [files[i * len(files) // MOST_PICTURES] for i in range(MOST_PICTURES)] if len(files) > MOST_PICTURES else files
    )
    images, names, skipped, digest = [], [], [], hashlib.sha256()
    for path in taken:
        try:
            content = _read(path)
            images.append(_bounded(decode_picture(content), MEMORY_BYTES // len(taken)))
            names.append(path.name)
            digest.update(hashlib.sha256(content).digest())
        except (OSError, PictureError) as err:
            skipped.append(f"{path.name}: {err}")
    if len(taken) < len(files):
        skipped.append(
            f"{len(files) - len(taken)} of {len(files)} pictures, {MOST_PICTURES} evenly spaced ones are enough"
        )
    return Pictures(images, skipped, digest.hexdigest(), names)


def variants(picture: Picture, mirrored: Sequence[str], jittered: int, rng: np.random.Generator) -> Iterator[Picture]:
    """The picture as it is, mirrored in the ways that are allowed, and moved and lit a little differently."""
    yield picture
    for way in mirrored:
        yield MIRRORED[way](picture)
    for _ in range(jittered):
        way = rng.choice(["", *mirrored])
        yield jitter(MIRRORED[way](picture) if way else picture, rng)


def jitter(picture: Picture, rng: np.random.Generator) -> Picture:
    """The same part a little elsewhere, under a little other light."""
    rows, columns = picture.shape[:2]
    turn, zoom = rng.uniform(-TURN_DEGREES, TURN_DEGREES), 1.0 + rng.uniform(-ZOOM, ZOOM)
    move = cv2.getRotationMatrix2D((columns / 2.0, rows / 2.0), turn, zoom)
    move[:, 2] += rng.uniform(-SHIFT, SHIFT, 2) * (columns, rows)
    moved = cv2.warpAffine(picture, move, (columns, rows), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    gain, offset = 1.0 + rng.uniform(-GAIN, GAIN), rng.uniform(-OFFSET, OFFSET)
    levels = np.clip(np.arange(256) * gain + offset, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(moved, levels))


def _bounded(image: Picture, most_bytes: int) -> Picture:
    factor = (most_bytes / image.nbytes) ** 0.5
    if factor >= 1.0:
        return image
    return np.ascontiguousarray(
        shrink(image, max(1, int(image.shape[1] * factor)), max(1, int(image.shape[0] * factor)))
    )


def _identity(image: Picture) -> bytes:
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()


def _much_alike(images: Sequence[Picture]) -> list[str]:
    """One line when most pictures are nearly the same as an earlier one."""
    seen: list[NDArray[np.int16]] = []
    count = 0
    for image in images:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        small = np.asarray(cv2.resize(grey, (LOOK_SIDE, LOOK_SIDE), interpolation=cv2.INTER_AREA), np.int16)
        count += any(float(np.abs(other - small).mean()) < ALIKE_LEVELS for other in seen)
        seen.append(small)
    if 2 * count < len(images):
        return []
    return [
        f"{count} of {len(images)} pictures are nearly the same as another: what parts may look like is learnt from few"
    ]


def _read(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise PictureError(f"{size >> 20} MB, at most {MAX_FILE_BYTES >> 20} MB are read")
    return path.read_bytes()
