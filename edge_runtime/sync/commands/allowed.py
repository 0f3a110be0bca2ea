"""The commands there are, and what each must look like. What is not here does not exist."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Proof(StrEnum):
    SIGNATURE = "signature"
    NONCE = "nonce"


@dataclass(frozen=True, slots=True)
class Argument:
    """One word of a command. `of`: the values it may have; `like`: what it must look like."""

    of: tuple[str, ...] = ()
    like: str = r"[A-Za-z0-9._@-]{1,128}"

    def fits(self, value: object) -> bool:
        if not isinstance(value, str):
            return False
        return value in self.of if self.of else re.fullmatch(self.like, value) is not None


# do -> its arguments, all of them needed
ALLOWED: Mapping[str, Mapping[str, Argument]] = {
    "status": {},
    "rebirth": {},
    "automation": {"degree": Argument(of=("human_only", "partial", "full"))},  # the box lets it go downwards only
    "stage": {"model": Argument()},
    "rollback": {},
    "evidence": {"part": Argument(like=r"[0-9a-fA-F]{4}-[0-9]{1,10}")},
}

UNSIGNED = ("automation", "rollback")  # what makes the box more careful, not less


@dataclass(frozen=True, slots=True)
class Order:
    """A command that is proven and well formed."""

    command: str  # its id, for the answer
    do: str
    args: Mapping[str, str]
    key: str  # who signed it; "nonce" where nobody had to


Handler = Callable[[Mapping[str, str]], Any]  # arguments -> JSON types; raises EdgeError
