"""What is done to simulated boxes is planned, and what the trial counts would show a loss."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fleet_records import content_of

from tests.fleet.fleet_rig import EPOCH, message, payload, psycopg, write


def test_the_same_seed_plans_the_same_bad_days() -> None:
    from fleet_herd import Faults, plan_faults

    faults = Faults(restarts=20, cuts=30, jumps=10, silent=3)
    plan = plan_faults(faults, 50, 100.0, seed=4)
    assert plan == plan_faults(faults, 50, 100.0, seed=4)
    assert plan != plan_faults(faults, 50, 100.0, seed=5)
    assert len(plan) == 63
    assert [fault.at_s for fault in plan] == sorted(fault.at_s for fault in plan)
    assert {fault.box for fault in plan if fault.what == "silent"} == {0, 1, 2}
    assert all(fault.box >= 3 for fault in plan if fault.what != "silent"), "a silent box is not woken by a restart"


def test_a_record_that_is_missing_foreign_or_changed_is_found(dsn: str, tmp_path: Path) -> None:
    from fleet_trial import compare, is_whole

    def judge(ledger: dict[int, int]) -> tuple[dict[str, int], bool]:
        file = tmp_path / "ledger.csv"
        file.write_text("".join(f"box-7,{EPOCH},{seq},{content}\n" for seq, content in ledger.items()))
        with psycopg.connect(dsn, options="-c search_path=fleet", autocommit=True) as connection:
            found = compare(connection, [file])
        return found, is_whole(found)

    asyncio.run(write(dsn, [message(seq=n) for n in (1, 2, 3)]))
    true = {seq: content_of(payload(seq=seq)) for seq in (1, 2, 3)}
    found, whole = judge(true)
    assert whole
    assert found["changed"] == 0
    found, whole = judge(true | {4: 0})
    assert (found["missing"], whole) == (1, False)
    found, whole = judge({1: true[1], 2: true[2]})
    assert (found["extra"], whole) == (1, False)
    found, _ = judge(true | {2: 99})
    assert found["changed"] == 1
