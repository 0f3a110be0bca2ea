"""`models pack FILE.tflite`: a model file from elsewhere becomes a sealed bundle."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.cli.beside_line import ComputesBesideLine
from edge_runtime.cli.numbers import FiniteRange
from edge_runtime.cli.progress import progress
from edge_runtime.core.wording import counted

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session
    from edge_runtime.packing.answers import Question, Told

KINDS = ("classification", "detection", "segmentation", "heatmap")


class Share(FiniteRange):
    """A share of 0 to 0.5, also as `1%`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        try:
            value = float(text.removesuffix("%")) / 100.0 if text.endswith("%") else text
        except ValueError:
            self.fail(f"{text!r} is no share, such as 0.01 or 1%.", param, ctx)
        return super().convert(value, param, ctx)


@click.command(cls=ComputesBesideLine)
@click.argument("file", metavar="FILE.tflite", type=click.Path(path_type=Path))
@click.option("--name", default="", help="Name of the model; else that of the file.")
@click.option("--version", default="", help="Its version; else 1.")
@click.option("--labels", default="", metavar="FILE|NAMES", help="File with a label a line, or names with commas.")
@click.option("--kind", type=click.Choice(KINDS), help="What its outputs mean; else seen from their form.")
@click.option("--boxes", type=click.Choice(("postprocess", "yolov5", "yolov8", "nms")),
              help="How a detector tells its boxes; else seen from their form.")  # fmt: skip
@click.option("--box-unit", type=click.Choice(("share", "pixel")), help="Unit of a YOLO head's boxes; else seen.")
@click.option("--defect", "defects", metavar="LABEL", multiple=True, help="A label that is a defect; 'all' for each.")
@click.option("--good", metavar="LABEL", multiple=True, help="A label that is none: all others are.")
@click.option("--normalise", default="", metavar="HOW", help="0..1, -1..1, 0..255, imagenet, or MEAN/STD in pixels.")
@click.option("--colour", type=click.Choice(("rgb", "bgr")), help="Order of colours that it was trained with.")
@click.option("--fit", type=click.Choice(("letterbox", "stretch")), help="How a picture is fitted into its input.")
@click.option("--size", default="", metavar="WxH", help="Size of its input, where the file leaves it open.")
@click.option("--signature", default="", help="Which of the file's signatures runs.")
@click.option("--activation", type=click.Choice(("none", "sigmoid", "softmax")), help="What is done to its outputs.")
@click.option("--least-pixels", type=click.IntRange(1, 1000), help="Pixels of a map that make a defect.")
@click.option("--confidence", type=FiniteRange(0.0, 1.0), help="Score from which a box is shown.")
@click.option("--samples", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="Pictures to try it on: good/ and bad/, or folders named as labels.")  # fmt: skip
@click.option("--over-reject", type=Share(0.0, 0.5), default=0.01, show_default=True,
              help="Share of good parts that the limit may cost, such as 1%.")  # fmt: skip
@click.option("--accept-below", type=FiniteRange(0.0, 1.0), help="Limit told: below it a part is accepted.")
@click.option("--reject-at", type=FiniteRange(0.0, 1.0), help="Limit told: from it on a part is rejected.")
@click.option("--preview", type=click.Path(path_type=Path, file_okay=False),
              help="Folder for pictures of judged samples; else beside the bundle.")  # fmt: skip
@click.option("--title", default="", help="One line about it.")
@click.option("--licence", default="", help="Its licence; else that in the file.")
@click.option("--out", type=click.Path(path_type=Path), help="The bundle's folder; else NAME-VERSION here.")
@click.option("--yes", is_flag=True, help="Do not ask: what is missing is an error.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def pack(session: Session, /, file: Path, as_json: bool, yes: bool, **options: Any) -> None:
    """Make a bundle of a .tflite file. What the file does not say is asked, or told by options; samples are judged and
    drawn, and the limit chosen from them, before it is sealed. The file is only opened in child processes.
    """
    from edge_runtime.packing.pack import pack as make_bundle

    is_dialog = not (yes or as_json) and sys.stdin.isatty() and sys.stderr.isatty()
    how = {name: options[name] for name in ("out", "samples", "preview", "over_reject")}
    with progress(is_quiet=as_json or is_dialog) as bar:
        report = make_bundle(
            file,
            _told(options),
            session.config,
            ask=_ask if is_dialog else None,
            agree=_agree if is_dialog else None,
            progress=_say_once() if is_dialog else bar,
            **how,
        )
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=1))
        return
    for answer in report.settled:
        click.echo(f"{answer['about']:<24} {answer['value']}  ({answer['whence']})")
    for remark in report.remarks:
        click.echo(f"note: {remark}")
    for sheet in report.previews:
        click.echo(f"look at {sheet}")
    pace = f"{report.picture_ms:.1f} ms a picture, of {report.deadline_ms:g} that a part has"
    click.echo(f"packed {report.model}, {pace}, in {report.folder}")
    click.echo(f"now: edge-runtime models install {_shown(Path(report.folder))}", err=True)
    click.echo(f"     edge-runtime predict FILE... --model {report.model}", err=True)
    parts = "--set camera.driver=folder --set camera.folder.path=DIR --parts 5"
    click.echo(f"     edge-runtime run --set model.name={report.model} {parts}", err=True)
    click.echo(f'to let it judge parts: set model.name = "{report.model}" and start again', err=True)


def _told(options: dict[str, Any]) -> Told:
    from edge_runtime.core.manifest import Kind
    from edge_runtime.packing.answers import Told
    from edge_runtime.packing.labels import label_names
    from edge_runtime.packing.plan import parse_size

    named = {field.name: options[field.name] for field in fields(Told) if options.get(field.name) is not None}
    named |= {
        "kind": Kind(options["kind"]) if options["kind"] else None,
        "size": parse_size(options["size"]) if options["size"] else None,
        "labels": label_names(options["labels"]) if options["labels"] else (),
        "labels_from": options["labels"],
    }
    return Told(**named)


def _ask(question: Question) -> str:
    """Put a question until its answer is one."""
    from edge_runtime.core.errors import UsageError

    def checked(text: str) -> str:
        try:
            question.check(text)
        except UsageError as err:
            raise click.UsageError(str(err)) from err
        if question.check is str and question.choices and text not in question.choices:
            raise click.UsageError(f"{text!r} is none of {', '.join(question.choices)}")
        return text

    click.echo(f"{question.about}: {question.why}", err=True)
    choices = f" ({', '.join(question.choices)})" if question.choices else ""
    default = question.default or None
    answer: str = click.prompt(f"  {question.option}{choices}", default=default, value_proc=checked, err=True)
    return answer


def _say_once() -> Callable[[str, int, int], None]:
    """What is being done, a line each: a bar would be drawn over the questions."""
    said: set[str] = set()

    def tell(what: str, done: int, of: int) -> None:
        if what not in said:
            said.add(what)
            click.echo(f"{what} {counted(of, 'sample')}" if what == "judging" else what, err=True)

    return tell


def _agree(sheets: Sequence[Path], remarks: Sequence[str]) -> bool:
    for remark in remarks:
        click.echo(f"note: {remark}", err=True)
    for sheet in sheets:
        click.echo(f"look at {sheet}", err=True)
    return click.confirm("seal it?", default=True, err=True)


def _shown(folder: Path) -> Path:
    """As it is typed from here."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder
