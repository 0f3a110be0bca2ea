"""`bench`: what this box can do with its model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.cli.beside_line import ComputesBesideLine
from edge_runtime.core.wording import counted

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session


@click.command(cls=ComputesBesideLine)
@click.option("--quick", is_flag=True, help="Measure less: half a minute at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def bench(session: Session, quick: bool, as_json: bool) -> None:
    """Measure this box: model, line, journal, wire and disk, and how many parts/s it keeps up with.

    Beside a running line nothing is measured: the line's own figures are told.
    """
    from edge_runtime.commissioning.bench import measure

    document = measure(session.loaded, quick, lambda text: click.echo(text, err=True))
    lines = running_lines if "running" in document else report_lines
    click.echo(json.dumps(document, indent=1) if as_json else "\n".join(lines(document)))


def running_lines(document: dict[str, Any]) -> list[str]:
    box, line = document["box"], document["running"]
    latency, parts = line["latency_ms"], counted(line["parts"], "part")
    times = ("invoke", "capture_to_verdict", "trigger_to_verdict")
    missed = "  ".join(f"{name} {count}" for name, count in line["not_in_time"].items())
    return [
        f"box       {box['machine']}, {box['cores']} cores, load {box['load']}; {box['runtime']}",
        f"running   {line['model']} in process {line['pid']}, {parts} in {line['uptime_s']:.0f} s",
        *(f"          {name:<18}  p50 {latency[name]['p50']}  p99 {latency[name]['p99']}  max {latency[name]['max']} ms"
          for name in times),
        f"in time   all but {100 * line['not_in_time_share']:.2g} %: {missed}; {line['late']} late at the gate",
    ]  # fmt: skip


def report_lines(document: dict[str, Any]) -> list[str]:
    box, model, line = document["box"], document["model"], document["line"]
    verdict, disk, wire = line["frame_to_verdict_ms"], document["disk"], document["serial"]["round_trip_ms"]
    commit = document["journal"]["commit_ms"]
    ordinary = sorted(name for name, policy in line["scheduling"].items() if policy != "fifo")
    return [
        f"box       {box['machine']}, {box['cores']} cores, load {box['load']}; {box['runtime']}",
        f"model     {model['name']}: prepare {model['prepare_ms']} + invoke {model['invoke_ms']} + decode "
        f"{model['decode_ms']} = {model['total_ms']} ms; {model['paced_ms']} ms at the line's pace",
        f"line      frame to verdict p50 {verdict['p50']}  p99 {verdict['p99']}  max {verdict['max']} ms; "
        f"the line itself {line['overhead_ms']} ms",
        f"          {line['cpu_ms_per_part']} ms CPU a part, {line['rss_mb']} MB, real-time threads: "
        + (f"no, {line['scheduling'][ordinary[0]]}" if ordinary else "yes"),
        f"journal   commit p50 {commit['p50']}  p99 {commit['p99']} ms",
        f"wire      verdict and answer p50 {wire['p50']}  p99 {wire['p99']} ms (simulated controller)",
        f"disk      {disk['write_mb_s']} MB/s, sync p50 {disk['sync_ms_p50']}  max {disk['sync_ms_max']} ms",
        f"limit     first late part at {document['limit']['first_late_parts_per_s']} parts/s; "
        f"promise {document['limit']['promise_parts_per_s']}",
    ]
