"""What a subscriber says it received."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.sync.mqtt.tally import Tally


def record(epoch: str, seq: int, kind: str = "decision") -> bytes:
    return json.dumps({"epoch": epoch, "seq": seq, "kind": kind}).encode()


def test_kinds_numbers_holes_and_repeats_are_counted():
    tally = Tally()
    for seq in (3, 4, 7, 4):
        tally.take("edge/s/l/b/rec", record("e", seq))
    tally.take("edge/s/l/b/rec", record("f", 1, "epoch"))
    tally.take("edge/s/l/b/file", b"{}\nxx")
    for kind in ("NBIRTH", "DDATA", "DDATA"):
        tally.take(f"spBv1.0/g/{kind}/b", b"")
    report = tally.report()
    assert (report["records"], report["kinds"], report["pieces"]) == (4, {"decision": 3, "epoch": 1}, 1)
    first = {"epoch": "e", "records": 3, "first": 3, "last": 7, "holes": 2, "repeats": 1}
    assert report["epochs"] == [first, {**first, "epoch": "f", "records": 1, "first": 1, "last": 1, "holes": 0,
                                        "repeats": 0}]  # fmt: skip
    assert report["tags"] == {"DDATA": 2, "NBIRTH": 1}
    assert tally.has("e", 7) and not tally.has("e", 5) and not tally.has("x", 1)


@given(st.text(), st.binary())
def test_nothing_that_arrives_raises(topic, payload):
    tally = Tally()
    tally.take(topic, payload)
    tally.take("edge/s/l/b/rec", payload)
    json.dumps(tally.report())
