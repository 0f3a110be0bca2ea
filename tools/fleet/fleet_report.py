"""The views of `schema.sql` as a person wants to see them: the worst and the newest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row


@dataclass(frozen=True, slots=True)
class View:
    """`query` takes hours and rows."""

    title: str
    query: LiteralString


VIEWS = {
    "stale": View(
        "stale boxes",
        "SELECT site, line, box, why, silent, heard_at FROM fleet.stale_box"
        " WHERE %(hours)s > 0 ORDER BY heard_at LIMIT %(rows)s",
    ),
    "parts": View(
        "parts per hour",
        "SELECT site, line, hour, sum(parts) AS parts, sum(accepted) AS accepted, sum(rejected) AS rejected,"
        " sum(unsure) AS unsure, count(*) AS boxes, sum(clock_not_sure) AS clock_not_sure FROM fleet.parts_per_hour"
        " WHERE hour > now() - make_interval(hours => %(hours)s) GROUP BY site, line, hour"
        " ORDER BY hour DESC, site, line LIMIT %(rows)s",
    ),
    "rejects": View(
        "reject rate, boxes that differ most from their line",
        "SELECT site, line, box, hour, parts, rejected, reject_rate, line_reject_rate FROM fleet.reject_rate"
        " WHERE hour > now() - make_interval(hours => %(hours)s)"
        " ORDER BY abs(reject_rate - line_reject_rate) DESC, hour DESC, box LIMIT %(rows)s",
    ),
    "labels": View(
        "parts of which a person's last word is another than the verdict",
        "SELECT said.site, said.line, said.box, said.part, part.verdict, said.label, said.defect, said.said_by, said.at"
        " FROM fleet.label_in_force said JOIN fleet.part part USING (box, journal, part_row)"
        " WHERE said.at > now() - make_interval(hours => %(hours)s) AND said.label <> part.verdict"
        " ORDER BY said.at DESC LIMIT %(rows)s",
    ),
    "drift": View(
        "score drift (PSI against the reference day)",
        "SELECT * FROM fleet.score_drift WHERE day > now() - make_interval(hours => greatest(%(hours)s, 48))"
        " ORDER BY psi DESC LIMIT %(rows)s",
    ),
    "holes": View(
        "holes",
        "SELECT site, line, box, epoch, first, last, missing, heard_at FROM fleet.hole"
        " WHERE %(hours)s > 0 ORDER BY missing DESC LIMIT %(rows)s",
    ),
    "delay": View(
        "uplink delay in seconds",
        "SELECT * FROM fleet.uplink_delay WHERE hour > now() - make_interval(hours => %(hours)s)"
        " ORDER BY p99_s DESC LIMIT %(rows)s",
    ),
    "aside": View(
        "set aside",
        "SELECT last_at, times, subject, box, epoch, seq, reason FROM fleet.set_aside"
        " WHERE last_at > now() - make_interval(hours => %(hours)s) ORDER BY last_at DESC LIMIT %(rows)s",
    ),
}
_TROUBLES: tuple[tuple[str, LiteralString], ...] = (
    ("boxes are stale", "SELECT count(*) FROM fleet.stale_box WHERE why <> 'offline: stopped'"),
    ("holes are older than ten minutes", "SELECT count(*) FROM fleet.hole WHERE heard_at < now() - interval '10 min'"),
    ("messages were set aside", "SELECT count(*) FROM fleet.set_aside"),
)


def look(connection: psycopg.Connection[Any], view: View, hours: int, rows: int) -> list[dict[str, Any]]:
    """Raises psycopg.Error."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(view.query, {"hours": hours, "rows": rows}).fetchall()


def troubles(connection: psycopg.Connection[Any]) -> list[str]:
    """What somebody should look at, in words; empty when all is well. Raises psycopg.Error."""
    counts = [(text, connection.execute(query).fetchone()) for text, query in _TROUBLES]
    return [f"{row[0]} {text}" for text, row in counts if row and row[0]]
