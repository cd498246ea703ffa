"""`pagedkv generate`: serves a real model on paged memory and shows what the prefix cache saves."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from pagedkv.serving.choices import DEFAULT_MODEL, KV_DTYPES, MODELS

from .errors import refuse

PAGES_PER_GROUP = 640
DEMO_ANSWER_TOKENS = 32
PROMPT_ANSWER_TOKENS = 256


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
    events: Annotated[
        str | None,
        typer.Option(
            help="Publish KV events of the run at this endpoint, as tcp://127.0.0.1:5557; port * is "
            "any free one. Not with --compare, whose two runs have caches of their own."
        ),
    ] = None,
    events_replay: Annotated[
        str | None, typer.Option(help="Send missed events again from this endpoint.")
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            help="Serve Prometheus metrics of the run on this port of 127.0.0.1; 0 is any free one. "
            "Not with --compare, for the same reason."
        ),
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
    if compare and (events is not None or metrics_port is not None):
        _refuse("--events and --metrics-port follow one run: leave --compare out")
    if events is not None and not prefix_cache:
        _refuse("--events tells what the prefix cache has: leave --no-prefix-cache out")
    if events_replay is not None and events is None:
        _refuse("--events-replay sends again what --events sent: give --events too")
    if max_new_tokens is None:
        max_new_tokens = DEMO_ANSWER_TOKENS if prompt is None else PROMPT_ANSWER_TOKENS

    # Here, as they take seconds to import.
    from . import serve
    from .report import print_answers, print_comparison, print_run
    from .telemetry import Telemetry

    telemetry = Telemetry(events, events_replay, metrics_port)
    telemetry.check()

    paged_model, tokenizer = serve.load(model, kv_dtype)
    if pages is None:
        pages = PAGES_PER_GROUP * paged_model.places.num_groups
    if prompt is not None:
        batch_size = 1
    server = serve.Server(
        paged_model, tokenizer, pages, page_size, batch_size, chunk_size, record, telemetry
    )
    if prompt is not None:
        serve.answer(server, prefix_cache, prompt, max_new_tokens)
        return
    modes = [False, True] if compare else [prefix_cache]
    runs = [serve.serve_visitors(server, mode, max_new_tokens) for mode in modes]
    print_answers(runs[-1].questions, [tokenizer.decode(answer) for answer in runs[-1].answers])
    if not compare:
        print_run(runs[0])
    elif not print_comparison(*runs):
        raise typer.Exit(1)


def _refuse(message: str) -> NoReturn:
    refuse("generate", message)
