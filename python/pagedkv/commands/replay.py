"""`pagedkv replay`: what a cache of which size would have hit on a real trace of requests."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pagedkv.replay import ReplayOptions, ReplayResult, cache_groups, read_trace, replay
from pagedkv.replay.plot import check_plot_path, plot
from pagedkv.replay.trace import BLOCK_SIZE

from .errors import require_int

if TYPE_CHECKING:
    from rich.table import Table

_DEFAULTS = ReplayOptions()

Runs = list[tuple[str, ReplayResult]]


def replay_traces(
    traces: Annotated[
        list[Path], typer.Argument(help="Files in Mooncake's format, one request a line; .gz too.")
    ],
    pages: Annotated[
        str, typer.Option(help="Pages of the pool; several sizes with commas: 50000,200000.")
    ],
    page_size: Annotated[int, typer.Option(help="Tokens of a page.")] = _DEFAULTS.page_size,
    group: Annotated[
        list[str] | None,
        typer.Option(help="A cache group: full, window:N or chunk:N. Give several for hybrids."),
    ] = None,
    max_running: Annotated[
        int, typer.Option(help="Most requests that run at a time.")
    ] = _DEFAULTS.max_running,
    token_budget: Annotated[
        int, typer.Option(help="Most tokens of a step; longer prompts are cut in chunks.")
    ] = _DEFAULTS.token_budget,
    max_output_tokens: Annotated[
        int | None, typer.Option(help="Cut answers there. As traced if not given.")
    ] = None,
    max_model_len: Annotated[
        int, typer.Option(help="Longest prompt and answer; longer requests are refused.")
    ] = _DEFAULTS.max_model_len,
    shards: Annotated[
        int, typer.Option(help="Data-parallel shards of the pool; they must divide its pages.")
    ] = 1,
    block_size: Annotated[
        int, typer.Option(help="Tokens of a hash id, where the trace does not say.")
    ] = BLOCK_SIZE,
    limit: Annotated[int | None, typer.Option(help="Only so many requests of each trace.")] = None,
    free_order: Annotated[
        str, typer.Option(help="lru, or uncached_first as in vLLM.")
    ] = _DEFAULTS.free_order,
    deduplicate: Annotated[
        bool, typer.Option("--deduplicate", help="Give pages back that were computed twice.")
    ] = False,
    prompt_tokens: Annotated[
        int, typer.Option(help="Keep the first N tokens of each prompt on a priority of their own.")
    ] = 0,
    prompt_priority: Annotated[int, typer.Option(help="That priority, 0 to 100.")] = 90,
    prompt_ttl: Annotated[
        int | None, typer.Option(help="For how many ms of the trace's time after a use.")
    ] = None,
    output_priority: Annotated[
        int, typer.Option(help="Priority of pages that answers fill, 0 to 100.")
    ] = _DEFAULTS.output_priority,
    plot_path: Annotated[
        Path | None, typer.Option("--plot", help="Draw into a .png, .svg or .html file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Serve real request traces without a model: hit rate against pool size.

    Requests come in order, as fast as they can be started, and answers have as many tokens as traced.
    Exits with 2 if an argument or a trace is wrong.
    """
    sizes = _sizes(pages)
    require_int(
        pages=max(sizes),
        token_budget=token_budget,
        max_model_len=max_model_len,
        shards=shards,
        prompt_tokens=prompt_tokens,
        prompt_priority=prompt_priority,
        output_priority=output_priority,
    )
    require_int(bits=64, prompt_ttl=prompt_ttl)
    if limit is not None and limit < 1:
        raise ValueError(f"[replay] --limit must be at least 1, got {limit}")
    if plot_path is not None:
        check_plot_path(plot_path)
    options = ReplayOptions(
        page_size=page_size,
        max_running=max_running,
        token_budget=token_budget,
        max_output_tokens=max_output_tokens,
        max_model_len=max_model_len,
        data_parallel_size=shards,
        free_order=free_order,
        deduplicate=deduplicate,
        prompt_tokens=prompt_tokens,
        prompt_priority=prompt_priority,
        prompt_ttl=prompt_ttl,
        output_priority=output_priority,
    )
    groups = cache_groups(group or ["full"], page_size)
    if len(sizes) > 1 and not all(path.is_file() for path in traces if path.exists()):
        raise ValueError("[replay] a pipe can be read once: give one size of --pages")
    runs: Runs = []
    with _progress(traces, len(sizes)) as on_run:
        for path in traces:
            for num_pages in sizes:
                title = path.stem if len(sizes) == 1 else f"{path.stem}, {num_pages:,}"
                on_bytes, on_step = on_run(path, num_pages)
                trace = read_trace(path, block_size=block_size, on_bytes=on_bytes)
                some = (request for request, _ in zip(trace, _count(limit), strict=False))
                result = replay(some, num_pages, groups=groups, options=options, on_step=on_step)
                if result.num_requests + result.num_refused == 0:
                    raise ValueError(f"[replay] {path}: no request in it")
                runs.append((title, result))
    if plot_path is not None:
        plot(runs, plot_path)
    if as_json:
        print(json.dumps(_as_json(traces, options, group or ["full"], runs)))
    else:
        from .console import console

        console.print(_table(runs))
        if plot_path is not None:
            console.print(f"Drawn into {plot_path}.", markup=False)


def _sizes(pages: str) -> list[int]:
    parts = pages.split(",")
    if not all(part.strip().isdecimal() and int(part) > 1 for part in parts):
        raise ValueError(
            f"[replay] --pages must be numbers of at least 2, with commas, got {pages!r}"
        )
    return [int(part) for part in parts]


def _count(limit: int | None) -> Iterator[int]:
    count = 0
    while limit is None or count < limit:
        yield count
        count += 1


@contextmanager
def _progress(
    traces: Sequence[Path], num_sizes: int
) -> Iterator[Callable[[Path, int], tuple[Callable[[int], None], Callable[[ReplayResult], None]]]]:
    """Shows how far all replays are, on a terminal. Gives callbacks for the next one."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    total = num_sizes * sum(path.stat().st_size for path in traces)
    task = progress.add_task("", total=total, rate="")
    done = 0

    def on_run(
        path: Path, num_pages: int
    ) -> tuple[Callable[[int], None], Callable[[ReplayResult], None]]:
        nonlocal done
        before = done
        done += path.stat().st_size
        start = progress.get_time()
        progress.update(task, description=f"{path.stem}, {num_pages:,} pages")

        def on_bytes(position: int) -> None:
            progress.update(task, completed=before + position)

        def on_step(result: ReplayResult) -> None:
            if result.num_steps % 100 == 0:
                seconds = max(progress.get_time() - start, 1e-9)
                rate = f"{result.num_prompt_tokens / seconds / 1e6:.1f} M tokens/s"
                progress.update(task, rate=rate)

        return on_bytes, on_step

    if progress.console.is_terminal:
        with progress:
            yield on_run
    else:
        yield on_run


def _table(runs: Runs) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("trace", overflow="fold")
    has_refused = any(result.num_refused for _, result in runs)
    heads = ["pages", "requests", "hit rate", "evictions", "preempted", "peak", "tokens/s"]
    for head in heads + ["refused"] * has_refused:
        table.add_column(head, justify="right", no_wrap=True)
    for title, result in runs:
        refused = [f"{result.num_refused:,}"] * has_refused
        table.add_row(
            title.partition(",")[0],
            f"{result.num_pages:,}",
            f"{result.num_requests:,}",
            f"{result.hit_rate:.2%}",
            f"{result.num_evictions:,}",
            f"{result.num_preemptions:,}",
            f"{result.peak_held_pages / (result.num_pages - 1):.0%}",
            f"{result.num_prompt_tokens / max(result.seconds, 1e-9) / 1e6:.1f} M",
            *refused,
        )
    return table


def _as_json(
    traces: Sequence[Path], options: ReplayOptions, groups: Sequence[str], runs: Runs
) -> dict[str, Any]:
    return {
        "traces": [str(path) for path in traces],
        "options": asdict(options) | {"groups": list(groups)},
        "runs": [
            {"title": title, **asdict(result), "hit_rate": result.hit_rate}
            for title, result in runs
        ],
    }
