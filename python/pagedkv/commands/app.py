"""The commands as one typer application."""

import typer

from .errors import guarded
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
for name, function in (
    ("generate", generate),
    ("replay", replay_traces),
    ("plan", plan),
    ("replay-ops", replay_ops),
):
    app.command(name=name)(guarded(name, function))
