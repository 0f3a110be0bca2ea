import os

import numpy as np
import pytest

from edge_runtime.actuation.beeper import TONES, Beeper, tone


@pytest.mark.parametrize("sound", TONES)
def test_a_tone_is_short_quiet_and_fits_a_pipe(sound):
    samples = np.frombuffer(tone(sound), "<i2")
    assert 0.05 < len(samples) / 16_000 < 0.5
    assert 5000 < np.abs(samples).max() < 12_000
    assert samples[0] == 0 and abs(int(samples[-1])) < 500
    assert len(tone(sound)) < 65_536


def test_what_is_played_reaches_the_player(tmp_path, monkeypatch):
    player = tmp_path / "aplay"
    player.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/words\ncat > {tmp_path}/sound\n')
    player.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    beeper = Beeper("plughw:1")
    beeper.play("done")
    beeper._player.wait(timeout=20)
    assert (tmp_path / "sound").read_bytes() == tone("done")
    assert "plughw:1" in (tmp_path / "words").read_text()
    beeper.stop()


def test_a_missing_player_costs_the_sound_only(monkeypatch):
    monkeypatch.setenv("PATH", "")
    beeper = Beeper("default")
    beeper.play("open")
    assert beeper.report() == {"played": 0, "failed": 1}


def test_without_a_speaker_nothing_is_started():
    beeper = Beeper("")
    beeper.play("open")
    assert beeper.report() == {"played": 0, "failed": 0}
