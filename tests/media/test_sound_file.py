"""Sound files: every layout of WAV gives the same samples, other rates the same sound, and bad files a sentence."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.media.sound_file import SoundError, open_sound, read_sound, resample
from edge_runtime.media.wav_samples import sample_bytes

RATE = 16_000


def tone(rate, hz=440.0, seconds=1.0, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def wav(pcm, rate=RATE, bits=16, channels=1, is_float=False, extensible=False):
    """A WAV file's bytes; the second and further channels are noise."""
    if is_float:
        one = np.frombuffer(pcm.astype("<f4").tobytes(), np.uint8).reshape(-1, 4)
    elif bits == 8:
        one = np.rint(pcm * 127 + 128).clip(0, 255).astype(np.uint8).reshape(-1, 1)
    else:
        whole = np.rint(pcm.astype(np.float64) * (2 ** (bits - 1) - 1)).astype(np.int64) << (32 - bits)
        one = np.frombuffer(whole.astype("<i4").tobytes(), np.uint8).reshape(-1, 4)[:, 4 - bits // 8 :]
    noise = np.random.default_rng(1).integers(0, 256, (len(one), channels - 1, one.shape[1]), np.uint8)
    content = np.concatenate([one[:, None], noise], axis=1).tobytes()
    tag, align = (3 if is_float else 1), channels * bits // 8
    fmt = struct.pack("<HHIIHH", 0xFFFE if extensible else tag, channels, rate, rate * align, align, bits)
    if extensible:
        fmt += struct.pack("<HHIH", 22, bits, 0, tag) + bytes(14)
    extra = b"LIST" + struct.pack("<I", 5) + b"hello\0"  # odd chunks are padded
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(fmt)) + fmt + extra
    body += b"data" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("bits", "is_float", "error"),
    [(8, False, 0.01), (16, False, 1e-4), (24, False, 1e-6), (32, False, 1e-6), (32, True, 0)],
)
@pytest.mark.parametrize(("channels", "extensible"), [(1, False), (2, False), (8, True)])
def test_every_layout_gives_the_first_channel(tmp_path, bits, is_float, error, channels, extensible):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(tone(RATE), bits=bits, is_float=is_float, channels=channels, extensible=extensible))
    sound = read_sound(path, RATE)
    assert sound.channels == channels
    assert sound.pcm.dtype == np.float32
    assert np.abs(sound.pcm - tone(RATE)).max() <= error


def channels_of(*sounds, rate=RATE, bits=16):
    """A WAV file with these channels."""
    whole = np.rint(np.stack(sounds, axis=1).astype(np.float64) * (2 ** (bits - 1) - 1)).astype(np.int64) << (32 - bits)
    kept = np.frombuffer(whole.astype("<i4").tobytes(), np.uint8).reshape(-1, 4)[:, 4 - bits // 8 :]
    align = len(sounds) * bits // 8
    fmt = struct.pack("<HHIIHH", 1, len(sounds), rate, rate * align, align, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", kept.size) + kept.tobytes()
    return b"RIFF" + struct.pack("<I", len(body)) + body


RNG = np.random.default_rng(1)
DEAD = {
    "zeros": np.zeros(RATE),
    "an offset": np.full(RATE, -0.1),
    "dither": RNG.integers(-1, 2, RATE) / 32768,
    "a pop and zeros": np.where(np.arange(RATE) < 200, 0.5 * RNG.normal(size=RATE).clip(-1, 1), 0.0),
}


@pytest.mark.parametrize("dead", DEAD)
@pytest.mark.parametrize("bits", [16, 24])
@pytest.mark.parametrize("place", [1, 3])
def test_a_channel_that_is_not_plugged_in_is_passed_over(tmp_path, dead, bits, place):
    sounds = [DEAD[dead]] * 4
    sounds[place] = tone(RATE)
    (tmp_path / "a.wav").write_bytes(channels_of(*sounds, bits=bits))
    assert np.abs(read_sound(tmp_path / "a.wav", RATE).pcm - tone(RATE)).max() <= 1e-4


@pytest.mark.parametrize("first", ["quiet", "late", "with pauses"])
def test_a_first_channel_that_lives_is_taken_however_loud_the_others_are(tmp_path, first):
    sounds = {"quiet": RNG.normal(0, 3 / 32768, RATE), "late": tone(RATE) * (np.arange(RATE) > 0.4 * RATE),
              "with pauses": tone(RATE) * (np.arange(RATE) % 4000 < 2400)}  # fmt: skip
    (tmp_path / "a.wav").write_bytes(channels_of(sounds[first], RNG.normal(0, 0.2, RATE).clip(-1, 1)))
    assert np.abs(read_sound(tmp_path / "a.wav", RATE).pcm - sounds[first]).max() <= 1e-4


def test_who_checks_a_file_hears_it_at_its_own_rate(tmp_path):
    told = []
    (tmp_path / "a.wav").write_bytes(channels_of(np.zeros(48_000), tone(48_000), rate=48_000))
    read_sound(tmp_path / "a.wav", RATE, heard=lambda block, rate_hz: told.append((block, rate_hz)))
    ((block, rate_hz),) = told
    assert rate_hz == 48_000 and np.abs(block - tone(48_000)).max() <= 1e-4


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000])
def test_another_rate_is_the_same_sound(tmp_path, rate):
    (tmp_path / "a.wav").write_bytes(wav(tone(rate), rate=rate))
    sound = read_sound(tmp_path / "a.wav", RATE)
    assert abs(sound.seconds - 1.0) < 1e-3
    middle = slice(1000, 15_000)
    assert np.abs(sound.pcm[middle] - tone(RATE)[: len(sound.pcm)][middle]).max() < 2e-3


def test_what_the_lower_rate_cannot_hold_does_not_fold_back():
    assert np.abs(resample(tone(48_000, hz=9500), 48_000, RATE)[500:-500]).max() < 2e-3


def test_long_files_come_in_blocks(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(tone(8000, seconds=65), rate=8000))
    _, blocks = open_sound(tmp_path / "a.wav", 8000)
    assert [len(block) for block in blocks] == [240_000, 240_000, 40_000]


def test_a_recording_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(tone(RATE))[:20_000])
    assert 0.5 < read_sound(tmp_path / "a.wav", RATE).seconds < 0.65


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"hello world, this is text", "not a sound file"),
        (wav(tone(RATE))[:40], "damaged WAV"),
        (wav(np.zeros(0, np.float32)), "without samples"),
        (wav(tone(RATE), rate=100), "rate of 100 Hz"),
        (wav(np.full(100, np.nan, np.float32), bits=32, is_float=True), "no numbers"),
        (b"fLaC" + bytes(50), "damaged|library soundfile"),
    ],
)
def test_bad_files_are_told_in_a_sentence(tmp_path, content, says):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(SoundError, match=says):
        read_sound(path, RATE)


def test_folders_absent_and_endless_files_are_refused(tmp_path):
    for path, says in ((tmp_path, "a folder"), (tmp_path / "no.wav", "no such file")):
        with pytest.raises(SoundError, match=says):
            read_sound(path, RATE)
    (tmp_path / "a.wav").write_bytes(wav(tone(RATE, seconds=3)))
    with pytest.raises(SoundError, match="longer than 2 s"):
        read_sound(tmp_path / "a.wav", RATE, most_s=2.0)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_does_worse_than_a_sound_error(tmp_path_factory, data):
    content = bytearray(wav(tone(RATE, seconds=0.01), channels=2))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, 80))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.wav"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        assert np.isfinite(read_sound(path, RATE).pcm).all()
    except SoundError as err:
        assert str(path) in str(err)


# -- headers that lost count ------------------------------------------------------------------------------------------

LIST = b"LIST" + struct.pack("<I", 4) + b"abcd"


def told(length, content=None):
    """The file, its data chunk saying `length`."""
    content = bytearray(content or wav(tone(RATE)))
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", length)
    return bytes(content)


@pytest.mark.parametrize("length", [0, 0xFFFF_FFFF, 0x7FFF_FFFF, 32_002])
@pytest.mark.parametrize("bits", [16, 24])
def test_a_recorder_that_never_finished_its_header_is_read_to_the_end(tmp_path, length, bits):
    (tmp_path / "a.wav").write_bytes(
        told(length if length != 32_002 or bits == 16 else 48_003, wav(tone(RATE), bits=bits))
    )
    assert read_sound(tmp_path / "a.wav", RATE).seconds == 1.0


@pytest.mark.parametrize("after", [b"", b"\0", LIST, LIST + LIST, b"TAG" + bytes(125), bytes(4096), b"id3 " + bytes(4)])
def test_what_follows_the_samples_is_no_sound(tmp_path, after):
    (tmp_path / "a.wav").write_bytes(wav(tone(RATE)) + after)
    sound = read_sound(tmp_path / "a.wav", RATE)
    assert sound.seconds == 1.0 and np.abs(sound.pcm - tone(RATE)).max() < 1e-4


def test_no_samples_but_chunks_are_no_samples(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(np.zeros(0, np.float32)) + LIST)
    with pytest.raises(SoundError, match="without samples"):
        read_sound(tmp_path / "a.wav", RATE)


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.99])
def test_a_count_that_leaves_sound_over_is_told_not_believed(tmp_path, share):
    (tmp_path / "a.wav").write_bytes(told(int(16_000 * share) * 2))
    with pytest.raises(SoundError, match=r"tells of \d+ bytes of samples, and \d+ more follow"):
        read_sound(tmp_path / "a.wav", RATE)


@pytest.mark.parametrize("over", [44_100 * 2, 7_000_000 * 4])
@pytest.mark.parametrize("after", [b"", LIST], ids=["nothing", "chunks"])
@pytest.mark.parametrize("turns", [1, 2])
def test_a_recording_past_four_gigabytes_is_counted_whole(tmp_path, over, after, turns):
    head = told(over, wav(np.ones(100, np.float32)))
    start = head.index(b"data") + 8
    path = tmp_path / "long.wav"
    with path.open("wb") as file:  # a sparse file: it takes a few pages of the disk
        file.write(head)
        file.seek(start + over)
        file.write(b"\x01\x80\x03\x90" * 20_000)  # what follows the wrapped count is sound
        file.truncate(start + turns * 2**32 + over)
        file.seek(0, 2)
        file.write(after)
    size = path.stat().st_size
    with path.open("rb") as file:
        assert sample_bytes(file, start, over, size) == turns * 2**32 + over


# -- forms of other recorders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [b"RF64", b"BW64"])
@pytest.mark.parametrize("after", [b"", LIST])
def test_a_long_wav_says_its_length_elsewhere(tmp_path, mark, after):
    content = wav(tone(RATE))
    body = struct.pack("<QQQI", 0, 2 * RATE, RATE, 0)
    ds64 = b"ds64" + struct.pack("<I", len(body)) + body
    at = content.index(b"data") + 4
    content = content[:at] + b"\xff\xff\xff\xff" + content[at + 4 :]
    (tmp_path / "a.wav").write_bytes(mark + b"\xff\xff\xff\xffWAVE" + ds64 + content[12:] + after)
    sound = read_sound(tmp_path / "a.wav", RATE)
    assert sound.seconds == 1.0 and np.abs(sound.pcm - tone(RATE)).max() < 1e-4


@pytest.mark.parametrize("text", [b"hello", b"hi1", b"x"])
def test_an_odd_chunk_that_was_not_padded_costs_nothing(tmp_path, text):
    content = wav(tone(RATE))
    at, end = content.index(b"LIST"), content.index(b"data")
    content = content[:at] + b"LIST" + struct.pack("<I", len(text)) + text + content[end:]
    (tmp_path / "a.wav").write_bytes(content)
    assert np.abs(read_sound(tmp_path / "a.wav", RATE).pcm - tone(RATE)).max() < 1e-4


def test_samples_in_several_chunks_are_not_taken_for_those_of_the_first(tmp_path):
    content = wav(tone(RATE))
    (tmp_path / "a.wav").write_bytes(content + b"data" + struct.pack("<I", 2 * RATE) + bytes(2 * RATE))
    with pytest.raises(SoundError, match="in several chunks"):
        read_sound(tmp_path / "a.wav", RATE)


@pytest.mark.parametrize(("scale", "is_read"), [(1, True), (8, True), (127, False), (32767, False), (2**31, False)])
def test_floats_of_another_scale_are_told(tmp_path, scale, is_read):
    (tmp_path / "a.wav").write_bytes(wav(tone(RATE) * np.float32(scale), bits=32, is_float=True))
    if is_read:
        assert read_sound(tmp_path / "a.wav", RATE).seconds == 1.0
    else:
        with pytest.raises(SoundError, match="full scale is 1"):
            read_sound(tmp_path / "a.wav", RATE)


@pytest.mark.parametrize(("tag", "bits"), [(3, 64), (7, 8), (6, 8), (0x11, 4), (0x55, 0), (1, 12), (2, 4)])
def test_coded_samples_are_refused_by_their_number_and_with_the_fix(tmp_path, tag, bits):
    content = bytearray(wav(tone(RATE)))
    content[20:22], content[34:36] = struct.pack("<H", tag), struct.pack("<H", bits)
    (tmp_path / "a.wav").write_bytes(bytes(content))
    with pytest.raises(SoundError, match=f"format {tag} with {bits} bits; save it as 16 bit PCM"):
        read_sound(tmp_path / "a.wav", RATE)
