"""`pagedkv replay-ops`: makes the calls of a recorded trace again and compares every answer."""

import time
from pathlib import Path
from typing import Annotated

import typer

from pagedkv import ReplayReport
from pagedkv import replay_ops as replay

from .errors import require_int

MAX_PAGES = 1 << 24


def replay_ops(
    file: Annotated[Path, typer.Argument(help="What `generate --record` wrote.")],
    check: Annotated[
        bool, typer.Option("--check", help="Check all invariants after every call.")
    ] = False,
    max_pages: Annotated[int, typer.Option(help="Refuse traces of larger pools.")] = MAX_PAGES,
) -> None:
    """Make the calls of a trace again, and compare every answer.

    Exits with 1 if an answer differs or an invariant breaks, with 2 if the file is no whole trace of
    this version.
    """
    require_int(max_pages=max_pages)
    start = time.perf_counter()
    report = replay(file, check=check, max_pages=max_pages)
    _print(report, time.perf_counter() - start)
    if report.difference is not None:
        raise typer.Exit(1)


def _print(report: ReplayReport, seconds: float) -> None:
    from .console import console

    if not report.was_stopped and report.difference is None:
        where = "in the middle of a record" if report.is_cut else "without its end"
        console.print(f"The trace ends {where}: the recording was not stopped.")
    if report.unanswered_call is not None:
        console.print(f"The last call has no answer: {report.unanswered_call}", markup=False)
    if difference := report.difference:
        console.print(f"Op {difference.op} differs: {difference.call}", markup=False)
        console.print(f"  recorded: {difference.recorded}", markup=False)
        console.print(f"  replayed: {difference.replayed}", markup=False)
    same = "" if report.difference else ", all answers are the same"
    console.print(f"{report.num_ops} ops in {seconds:.2f} s{same}.")
