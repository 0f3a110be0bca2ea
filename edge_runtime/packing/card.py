"""CARD.md of a packed bundle: what it is, what somebody knew of it, what was assumed, and how it judged the samples."""

from __future__ import annotations

from collections.abc import Sequence

from edge_runtime.packing.answers import Answer
from edge_runtime.packing.facts import Facts
from edge_runtime.packing.limits import Limit
from edge_runtime.packing.plan import Plan


def card(
    label: str, file_name: str, facts: Facts, plan: Plan, answers: Sequence[Answer], limit: Limit | None, judged: int
) -> str:
    """The text. judged: how many samples the model judged."""
    notes = facts.notes
    about = "\n".join(filter(None, (notes.title, notes.description, f"By {notes.author}." if notes.author else "")))
    settled = "\n".join(f"| {_cell(one.about)} | {_cell(one.value)} | {_cell(one.whence)} |" for one in answers)
    return f"""# {label}: packed from {_cell(file_name)}

A {plan.kind} model that was trained elsewhere. Nothing about its training was checked here; its file is
`{facts.sha256}` (SHA-256) and ran on {facts.runtime} when it was packed.

{about or "The file says nothing about who made it."}

## What was settled, and by whom
| | | |
|---|---|---|
{settled}

## How it judged samples
{_figures(limit, judged)}

## Not for
Other parts, another camera or another light than those of the samples. Figures from few samples are told with their
interval: believe its worse end.
"""


def _figures(limit: Limit | None, judged: int) -> str:
    if limit is None:
        what = (
            f"{judged} samples were judged, of which nobody said whether they are good" if judged else "None were given"
        )
        return f"{what}. How many good parts it rejects and how many bad ones it misses is unknown."
    lines = "\n".join(f"- {sentence}" for sentence in limit.sentences())
    return f"At the limit {limit.at:g} it\n{lines}\n\nIntervals: Clopper and Pearson (1934); see `packing/limits.py`."


def _cell(text: str) -> str:
    """Text from a foreign file must not break out of its cell."""
    return " ".join(text.replace("|", "/").replace("`", "'").split())[:300]
