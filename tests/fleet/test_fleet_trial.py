"""The whole way, small: everything is started, killed once, and held against what the boxes had on their disks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fleet_nodes import ClusterError, nats_program

from tests.support.waiting import WAIT_S

TOOLS = Path(__file__).parents[2] / "tools" / "fleet"


def test_quick_trial_finds_every_record_once_whatever_is_killed() -> None:
    from fleet_postgres import NoPostgres, programs  # needs psycopg, whose absence is a reason to skip

    try:
        nats_program(), programs()
    except (ClusterError, NoPostgres) as err:
        pytest.skip(str(err))
    words = [sys.executable, str(TOOLS / "trial"), "--quick", "--boxes", "20", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=8 * WAIT_S, check=False)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    failed = [name for name, passed in found["checks"].items() if not passed]
    assert not failed, found
    assert found["durable"] == found["stored"] > 0
    assert found["faults"]["node_kill"] == 1
    assert done.returncode == 0
