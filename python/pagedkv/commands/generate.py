"""`pagedkv generate`: serves a real model on paged memory and shows what the prefix cache saves."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from pagedkv.serving.engine import Engine
from pagedkv.serving.model_files import DEFAULT_MODEL, MODELS, ModelFile, find_model
from pagedkv.serving.models import load_model
from pagedkv.serving.paged_model import KV_DTYPES, PagedModel
from pagedkv.serving.prompts import QUESTIONS, visitor_chat
from pagedkv.serving.tokenizer import ChatTokenizer

from .report import Run, console, print_answers, print_comparison, print_run, track

PAGES_PER_GROUP = 640
DEMO_ANSWER_TOKENS = 32
PROMPT_ANSWER_TOKENS = 256


@dataclass(frozen=True)
class Server:
    """A loaded model, and the sizes of the engines that are to serve it."""

    model: PagedModel
    tokenizer: ChatTokenizer
    num_pages: int
    page_size: int
    batch_size: int
    chunk_size: int
    record: Path | None = None  # file for the calls on an engine's manager

    def start(self, *, prefix_cache: bool) -> Engine:
        return Engine(
            self.model,
            eos_id=self.tokenizer.eos_id,
            num_pages=self.num_pages,
            page_size=self.page_size,
            batch_size=self.batch_size,
            chunk_size=self.chunk_size,
            prefix_cache=prefix_cache,
        )

    @contextmanager
    def recorded(self, engine: Engine) -> Iterator[None]:
        if self.record is None:
            yield
            return
        engine.manager.start_recording(self.record)
        try:
            yield
        finally:
            engine.manager.stop_recording()


def generate(
    prompt: Annotated[
        str | None, typer.Option(help="Answer this one question instead, word by word.")
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Serve without and then with the prefix cache; exit with 1 if an answer differs.",
        ),
    ] = False,
    prefix_cache: Annotated[
        bool, typer.Option(help="Let prompts share the pages of equal prefixes.")
    ] = True,
    model: Annotated[
        str,
        typer.Option(
            help=f"{' or '.join(MODELS)}, from installed wheels; or a GGUF file of either family."
        ),
    ] = DEFAULT_MODEL,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            help="Longest answer.",
            show_default=f"{DEMO_ANSWER_TOKENS}, or {PROMPT_ANSWER_TOKENS} with --prompt",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Most requests that run at a time.")] = 32,
    chunk_size: Annotated[
        int, typer.Option(help="Most tokens of a prompt computed in a step.")
    ] = 224,
    pages: Annotated[
        int | None,
        typer.Option(
            help="Pages of the KV cache.",
            show_default=f"{PAGES_PER_GROUP} for each group of layers: smollm2 has 1, gemma3 6",
        ),
    ] = None,
    page_size: Annotated[int, typer.Option(help="Tokens of a page.")] = 16,
    kv_dtype: Annotated[
        str, typer.Option(help=f"What pages keep K/V as: {', '.join(KV_DTYPES)}.")
    ] = "bfloat16",
    record: Annotated[
        Path | None,
        typer.Option(help="Write every call on the cache manager to this file, for replay-ops."),
    ] = None,
) -> None:
    """Serve a real model with continuous batching on a paged KV cache.

    Answers the questions of 32 visitors to an observatory. They share one long system prompt, which
    the prefix cache computes once.

    gemma3-270m is a hybrid: most layers see a window of 512 tokens, and give their pages back. It is
    a download of its own, under the Gemma terms, and not trained on chats: it goes on with a text.
    """
    if prompt is not None and compare:
        _refuse("--compare serves the visitors' questions: leave --prompt out")
    if record is not None and compare:
        _refuse("--record writes one run: leave --compare out")
    if max_new_tokens is None:
        max_new_tokens = DEMO_ANSWER_TOKENS if prompt is None else PROMPT_ANSWER_TOKENS
    try:
        with console.status("Loading the model ..."):
            paged_model, tokenizer = _load(model, kv_dtype)
        if pages is None:
            pages = PAGES_PER_GROUP * paged_model.places.num_groups
        server = Server(paged_model, tokenizer, pages, page_size, batch_size, chunk_size, record)
        if prompt is not None:
            alone = replace(server, batch_size=1)
            engine = alone.start(prefix_cache=prefix_cache)
            with alone.recorded(engine):
                _answer(engine, tokenizer, prompt, max_new_tokens)
            return
        modes = [False, True] if compare else [prefix_cache]
        runs = [_serve_visitors(server, mode, max_new_tokens) for mode in modes]
    except (ValueError, OSError) as error:
        _refuse(str(error))

    print_answers(QUESTIONS, [tokenizer.decode(answer) for answer in runs[-1].answers])
    if not compare:
        print_run(runs[0])
    elif not print_comparison(*runs):
        raise typer.Exit(1)


def _load(name: str, kv_dtype: str) -> tuple[PagedModel, ChatTokenizer]:
    start = time.perf_counter()
    file = ModelFile(find_model(name) if name in MODELS else Path(name))
    tokenizer = ChatTokenizer(file)
    model = load_model(file, kv_dtype)
    console.print(f"Loaded {file.path.name} in {time.perf_counter() - start:.1f} s.")
    return model, tokenizer


def _serve_visitors(server: Server, prefix_cache: bool, max_new_tokens: int) -> Run:
    start, compiled_before = time.perf_counter(), server.model.compile_seconds
    engine = server.start(prefix_cache=prefix_cache)
    generations = [
        engine.submit(f"visitor-{i}", server.tokenizer.encode_chat(visitor_chat(q)), max_new_tokens)
        for i, q in enumerate(QUESTIONS)
    ]
    title = "with prefix cache" if prefix_cache else "without prefix cache"
    with server.recorded(engine), track(title, engine, generations) as update:
        while engine.has_work:
            engine.step()
            update()
    return Run(
        title=title,
        answers=[generation.answer for generation in generations],
        stats=engine.stats,
        wall_seconds=time.perf_counter() - start,
        compile_seconds=server.model.compile_seconds - compiled_before,
    )


def _answer(engine: Engine, tokenizer: ChatTokenizer, prompt: str, max_new_tokens: int) -> None:
    tokens = tokenizer.encode_chat([{"role": "user", "content": prompt}])
    engine.submit("prompt", tokens, max_new_tokens)
    next_text = tokenizer.stream()
    while engine.has_work:
        for _, token in engine.step():
            console.out(next_text(token), end="", highlight=False)
    console.print()
    stats = engine.stats
    console.print(
        f"{stats.num_tokens_prefilled} tokens prefilled, {stats.num_tokens_decoded} decoded at "
        f"{stats.decode_rate:.0f} tokens/s, {stats.peak_pages} pages.",
        style="dim",
    )


def _refuse(message: str) -> None:
    print(f"pagedkv generate: {message}", file=sys.stderr)
    raise typer.Exit(2)
