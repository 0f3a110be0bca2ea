"""Picture files: whole ones decode, damaged ones say so."""

import struct
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg

from edge_runtime.core.picture import PictureError, decode_picture, picture_size

IMAGE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8), (9, 9), 0)


def encoded(kind: str, image: np.ndarray = IMAGE) -> bytes:
    if kind == "jpg":
        return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=90)
    return cv2.imencode(f".{kind}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def png_that_claims(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = b"IEND"
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, end)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("kind", ["jpg", "png", "bmp"])
def test_whole_pictures_decode_to_rgb(kind):
    content = encoded(kind)
    assert picture_size(content) == (64, 48)
    pixels = decode_picture(content)
    assert pixels.shape == IMAGE.shape
    assert np.abs(pixels.astype(int) - IMAGE).mean() < (4 if kind == "jpg" else 0.01)


def test_one_pixel_is_a_picture():
    for kind in ("jpg", "png", "bmp"):
        assert decode_picture(encoded(kind, IMAGE[:1, :1])).shape == (1, 1, 3)


@pytest.mark.parametrize("kind", ["jpg", "png", "bmp"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.98])
def test_cut_off_pictures_are_damaged_not_grey(kind, share):
    content = encoded(kind)
    with pytest.raises(PictureError, match=r"damaged|not a picture"):
        decode_picture(content[: max(4, int(len(content) * share))])


def test_png_with_a_flipped_byte_is_damaged():
    content = bytearray(encoded("png"))
    content[len(content) // 2] ^= 4
    with pytest.raises(PictureError, match="checksum"):
        decode_picture(bytes(content))


@pytest.mark.parametrize("content", [b"", b"hello", b"GIF89a......", b"\xff\xd8", b"BM", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_refused(content):
    with pytest.raises(PictureError):
        decode_picture(content)


def test_a_picture_that_is_too_large_is_refused_before_decoding():
    with pytest.raises(PictureError, match="11600x8700 is 101 megapixels, at most 64 are decoded"):
        decode_picture(png_that_claims(11600, 8700))
    with pytest.raises(PictureError, match="at most 64"):
        decode_picture(png_that_claims(2**31 - 1, 2**31 - 1))


def test_random_damage_never_gets_out_as_another_error():
    generator = np.random.default_rng(1)
    for kind in ("jpg", "png", "bmp"):
        content = encoded(kind)
        for _ in range(100):
            damaged = bytearray(content)
            for _ in range(int(generator.integers(1, 20))):
                damaged[int(generator.integers(len(damaged)))] = int(generator.integers(256))
            try:
                decode_picture(bytes(damaged))
            except PictureError:
                pass
