"""The command `pagedkv`."""

import sys

from pagedkv.commands.extras import missing_module


def main() -> None:
    try:
        from pagedkv.commands.app import app
    except ImportError as error:
        missing = missing_module(error)
        if missing is None:
            raise
        print(f"pagedkv: {missing}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("pagedkv: interrupted", file=sys.stderr)
        sys.exit(130)
    app()
