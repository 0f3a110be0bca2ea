"""Which assertions there are, which of them apply, and how each came out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PASSED, FAILED, NOT_APPLICABLE, NOT_TESTED = "passed", "failed", "not_applicable", "not_tested"
MOST_REASONS = 3  # of one assertion; the hundredth gap in a sequence says nothing new


@dataclass(frozen=True, slots=True)
class Assertion:
    name: str  # without "tck-id-"
    applies: str
    text: str


@dataclass(frozen=True, slots=True)
class Result:
    assertion: Assertion
    result: str
    reasons: tuple[str, ...] = ()


def assertions() -> list[Assertion]:
    lines = Path(__file__).with_name("assertions.tsv").read_text(encoding="utf-8").splitlines()
    return [Assertion(*line.split("\t")) for line in lines if line and not line.startswith("#")]


class Tally:
    """Collects what was seen. A name that the list of assertions does not have is a mistake of the checker."""

    def __init__(self) -> None:
        self._known = {assertion.name: assertion for assertion in assertions()}
        self._passed: set[str] = set()
        self._failed: dict[str, list[str]] = {}
        self.features: set[str] = {"always"}

    def check(self, holds: bool, names: str, why: str) -> bool:
        """names: assertions, separated by spaces, that this one look decides together. Returns `holds`."""
        for name in names.split():
            if name not in self._known:
                raise KeyError(name)
            if holds:
                self._passed.add(name)
            elif len(reasons := self._failed.setdefault(name, [])) < MOST_REASONS:
                reasons.append(why)
        return holds

    def results(self) -> list[Result]:
        return [self._result(assertion) for assertion in self._known.values()]

    def _result(self, assertion: Assertion) -> Result:
        if assertion.name in self._failed:
            return Result(assertion, FAILED, tuple(self._failed[assertion.name]))
        if assertion.name in self._passed:
            return Result(assertion, PASSED)
        applies = assertion.applies in self.features
        return Result(assertion, NOT_TESTED if applies else NOT_APPLICABLE)


def count(results: Iterable[Result]) -> dict[str, int]:
    counts = dict.fromkeys((PASSED, FAILED, NOT_APPLICABLE, NOT_TESTED), 0)
    for result in results:
        counts[result.result] += 1
    return counts
