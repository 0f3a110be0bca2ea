"""Picture files: whole ones decode, damaged ones say so."""

import struct
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg

from edge_runtime.media.picture import PictureError, decode_picture, picture_size, pictures_in

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


# -- what a file says of how it is to be seen -----------------------------------------------------------------------


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def exif(value: int, order: str = ">", kind: int = 3, tag: int = 0x0112) -> bytes:
    head = (b"MM" if order == ">" else b"II") + struct.pack(f"{order}HI", 42, 8)
    others = struct.pack(f"{order}HHIHH", 0x010F, 3, 1, 7, 0)  # a directory has more than one entry
    return head + struct.pack(f"{order}H", 2) + others + struct.pack(f"{order}HHIHH", tag, kind, 1, value, 0) + bytes(4)


def with_exif(content: bytes, tiff: bytes) -> bytes:
    if content.startswith(b"\xff\xd8"):
        body = b"Exif\x00\x00" + tiff
        return content[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + content[2:]
    end = 8 + 25  # signature and IHDR
    return content[:end] + chunk(b"eXIf", tiff) + content[end:]


@pytest.mark.parametrize("kind", ["jpg", "png"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("value", range(1, 9))
def test_a_picture_is_turned_as_opencv_turns_it(kind, order, value):
    content = with_exif(encoded(kind), exif(value, order))
    witness = with_exif(encoded("jpg"), exif(value, order))  # of PNG, OpenCV reads the tag only in some builds
    expected = cv2.cvtColor(cv2.imdecode(np.frombuffer(witness, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    pixels = decode_picture(content)
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < 4


@pytest.mark.parametrize(
    "tiff", [b"", b"MM", exif(0), exif(9), exif(6, kind=4), exif(6, tag=0x0113), exif(6)[:20], b"XX" + exif(6)[2:]]
)
def test_a_tag_that_makes_no_sense_turns_nothing(tiff):
    for kind in ("jpg", "png"):
        assert decode_picture(with_exif(encoded(kind), tiff)).shape == IMAGE.shape


def test_transparent_pictures_are_refused_and_opaque_ones_are_not():
    opaque = np.dstack([IMAGE, np.full(IMAGE.shape[:2], 255, np.uint8)])
    assert (decode_picture(png(opaque)) == IMAGE[..., ::-1]).all()
    for share in (1, 40):  # rows that are not quite opaque
        hidden = opaque.copy()
        hidden[:share, :, 3] = 254
        with pytest.raises(PictureError, match="is transparent"):
            decode_picture(png(hidden))


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def made_png(colour_type: int, rows: list[bytes], *extra: bytes) -> bytes:
    """4 columns, 8 bits."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, len(rows), 8, colour_type, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\x00" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + pixels + chunk(b"IEND", b"")


def test_grey_with_alpha_is_refused_where_it_hides_something():
    assert decode_picture(made_png(4, [bytes([90, 255] * 4)]))[0, 0].tolist() == [90, 90, 90]
    with pytest.raises(PictureError, match="transparent"):
        decode_picture(made_png(4, [bytes([90, 0] * 4)]))


def test_palette_with_transparent_entries_is_refused():
    rows, palette = [bytes([0, 1, 0, 1])] * 4, chunk(b"PLTE", bytes([200, 0, 0, 0, 200, 0]))
    assert decode_picture(made_png(3, rows, palette))[0, 0].tolist() == [200, 0, 0]
    with pytest.raises(PictureError, match=r"50\.0% of it is transparent"):
        decode_picture(made_png(3, rows, palette, chunk(b"tRNS", b"\x00")))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_grey_that_stands_for_transparent_is_refused_where_it_is_used(bits):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0))
    row = b"".join(struct.pack(">H", 257 * n) for n in range(30, 38)) if bits == 16 else bytes(range(0xA0, 0xA0 + bits))
    rest = chunk(b"IDAT", zlib.compress(b"\x00" + row)) + chunk(b"IEND", b"")
    used, unused = (257 * 33, 77) if bits == 16 else (0xA0, 1) if bits == 8 else (0xA >> (4 - bits), None)
    with pytest.raises(PictureError, match="is transparent"):
        decode_picture(b"\x89PNG\r\n\x1a\n" + header + chunk(b"tRNS", struct.pack(">H", used)) + rest)
    if unused is not None:
        decode_picture(b"\x89PNG\r\n\x1a\n" + header + chunk(b"tRNS", struct.pack(">H", unused)) + rest)


def bmp(bits: int, pixels: np.ndarray, masks: tuple[int, int, int] | None = None) -> bytes:
    """pixels: rows from the top, as stored."""
    body, extra = pixels.tobytes(), struct.pack("<III", *masks) if masks else b""
    height, width = pixels.shape[:2]
    head = struct.pack("<IiiHHIIiiII", 40, width, -height, 1, bits, 3 if masks else 0, len(body), 0, 0, 0, 0)
    start = 14 + len(head) + len(extra)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head + extra + body


def packed(*places: int) -> np.ndarray:
    """IMAGE with five or six bits a colour, red, green and blue shifted to these places; or with eight, from 255 on."""
    return sum((IMAGE[..., n].astype(np.uint32) >> (3, 2 if places[0] == 11 else 3, 3)[n]) << at for n, at in
               enumerate(places)).astype("<u2")  # fmt: skip


@pytest.mark.parametrize(
    ("content", "within"),
    [
        (bmp(16, packed(10, 5, 0)), 5),
        (bmp(16, packed(11, 5, 0), (0xF800, 0x7E0, 0x1F)), 5),
        (bmp(32, np.dstack([IMAGE[..., ::-1], np.zeros(IMAGE.shape[:2], np.uint8)])), 0.01),
        (
            bmp(32, np.dstack([IMAGE[..., ::-1], np.zeros(IMAGE.shape[:2], np.uint8)]), (0xFF0000, 0xFF00, 0xFF)),
            0.01,
        ),
    ],
    ids=["16 bits", "16 bits, 565", "32 bits", "32 bits, with masks"],
)
def test_bitmaps_of_every_depth_show_their_colours(content, within):
    assert np.abs(decode_picture(content).astype(int) - IMAGE).mean() < within


@pytest.mark.parametrize("masks", [(0xFF, 0xFF00, 0xFF0000), (0xFF000000, 0xFF0000, 0xFF00)])
def test_a_bitmap_with_its_colours_elsewhere_is_refused_not_seen_in_others(masks):
    with pytest.raises(PictureError, match="unusual places"):
        decode_picture(bmp(32, np.dstack([IMAGE, np.zeros(IMAGE.shape[:2], np.uint8)]), masks))


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_become_eight(channels):
    deep = np.linspace(0, 65535, 48 * 64 * channels).astype(np.uint16).reshape(48, 64, channels)
    pixels = decode_picture(png(deep[..., 0] if channels == 1 else deep))
    assert pixels.dtype == np.uint8 and pixels.shape == (48, 64, 3)
    assert np.abs(pixels[..., ::-1] * 257.0 - deep).max() <= 257


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_few_bits_in_a_sixteen_bit_file_are_refused_not_judged_as_a_dark_part(bits):
    deep = np.linspace(0, 2**bits - 1, 48 * 64).astype(np.uint16).reshape(48, 64)
    with pytest.raises(PictureError, match=f"brightest value is {2**bits - 1}"):
        decode_picture(png(deep))


def test_hidden_files_are_no_pictures_of_a_folder(tmp_path):
    for name in ("b.jpg", "a.PNG", "c.bmp"):
        (tmp_path / name).write_bytes(encoded(name[-3:].lower()))
        (tmp_path / f"._{name}").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(4072))
    (tmp_path / "d.jpg").mkdir()
    (tmp_path / ".DS_Store").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    assert [path.name for path in pictures_in(tmp_path)] == ["a.PNG", "b.jpg", "c.bmp"]


# -- harmless damage ---------------------------------------------------------------------------------------------------


def with_restarts(seed: int) -> bytes:
    """A JPEG whose blocks come in short stretches with a restart marker behind each."""
    noise = np.random.default_rng(seed).integers(0, 255, (64, 96, 3), np.uint8)
    return cv2.imencode(".jpg", cv2.GaussianBlur(noise, (9, 9), 3), [cv2.IMWRITE_JPEG_RST_INTERVAL, 4])[1].tobytes()


def markers(content: bytes) -> list[int]:
    """Where a stretch of blocks ends."""
    ends = {*range(0xD0, 0xD8), 0xD9}
    return [at for at in range(len(content) - 1) if content[at] == 0xFF and content[at + 1] in ends]


@pytest.mark.parametrize("stray", [b"\x00", b"\x5a\xa5", b"\x01\x02\x03", b"\xaa" * 8], ids=len)
def test_stray_bytes_before_any_marker_cost_no_pixel_and_are_told(stray):
    content = with_restarts(3)
    whole = decode_picture(content)
    told = []
    for at in markers(content):
        assert np.array_equal(decode_picture(content[:at] + stray + content[at:], told), whole)
    assert all("stray bytes" in note for note in told)
    assert len(stray) < 3 or len(told) >= 3  # a decoder may take one or two in unseen, and does not look behind the end


def test_stray_bytes_in_two_places_are_left_out_and_in_many_are_damage():
    content = with_restarts(3)
    places = markers(content)
    for count in (2, len(places)):
        spoilt = content
        for at in reversed(places[:count]):
            spoilt = spoilt[:at] + b"\x01\x02\x03" + spoilt[at:]
        if count == 2:
            assert np.array_equal(decode_picture(spoilt), decode_picture(content))
        else:
            with pytest.raises(PictureError, match="extraneous bytes"):
                decode_picture(spoilt)


def test_what_is_missing_is_never_mended():
    content = with_restarts(3)
    first, second = markers(content)[:2]
    for spoilt in (
        content[: len(content) // 2],
        content[:first] + content[second:],
        content[:first] + content[first + 2 :],
    ):
        with pytest.raises(PictureError, match="damaged JPEG"):
            decode_picture(spoilt)


def test_many_strays_are_more_than_a_camera_leaves():
    content = with_restarts(3)
    at = markers(content)[0]
    with pytest.raises(PictureError, match="extraneous bytes"):
        decode_picture(content[:at] + bytes(range(1, 100)) + content[at:])
