"""What a caller may do, and who the caller is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """One right each. `view < operate < maintain` are rungs of people; `predict` stands beside them, for machines."""

    VIEW = "view"  # look: state, parts, pictures
    OPERATE = "operate"  # what an operator does: label, acknowledge, hold the line
    MAINTAIN = "maintain"  # what a technician does: models, settings, tests
    PREDICT = "predict"  # ask models


_RUNGS = (Role.VIEW, Role.OPERATE, Role.MAINTAIN)
EVERYTHING = frozenset(Role)


def up_to(role: Role) -> frozenset[Role]:
    """The role and those below it: who maintains may operate and view."""
    return frozenset(_RUNGS[: _RUNGS.index(role) + 1]) if role in _RUNGS else frozenset({role})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. name: as the audit has it. by: how that was recognised (`token`, `loopback`, `session`)."""

    name: str
    by: str
    roles: frozenset[Role]

    def may(self, role: Role) -> bool:
        return role in self.roles
