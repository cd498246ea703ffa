"""What `pagedkv generate` shows: progress while it runs, and tables at the end."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pagedkv.serving.engine import Engine, Generation
from pagedkv.serving.stats import EngineStats

from .console import console

NUM_ANSWERS_SHOWN = 3


@dataclass(frozen=True)
class Run:
    """One pass of an engine over all questions."""

    title: str
    questions: Sequence[str]
    answers: list[list[int]]
    stats: EngineStats
    wall_seconds: float
    compile_seconds: float  # part of it


@contextmanager
def track(
    title: str, engine: Engine, generations: Sequence[Generation]
) -> Iterator[Callable[[], None]]:
    """Shows a progress bar; the function it gives redraws it after a step."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TextColumn("{task.fields[tokens]} tokens, {task.fields[rate]:.0f}/s,"),
        TextColumn("{task.fields[pages]} pages"),
        TimeElapsedColumn(),
        console=console,
    )
    task = progress.add_task(title, total=len(generations), tokens=0, rate=0.0, pages=0)
    start = time.perf_counter()

    def update() -> None:
        num_tokens = sum(len(generation.answer) for generation in generations)
        progress.update(
            task,
            completed=sum(generation.is_finished for generation in generations),
            tokens=num_tokens,
            rate=num_tokens / (time.perf_counter() - start),
            pages=engine.num_pages_in_use,
        )

    with progress:
        yield update


def print_answers(questions: Sequence[str], answers: Sequence[str]) -> None:
    for question, answer in list(zip(questions, answers, strict=True))[:NUM_ANSWERS_SHOWN]:
        console.print(f"\n[bold]{question}[/bold]")
        console.print(answer, markup=False)
    console.print()


def print_run(run: Run) -> None:
    console.print(_table([run]))


def print_comparison(without: Run, with_cache: Run) -> bool:
    """Returns whether all answers are identical."""
    console.print(_table([without, with_cache]))
    pairs = zip(without.answers, with_cache.answers, strict=True)
    num_identical = sum(a == b for a, b in pairs)
    saved = 1 - with_cache.stats.num_tokens_prefilled / without.stats.num_tokens_prefilled
    console.print(
        f"{num_identical} of {len(without.answers)} answers are identical. "
        f"The prefix cache saved {saved:.1%} of the prefill."
    )
    return num_identical == len(without.answers)


def _table(runs: Sequence[Run]) -> Table:
    table = Table()
    table.add_column(f"{len(runs[0].answers)} prompts")
    for run in runs:
        table.add_column(run.title, justify="right")

    def add(name: str, value: Callable[[Run], str]) -> None:
        table.add_row(name, *map(value, runs))

    add("tokens prefilled", lambda run: f"{run.stats.num_tokens_prefilled:,}")
    add("tokens reused", lambda run: f"{run.stats.num_tokens_reused:,}")
    add("tokens decoded", lambda run: f"{run.stats.num_tokens_decoded:,}")
    add("decode tokens/s", lambda run: f"{run.stats.decode_rate:.0f}")
    add("peak pages", lambda run: f"{run.stats.peak_pages:,}")
    add("preemptions", lambda run: f"{run.stats.num_preemptions:,}")
    add("steps", lambda run: f"{run.stats.num_steps:,}")
    add("time in pagedkv", lambda run: f"{run.stats.in_pagedkv.seconds * 1e3:.1f} ms")
    add("time to compile", lambda run: f"{run.compile_seconds:.1f} s")
    add("wall", lambda run: f"{run.wall_seconds:.1f} s")
    return table
