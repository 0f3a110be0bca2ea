"""Picture files: what the header says, and the pixels. JPEG, PNG and BMP; sizes are checked before anything is decoded.

JPEG goes through simplejpeg, which releases the GIL and tells damage apart from end of file; a JPEG that stops in the
middle would otherwise become a picture with a grey lower half, and the grey half a verdict. PNG and BMP go through cv2,
which is silent about both, so their chunks and lengths are checked here.

What a file says of how it is to be seen is followed or refused, never passed over: a picture is turned as its Exif tag
wants it, the sixteen bits of a channel become eight, and a picture with transparent places is refused, because the
colours under them differ from file to file and no viewer shows them. A colour profile is not applied: a model learnt
from the numbers in the file, which is how every training program reads them.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from edge_runtime.core.errors import EdgeError
from edge_runtime.media.jpeg import decode_jpeg
from edge_runtime.media.orientation import orientation, turn

MAX_MEGAPIXELS = 64  # 192 MB as RGB; the largest industrial area cameras on such a box have 25
KINDS = "JPEG, PNG or BMP"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")

DEEP_FROM = 4096  # a 16-bit file whose brightest value is below holds 12 or 10 bits: which is white is not in it

_PNG = b"\x89PNG\r\n\x1a\n"
_GREY = 0  # colour type in its header
_BMP_BITFIELDS, _BMP_MASKS_END = 3, 66
_BMP_USUAL = {
    16: ((0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)),
    32: ((0xFF0000, 0xFF00, 0xFF),),
}  # red, green, blue


class PictureError(EdgeError):
    """This file is no picture that can be judged: look at the file."""


def decode_picture(content: bytes, notes: list[str] | None = None) -> NDArray[np.uint8]:
    """Pixels of a picture file as viewers show them, uint8 RGB (height, width, 3). Raises PictureError.

    notes: harmless damage that was passed over is added to it, in words.
    """
    width, height = picture_size(content)
    if width * height > MAX_MEGAPIXELS * 1_000_000:
        raise PictureError(
            f"{width}x{height} is {width * height / 1e6:.0f} megapixels, at most {MAX_MEGAPIXELS} are decoded"
        )
    if content.startswith(b"BM"):
        return _decode_other(content)
    pixels = _decode_jpeg(content, notes) if content.startswith(b"\xff\xd8") else _decode_other(content)
    return turn(pixels, orientation(content))


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder by name, in order. Raises OSError.

    Hidden ones are none: a Mac leaves a `._NAME.jpg` beside each file that it copies to a stick, with no picture in it.
    """
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def picture_size(content: bytes) -> tuple[int, int]:
    """Width and height as stored, before it is turned. Raises PictureError when it is none of the known kinds."""
    if not content:
        raise PictureError("the file is empty")
    try:
        if content.startswith(b"\xff\xd8"):
            height, width, _, _ = simplejpeg.decode_jpeg_header(content)
        elif content.startswith(_PNG):
            width, height = struct.unpack(">II", content[16:24])
        elif content.startswith(b"BM"):
            width, height = struct.unpack("<ii", content[18:26])
        else:
            raise PictureError(f"not a picture ({KINDS})")
    except (ValueError, struct.error) as err:
        raise PictureError(f"damaged picture, its header cannot be read ({err})") from err
    width, height = int(width), abs(int(height))  # a BMP stored top to bottom has a negative height
    if width < 1 or height < 1:
        raise PictureError(f"damaged picture, its header says {width}x{height}")
    return width, height


def _decode_jpeg(content: bytes, notes: list[str] | None) -> NDArray[np.uint8]:
    try:
        return decode_jpeg(content, notes)
    except (ValueError, MemoryError) as err:
        raise PictureError(f"damaged JPEG ({' '.join(str(err).split())})") from err


def _decode_other(content: bytes) -> NDArray[np.uint8]:
    is_png = content.startswith(_PNG)
    if is_png:
        _check_png(content)
    else:
        _check_bmp(content)
    # a BMP's fourth byte is padding, which most writers leave at 0: only PNG is asked for its alpha
    flags = cv2.IMREAD_UNCHANGED if is_png else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as err:
        raise PictureError(f"damaged picture ({' '.join(str(err).split())[:200]})") from err
    if pixels is None:
        raise PictureError("damaged picture, it cannot be decoded")
    pixels = np.asarray(pixels)
    if is_png and pixels.ndim == 2:
        _refuse_hidden_grey(content, pixels)
    return _as_rgb(_as_bytes(_opaque(pixels)))


def _opaque(pixels: NDArray[Any]) -> NDArray[Any]:
    """Without its alpha channel, where that hides nothing."""
    if pixels.ndim < 3 or pixels.shape[2] != 4:
        return pixels
    hidden = float(np.mean(pixels[..., 3] != np.iinfo(pixels.dtype).max))
    _refuse_hidden(hidden)
    return pixels[..., :3]


def _refuse_hidden_grey(content: bytes, pixels: NDArray[Any]) -> None:
    """One grey may stand for transparent (chunk tRNS), which cv2 passes over."""
    at, bits, colour = content.find(b"tRNS"), content[24], content[25]
    if colour == _GREY and 0 <= at < content.find(b"IDAT"):
        (grey,) = struct.unpack(">H", content[at + 4 : at + 6])
        _refuse_hidden(float(np.mean(pixels == (grey if bits >= 8 else grey * 255 // (2**bits - 1)))))


def _refuse_hidden(share: float) -> None:
    if share:
        raise PictureError(f"{share:.1%} of it is transparent, and what lies under that is not seen", "save it opaque")


def _as_bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    brightest = int(pixels.max())
    if brightest < DEEP_FROM:
        raise PictureError(
            f"16 bits a channel, of which the brightest value is {brightest}: which value is white cannot be known",
            "save it with 8 bits",
        )
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=255.0 / 65535.0), np.uint8)


def _as_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    code = cv2.COLOR_GRAY2RGB if pixels.ndim == 2 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(pixels, code), np.uint8)


def _check_bmp(content: bytes) -> None:
    """Whole, and its colours in an order that cv2 keeps: it takes red, green and blue from where they usually are."""
    if struct.unpack("<I", content[2:6])[0] > len(content):
        raise PictureError("damaged BMP, it ends early")
    if len(content) < _BMP_MASKS_END:
        return
    bits, packing = struct.unpack("<HI", content[28:34])
    masks = struct.unpack("<III", content[54:_BMP_MASKS_END])
    if packing == _BMP_BITFIELDS and masks not in _BMP_USUAL.get(bits, ()):
        places = ", ".join(f"{mask:x}" for mask in masks)
        raise PictureError(f"a BMP of {bits} bits with its colours in unusual places ({places})", "save it as PNG")


def _check_png(content: bytes) -> None:
    """Every chunk whole, its checksum right, and an end: libpng would fill what is missing with black."""
    at = len(_PNG)
    while at + 12 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        end = at + 8 + length
        kind = content[at + 4 : at + 8]
        if end + 4 > len(content):
            break
        if zlib.crc32(content[at + 4 : end]) != struct.unpack(">I", content[end : end + 4])[0]:
            raise PictureError("damaged PNG, a checksum is wrong")
        if kind == b"IEND":
            return
        at = end + 4
    raise PictureError("damaged PNG, it ends early")
