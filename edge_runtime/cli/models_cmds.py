"""`models ...`: which models there are, whether they are whole, making one, and which version runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from edge_runtime.cli.beside_line import ComputesBesideLine
from edge_runtime.cli.columns import hanging, room
from edge_runtime.cli.numbers import FiniteRange
from edge_runtime.cli.pack_cmd import pack
from edge_runtime.cli.progress import progress
from edge_runtime.cli.update_cmd import log, update
from edge_runtime.cli.who import who
from edge_runtime.core.wording import counted

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session
    from edge_runtime.modelstore.store import ModelStore


SWITCH_WITHIN_S = 60.0  # a model is loaded in a child, tested on its golden pictures, loaded again and warmed up


@click.group()
def models() -> None:
    """Model bundles: list, verify, teach, pack; stage, promote and roll back versions."""


models.add_command(pack)
models.add_command(update)
models.add_command(log)


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def list_command(session: Session, as_json: bool) -> None:
    """Every model this box could run. Where it is from and in which slot; * marks what the next start runs."""
    from edge_runtime.predictors.model_reports import list_models

    rows = list_models(session.config, _store(session))
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    if not rows:
        click.echo("no models are installed", err=True)
    width, kinds, slots = (max((len(row[of] or "") for row in rows), default=0) for of in ("model", "kind", "slot"))
    for row in rows:
        mark = "*" if row["station"] else " "
        size = "" if row["problem"] else f"{row['bytes'] / 1e6:.2f} MB  "
        slot = f"{row['slot'] or '':<{slots}}  " if slots else ""
        head = f"{mark} {row['model']:<{width}}  {row['kind'] or '?':<{kinds}}  {row['origin']:<9}  {slot}{size}"
        lines = "\n".join(hanging(head, row["problem"] or row["title"], room()))
        click.echo(click.style(lines, fg="red") if row["problem"] else lines)


@models.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def show(session: Session, name: str, as_json: bool) -> None:
    """What a model takes and says. Also thresholds, figures, licence, card. NAME, NAME@VERSION or a bundle folder."""
    from edge_runtime.predictors.model_reports import show_model

    about = show_model(name, _store(session))
    if as_json:
        click.echo(json.dumps(about, indent=1))
        return
    card = about.pop("card")
    files = about.pop("files")
    for key, value in about.items():
        click.echo(f"{key:<16} {_shortened(value)}")
    click.echo(f"{'files':<16} {', '.join(sorted(files))[:400]}")
    if card:
        click.echo(f"\n{card.rstrip()}")


@models.command(cls=ComputesBesideLine)
@click.argument("reference", metavar="[NAME|FOLDER]", default="")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def verify(session: Session, reference: str, as_json: bool) -> None:
    """Prove that models are whole. Every file is as it was sealed, and golden pictures get the same answers.

    Without an argument all models are asked. Exit code 1 when one is not good.
    """
    from edge_runtime.predictors.model_reports import verify_models

    rows = verify_models(reference, session.config, _store(session))
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    for row in rows if not as_json else ():
        word = click.style("good", fg="green") if row["ok"] else click.style("BAD ", fg="red", bold=True)
        golden = row.get("golden", {})
        golden_text = "no golden pictures"
        if golden.get("pictures"):
            golden_text = f"{counted(golden['pictures'], 'golden picture')}, off by {golden['worst']:.4f} at most"
        if golden.get("remark"):
            golden_text += f" ({golden['remark']})"
        good = f"{counted(row.get('files', 0), 'file')}, {golden_text}, loads on {golden.get('runtime')}"
        click.echo(f"{word} {row['model'] or row['folder']}  {good if row['ok'] else row['problem']}")
    if not rows:
        click.echo("no models are installed", err=True)
    raise SystemExit(0 if rows and all(row["ok"] for row in rows) else 1)


@models.command(cls=ComputesBesideLine)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--threads", type=click.IntRange(1, 16), help="Inference threads; the station's unless given.")
@click.option("--seconds", type=FiniteRange(0.0, 30.0), default=1.0, show_default=True, help="Seconds to time it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def probe(session: Session, file: Path, threads: int | None, seconds: float, as_json: bool) -> None:
    """Look at any .tflite file. Loads and runs it in a child process with limits, and tells what is in it."""
    from edge_runtime.inference.probe import probe as ask

    cfg = session.config.model
    report = ask(
        file, threads=threads or cfg.threads, delegate=cfg.delegate, runtime=cfg.runtime, seconds=seconds
    ).as_json()
    if as_json:
        click.echo(json.dumps(report, indent=1))
    elif report["ok"]:
        click.echo("\n".join(_probe_lines(report)))
    else:
        click.echo(f"refused: {report['file']}: {report['problem']}", err=True)
    raise SystemExit(0 if report["ok"] else 1)


@models.command(cls=ComputesBesideLine)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--name", required=True, help="Name of the model to be made.")
@click.option("--over-reject", type=FiniteRange(0.0, 0.5), default=0.01, show_default=True,
              help="Share of good parts that may be rejected.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def teach(session: Session, folder: Path, name: str, over_reject: float, as_json: bool) -> None:
    """Learn what a good part looks like. From 20 to 150 pictures of good parts in DIR."""
    from edge_runtime.learning.teach import teach as learn

    with progress(is_quiet=as_json) as told:
        report = learn(folder, name, _store(session), session.config, over_reject=over_reject, progress=told)
    about: dict[str, Any] = report.as_json()
    if as_json:
        click.echo(json.dumps(about, indent=1))
        return
    for key, value in about.items():
        click.echo(f"{key:<16} {_shortened(value)}")
    click.echo(f"\nnow: edge-runtime predict FILE... --model {name}", err=True)
    click.echo(f'to let it judge parts: set model.name = "{report.model}" and start again', err=True)


@models.command()
@click.argument("source", metavar="BUNDLE", type=click.Path(path_type=Path, exists=True))
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def install(session: Session, source: Path, as_json: bool) -> None:
    """Copy a bundle into this box's store. Folder or .tar, whole or not at all; it does not run before `promote`.

    Refused where modelstore.require_signature is true and the bundle is not known as signed: see `models update`.
    """
    from edge_runtime.modelstore.provenance import Origin, Provenance
    from edge_runtime.modelstore.slots import Slots

    store = _store(session)
    bundle = store.install(source, came=Provenance(by=who(), source=str(source)))
    origin = store.provenance(bundle).origin
    Slots(store).note(bundle.manifest.name, "installed", bundle.label, bundle.digest, who(), f"{origin}, from {source}")
    about = {"model": bundle.label, "digest": bundle.digest, "folder": str(bundle.folder), "origin": origin}
    if origin == Origin.UNSIGNED:
        click.echo(f"{bundle.label} is not signed; taken because modelstore.require_signature is false", err=True)
    click.echo(json.dumps(about, indent=1) if as_json else f"installed {bundle.label} in {bundle.folder}")
    if session.config.model.name.partition("@")[0] == bundle.manifest.name:
        click.echo(f"it runs after: edge-runtime models stage {bundle.label} && edge-runtime models promote", err=True)
    else:
        click.echo(f'it runs after: set model.name = "{bundle.label}" and start again', err=True)


@models.command()
@click.argument("name", metavar="NAME[@VERSION]")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def stage(session: Session, name: str, as_json: bool) -> None:
    """Make a bundle the candidate. It must be installed; `promote` then puts it to work."""
    from edge_runtime.modelstore.slots import Slots

    slot = Slots(_store(session)).stage(name, by=who())
    _tell_slot(name.partition("@")[0], slot.versions(), as_json)
    _tell_others(session, session.config.model.name.partition("@")[0])


@models.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--why", default="", help="A reason, for the journal.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def promote(session: Session, yes: bool, why: str, as_json: bool) -> None:
    """Put the candidate to work. Between two parts when the box is running; the one before stays for `rollback`."""
    _switch(session, "promote", yes, why, as_json)


@models.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--why", default="", help="A reason, for the journal.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def rollback(session: Session, yes: bool, why: str, as_json: bool) -> None:
    """Go back to the version before. Between two parts when the box is running."""
    _switch(session, "rollback", yes, why, as_json)


def _switch(session: Session, verb: Literal["promote", "rollback"], yes: bool, why: str, as_json: bool) -> None:
    """Both by the same way, see predictors/model_switch.py: in the running box, or here where none runs.

    A box that refuses or does not answer is there all the same: its error ends the command.
    """
    from edge_runtime.cli.control_path import control_path
    from edge_runtime.config.paths import JOURNAL, state_dir
    from edge_runtime.modelstore.slots import Slots
    from edge_runtime.modelstore.slots_file import Held
    from edge_runtime.predictors.model_choice import Chooser
    from edge_runtime.predictors.model_switch import Request, agreed, switch_stopped
    from edge_runtime.process.ask_status import ask_status
    from edge_runtime.process.control import NobodyThere, ask

    store, path = _store(session), control_path(session)
    try:
        shot = ask_status(path)
    except NobodyThere:
        name, is_there = session.config.model.name.partition("@")[0], False
        running = Chooser(session.config, store, state_dir(session.config) / JOURNAL).next_start()
    else:
        name, _, version = shot.model.partition("@")
        running, is_there = Held(version, shot.model_digest), True
    held = agreed(Slots(store).of(name), Request(verb, name, None), running)
    if not yes:
        before = f"{name}@{running.version}" if running else "nothing"
        click.confirm(f"{verb}: {before} gives way to {name}@{held.version}?", abort=True, err=True)
    if is_there:
        words = {"verb": verb, "name": name, "version": held.version, "digest": held.digest}
        ask(path, "model", SWITCH_WITHIN_S, **words, by=who(), why=why)
    else:
        switch_stopped(session.config, store, state_dir(session.config), Request(verb, name, held, who(), why), running)
    _tell_slot(name, Slots(store).of(name).versions(), as_json)
    _tell_pin(session, f"{name}@{held.version}")
    _tell_others(session, name)


def _tell_pin(session: Session, label: str) -> None:
    named = session.config.model.name
    if "@" in named and named != label:
        name = label.partition("@")[0]
        click.echo(
            f"the station file says model.name = {named!r}: the next start runs that one; set it to {name!r}", err=True
        )


def _tell_others(session: Session, name: str) -> None:
    """`promote` is for the name at work; a candidate of another name would wait for ever in silence."""
    from edge_runtime.modelstore.slots import Slots

    for label in Slots(_store(session)).waiting():
        if label.partition("@")[0] != name:
            click.echo(
                f"{label} waits too, but {name} is at work: it comes to work by model.name = {label!r} and a restart",
                err=True,
            )


def _tell_slot(name: str, slot: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"model": name, **slot}, indent=1))
    else:
        click.echo(f"{name}: " + "  ".join(f"{key} {value or '-'}" for key, value in slot.items()))


def _store(session: Session) -> ModelStore:
    from edge_runtime.modelstore.store import open_store

    return open_store(session.config)


def _probe_lines(report: dict[str, Any]) -> list[str]:
    def tensor(about: dict[str, Any]) -> str:
        shape = "x".join(map(str, about["shape"])) or "scalar"
        numbers = ""
        if "scale" in about:
            scale, zero = about["scale"], about["zero_point"]
            per_channel = isinstance(scale, list)
            numbers = (
                f"  {len(scale)} scales along axis {about['axis']}"
                if per_channel
                else f"  scale {scale:.6g} zero {zero}"
            )
        return f"{about['name']}  {about['dtype']} {shape}{numbers}"

    operators = ", ".join(f"{name} {count}" for name, count in report["operators"].items())
    delegated = "yes" if report["delegated"] else "no"
    return [
        f"{report['file']}  {report['bytes']} bytes  sha256 {report['sha256'][:16]}",
        f"runtime    {report['runtime']}, delegated: {delegated}",
        *(f"input      {tensor(about)}" for about in report["inputs"]),
        *(f"output     {tensor(about)}" for about in report["outputs"]),
        f"operators  {operators}",
        f"time       {report['median_ms']:.3f} ms median of {report['runs']}, load {report['load_ms']:.1f} ms",
        f"memory     {report['rss_mb']:.0f} MB resident in a process of its own",
        *(f"note       {remark}" for remark in report["remarks"]),
    ]


def _shortened(value: object) -> str:
    if isinstance(value, dict):
        text = ", ".join(f"{part} {item}" for part, item in value.items())
    else:
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
