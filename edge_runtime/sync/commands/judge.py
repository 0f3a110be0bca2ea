"""Commands from the cloud: judged, obeyed once, answered and written down.

A command is a JSON object on the box's `cmd` topic::

    {"id": "7f3c", "do": "automation", "args": {"degree": "partial"}, "box": "press-4", "nonce": "..."}

The broker's access list says who may publish there; beside it stands a second proof, as the station chooses:

`signature`  an envelope `{"payload": BASE64, "key": NAME, "signature": BASE64}` around it, Ed25519 by a key that the
             box knows. Instead of a nonce it carries `counter`, which must be larger than any before from this key: a
             replay is refused for ever, also after a restart. `expires` (UTC, ISO 8601) is looked at where the box
             knows the time.
`nonce`      the one-time word that the box last told on `cmd/nonce`. It is used up by the attempt.

A Sparkplug host cannot prove anything: it may do what UNSIGNED names, where the station allows it at all.

What is refused changes nothing but the audit; refusals are answered too, once the sender has proven who it is. To a
stranger the box says nothing. Everything is judged here, without I/O but the counters and the audit.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_runtime.core.errors import EdgeError, StorageError
from edge_runtime.core.log import AUDIT
from edge_runtime.sync.commands.allowed import ALLOWED, UNSIGNED, Argument, Handler, Order, Proof
from edge_runtime.sync.commands.book import CommandBook
from edge_runtime.sync.commands.signatures import NAME, is_signed

log = logging.getLogger(__name__)

MOST_BYTES = 16 * 1024
MOST_REASON = 200  # characters of a refusal: it quotes what came in
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FIELDS = {"id", "do", "args", "box", "nonce", "counter", "expires"}


class Refused(EdgeError):
    """A command that is not obeyed. `answer`: whether its sender has proven enough to be told why."""

    def __init__(self, reason: str, *, command: str = "", key: str = "", do: str = "", answer: bool = False) -> None:
        super().__init__(reason)
        self.command, self.key, self.do, self.answer = command, key, do, answer


@dataclass
class Commands:
    """Bytes from the wire in, an answer out. See the module.

    utc: the time, or None where the box does not know it. handlers: one for each of ALLOWED; a missing one is refused.
    tell: given each line of the audit, for the records.
    """

    box: str
    proof: Proof
    keys: Path
    book: CommandBook
    handlers: Mapping[str, Handler]
    utc: Callable[[], datetime | None] = lambda: datetime.now(UTC)
    tell: Callable[[Mapping[str, str]], None] = lambda row: None
    nonce: str = field(default_factory=lambda: secrets.token_hex(16))
    counts: Counter[str] = field(default_factory=Counter)

    def receive(self, data: bytes, *, is_retained: bool = False) -> dict[str, Any] | None:
        """Judge, obey and write down one message; the answer to publish, None for what gets none. Never raises."""
        try:
            if is_retained:
                raise Refused("retained: a command is for now, not for whoever connects later")
            order = self._judge(data)
        except (Refused, StorageError) as err:
            return self._refuse(err)
        return self._obey(order)

    def receive_unsigned(self, do: str, args: Mapping[str, str], key: str) -> dict[str, Any] | None:
        """The same for a command that came through Sparkplug, without a proof. key: its sender in the audit."""
        wanted = ALLOWED[do] if do in UNSIGNED else {"": Argument()}
        if set(args) != set(wanted) or not all(argument.fits(args[name]) for name, argument in wanted.items()):
            return self._refuse(Refused("not allowed without a proof, or not in this form", key=key, do=do))
        return self._obey(Order("", do, args, key))

    def _judge(self, data: bytes) -> Order:
        if len(data) > MOST_BYTES:
            raise Refused(f"{len(data)} bytes, at most {MOST_BYTES}")
        if self.proof is Proof.NONCE:
            return self._judge_nonce(_object(data))
        return self._judge_signed(_object(data))

    def _judge_nonce(self, words: Mapping[str, Any]) -> Order:
        given, self.nonce = self.nonce, secrets.token_hex(16)  # one attempt, right or wrong
        if not secrets.compare_digest(str(words.get("nonce", "")).encode("utf-8", "replace"), given.encode()):
            raise Refused("wrong or used nonce")
        return self._order(words, "nonce")

    def _judge_signed(self, envelope: Mapping[str, Any]) -> Order:
        key = envelope.get("key")
        if set(envelope) != {"payload", "key", "signature"} or not isinstance(key, str) or not NAME.fullmatch(key):
            raise Refused("not an envelope of payload, key and signature")
        payload, signature = (_base64(envelope[name]) for name in ("payload", "signature"))
        if not is_signed(self.keys, key, payload, signature):
            raise Refused("no such key, or not signed by it", key=key)
        words = _object(payload)
        order = self._order(words, key)
        counter = words.get("counter")
        if not isinstance(counter, int) or isinstance(counter, bool) or not 0 < counter < 2**63:
            raise Refused("no counter", command=order.command, key=key, do=order.do, answer=True)
        if not self.book.advance(key, counter):
            raise Refused("replayed: its counter was used", command=order.command, key=key, do=order.do, answer=True)
        return order

    def _order(self, words: Mapping[str, Any], key: str) -> Order:
        """The command of a sender that is proven. Everything wrong with it is told."""
        command, do = words.get("id"), words.get("do")
        told = {
            "command": command if isinstance(command, str) and _ID.fullmatch(command) else "",
            "do": do if isinstance(do, str) and _ID.fullmatch(do) else "",
        }

        def refused(reason: str) -> Refused:
            return Refused(reason[:MOST_REASON], command=told["command"], key=key, do=told["do"], answer=True)

        if not told["command"]:
            raise refused("no id of letters, digits, dots and dashes")
        if unknown := sorted(set(words) - _FIELDS):
            raise refused(f"unknown field {unknown[0]!r}")
        if words.get("box") != self.box:
            raise refused(f"for box {words.get('box')!r}, this is {self.box!r}")
        wanted = ALLOWED.get(told["do"])
        if wanted is None:
            raise refused(f"{do!r} is none of {', '.join(ALLOWED)}")
        self._check_expiry(words.get("expires"), refused)
        args = words.get("args", {})
        if not isinstance(args, dict) or set(args) != set(wanted):
            raise refused(f"{do} takes {', '.join(wanted) or 'no arguments'}")
        if wrong := [name for name, argument in wanted.items() if not argument.fits(args[name])]:
            raise refused(f"{wrong[0]} has a value that is not allowed")
        return Order(told["command"], told["do"], args, key)

    def _check_expiry(self, expires: object, refused: Callable[[str], Refused]) -> None:
        if expires is None:
            return
        try:
            until = datetime.fromisoformat(str(expires))
        except ValueError as err:
            raise refused("expires is no time") from err
        if until.tzinfo is None:
            raise refused("expires has no time zone")
        now = self.utc()
        if now is not None and now > until:
            raise refused("expired")

    def _obey(self, order: Order) -> dict[str, Any]:
        handler = self.handlers.get(order.do)
        try:
            if handler is None:
                raise Refused(f"this box cannot {order.do}")
            answer = handler(order.args)
        except EdgeError as err:
            return self._end(order, "failed", str(err))
        except Exception as err:
            log.exception("command failed do=%s", order.do)
            return self._end(order, "failed", f"unexpected {type(err).__name__}")
        return self._end(order, "done", "", answer)

    def _end(self, order: Order, result: str, reason: str, answer: Any = None) -> dict[str, Any]:
        self._note(order.command, order.key, order.do, order.args, result, reason)
        return {"id": order.command, "do": order.do, "result": result, "reason": reason, "answer": answer}

    def _refuse(self, err: EdgeError) -> dict[str, Any] | None:
        why = err if isinstance(err, Refused) else Refused(str(err))
        self._note(why.command, why.key, why.do, {}, "refused", str(err))
        if not why.answer:
            return None
        return {"id": why.command, "do": why.do, "result": "refused", "reason": str(why), "answer": None}

    def _note(self, command: str, key: str, do: str, args: Mapping[str, str], result: str, reason: str) -> None:
        self.counts[result] += 1
        log.warning("command.%s id=%s key=%s do=%s %s", result, command, key, do, reason, extra=AUDIT)
        row = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "command": command,
            "key": key,
            "do": do,
            "args": json.dumps(dict(args)),
            "result": result,
            "reason": reason,
        }
        self.book.note(row)
        self.tell(row)


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        words = json.loads(data)
    except (ValueError, RecursionError) as err:
        raise Refused("not JSON") from err
    if not isinstance(words, dict):
        raise Refused("not a JSON object")
    return words


def _base64(value: object) -> bytes:
    try:
        return base64.b64decode(str(value).encode(), validate=True)
    except (ValueError, binascii.Error) as err:
        raise Refused("not base64") from err
