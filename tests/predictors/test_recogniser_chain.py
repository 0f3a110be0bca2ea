"""Who is asked what an utterance is, in which order, and for how long anybody is waited for."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.core.clock import ManualClock
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.messages import Command, Utterance
from edge_runtime.inference.speech_answer import SpeechAnswer, Transcript
from edge_runtime.predictors.keyword import open_keyword_model
from edge_runtime.predictors.recogniser_chain import SURE_SYMBOLS, InOrder, KeywordRecogniser, as_transcript, symbols
from tests.lines.voice_rig import burst, golden, keyword_bundle, quiet

SPEECH = Utterance(0, 1, 16_000, np.zeros(16_000, np.int16), 300)
NOTHING = Transcript("", 0.0, None, "own")
UNSURE = Transcript("alpha seven", 0.6, None, "own")
CODE = Transcript("alpha seven four two", 0.6, None, "own")


class Own:
    def __init__(self, command=None, spelled=NOTHING, clock=None, takes_ms=0):
        self._command, self._spelled, self._clock, self._takes_ms = command, spelled, clock, takes_ms

    def command(self, utterance):
        return self._command

    def spelled(self, utterance):
        if self._clock:
            self._clock.advance_ms(self._takes_ms)
        return self._spelled


class Other:
    def __init__(self, label, answer, share_s=0.2, may_command=True):
        self.label, self._answer, self.share_s, self.may_command = label, answer, share_s, may_command
        self.log = []

    def begin(self, utterance):
        self.log.append("begin")
        if self._answer == "away":
            raise DeviceError("not here")

    def answer(self, timeout_s):
        self.log.append(round(timeout_s, 3))
        if isinstance(self._answer, Exception):
            raise self._answer
        return SpeechAnswer(self._answer, 0.8, self.label)

    def drop(self):
        self.log.append("drop")

    def report(self):
        return {}


def hear(own, *others, clock=None):
    order = InOrder(own, others, clock or ManualClock())
    return order(SPEECH), order.report()


def test_a_command_goes_to_nobody_else():
    stop = Transcript("stop line", 0.9, Command.STOP_LINE, "own")
    other = Other("remote", "something")
    said, counts = hear(Own(stop), other)
    assert (said, other.log, counts["own.command"]) == (stop, [], 1)


def test_a_code_that_is_sure_waits_for_nobody():
    other = Other("remote", "something")
    said, counts = hear(Own(spelled=CODE), other)
    assert (said, other.log, counts["own.spelled"]) == (CODE, ["begin", "drop"], 1)


def test_the_first_that_understands_is_believed():
    server, grammar = Other("remote", "grease"), Other("grammar", "oil drop")
    said, counts = hear(Own(spelled=UNSURE), server, grammar)
    assert (said.text, said.origin) == ("grease", "remote")
    assert grammar.log == ["begin", "drop"]
    assert counts["remote.answered"] == 1 and counts["own.spelled"] == 0


def test_who_understands_nothing_passes_it_on():
    said, counts = hear(Own(spelled=UNSURE), Other("remote", " ?! "), Other("grammar", "oil drop"))
    assert said.text == "oil drop"
    assert counts["remote.nothing"] == 1


@pytest.mark.parametrize("trouble", ["away", DeviceError("no answer in time")], ids=["away", "late"])
def test_without_the_others_the_own_answer_counts(trouble):
    said, counts = hear(Own(spelled=UNSURE), Other("remote", trouble))
    assert said == UNSURE
    assert counts["own.spelled"] == 1
    assert counts.get("remote.unavailable", 0) + counts.get("remote.unanswered", 0) == 1


def test_what_the_own_work_took_is_taken_off_the_share():
    clock = ManualClock()
    slow = Other("remote", "grease", share_s=0.2)
    hear(Own(clock=clock, takes_ms=150), slow, clock=clock)
    late = Other("remote", "grease", share_s=0.2)
    hear(Own(clock=clock, takes_ms=500), late, clock=clock)
    assert (slow.log, late.log) == (["begin", 0.05], ["begin", 0.0])


def test_a_command_counts_only_from_those_who_may():
    said, _ = hear(Own(), Other("remote", "Reject."))
    assert said.command is Command.REJECT
    said, counts = hear(Own(spelled=UNSURE), Other("grammar", "reject", may_command=False))
    assert (said, counts["grammar.nothing"]) == (UNSURE, 1)


@pytest.mark.parametrize(
    ("text", "plain", "command"),
    [
        ("Stop line!", "stop line", Command.STOP_LINE),
        ("  reject it ", "reject it", None),
        ("Código A-742", "código a-742", None),
        ("\x00\n", "", None),
    ],
)
def test_texts_from_elsewhere_are_made_plain(text, plain, command):
    said = as_transcript(SpeechAnswer(text, 7.0, "x"))
    assert (said.text, said.command, said.confidence) == (plain, command, 1.0)


def test_a_confidence_that_is_no_number_is_none():
    assert as_transcript(SpeechAnswer("a", float("nan"), "x")).confidence == 0.0


def test_symbols_are_counted_without_the_announcement():
    assert (symbols("code alpha seven"), symbols("grease"), symbols("")) == (2, 0, 0)


# -- the shipped bundle ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own():
    return KeywordRecogniser(open_keyword_model(keyword_bundle()))


def utterance(pcm):
    return Utterance(0, 1, 16_000, np.asarray(pcm, np.int16), 300)


def test_the_bundle_knows_commands_from_codes(own):
    bundle = keyword_bundle()
    said = own.command(utterance(golden(bundle, "stop_line")))
    assert said is not None and said.command is Command.STOP_LINE
    assert own.command(utterance(golden(bundle, "seven"))) is None
    assert own.spelled(utterance(golden(bundle, "seven"))).text == "seven"


def test_a_code_is_spelled(own):
    bundle = keyword_bundle()
    parts = [part for word in ("alpha", "seven", "seven") for part in (golden(bundle, word)[4000:-4000], quiet(0.1))]
    said = own.spelled(utterance(np.concatenate(parts)))
    assert said.text == "alpha seven seven"
    assert said.command is None and said.confidence >= 0.5


def test_silence_is_nothing(own):
    for pcm in (quiet(1.0), np.zeros(100)):
        assert own.command(utterance(pcm)) is None
        assert own.spelled(utterance(pcm)).text == ""


def test_a_burst_of_noise_is_no_command_and_no_sure_code(own):
    pcm = np.concatenate([quiet(0.3), burst(), quiet(0.3)])
    assert own.command(utterance(pcm)) is None
    assert symbols(own.spelled(utterance(pcm)).text) < SURE_SYMBOLS
