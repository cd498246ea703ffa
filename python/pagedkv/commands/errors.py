"""How every command ends that cannot go on: one line on stderr and an exit code, no traceback."""

import functools
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, ParamSpec

import typer

from .extras import missing_module

WRONG = 2  # what the user gave, as of usage errors
# 128 and the number of the signal, as shells say it.
INTERRUPTED = 130
OUTPUT_CLOSED = 141

P = ParamSpec("P")


def refuse(command: str, message: str, code: int = WRONG) -> NoReturn:
    """Prints a line, and leaves."""
    print(f"pagedkv {command}: {' '.join(message.split())}", file=sys.stderr)
    raise typer.Exit(code)


def require_int(*, bits: int = 32, **options: int | None) -> None:
    """Raises ValueError for options whose values the core cannot take."""
    for name, value in options.items():
        if value is not None and not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
            raise ValueError(f"--{name.replace('_', '-')} must be an int{bits}, got {value}")


def describe(error: Exception) -> str:
    """An error in words: a file and what is wrong with it, rather than a number."""
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError) and not str(error):
        return "not enough memory"
    return str(error)


def guarded(command: str, function: Callable[P, None]) -> Callable[P, None]:
    """A command that ends in one line whatever the user gave it, and in none where nobody reads on."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            try:
                function(*args, **kwargs)
            finally:
                sys.stdout.flush()  # here, where errors are handled, and not at exit
        except KeyboardInterrupt:
            refuse(command, "interrupted", INTERRUPTED)
        except BrokenPipeError:
            _drop_output()
            raise typer.Exit(OUTPUT_CLOSED) from None
        except OSError as error:
            _drop_output()
            refuse(command, describe(error))
        except (ValueError, MemoryError) as error:
            refuse(command, describe(error))
        except ImportError as error:
            missing = missing_module(error)
            if missing is None:
                raise
            refuse(command, missing)

    return run


def _drop_output() -> None:
    """What is not written yet goes nowhere, so that the interpreter can end in peace."""
    with suppress(OSError, ValueError):  # no file below
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
