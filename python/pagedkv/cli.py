"""The command `pagedkv`."""

import sys

SERVE_HINT = "pip install 'pagedkv[serve]'"


def main() -> None:
    try:
        from pagedkv.commands.app import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "pagedkv":
            raise
        print(f"pagedkv: {error.name} is not installed: run {SERVE_HINT}", file=sys.stderr)
        sys.exit(2)
    app()
