"""Pictures of replays: what the pool held, hit rate and evictions on the way; hit rate by pool size."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .run import ReplayResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".html")
# Okabe and Ito's colours, which people with any colour vision tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999")
_WINDOW = 24  # samples that a hit rate "now" is the mean of


def check_plot_path(path: Path) -> None:
    """Raises ``ValueError`` for a file of no known kind."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"[plot] a file must end in one of {', '.join(SUFFIXES)}, got {path.name}")


def plot(results: Sequence[tuple[str, ReplayResult]], path: str | Path) -> None:
    """Draws replays into a file.

    Args:
      results: Replays with their titles, at least one. Time goes by prompt tokens.
      path: ``.png``, ``.svg``, or ``.html``: one page without scripts.

    Raises:
      ValueError: If there are no results, or for a file of another kind.
      ImportError: Without matplotlib.
    """
    path = Path(path)
    check_plot_path(path)
    if not results:
        raise ValueError("[plot] there is nothing to draw")
    figure = _figure(results)
    if path.suffix == ".html":
        path.write_text(_page(figure, results), encoding="utf-8")
    else:
        figure.savefig(path)


def _figure(results: Sequence[tuple[str, ReplayResult]]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), dpi=110, layout="constrained")
    (pool, rate), (evictions, curve) = figure.subplots(2, 2)
    largest = max(results, key=lambda pair: pair[1].num_pages)
    _draw_pool(pool, *largest)
    for i, (title, result) in enumerate(results):
        colour = COLOURS[i % len(COLOURS)]
        tokens = [sample.num_prompt_tokens / 1e6 for sample in result.samples]
        rate.plot(tokens, _recent_hit_rates(result), color=colour, label=title, linewidth=1.5)
        counts = [sample.num_evictions / 1e6 for sample in result.samples]
        evictions.plot(tokens, counts, color=colour, label=title, linewidth=1.5)
    _name(rate, "hit rate, of late", "prompt tokens, millions", "share of prompt tokens")
    rate.set_ylim(bottom=0)
    _name(evictions, "evictions so far", "prompt tokens, millions", "pages, millions")
    _draw_curve(curve, results)
    if len(results) > 1:
        rate.legend(frameon=False, fontsize="small")
    return figure


def _draw_pool(axes: Axes, title: str, result: ReplayResult) -> None:
    tokens = [sample.num_prompt_tokens / 1e6 for sample in result.samples]
    held = np.array([sample.num_held_pages for sample in result.samples], float)
    cached = np.array([sample.num_cached_pages for sample in result.samples], float)
    kept = np.maximum(cached - held, 0)  # about: a few held pages have no digest yet
    blank = np.maximum(result.num_pages - 1 - held - kept, 0)
    axes.stackplot(
        tokens,
        held / 1e3,
        kept / 1e3,
        blank / 1e3,
        labels=["held by requests", "free, cached", "free, without content"],
        colors=[COLOURS[0], COLOURS[4], "#e8e8e8"],
    )
    _name(axes, f"pages: {title}", "prompt tokens, millions", "pages, thousands")
    axes.margins(0)
    axes.legend(loc="lower right", fontsize="small", framealpha=0.9)


def _draw_curve(axes: Axes, results: Sequence[tuple[str, ReplayResult]]) -> None:
    by_size = sorted((result.num_pages, result.hit_rate) for _, result in results)
    axes.plot(*zip(*by_size, strict=True), "o-", color=COLOURS[0])
    for size, hit_rate in by_size:
        axes.annotate(f"{hit_rate:.1%}", (size, hit_rate), (0, 7), textcoords="offset points")
    if len(by_size) > 1:
        axes.set_xscale("log")
    axes.set_ylim(0, max(rate for _, rate in by_size) * 1.2 or 1)
    _name(axes, "hit rate of the whole trace", "pages of the pool", "share of prompt tokens")


def _recent_hit_rates(result: ReplayResult) -> NDArray[np.float64]:
    hits = np.array([0] * _WINDOW + [sample.num_hit_tokens for sample in result.samples])
    tokens = np.array([0] * _WINDOW + [sample.num_prompt_tokens for sample in result.samples])
    num_tokens = np.maximum(tokens[_WINDOW:] - tokens[:-_WINDOW], 1)
    rates: NDArray[np.float64] = (hits[_WINDOW:] - hits[:-_WINDOW]) / num_tokens
    return rates


def _name(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set_title(title, loc="left", fontsize="medium", fontweight="bold")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _page(figure: Figure, results: Sequence[tuple[str, ReplayResult]]) -> str:
    picture = io.StringIO()
    figure.savefig(picture, format="svg")
    svg = picture.getvalue()
    rows = "".join(
        f"<tr><td>{html.escape(title)}</td><td>{result.num_pages:,}</td>"
        f"<td>{result.num_requests:,}</td><td>{result.hit_rate:.2%}</td>"
        f"<td>{result.num_evictions:,}</td><td>{result.num_preemptions:,}</td></tr>"
        for title, result in results
    )
    heads = ("replay", "pages", "requests", "hit rate", "evictions", "preemptions")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>pagedkv replay</title>'
        "<style>body{font-family:sans-serif;margin:2em;background:#fff;color:#222}"
        "svg{max-width:100%;height:auto}td,th{padding:.2em 1em;text-align:right}"
        "td:first-child,th:first-child{text-align:left}</style>"
        f"<h1>pagedkv replay</h1>{svg[svg.index('<svg') :]}"
        f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{rows}</table></html>"
    )
