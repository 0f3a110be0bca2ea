"""`io gate`: fire one part on demand and measure it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.cli.numbers import FiniteRange

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session

QUESTION = (
    "This arms the controller, lets the machine run and fires the reject gate at the next part. All other parts take "
    "the default ({action}). Is everybody clear of the gate?"
)


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask whether everybody is clear of the gate.")
@click.option("--beats", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many round trips.")
@click.option("--wait", "wait_s", type=FiniteRange(0.1, 3600), default=60.0, show_default=True, metavar="SECONDS",
              help="Seconds to wait for a part at the photo-eye.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def gate(session: Session, yes: bool, beats: int, wait_s: float, as_json: bool) -> None:
    """Fire ONE part. Arms, waits for it at the photo-eye, rejects it, and says where the pulse came.

    Exit code 1 when it did not fire, was more than one encoder count off, or the sensor behind the gate did not see the
    part.
    """
    from edge_runtime.commissioning.far_side import far_side
    from edge_runtime.commissioning.fire_one import fire_one

    cfg = session.config
    if not yes:
        click.confirm(QUESTION.format(action=cfg.decision.safe_action.value), abort=True, err=True)
    with far_side(cfg) as port:
        document = fire_one(cfg, port, beats=beats, wait_s=wait_s, tell=lambda text: click.echo(text, err=True))
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(_lines(document)))
    raise SystemExit(1 if document["problem"] else 0)


def _lines(document: dict[str, Any]) -> Iterator[str]:
    mark = click.style("fail", fg="red") if document["problem"] else click.style("ok  ", fg="green")
    yield f"{mark} part {document['part']}: {document['outcome']}"
    if document["problem"]:
        yield f"     {document['problem']}"
    if "error_counts" in document:
        yield (
            f"     pulse      {document['error_counts']:+d} counts from {document['expected_counts']} "
            f"(eye {document['eye_encoder']}, gate {document['gate_encoder']})"
        )
        yield f"     eye to gate  {document['eye_to_gate_counts']} counts, {document['eye_to_gate_ms']:.1f} ms"
    if document["verdict_ms"] is not None:
        yield f"     verdict    {document['answer']} after {document['verdict_ms']:.2f} ms"
    beats = document["beat_ms"]
    if beats:
        yield f"     round trip   p50 {beats['p50']:.2f} ms  p99 {beats['p99']:.2f} ms of {beats['n']}"
    seen = {True: "saw the part", False: "saw nothing", None: "said nothing"}[document["is_confirmed"]]
    if not document["has_confirm_sensor"]:
        seen = "none (controller.confirm_counts)"
    yield f"     sensor behind the gate: {seen}"
