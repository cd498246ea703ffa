"""Instructions of the manager's hot loops, counted by callgrind, next to those that are recorded.

    python benchmarks/instruction_counts.py build/release/benchmarks/cpp/hot_loops [--record]

Unlike times, counts hold on a busy machine, so a change of one per cent shows. Each loop of
benchmarks/cpp/hot_loops.cc runs with two numbers of repeats, and the difference is divided by what it
did: what is done once, such as growing a buffer, falls out. Hashing is not counted: digests are made
before. Counts depend on compiler, C library and what the CPU can do (memcpy is chosen by that), so
compare those of one machine. `--record` writes benchmarks/instruction_counts.json.
"""

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RECORD = Path(__file__).with_suffix(".json")
# Repeats of the two runs. A period of 16 steps takes each decoding request into one new page.
REPEATS = {
    "decode_step": (32, 64),
    "prefill": (8, 24),
    "lookup": (1, 5),
    "fork": (4, 20),
    "free": (8, 24),
}


class Failure(Exception):
    """Why there are no counts, in one line."""


@dataclass(frozen=True)
class Run:
    instructions: int
    count: int
    unit: str
    compiler: str


@dataclass(frozen=True)
class Count:
    instructions: float  # a unit
    unit: str
    compiler: str


def run(valgrind: str, program: Path, workload: str, repeats: int) -> Run:
    """Runs a workload under callgrind, which counts inside `measured` alone.

    Raises:
      Failure: If valgrind or the workload fails, or nothing was counted.
    """
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "profile"
        result = subprocess.run(
            [
                valgrind,
                "--tool=callgrind",
                "--toggle-collect=measured",
                f"--callgrind-out-file={profile}",
                program,
                workload,
                str(repeats),
            ],
            capture_output=True,
            check=False,
            text=True,
        )
        if result.returncode != 0:
            lines = [line for line in result.stderr.splitlines() if not line.startswith("==")]
            why = " ".join(lines) or f"ended with {result.returncode}"
            raise Failure(f"{workload}: {why}")
        total = re.search(r"^totals: (\d+)$", profile.read_text(), re.MULTILINE)
    if total is None or int(total[1]) == 0:
        raise Failure(f"{workload}: callgrind counted nothing")
    return Run(instructions=int(total[1]), **json.loads(result.stdout))


def count(valgrind: str, program: Path, workload: str) -> Count:
    """Instructions of one unit of a workload, without what is done once."""
    few, many = (run(valgrind, program, workload, repeats) for repeats in REPEATS[workload])
    instructions = (many.instructions - few.instructions) / (many.count - few.count)
    return Count(instructions, many.unit, many.compiler)


def tools(valgrind: str, compiler: str) -> dict[str, str]:
    """What the counts were made with, and depend on."""
    version = subprocess.run([valgrind, "--version"], capture_output=True, text=True, check=True)
    return {
        "compiler": compiler,
        "libc": " ".join(platform.libc_ver()),
        "machine": platform.machine(),
        "valgrind": version.stdout.strip().removeprefix("valgrind-"),
    }


def load_record() -> dict[str, Any]:
    """What is recorded; empty before the first time."""
    if not RECORD.is_file():
        return {"tools": {}, "counts": {}}
    return json.loads(RECORD.read_text(encoding="utf-8"))


def write_record(counts: dict[str, Count], made_with: dict[str, str]) -> None:
    figures = {
        name: {"instructions": round(found.instructions, 2), "unit": found.unit}
        for name, found in counts.items()
    }
    record = {"tools": made_with, "counts": figures}
    RECORD.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def table(counts: dict[str, Count], recorded: dict[str, Any]) -> Table:
    shown = Table(title="Instructions, without hashing")
    shown.add_column("loop")
    shown.add_column("unit")
    for title in ("recorded", "now", "change"):
        shown.add_column(title, justify="right")
    for name, found in counts.items():
        old = recorded.get(name, {}).get("instructions")
        change = "" if old is None else f"{100 * (found.instructions / old - 1):+z.2f} %"
        shown.add_row(
            name,
            found.unit,
            "" if old is None else f"{old:.2f}",
            f"{found.instructions:.2f}",
            change,
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=Path, help="hot_loops of the release build")
    parser.add_argument("workloads", nargs="*", help="some of them alone", metavar="WORKLOAD")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name}")
    options = parser.parse_args()
    names = options.workloads or list(REPEATS)
    try:
        for name in names:
            if name not in REPEATS:
                raise Failure(f"unknown workload {name}: must be one of {' '.join(REPEATS)}")
        if options.record and set(names) != set(REPEATS):
            raise Failure("--record takes all workloads, so that all are made with one build")
        valgrind = shutil.which("valgrind")
        if valgrind is None:
            raise Failure("needs valgrind, which is not here (Debian: apt-get install valgrind)")
        if not options.program.is_file():
            raise Failure(f"no program {options.program}: make counts builds it")
        counts = {name: count(valgrind, options.program.resolve(), name) for name in names}
    except Failure as failure:
        print(f"[instruction_counts] {failure}", file=sys.stderr)
        sys.exit(2)

    record = load_record()
    console = Console()
    console.print(table(counts, record["counts"]))
    made_with = tools(valgrind, next(iter(counts.values())).compiler)
    for what, now in made_with.items():
        old = record["tools"].get(what, now)
        if old != now:
            console.print(f"{what}: recorded with {old}, now {now}: changes may be due to that")
    if options.record:
        write_record(counts, made_with)
        console.print(f"recorded in {RECORD.name}")


if __name__ == "__main__":
    main()
