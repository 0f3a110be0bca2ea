"""What learning on the box has in common, whatever is learnt: the next version of a name, and what was left out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edge_runtime.core.errors import UsageError
from edge_runtime.core.manifest import Kind
from edge_runtime.modelstore.store import ModelStore


def next_version(name: str, store: ModelStore, kind: Kind) -> str:
    """The version that a model learnt now gets. Raises UsageError for a wrong name, or one of another kind's model."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        raise UsageError(f"{name!r} is no name for a model: small letters, digits and ._- (at most 64)")
    known = [stored for stored in store.list() if stored.name == name]
    for stored in known[:1]:
        there = store.resolve(stored.label, verify=False).manifest.kind
        if there is not kind:
            verb = "teach" if kind is Kind.ANOMALY else "learn"
            raise UsageError(f"{stored.label} is a model of kind {there} already; {verb} under another name")
    numbers = [int(stored.version) for stored in known if stored.version.isdigit()]
    return str(max(numbers, default=0) + 1)


def first_of(skipped: Sequence[str]) -> str:
    """The first of what was left out and how many more, for the end of a sentence; empty without any."""
    return f" (left out: {skipped[0]}{f' and {len(skipped) - 1} more' if len(skipped) > 1 else ''})" if skipped else ""
