"""What a model file does not say: told by options, known from the file, asked of a person, or taken by convention.

Everything that was settled is kept with where it came from, for the report and the card: whoever reads the bundle later
must see which of its numbers somebody knew and which were assumed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edge_runtime.core.errors import UsageError
from edge_runtime.core.manifest import Kind


@dataclass(frozen=True, slots=True)
class Told:
    """What the options said; empty where they said nothing. labels, defects and good are names."""

    name: str = ""
    version: str = ""
    title: str = ""
    licence: str = ""
    kind: Kind | None = None
    boxes: str = ""
    signature: str = ""
    size: tuple[int, int] | None = None  # width, height
    labels: tuple[str, ...] = ()
    labels_from: str = ""
    defects: tuple[str, ...] = ()
    good: tuple[str, ...] = ()
    normalise: str = ""
    colour: str = ""
    fit: str = ""
    activation: str = ""
    box_unit: str = ""
    least_pixels: int | None = None
    confidence: float | None = None
    accept_below: float | None = None
    reject_at: float | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """about: what is not known, as a noun. why: why it is asked and how to find out. default: what a person is offered.
    is_convention: the default holds for nearly every model, so it is taken where nobody can be asked, and noted. check:
    raises UsageError for an answer that is none, so that a person is asked again."""

    option: str
    about: str
    why: str
    default: str
    choices: tuple[str, ...] = ()
    is_convention: bool = False
    check: Callable[[str], object] = str


@dataclass(frozen=True, slots=True)
class Answer:
    about: str
    value: str
    whence: str

    def __str__(self) -> str:
        return f"{self.about}: {self.value} ({self.whence})"


Ask = Callable[[Question], str]


@dataclass(slots=True)
class Desk:
    """Where questions are settled. ask: puts one to a person; None where nobody is there."""

    ask: Ask | None = None
    answers: list[Answer] = field(default_factory=list)
    missing: list[Question] = field(default_factory=list)

    def settle(self, question: Question, told: str = "", known: str = "", whence: str = "in the file") -> str:
        """The answer: told by an option, else known, else asked, else the convention.

        What is missing answers its default for now; `refuse_missing` then names all of it at once.
        """
        if told:
            return self.note(question.about, told, f"told by {question.option}")
        if known:
            return self.note(question.about, known, whence)
        if self.ask is not None:
            return self.note(question.about, self.ask(question), "answered")
        if question.is_convention:
            return self.note(question.about, question.default, f"assumed, {question.option} says otherwise")
        self.missing.append(question)
        return question.default

    def note(self, about: str, value: str, whence: str) -> str:
        self.answers.append(Answer(about, value, whence))
        return value

    def refuse_missing(self, what: str) -> None:
        """Raise UsageError that names every option to give. what: the file."""
        if not self.missing:
            return
        lacking = "; ".join(f"{question.about} ({question.why})" for question in self.missing)
        fixes = ", ".join(_how_to_give(question) for question in self.missing)
        raise UsageError(f"{what} does not say: {lacking}", f"give {fixes}; or run it on a terminal to be asked")


def _how_to_give(question: Question) -> str:
    return f"{question.option} {'|'.join(question.choices)}" if question.choices else question.option
