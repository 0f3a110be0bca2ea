"""A person at a screen decides a part that waits: which one that is, with its picture, and the one answer that counts.

Every part has exactly one decision (decision/ledger.py): who answers second, or after the deadline, is told so.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from edge_runtime.config.schema import Automation
from edge_runtime.core.clock import Clock, monotonic_ns
from edge_runtime.core.errors import UsageError
from edge_runtime.core.log import AUDIT
from edge_runtime.core.messages import PartKey, Verdict, Where
from edge_runtime.core.part_view import WaitingView
from edge_runtime.core.typed_json import to_json
from edge_runtime.lines.vision_line import VisionLine
from edge_runtime.station.preview import encode_view

log = logging.getLogger(__name__)

ANSWERS = (Verdict.ACCEPT, Verdict.REJECT)
MOST_NAME = 64


def waiting_part(line: VisionLine, words: Mapping[str, Any], clock: Clock = monotonic_ns) -> dict[str, Any]:
    """The part nearest to the gate that waits for a person; empty when none does.

    words: `shown` is the part whose picture the viewer has: it is not encoded again.
    """
    held = next(iter(line.people.waiting()), None)
    if held is None:
        return {}
    key, image = held.key, held.job.frame.image
    part, prediction = f"{key.boot_id:04x}-{key.part_id}", held.judged.prediction
    if line.automation is Automation.HUMAN_ONLY:  # what the model holds of it must not sway them
        prediction = None
    is_shown = words.get("shown") == part
    view = WaitingView(
        part=part,
        waiting=len(line.people),
        left_ms=max(0, round((held.job.trigger.at_ns + line.deadline_ns - clock()) / 1e6)),
        reason=held.judged.reason if prediction else "",
        regions=prediction.regions if prediction else (),
        width=image.shape[1],
        height=image.shape[0],
        picture="" if is_shown else b64encode(encode_view(image)).decode(),
    )
    return to_json(view)


def decide_waiting(line: VisionLine, words: Mapping[str, Any]) -> dict[str, Any]:
    """`part` (its boot_id and part_id) is `verdict`, says `by`. Raises UsageError where it waits no more."""
    key, verdict, by = _key(words), words.get("verdict"), words.get("by")
    if verdict not in ANSWERS:
        raise UsageError(f"verdict {verdict!r} is none of {', '.join(ANSWERS)}")
    if not isinstance(by, str) or not 0 < len(by) <= MOST_NAME or not by.isprintable():
        raise UsageError(f"by is {by!r}, not the name of who decides, of at most {MOST_NAME} characters")
    part = f"{key.boot_id:04x}-{key.part_id}"
    if line.people.decide(Verdict(verdict), Where.PAGE, key, by) is None:
        raise UsageError(f"too late: part {part} waits for nobody any more; {_how_it_went(line, key)}")
    log.warning("part.decided part=%s verdict=%s by=%s", part, verdict, by, extra=AUDIT)
    return {"part": part, "verdict": verdict}


def _how_it_went(line: VisionLine, key: PartKey) -> str:
    found = next((one for one in reversed(list(line.recent)) if one.key == key), None)
    return f"it was decided {found.verdict} ({found.reason})" if found else "it is none of the last parts"


def _key(words: Mapping[str, Any]) -> PartKey:
    boot, part = words.get("boot_id"), words.get("part_id")
    for value, below in ((boot, 2**16), (part, 2**32)):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
            raise UsageError(f"boot_id and part_id name a part, not {boot!r} and {part!r}")
    return PartKey(int(boot or 0), int(part or 0))
