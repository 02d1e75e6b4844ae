"""What verbs leave behind and show: the folder of results, and a bar while work goes on."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from backend.errors import InputError
from backend.training.progress import Outcome, ProgressEvent, Tally

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console

__all__ = ["ProgressBar", "results_folder"]


@contextmanager
def results_folder(folder: Path) -> Iterator[None]:
    """Make a folder for results, before any work; if it stays empty, remove it again.

    Raises
    ------
    InputError
        If it cannot be made or written to.
    DiskFull
        If there was no room for the results.
    """
    from backend.files import full_disk_explained

    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            why = "it is a file" if folder.is_file() else (error.strerror or str(error)).lower()
            msg = f'Results cannot be written to "{folder}": {why}.'
            raise InputError(msg, "Give --out a folder that you may write to.") from error
        with full_disk_explained("the results"):
            yield
    finally:
        for path in made:
            # One that holds something stays, and so do those above it.
            with suppress(OSError):
                path.rmdir()


class ProgressBar:
    """A bar over tasks, which also moves within one.

    Parameters
    ----------
    texts
        What each task is called, by key.
    title
        Of the bar.
    is_listing
        Print a line for each task that ended; otherwise only for those that failed.
    """

    def __init__(
        self,
        console: Console,
        texts: Mapping[str, str],
        *,
        title: str = "",
        is_listing: bool = False,
    ) -> None:
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed

        self._texts, self._is_listing, self._tally = texts, is_listing, Tally()
        self._progress = Progress(
            TextColumn("{task.fields[title]}"),
            BarColumn(),
            TextColumn("{task.fields[ended]}/{task.total:.0f}"),
            Elapsed(),
            TextColumn("{task.description}"),
            console=console,
        )
        self._task = self._progress.add_task("", total=len(texts), ended=0, title=title)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: ProgressEvent | Outcome) -> None:
        """Show that a task entered a state, went on or ended."""
        self._tally.add(event)
        text = self._texts[event.key]
        self._progress.update(self._task, completed=self._tally.done, ended=self._tally.n_ended)
        if isinstance(event, ProgressEvent):
            description = f"{text}: {event.state} {event.text}".strip()
            self._progress.update(self._task, description=description)
            if event.state == "retried":
                self._say(f"retried  {text}  {event.text}")
            if event.state == "failed" and not self._is_listing:
                self._say(f"{text} failed: {event.text}", style="red")
        elif self._is_listing:
            seconds = "" if event.wall_seconds is None else f"  {event.wall_seconds:.1f} s"
            reason = f"  {event.reason}" if event.reason else ""
            number = f"[{self._tally.n_ended}/{len(self._texts)}]"
            self._say(f"{number} {event.status:<7}  {text}{seconds}{reason}")

    def _say(self, text: str, style: str | None = None) -> None:
        console = self._progress.console
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
