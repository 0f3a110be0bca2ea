"""Entry point: global options, lazily loaded commands, and errors as sentences.

`--config` and `--set` are accepted before and after the command, as people type them. Commands are imported when
they are called: `status` must not pay for numpy.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime import __version__
from edge_runtime.cli.columns import hanging, room
from edge_runtime.cli.console import speak_plainly
from edge_runtime.core.errors import ConfigError, EdgeError, InstallError, UsageError

if TYPE_CHECKING:
    from edge_runtime.config.load import Loaded
    from edge_runtime.config.schema import EdgeConfig

# name -> (module, attribute, help)
COMMANDS = {
    "run": ("run_cmd", "run", "The daemon that inspects: camera, model, decision, reject gate."),
    "sync": ("sync_cmd", "sync", "The daemon of the uplink: records, live tags, commands over MQTT."),
    "demo": ("demo_cmd", "demo", "The whole box on a simulated line, with a live screen."),
    "status": ("status_cmd", "status", "One look at the running box."),
    "top": ("top_cmd", "top", "Live terminal screen of the running box."),
    "doctor": ("doctor_cmd", "doctor", "Check what a site visit would check; each finding with its fix."),
    "config": ("config_cmds", "config", "Check, show and explain the station file."),
    "io": ("io_cmds", "io", "Find and test devices."),
    "parts": ("parts_cmds", "parts", "The ledger: which parts passed, what was decided, and why."),
    "review": ("review_cmds", "review", "What waits for a person's eye; say what a part is."),
    "spool": ("spool_cmds", "spool", "What waits for the cloud."),
    "models": ("models_cmds", "models", "Model bundles: list, verify, teach, switch versions."),
    "predict": ("predict_cmd", "predict", "Judge picture and sound files."),
    "data": ("data_cmds", "data", "Learn from what the box recorded: the sound of a machine."),
    "listen": ("listen_cmd", "listen", "What does the microphone hear? Live, or from a file."),
    "line": ("line_cmds", "line", "Hold the running line, let it go on, say who decides."),
    "serve": ("serve_cmd", "serve", "The daemon with the network: prediction API, speech server."),
    "search": ("search_cmd", "search", "Find parts, defects and work instructions."),
    "bench": ("bench_cmd", "bench", "Measure this box: how many parts a second it keeps up with."),
}


class Session:
    """What global options said; the station file is read when somebody first asks for it."""

    def __init__(self, config_option: str | None, settings: Sequence[str]) -> None:
        self.config_option = config_option
        self.settings = tuple(settings)

    @cached_property
    def config_path(self) -> Path | None:
        from edge_runtime.config.paths import config_file

        return config_file(self.config_option)

    @cached_property
    def loaded(self) -> Loaded:
        from edge_runtime.config.load import load

        return load(self.config_path, self.settings)

    @property
    def config(self) -> EdgeConfig:
        return self.loaded.config


class LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"edge_runtime.cli.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        near = difflib.get_close_matches(name, COMMANDS, n=1) if name not in COMMANDS else []
        if near and not name.startswith("-"):
            ctx.fail(f"No such command '{name}'. Did you mean '{near[0]}'?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edge-runtime")
@click.option("--config", "config_option", metavar="FILE",
              help="Station file; else EDGE_RUNTIME_CONFIG, /etc/edge-runtime/station.toml, the demo.")  # fmt: skip
@click.option(
    "--set", "settings", metavar="SECTION.KEY=VALUE", multiple=True, help="Set one key, in TOML: camera.fps=20."
)
@click.pass_context
def cli(ctx: click.Context, config_option: str | None, settings: tuple[str, ...]) -> None:
    """edge_runtime: accept or reject every part in time, with no internet."""
    ctx.obj = Session(config_option, settings)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 good, 1 found a problem or refused, 2 wrong usage, configuration or installation."""
    speak_plainly()
    args = _globals_first(list(sys.argv[1:] if argv is None else argv))
    try:
        code = cli.main(args, prog_name="edge-runtime", standalone_mode=False)
        if sys.stdout is not None:  # closed by whoever started this
            sys.stdout.flush()
    except click.exceptions.Abort:
        if sys.stdin is None or not sys.stdin.isatty():  # nobody there to answer
            code = _fail("this asks before it does it, and nobody is there to answer: give --yes", 2, args)
        else:
            click.echo(err=True)  # the question stands on a line of its own
            code = _fail("stopped", 130, args)
    except click.ClickException as err:
        err.show()
        if "--json" in args:
            click.echo(json.dumps({"error": err.format_message()}))
        code = err.exit_code
    except (ConfigError, UsageError, InstallError) as err:
        code = _fail(str(err), 2, args, err.fix)
    except EdgeError as err:
        code = _fail(str(err), 1, args, err.fix)
    except ModuleNotFoundError as err:  # what may be absent is asked for where it is used, with a sentence of its own
        code = _fail(f"not all is installed: {err}; run tools/install again (tools/setup in a checkout)", 2, args)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `| head` closed the pipe: not our problem
        code = 0
    except Exception as err:
        if os.environ.get("EDGE_RUNTIME_DEBUG"):
            raise
        if "JOURNAL_STREAM" in os.environ:  # a service that failed at night tells where without being asked again
            import traceback

            traceback.print_exc()
        code = _fail(_unexpected(err), 1, args)
    sys.exit(code if isinstance(code, int) else 0)


def _unexpected(err: Exception) -> str:
    """A file that may not be used is a matter of the machine; everything else is a fault of ours."""
    if isinstance(err, OSError) and err.filename is not None:
        fix = (
            f"become root, or let {_user()} use it" if isinstance(err, PermissionError) else "mend it, or name another"
        )
        return f"{os.fsdecode(err.filename)}: {err.strerror}; {fix}"
    return f"unexpected {type(err).__name__}: {err} (EDGE_RUNTIME_DEBUG=1 shows where)"


def _user() -> str:
    import pwd

    try:
        return f"user {pwd.getpwuid(os.geteuid()).pw_name}"
    except KeyError:
        return f"user {os.geteuid()}"


def _fail(sentence: str, code: int, args: Sequence[str], fix: str = "") -> int:
    priority = "<3>" if "JOURNAL_STREAM" in os.environ else ""  # for `journalctl -p err`, see sd-daemon(3)
    for line in sentence.splitlines():
        click.echo("\n".join(hanging(f"{priority}error: ", line, room(sys.stderr))), err=True)
    if "--json" in args:
        click.echo(json.dumps({"error": sentence} | ({"fix": fix} if fix else {})))
    return code


def _globals_first(args: list[str]) -> list[str]:
    """Move `--config FILE` and `--set K=V` in front of the command."""
    front: list[str] = []
    rest: list[str] = []
    pending = iter(args)
    for arg in pending:
        if arg == "--":
            rest += [arg, *pending]
        elif arg in ("--config", "--set"):
            front.append(arg)
            front += [value for value in [next(pending, None)] if value is not None]
        elif arg.startswith(("--config=", "--set=")):
            front.append(arg)
        else:
            rest.append(arg)
    return front + rest


if __name__ == "__main__":
    main()
