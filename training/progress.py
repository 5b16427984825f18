"""Progress of a command: a bar on a terminal, nothing where output is captured."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)


class Bar:
    """One row of a progress display. Touched only by the command that opened it."""

    def __init__(self, progress: Progress, row: TaskID) -> None:
        self._progress = progress
        self._row = row

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Count what is done; `note` stands at the end of the row until the next one."""
        self._progress.advance(self._row, amount)
        if note:
            self._progress.update(self._row, note=note)

    def reach(self, completed: float, note: str = "") -> None:
        """Set what is done altogether."""
        self._progress.update(self._row, completed=completed)
        if note:
            self._progress.update(self._row, note=note)


@contextmanager
def progress_bar(what: str, total: float, done: float = 0) -> Iterator[Bar]:
    """Show `what` advancing from `done` to `total`, with the time that is left."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield Bar(progress, progress.add_task(what, total=total, completed=int(done), note=""))
