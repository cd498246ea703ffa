"""The commands as one typer application."""

import typer

from .generate import generate
from .plan import plan
from .replay import replay_traces
from .replay_ops import replay_ops

app = typer.Typer(
    name="pagedkv",
    help="Paged KV-cache engine for JAX serving stacks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(generate)
app.command(name="replay")(replay_traces)
app.command()(plan)
app.command()(replay_ops)
