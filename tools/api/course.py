"""What the courses share: each step is a call, a claim about what it gives, and a line of the result.

For any Python that has the peer: standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

PASSED = "passed"


class Course:
    """results: [call, "passed" or what went wrong], in order."""

    def __init__(self) -> None:
        self.results: list[tuple[str, str]] = []

    def step(self, name: str, call: Callable[[], Any], claim: Callable[[Any], Any] = lambda _: True) -> None:
        try:
            said = call()
            self.results.append((name, PASSED if claim(said) else f"said {str(said)[:200]}"))
        except Exception as err:  # whatever a client raises is a result
            self.results.append((name, f"{type(err).__name__}: {str(err)[:200]}"))

    def refused(self, name: str, call: Callable[[], Any], word: str) -> None:
        """The server says no in words, and the client hands them on."""
        try:
            call()
            self.results.append((name, "was not refused"))
        except Exception as err:
            self.results.append((name, PASSED if word in str(err) else f"{type(err).__name__}: {str(err)[:200]}"))

    def tell(self) -> int:
        """Print them; the exit code."""
        print(json.dumps(self.results))
        return 0 if self.results and all(result == PASSED for _, result in self.results) else 1
