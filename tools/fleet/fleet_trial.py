"""The whole way from many boxes to PostgreSQL, on this machine, with everything killed once in the middle.

Three nodes with R3, two consumers, a PostgreSQL of our own. While the boxes send: the node that leads the stream is
killed and comes back, a consumer is killed and comes back, PostgreSQL crashes and comes back, boxes lose power, links
are cut, clocks jump, a few boxes fall silent for good. Then what is in the database is held against what the boxes had
on their disks, name by name and content by content.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import nats
import psycopg
from fleet_nodes import Cluster, Node
from fleet_postgres import PrivatePostgres
from fleet_streams import NOT_YET, STREAM, make_stream

HERE = Path(__file__).resolve().parent
CONSUMERS = 2
STREAM_BYTES = 2 << 30
STALE_S = 60.0
STOP_S = 5.0
LAG_S = 5.0  # from the broker into the database, on a busy machine
POLL_S = 0.5
MQTT_WAIT_S = 30.0
_COUNTS: tuple[LiteralString, ...] = (
    """
    SELECT count(l.box) AS durable, count(r.box) AS stored, count(*) FILTER (WHERE r.box IS NULL) AS missing,
           count(*) FILTER (WHERE l.box IS NULL) AS extra, count(*) FILTER (WHERE l.content <> r.content) AS changed
    FROM ledger l FULL JOIN record r USING (box, epoch, seq)""",
    "SELECT sum(repeated) AS repeated, sum(redelivered) AS redelivered_by_stream FROM epoch",
    "SELECT (SELECT count(*) FROM hole) AS holes, (SELECT count(*) FROM set_aside) AS set_aside",
    """
    SELECT max(records) AS stored_in_busiest_s
    FROM (SELECT count(*) AS records FROM record GROUP BY date_trunc('second', stored_at)) AS second""",
)


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything. What happens when is a share of `seconds`."""

    boxes: int = 500
    seconds: float = 180.0
    rate: float = 1.0
    restarts: int = 60
    cuts: int = 100
    jumps: int = 40
    silent: int = 6
    silent_from: float = 0.35  # after a node was killed: its sessions died with it, and no will is published
    keepalive_s: int = 30
    resend_after_s: float = 20.0
    drain_s: float = 300.0
    kills: tuple[float, float, float, float, float] = (0.25, 0.45, 0.50, 0.55, 0.65)  # as `_watch` names them


QUICK = Size(
    boxes=50,
    seconds=20.0,
    restarts=6,
    cuts=10,
    jumps=4,
    silent=2,
    silent_from=0.15,  # so that the broker's word, after 1.5 keepalives, is there in time; 60 s do not fit in here
    keepalive_s=5,
    resend_after_s=6.0,
    drain_s=60.0,
    kills=(0.65, 0.70, 0.75, 0.80, 0.85),
)


class Trial:
    """Everything that runs, and what was seen. `say` takes lines for people."""

    def __init__(self, size: Size, say: Callable[[str], None]) -> None:
        self._size = size
        self._say = say
        self._cleanup = ExitStack()
        self._consumers: list[subprocess.Popen[bytes]] = []
        self._killed_at: dict[str, float] = {}
        self._flagged: dict[str, tuple[float, str]] = {}  # box -> wall time since when it is called stale, and why
        self._silent: dict[str, float] = {}  # boxes that should talk -> wall time they were first called silent

    def run(self) -> dict[str, Any]:
        """Answers the figures and the checks. Raises ClusterError, NoPostgres."""
        with self._cleanup:
            self._start()
            begun = time.monotonic()
            simulation = self._simulate()
            self._watch(simulation, begun)
            output, _ = simulation.communicate()
            boxes = json.loads(output)
            processes = self._look_at_processes()
            stops = self._stop_consumers()
            return self._judge(boxes, processes, stops)

    # -- starting -----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        folder = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="edge-fleet-trial-")))
        self._folder = folder
        self._say("starting three nodes and a database")
        self._cluster = Cluster.make(folder / "engine", 3)
        self._cleanup.callback(self._cluster.stop)
        database = threading.Thread(target=self._start_database)
        database.start()
        try:
            self._cluster.start()
            password = self._cluster.password("admin")
            asyncio.run(make_stream(self._cluster.urls, password, 3, STREAM_BYTES))
        finally:
            database.join()
        if not hasattr(self, "_postgres"):
            PrivatePostgres()  # once more, for the error
        for number in range(CONSUMERS):
            self._consumers.append(self._consume(number))
        self._cleanup.callback(self._stop_consumers)
        asyncio.run(self._await_mqtt())

    async def _await_mqtt(self) -> None:
        """The first MQTT client has the cluster make its streams, which takes an election for each."""
        limit = time.monotonic() + MQTT_WAIT_S
        client = await nats.connect(self._cluster.urls, user="admin", password=self._cluster.password("admin"))
        try:
            while time.monotonic() < limit:
                with suppress(*NOT_YET):
                    await client.jetstream(timeout=1).stream_info("$MQTT_rmsgs")
                    return
                await asyncio.sleep(POLL_S)
        finally:
            await client.close()

    def _start_database(self) -> None:
        postgres = PrivatePostgres()
        self._cleanup.callback(postgres.stop)
        postgres.start()
        self._postgres = postgres

    def _consume(self, number: int) -> subprocess.Popen[bytes]:
        words = [sys.executable, str(HERE / "consume"), "--dsn", self._postgres.dsn, "--user", "consumer"]
        words += ["--password-file", str(self._cluster.password_file("consumer")), "--log", "warning"]
        for url, port in zip(self._cluster.urls, self._cluster.mqtt_ports, strict=True):
            words += ["--nats", url, "--mqtt", f"127.0.0.1:{port}"]
        with (self._folder / f"consume-{number}.log").open("ab") as log:
            return subprocess.Popen(words, stdout=log, stderr=log)

    def _simulate(self) -> subprocess.Popen[str]:
        size = self._size
        self._say(f"{size.boxes} boxes for {size.seconds:g} s")
        memory = Path("/dev/shm")  # a disk for each box: 500 on this one would measure this disk
        place = tempfile.TemporaryDirectory(prefix="edge-fleet-boxes-", dir=memory if memory.is_dir() else None)
        self._boxes_folder = Path(self._cleanup.enter_context(place))
        options = {
            "boxes": size.boxes,
            "ports": ",".join(map(str, self._cluster.mqtt_ports)),
            "rate": size.rate,
            "seconds": size.seconds,
            "restarts": size.restarts,
            "cuts": size.cuts,
            "jumps": size.jumps,
            "silent": size.silent,
            "silent-from": size.silent_from,
            "keepalive": size.keepalive_s,
            "resend-after": size.resend_after_s,
            "drain": size.drain_s,
            "folder": self._boxes_folder,
            "user": "box",
            "password-file": self._cluster.password_file("box"),
        }
        words = [sys.executable, str(HERE / "simulate"), "--json"]
        words += [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        simulation = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self._cleanup.callback(_end, simulation)
        return simulation

    # -- in the middle ------------------------------------------------------------------------------------------------

    def _watch(self, simulation: subprocess.Popen[str], begun: float) -> None:
        """Do each thing when its time has come, and look for stale boxes all the while."""
        deeds = (
            self._kill_leader,
            self._kill_consumer,
            self._restart_node,
            self._restart_consumer,
            self._crash_database,
        )
        plan = list(zip(self._size.kills, deeds, strict=True))
        while simulation.poll() is None:
            share = (time.monotonic() - begun) / self._size.seconds
            while plan and share >= plan[0][0]:
                plan.pop(0)[1]()
            if share < 1.0:
                self._look_for_stale()
            time.sleep(POLL_S)

    def _kill_leader(self) -> None:
        name = asyncio.run(self._leader())
        self._dead: Node = next((node for node in self._cluster.nodes if node.name == name), self._cluster.nodes[0])
        self._say(f"SIGKILL {self._dead.name} pid {self._cluster.pid(self._dead)}, leader of the stream")
        self._cluster.kill(self._dead)

    async def _leader(self) -> str | None:
        client = await nats.connect(self._cluster.urls, user="admin", password=self._cluster.password("admin"))
        try:
            found = (await client.jetstream(timeout=5).stream_info(STREAM)).cluster
            return found.leader if found else None
        except NOT_YET:
            return None
        finally:
            await client.close()

    def _restart_node(self) -> None:
        self._say(f"starting {self._dead.name} again")
        self._cluster.launch(self._dead)

    def _kill_consumer(self) -> None:
        self._say(f"SIGKILL a consumer pid {self._consumers[0].pid}")
        self._consumers[0].kill()
        self._consumers[0].wait()

    def _restart_consumer(self) -> None:
        self._consumers[0] = self._consume(0)

    def _crash_database(self) -> None:
        self._say("PostgreSQL crashes and recovers")
        self._postgres.crash()
        self._postgres.start()

    def _look_for_stale(self) -> None:
        silent = {f"box-{number:04d}" for number in range(self._size.silent)}
        try:
            with psycopg.connect(self._postgres.dsn, connect_timeout=2, autocommit=True) as connection:
                rows = connection.execute("SELECT box, why FROM fleet.stale_box").fetchall()
        except psycopg.Error:
            return  # the tables are not made yet, or the database is on its way up
        why_of: dict[str, str] = dict(rows)
        for box in silent:
            if box in why_of:
                self._flagged[box] = (self._flagged.get(box, (time.time(),))[0], why_of[box])
            else:
                self._flagged.pop(box, None)
        for box, why in rows:
            if why == "silent" and box not in silent:
                self._silent.setdefault(box, time.time())

    # -- the end ------------------------------------------------------------------------------------------------------

    def _look_at_processes(self) -> dict[str, dict[str, float]]:
        """Highest resident memory and CPU time so far; of a process that was killed, since it came back."""
        pids = {node.name: self._cluster.pid(node) for node in self._cluster.nodes}
        pids |= {f"consumer-{number}": child.pid for number, child in enumerate(self._consumers)}
        return {name: _resources(pid) for name, pid in pids.items() if pid}

    def _stop_consumers(self) -> list[float]:
        """How long each took to end after SIGTERM, in seconds."""
        stops = []
        for child in self._consumers:
            begun = time.monotonic()
            _end(child)
            stops.append(round(time.monotonic() - begun, 2))
        self._consumers.clear()
        return stops

    def _judge(self, boxes: dict[str, Any], processes: dict[str, Any], stops: list[float]) -> dict[str, Any]:
        with psycopg.connect(self._postgres.dsn, options="-c search_path=fleet", autocommit=True) as connection:
            stored = compare(connection, sorted(self._boxes_folder.glob("ledger-*.csv")))
            wrongly = [box for box, at in self._silent.items() if _was_heard(connection, box, at)]
        flags = {box: self._flag(box, at) for box, at in boxes["silent"].items()}
        checks = {
            "every durable record is in the database once": is_whole(stored),
            "with the content that the box wrote": not stored["changed"],
            "nothing is left at a box": not boxes["left"] and not boxes["errors"] and not boxes["bad_acks"],
            "no holes, nothing set aside": not stored["holes"] and not stored["set_aside"],
            "repeated records were sent again by a box": stored["repeated"] <= boxes["resent"],
            "silent boxes are flagged within 60 s": bool(flags)
            and all(seconds is not None and seconds <= STALE_S for seconds in flags.values()),
            "no box that was heard is called silent": not wrongly,
            "consumers end within 5 s of SIGTERM": max(stops) <= STOP_S,
        }
        return {
            "passed": all(checks.values()),
            "checks": checks,
            "boxes": boxes["boxes"],
            **stored,
            "resent_by_boxes": boxes["resent"],
            "made_per_s": boxes["made_per_s"],
            "reconnects": boxes["reconnects"],
            "faults": boxes["faults"] | {"node_kill": 1, "consumer_kill": 1, "database_crash": 1},
            "puback_ms": boxes["puback_ms"],
            "safe_ms": boxes["safe_ms"],
            "flagged_after_s": flags,
            "wrongly_silent": wrongly,
            "unheard_for_60_s": len(self._silent) - len(wrongly),  # on a starved machine boxes come too late to talk
            "stop_s": stops,
            "processes": processes | {"boxes": {"rss_mb": boxes["rss_mb"], "cpu_s": boxes["cpu_s"]}},
            "load": round(os.getloadavg()[1], 1),
        }

    def _flag(self, box: str, silent_at: float) -> float | None:
        """Seconds until it was called stale for good; one that had no link when it fell silent is so at once."""
        return round(max(0.0, self._flagged[box][0] - silent_at), 1) if box in self._flagged else None


def compare(connection: psycopg.Connection[Any], ledger: Iterable[Path]) -> dict[str, int]:
    """What the boxes had on their disks (files of lines `box,epoch,seq,content`) against what is stored.

    missing, extra: on one side only; changed: the same name with other content. Raises psycopg.Error.
    """
    connection.execute("CREATE TEMP TABLE ledger (box text, epoch text, seq bigint, content bigint)")
    for file in ledger:
        with connection.cursor().copy("COPY ledger FROM STDIN (FORMAT csv)") as copy:
            copy.write(file.read_bytes())
    found: dict[str, int] = {}
    for query in _COUNTS:
        cursor = connection.execute(query)
        row = cursor.fetchone()
        assert row is not None and cursor.description is not None
        found |= {column.name: int(value or 0) for column, value in zip(cursor.description, row, strict=True)}
    return found


def _was_heard(connection: psycopg.Connection[Any], box: str, at: float) -> bool:
    """Whether the broker had a record of it in the minute before, less what a batch takes into the database."""
    query: LiteralString = """
        SELECT EXISTS (SELECT FROM record WHERE box = %s
                       AND heard_at BETWEEN to_timestamp(%s) AND to_timestamp(%s))"""
    row = connection.execute(query, (box, at - STALE_S, at - LAG_S)).fetchone()
    return bool(row and row[0])


def is_whole(found: dict[str, int]) -> bool:
    return not found["missing"] and not found["extra"] and found["stored"] == found["durable"] > 0


def _resources(pid: int) -> dict[str, float]:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(words[11]) + int(words[12])  # utime and stime, proc(5); the name before them may hold blanks
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    peak_kb = int(status.get("VmHWM", "0").split()[0])  # one that has died has none
    return {"rss_mb": round(peak_kb / 1024, 1), "cpu_s": round(ticks / os.sysconf("SC_CLK_TCK"), 1)}


def _end(child: subprocess.Popen[Any]) -> None:
    """SIGTERM, and SIGKILL where that does not help."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(2 * STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
