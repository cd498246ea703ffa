"""Runs a script of the peer benchmark with pagedkv among its peers.

    python benchmarks/peers/run.py HARNESS w3_trace.py --peer pagedkv --pages 200000
    python benchmarks/peers/run.py HARNESS w1_decode.py --peer pagedkv_calls

HARNESS is the folder of the peer benchmark, which replays the same work against several libraries.
"""

import runpy
import sys
from pathlib import Path


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    harness = Path(sys.argv[1]).resolve()
    script = harness / sys.argv[2]
    if not script.is_file():
        sys.exit(f"[run] no script {sys.argv[2]} in {harness}")
    sys.path[:0] = [str(harness), str(Path(__file__).parent)]
    import adapters

    adapters.PEERS["pagedkv"] = "pagedkv_steps"
    adapters.PEERS["pagedkv_calls"] = "pagedkv_calls"
    sys.argv = [str(script), *sys.argv[3:]]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
