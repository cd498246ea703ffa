"""`pagedkv plan`: how many pages and requests fit in memory, from a model's config."""

from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer

from pagedkv.layouts import KVLayout
from pagedkv.planning import DoesNotFitError, plan_memory
from pagedkv.planning.plan import MAX_NUM_BATCHED_TOKENS
from pagedkv.planning.sizes import format_bytes
from pagedkv.planning.stored import SCALES

from .errors import refuse

_Number = TypeVar("_Number", int, float)


def plan(
    config: Annotated[
        Path, typer.Argument(help="A Hugging Face config.json, or the folder it is in.")
    ],
    memory: Annotated[
        str,
        typer.Option(help="Memory of one device: 80GiB (of 1024), 80GB (of 1000), or bytes."),
    ],
    mesh: Annotated[
        str,
        typer.Option(
            help="Devices: tp cuts kv heads over devices, dp makes replicas with pages of their own."
        ),
    ] = "tp=1,dp=1",
    page_size: Annotated[str, typer.Option(help="Tokens of a page.")] = "16",
    dtype: Annotated[
        str,
        typer.Option(help="Of K/V: auto (the config's), bf16, fp16, fp32, fp8, int8, int4, ..."),
    ] = "auto",
    max_model_len: Annotated[
        str | None,
        typer.Option(
            help="Tokens of a longest request; 128k is 131072.", show_default="the config's"
        ),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="Weights of the whole model; a device has 1/tp of them.")
    ] = "0",
    hbm_utilization: Annotated[
        str, typer.Option(help="Part of the memory that weights and pages may take.")
    ] = "1.0",
    layout: Annotated[
        str, typer.Option(help=f"Of the page arrays: {', '.join(KVLayout.__members__)}.")
    ] = "NHD",
    scales: Annotated[
        str | None,
        typer.Option(
            help=f"Of int8, int4 and fp8, one for each: {', '.join(SCALES)}.",
            show_default="token for these dtypes",
        ),
    ] = None,
    max_num_batched_tokens: Annotated[
        str, typer.Option(help="Tokens of the largest step; windows keep those too.")
    ] = str(MAX_NUM_BATCHED_TOKENS),
    max_encoder_tokens: Annotated[
        str | None,
        typer.Option(
            help="Tokens of the longest encoder input (cross attention).",
            show_default="the config's",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the plan as JSON: see docs/planner.md.")
    ] = False,
) -> None:
    """Plan the KV cache of a model: what a token takes, how many requests fit, what is wasted.

    Example: pagedkv plan config.json --memory 80GiB --mesh tp=8 --weights 141GB

    Exits with 2 if the arguments make no sense, or if no longest request fits: then it says what would.
    """
    try:
        found = plan_memory(
            config,
            memory,
            mesh=mesh,
            page_size=_number("page_size", page_size, int),
            dtype=dtype,
            max_model_len=max_model_len,
            weights=weights,
            hbm_utilization=_number("hbm_utilization", hbm_utilization, float),
            layout=layout,
            scales=scales,
            max_num_batched_tokens=max_num_batched_tokens,
            max_encoder_tokens=max_encoder_tokens,
        )
    except DoesNotFitError as error:
        _refuse(f"{error.reason}; try {_options(error)}")
    except (ValueError, TypeError) as error:
        _refuse(str(error))
    if as_json:
        print(found.to_json())
    else:
        from .console import console
        from .plan_table import print_plan

        print_plan(found, console)


def _number(name: str, text: str, kind: type[_Number]) -> _Number:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"[plan_memory] {name} {text!r} is no {kind.__name__}") from None


def _options(error: DoesNotFitError) -> str:
    suggestion = error.suggestion
    mebibytes = -(-suggestion.memory // 2**20)
    memory = f"--memory {mebibytes}MiB ({format_bytes(suggestion.memory)})"
    if suggestion.max_model_len is None:
        return memory
    length = f"--max-model-len {suggestion.max_model_len} --page-size {suggestion.page_size}"
    return f"{length}, or {memory}"


def _refuse(message: str) -> NoReturn:
    refuse("plan", message.removeprefix("[plan_memory] "))
