import wave
from datetime import UTC, datetime

import numpy as np
import pytest

from edge_runtime.core.clock import ManualClock
from edge_runtime.core.messages import Utterance
from edge_runtime.recording.clips import ClipShelf
from edge_runtime.recording.retention import Retention

UTTERANCE = Utterance(5, 10, 16_000, np.arange(160, dtype=np.int16), 300)


@pytest.fixture
def today():
    return [datetime(2026, 5, 10, 12, 0, tzinfo=UTC)]


def test_a_clip_is_a_wav_file_that_can_be_read_back(tmp_path, today):
    name = ClipShelf(tmp_path, 7, Retention(tmp_path, ManualClock()), lambda: today[0]).keep(UTTERANCE)
    with wave.open(str(tmp_path / name)) as file:
        assert (file.getframerate(), file.getnchannels()) == (16_000, 1)
        assert np.frombuffer(file.readframes(160), "<i2").tolist() == UTTERANCE.pcm.tolist()


def test_a_disk_that_refuses_costs_the_clip_only(tmp_path, today):
    (tmp_path / "clips").write_text("in the way")
    shelf = ClipShelf(tmp_path, 7, Retention(tmp_path, ManualClock()), lambda: today[0])
    assert shelf.keep(UTTERANCE) == ""
    assert shelf.report() == {"refused": 1}
