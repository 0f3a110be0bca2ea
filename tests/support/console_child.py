"""Every command that is answered at once, at a console of 80 columns: `console_child.py STATE WHO`, JSON out.

WHO is `self`, or `UID:GID[:GROUP,...]` for a process started by root. The commands come from the command line itself;
each runs in a child of its own, forked when all is imported: another user may not reach root's Python.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import importlib
import json
import os
import pkgutil
import pty
import struct
import sys
import termios
from collections.abc import Iterator

import click

from edge_runtime.cli.main import cli, main

COLUMNS, LINES = 80, 24
PACKAGES = ("cli", "core", "config", "process", "recording", "modelstore", "catalogue", "predictors", "dataset", "sync")
ALSO = (
    "decimal",
    "gzip",
    "importlib.metadata",
    "jsonschema",
    "rich.progress",
    "textwrap",
)  # imported when they are needed
WAITS = {  # daemons, what goes on until it is stopped, and what computes for seconds
    "run", "sync", "serve", "demo", "top", "bench", "listen", "io plc", "io capture", "doctor", "parts replay",
}  # fmt: skip
ARGUMENTS = {
    "bundle": ["--out", "/proc/nothing.tar.gz"],
    "sync key": ["/proc/nothing"], "sync sign": ["line.hold", "--key", "/proc/nothing", "--box", "b"],
    "io capture": ["--out", "/proc/nothing.png"], "parts show": ["last"], "models install": ["/proc/nothing"],
    "models pack": ["/proc/nothing.tflite"], "models probe": ["/proc/nothing.tflite"], "models show": ["scratch"],
    "models stage": ["scratch@1"], "models teach": ["/proc/nothing", "--name", "n"], "predict": ["/proc/nothing.png"],
    "data learn-sound": ["/proc/nothing", "--name", "n"], "line automation": ["full"], "search": ["scratch"],
    "models promote": ["--yes"], "models rollback": ["--yes"], "models verify": ["/proc/nothing"],
    "line resume": ["--yes"], "io gate": ["--no-such-option"], "config schema": ["--help"],
}  # fmt: skip


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield (*path, name)
            yield from commands(command, (*path, name))
        elif command is not None:
            yield (*path, name)


def run(words: list[str], who: str) -> tuple[int, str]:
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))  # before a word is said
        if who != "self":
            user, group, *others = who.replace(",", ":").split(":")
            os.setgroups([int(group), *map(int, others)])
            os.setresgid(int(group), int(group), int(group))
            os.setresuid(int(user), int(user), int(user))
        try:
            main(words)
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(int(end.code or 0))
        finally:
            os._exit(99)
    said = b""
    with contextlib.suppress(OSError):  # the terminal's other end is closed
        while piece := os.read(terminal, 65536):
            said += piece
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode(sys.stdout.encoding, "replace")


if __name__ == "__main__":
    state, who = sys.argv[1:]
    for package in PACKAGES:
        above = importlib.import_module(f"edge_runtime.{package}")
        for module in pkgutil.walk_packages(above.__path__, f"{above.__name__}."):
            with contextlib.suppress(ImportError):  # an extra that is not installed
                importlib.import_module(module.name)
    for library in ALSO:
        importlib.import_module(library)
    codecs.lookup("utf-8-sig")
    told = {}
    for words in commands():
        name = " ".join(words)
        rest = ["--help"] if name in WAITS else ARGUMENTS.get(name, [])
        code, said = run([*words, *rest, "--set", f"recording.state_dir={state}"], who)
        told[name] = {"code": code, "said": said}
    sys.stdout.buffer.write(json.dumps(told).encode())
