"""benchmarks/instruction_counts.py, on a valgrind that is made up: what it makes of the totals."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "instruction_counts.py"

# 1000 instructions are spent once, and 7 on each of the 10 pages of a repeat.
VALGRIND = """#!/bin/sh
if [ "$1" = --version ]; then echo valgrind-1.2.3; exit; fi
for argument in "$@"; do
  case $argument in --callgrind-out-file=*) profile=${argument#*=};; esac
  repeats=$argument
done
echo "totals: $((TOTAL_ONCE + 70 * repeats))" > "$profile"
echo '{"count": '$((10 * repeats))', "unit": "page", "compiler": "CC 1"}'
"""


@pytest.fixture
def counts(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("instruction_counts", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RECORD", tmp_path / "counts.json")
    valgrind = tmp_path / "valgrind"
    valgrind.write_text(VALGRIND)
    valgrind.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("TOTAL_ONCE", "1000")
    return module


def run(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["instruction_counts.py", *arguments])
    module.main()


def test_what_is_done_once_falls_out(counts):
    found = counts.count("valgrind", SCRIPT, "prefill")
    assert (found.instructions, found.unit, found.compiler) == (7.0, "page", "CC 1")


def test_records_all_and_shows_the_change(counts, monkeypatch, capsys):
    run(counts, monkeypatch, str(SCRIPT), "--record")
    record = json.loads(counts.RECORD.read_text())
    assert set(record["counts"]) == set(counts.REPEATS)
    assert record["counts"]["fork"] == {"instructions": 7.0, "unit": "page"}
    assert record["tools"]["compiler"] == "CC 1"
    assert record["tools"]["valgrind"] == "1.2.3"

    record["counts"]["fork"]["instructions"] = 5.6
    record["tools"]["compiler"] = "CC 0"
    counts.RECORD.write_text(json.dumps(record))
    capsys.readouterr()
    run(counts, monkeypatch, str(SCRIPT), "fork", "free")
    shown = capsys.readouterr().out
    assert "+25.00 %" in shown
    assert "+0.00 %" in shown
    assert "compiler: recorded with CC 0, now CC 1" in shown
    assert json.loads(counts.RECORD.read_text()) == record


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([str(SCRIPT), "walk"], "unknown workload walk: must be one of decode_step prefill"),
        (["no/program"], "no program no/program"),
        ([str(SCRIPT), "fork", "--record"], "--record takes all workloads"),
    ],
)
def test_refuses_in_one_line(counts, monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        run(counts, monkeypatch, *arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"[instruction_counts] {message}")
    assert error.count("\n") == 1


def test_nothing_counted_is_no_count(counts, monkeypatch, capsys):
    monkeypatch.setenv("TOTAL_ONCE", "-280")  # of 4 repeats, nothing is left
    with pytest.raises(SystemExit) as stop:
        run(counts, monkeypatch, str(SCRIPT), "fork")
    assert stop.value.code == 2
    assert "fork: callgrind counted nothing" in capsys.readouterr().err


def test_without_valgrind(tmp_path):
    result = subprocess.run(
        [sys.executable, SCRIPT, SCRIPT],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        check=False,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("[instruction_counts] needs valgrind")
    assert result.stderr.count("\n") == 1
