"""From an utterance to what was said: who is asked, in which order, and how long anybody is waited for.

The box's own keyword bundle is asked first, because it is quick and a command must not wait: `stop line` goes to nobody
else. What is no command goes to a speech server where the station allows it, and to the grammar where it is installed;
both work in other processes while the bundle spells. A code that the bundle is sure of counts at once: it spells better
than the grammar does (at 20 dB 93 % of codes against 72). Everybody else has a share of the time; what they do not
answer in it, the bundle has answered by then.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from edge_runtime.catalogue.spoken import CODE_WORD, SYMBOLS
from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.core.errors import EdgeError
from edge_runtime.core.messages import Command, Utterance
from edge_runtime.inference.speech_answer import SpeechAnswer, Transcript
from edge_runtime.predictors.keyword import KeywordModel

log = logging.getLogger(__name__)

COMMANDS: Mapping[str, Command] = {command.value: command for command in Command}
LEAST_SPELLED = 0.5  # of a code; a third of other human speech passes here, most of it without it
LEAST_SINGLE = 0.8  # of one symbol alone, which other speech is taken for more easily
SURE_SYMBOLS = 3  # with these, one in six of other speech passes, and all codes do


class OwnWords(Protocol):
    """The box's own recogniser. It always answers."""

    def command(self, utterance: Utterance) -> Transcript | None:
        """The one command that the utterance is, or None."""

    def spelled(self, utterance: Utterance) -> Transcript:
        """What is spelled in it; an empty text when nothing is."""


class Asked(Protocol):
    """Something in another process that answers text for sound: a grammar, a server."""

    @property
    def label(self) -> str: ...

    @property
    def may_command(self) -> bool:
        """Whether a command that it hears, and the box's own bundle does not, is one."""

    @property
    def share_s(self) -> float:
        """How long it is waited for."""

    def begin(self, utterance: Utterance) -> None:
        """Hand the sound over. Does not wait for the answer. Raises EdgeError when it cannot be had now."""

    def answer(self, timeout_s: float) -> SpeechAnswer:
        """Raises EdgeError when there is none in time; the late one is dropped."""

    def drop(self) -> None:
        """Nobody waits for this answer any more."""

    def report(self) -> Mapping[str, Any]: ...


class KeywordRecogniser:
    """Our own bundle: one command said alone, or a code spelled in words."""

    def __init__(self, model: KeywordModel) -> None:
        self._model = model
        self._spelling = [word for word in model.words if word in SYMBOLS or word == CODE_WORD]

    def command(self, utterance: Utterance) -> Transcript | None:
        said = self._model.hear(utterance.pcm, COMMANDS)
        return None if said is None else Transcript(said.word, said.score, COMMANDS[said.word], self._model.label)

    def spelled(self, utterance: Utterance) -> Transcript:
        words = self._model.spell(utterance.pcm, self._spelling)
        said = Transcript(
            " ".join(word.word for word in words),
            min((word.score for word in words), default=0.0),
            None,
            self._model.label,
        )
        least = LEAST_SPELLED if symbols(said.text) > 1 else LEAST_SINGLE
        return said if said.text and said.confidence >= least else Transcript("", 0.0, None, said.origin)


class InOrder:
    """See the module. For the voice thread; `report` may be called from others."""

    def __init__(self, own: OwnWords, others: Sequence[Asked], clock: Clock) -> None:
        """others: the most trusted first."""
        self._own = own
        self._others = others
        self._clock = clock
        self._counts: Counter[str] = Counter()

    def __call__(self, utterance: Utterance) -> Transcript:
        command = self._own.command(utterance)
        if command is not None:
            self._counts["own.command"] += 1
            return command
        began_ns = self._clock()
        waiting = [asked for asked in self._others if self._begin(asked, utterance)]
        spelled = self._own.spelled(utterance)
        said = spelled if symbols(spelled.text) >= SURE_SYMBOLS else None
        for asked in waiting:
            if said is None:
                said = self._answer(asked, began_ns)
            else:
                asked.drop()
        self._counts["own.spelled"] += said is None or said is spelled
        return spelled if said is None else said

    def report(self) -> Mapping[str, Any]:
        return {**self._counts, **{asked.label: dict(asked.report()) for asked in self._others}}

    def _begin(self, asked: Asked, utterance: Utterance) -> bool:
        try:
            asked.begin(utterance)
        except EdgeError as err:
            self._counts[f"{asked.label}.unavailable"] += 1
            log.info("voice.unavailable by=%s %s", asked.label, err)
            return False
        return True

    def _answer(self, asked: Asked, began_ns: int) -> Transcript | None:
        """None when it did not answer, or understood nothing."""
        left_s = asked.share_s - (self._clock() - began_ns) / SECOND
        try:
            answer = asked.answer(max(0.0, left_s))
        except EdgeError as err:
            self._counts[f"{asked.label}.unanswered"] += 1
            log.warning("voice.unanswered by=%s %s", asked.label, err)
            return None
        said = as_transcript(answer)
        is_taken = bool(said.text) and (said.command is None or asked.may_command)
        self._counts[f"{asked.label}.answered" if is_taken else f"{asked.label}.nothing"] += 1
        return said if is_taken else None


def symbols(text: str) -> int:
    """How many symbols of a code a text spells; the word that announces it is none."""
    return sum(word in SYMBOLS for word in text.split())


def as_transcript(answer: SpeechAnswer) -> Transcript:
    """A text from elsewhere: a command when it is one word for word, else something to search for."""
    letters = (letter if letter.isalnum() or letter == "-" else " " for letter in answer.text.lower())
    plain = " ".join("".join(letters).split())
    return Transcript(plain, min(1.0, max(0.0, answer.confidence)), COMMANDS.get(plain), answer.origin)
