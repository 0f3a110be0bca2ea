"""The spoken grammar: what it takes, a real search in the child process, and a child that dies or hangs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.catalogue.spoken import DIGITS, LETTERS
from edge_runtime.core.clock import ManualClock, monotonic_ns
from edge_runtime.core.errors import DeviceError, ModelError
from edge_runtime.core.messages import Utterance
from edge_runtime.inference import grammar as grammar_module
from edge_runtime.inference.grammar import AGAIN_NS, STUCK_NS, Grammar, confidence, fits, is_installed
from edge_runtime.inference.grammar_words import (
    MOST_PHRASES,
    GrammarWords,
    every_word,
    is_whole,
    jsgf,
    phrases_of,
    shapes_of,
)
from edge_runtime.media.sound_file import read_sound
from tests.lines.voice_rig import burst, quiet
from tests.support.waiting import until

LONG_S = 60.0
WORDS = GrammarWords(LETTERS, DIGITS, ("LDDD", "LDD"), ("display glass", "grease", "oil drop"))


def test_shapes_are_the_commonest_ones_of_the_catalogue():
    assert shapes_of(["A742", "A743", "D01", "W-10", "TOO-LONG-TO-SPELL"]) == ("LDDD", "LDD", "L-DD")
    assert shapes_of([]) == ("LDDD", "LDD")


def test_names_are_said_with_their_numbers_and_without():
    assert phrases_of(["Display glass 6.1 inch", "front glass", " "], DIGITS) == (
        "display glass six point one inch",
        "display glass",
        "front glass",
    )


def test_the_grammar_holds_what_the_dictionary_knows():
    words = GrammarWords(("alpha", "qqq"), ("one", "two"), ("LD", "L-D"), ("grease", "grease xyzzy"))
    has = {"alpha", "one", "two", "grease", "code", "dash"}
    text = jsgf(words, dict.fromkeys(has))
    assert "public <request> = [code] <letter> <digit> | [code] <letter> [<dash>] <digit> | <phrase>;" in text
    assert "<letter> = alpha;" in text and "<phrase> = grease;" in text
    assert every_word(words, dict.fromkeys(has)) == has


def test_a_grammar_without_letters_has_no_codes():
    assert "<digit>;" not in jsgf(GrammarWords(("qqq",), ("one",), ("LD",), ("one",)), {"one": 1}).split("<phrase>")[0]


@given(st.lists(st.text(max_size=30), max_size=30))
def test_any_name_makes_a_grammar_of_plain_words(names):
    phrases = phrases_of(names, DIGITS)
    text = jsgf(GrammarWords(LETTERS, DIGITS, ("LD",), phrases), {w: 1 for p in phrases for w in p.split()})
    assert all(character.isascii() for character in text)
    assert text.count(";") == 2 + text.count("\n<") + 1


def test_a_catalogue_of_many_names_is_cut_off():
    words = GrammarWords(LETTERS, DIGITS, ("LD",), tuple(f"glass {word}" for word in map(_word, range(2000))))
    has = {word: 1 for phrase in words.phrases for word in phrase.split()}
    assert jsgf(words, has).count(" | glass") < MOST_PHRASES


def _word(number: int) -> str:
    return "".join(chr(97 + int(digit)) for digit in str(number))


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("display glass", True),
        ("display", False),
        ("code alpha seven four two", True),
        ("alpha seven four", True),
        ("alpha seven", False),
        ("seven four two", False),
        ("", False),
    ],
)
def test_only_whole_phrases_count(text, is_one):
    assert is_whole(text, WORDS) is is_one


def test_what_fits_the_phone_loop_far_better_was_not_said():
    said = {"text": "grease", "margin": -1.0, "silence": 0.1, "unheard": 0.0}
    assert fits(said)
    assert not fits(said | {"margin": -4.0})
    assert not fits(said | {"silence": 0.8})
    assert not fits(said | {"unheard": 0.5})
    assert not fits(said | {"text": ""})
    assert confidence(-5.0) < 0.1 < 0.49 < confidence(-2.0) < 0.51 < 0.9 < confidence(-1.0) <= 1.0


def test_without_pocketsphinx_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(grammar_module, "PACKAGE", "no_such_package")
    with pytest.raises(ModelError, match=r"edge-runtime\[voice-search\]"):
        Grammar(lambda: WORDS, lambda: 0, 0.2, monotonic_ns)


# -- the real child ---------------------------------------------------------------------------------------------------


def said(pcm) -> Utterance:
    return Utterance(0, len(pcm) * 62_500, 16_000, np.asarray(pcm, np.int16), 300)


SPEECH = said(np.concatenate([quiet(0.3), burst(), quiet(0.3)]))


class Version:
    def __init__(self):
        self.number = 0


@pytest.fixture
def version():
    return Version()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def grammar(version, clock):
    if not is_installed():
        pytest.skip("pocketsphinx is not installed: pip install 'edge-runtime[voice-search]'")
    grammar = Grammar(lambda: WORDS, lambda: version.number, 0.2, clock)
    grammar.start()
    yield grammar
    grammar.stop()


def begin(grammar, utterance=SPEECH):
    """Once the models are loaded. The grammar's clock stands still meanwhile."""

    def has_begun() -> bool:
        try:
            grammar.begin(utterance)
        except DeviceError as err:
            assert "still" in str(err), err
            return False
        return True

    until(has_begun, LONG_S, grammar.report)


def test_speech_that_is_none_of_the_words_is_rejected(grammar):
    begin(grammar)
    answer = grammar.answer(LONG_S)
    assert (answer.text, answer.origin) == ("", "grammar")
    assert grammar.report()["rejected"] == 1


def test_quiet_is_no_phrase(grammar):
    for _ in range(2):
        begin(grammar, said(quiet(0.8)))
        assert grammar.answer(LONG_S).text == ""


def test_a_child_that_died_is_started_again(grammar, clock):
    begin(grammar)
    grammar.answer(LONG_S)
    first = grammar.pid
    os.kill(first, signal.SIGKILL)
    with pytest.raises(DeviceError):
        for _ in range(3):  # it may still take the sound before it is known to be dead
            grammar.begin(SPEECH)
            grammar.answer(LONG_S)
    clock.advance_ms(AGAIN_NS / 1e6 + 1)
    begin(grammar)
    assert grammar.answer(LONG_S).text == ""
    assert grammar.pid != first
    assert grammar.report()["starts"] == 2


def test_a_child_that_hangs_is_late_then_busy_then_replaced(grammar, clock):
    begin(grammar)
    grammar.answer(LONG_S)
    os.kill(grammar.pid, signal.SIGSTOP)
    first = grammar.pid
    grammar.begin(SPEECH)
    began = time.monotonic()
    with pytest.raises(DeviceError, match="in time"):
        grammar.answer(0.0)
    assert time.monotonic() - began < 5.0
    with pytest.raises(DeviceError, match="before"):
        grammar.begin(SPEECH)
    clock.advance_ms(STUCK_NS / 1e6 + 1)
    begin(grammar)
    assert grammar.answer(LONG_S).text == ""
    assert grammar.pid != first
    assert grammar.report()["stuck"] == 1


def test_a_late_answer_is_not_the_next_ones(grammar):
    begin(grammar)
    with pytest.raises(DeviceError, match="in time"):
        grammar.answer(0.0)
    begin(grammar, said(quiet(0.6)))
    grammar.answer(LONG_S)
    assert grammar.report()["late"] == 1


def test_a_changed_catalogue_is_taken_up(grammar, version, clock):
    begin(grammar)
    grammar.answer(LONG_S)
    version.number = 1
    clock.advance_ms(AGAIN_NS / 1e6 + 1)
    begin(grammar)
    grammar.answer(LONG_S)
    assert (grammar.report()["catalogue_changed"], grammar.report()["starts"]) == (1, 2)


def test_another_rate_is_refused(grammar):
    with pytest.raises(DeviceError, match="16000 Hz"):
        grammar.begin(Utterance(0, 1, 48_000, np.zeros(10, np.int16), 300))


def test_stop_is_safe_twice_and_ends_the_child(grammar):
    pid = grammar.pid
    grammar.stop()
    grammar.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(DeviceError, match="nothing was asked"):
        grammar.answer(0.1)


@pytest.mark.parametrize(
    ("sentence", "text"),
    [
        ("display glass", "display glass"),
        ("oil drop", "oil drop"),
        ("please call the supervisor", ""),
        ("what time is it now", ""),
    ],
)
def test_names_of_the_catalogue_are_heard_and_sentences_are_not(grammar, tmp_path, sentence, text):
    flite = shutil.which("flite")
    if flite is None:
        pytest.skip("no flite to speak: apt install flite")
    subprocess.run([flite, "-voice", "slt", "-t", sentence, "-o", str(tmp_path / "said.wav")], check=True)
    spoken = np.rint(read_sound(tmp_path / "said.wav", 16_000).pcm * 32767)
    begin(grammar, said(np.concatenate([quiet(0.3), spoken, quiet(0.3)])))
    answer = grammar.answer(LONG_S)
    assert answer.text == text
    assert (answer.confidence > 0.5) is bool(text)
