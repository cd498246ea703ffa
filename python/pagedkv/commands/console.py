"""Where the commands print tables."""

from rich.console import Console


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - it is called where the error is handled; `guarded` knows what to do


console = _Console(highlight=False)
