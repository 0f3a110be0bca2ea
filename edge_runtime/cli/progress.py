"""A progress bar on stderr, where somebody looks at it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Told = Callable[[str, int, int], None]  # what is being done, how many are done, of how many


@contextmanager
def progress(*, is_quiet: bool = False) -> Iterator[Told]:
    """A bar for each thing that it is told of, gone at the end. Nothing where stderr is no terminal, or when quiet.

    The whole may grow while it is worked on.
    """
    if is_quiet or not sys.stderr.isatty():
        yield lambda what, done, of: None
        return
    from rich.console import Console
    from rich.progress import Progress, TaskID

    # rich would take standard output for the screen, even where it goes into a file
    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what)
            bar.update(tasks[what], completed=done, total=max(done, of))

        yield tell
