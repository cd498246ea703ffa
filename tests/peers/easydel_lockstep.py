"""EasyDeL's cache manager and ours in lock-step, on random requests.

    python tests/peers/easydel_lockstep.py EASYDEL --ops 1000000 --seed 0

EASYDEL is a folder with the `easydel` package, or the wheel of easydel 0.3.0; without it, the wheel
that `make peers` fetches. Each scenario has a configuration and requests of its own, made from the
seed and its number; `--scenario` runs one alone, `--ops-per-scenario` shortens it. After each call to
both managers, all that can be seen of them is compared.
"""

import argparse
import itertools
import random
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

from easydel_core import find_wheel, load
from lockstep_config import Config, random_config
from lockstep_pair import Mismatch, Pair
from lockstep_traffic import Traffic


def run_scenario(
    easydel: SimpleNamespace, seed: int, scenario: int, num_ops: int, config: Config | None = None
) -> Pair:
    """Runs about `num_ops` calls and returns the pair that took them.

    Raises:
      Mismatch: If the managers differ, or one raises. Says how to run the scenario again.
    """
    rng = random.Random(f"{seed}/{scenario}")
    config = config or random_config(rng)
    pair = Pair(easydel, config)
    try:
        Traffic(pair, rng).run(num_ops)
    except Exception as error:
        calls = "\n".join(f"  {call}" for call in pair.recent)
        raise Mismatch(
            f"seed {seed}, scenario {scenario}, op {pair.num_ops}: {error!r}\n{config}\n"
            f"last calls (op, name, request, (num_tokens, num_computed_tokens), arguments):\n{calls}\n"
            f"again: --seed {seed} --scenario {scenario} --ops-per-scenario {num_ops}"
        ) from error
    return pair


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("easydel", type=Path, nargs="?")
    parser.add_argument("--ops", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ops-per-scenario", type=int, default=1_000)
    parser.add_argument("--scenario", type=int, help="this one alone")
    options = parser.parse_args()
    easydel = load(options.easydel or find_wheel())
    num_ops = 0
    counts: Counter[str] = Counter()
    begin = last_report = time.monotonic()
    alone = options.scenario is not None
    scenarios = [options.scenario] if alone else itertools.count()
    for num_scenarios, scenario in enumerate(scenarios, 1):
        try:
            pair = run_scenario(easydel, options.seed, scenario, options.ops_per_scenario)
        except Mismatch as mismatch:
            sys.exit(str(mismatch))
        num_ops += pair.num_ops
        counts.update(pair.counts)
        counts["page evicted"] += pair.ours._core.num_evictions
        is_done = alone or num_ops >= options.ops
        if is_done or time.monotonic() > last_report + 10:
            last_report = time.monotonic()
            print(
                f"{num_ops} ops in {num_scenarios} scenarios agree, seed {options.seed}, "
                f"{last_report - begin:.0f} s",
                flush=True,
            )
        if is_done:
            print(", ".join(f"{name}: {count}" for name, count in counts.most_common()))
            break


if __name__ == "__main__":
    main()
