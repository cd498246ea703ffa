"""`pagedkv replay` as a user runs it."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pagedkv.commands.app import app
from typer.testing import CliRunner

SMALL = Path(__file__).parents[3] / "examples" / "traces" / "chat.jsonl"
RUNNER = CliRunner()


def run(*arguments):
    return RUNNER.invoke(app, ["replay", *map(str, arguments)])


def replayed(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["runs"]


def test_a_table_of_every_size():
    result = run(SMALL, "--pages", "2000,20000", "--limit", 60)
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines() if "chat" in line]
    assert [line[1] for line in lines] == ["2,000", "20,000"]
    assert all(line[2] == "60" and line[3].endswith("%") for line in lines)
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_json_says_the_same():
    small, large = replayed(SMALL, "--pages", "2000, 20000")
    assert small["hit_rate"] < large["hit_rate"] < 1
    assert large["num_requests"] == small["num_requests"] == 313
    assert large["hit_rate"] == large["num_hit_tokens"] / large["num_prompt_tokens"]
    assert large["samples"][-1]["num_hit_tokens"] == large["num_hit_tokens"]


def test_several_traces(tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text('{"input_length": 100, "hash_ids": [1]}\n')
    titles = [run["title"] for run in replayed(SMALL, other, "--pages", 9000, "--limit", 1)]
    assert titles == ["chat", "other"]


def test_options_arrive():
    options = ["--pages", 9000, "--limit", 30]
    (plain,) = replayed(SMALL, *options)
    (cut,) = replayed(SMALL, *options, "--max-output-tokens", 2)
    assert cut["num_output_tokens"] == 60 < plain["num_output_tokens"]
    (window,) = replayed(SMALL, *options, "--group", "window:256")
    assert window["peak_held_pages"] < plain["peak_held_pages"]
    (refused,) = replayed(SMALL, *options, "--max-model-len", 2000)
    assert refused["num_refused"] > 0
    (shards,) = replayed(SMALL, *options, "--shards", 3)
    assert shards["num_requests"] == 30
    assert replayed(SMALL, *options, "--prompt-tokens", 512, "--output-priority", 10)


@pytest.mark.parametrize("suffix", ["png", "svg", "html"])
def test_plots(tmp_path, suffix):
    path = tmp_path / f"out.{suffix}"
    result = run(SMALL, "--pages", "2000,9000", "--limit", 40, "--plot", path)
    assert result.exit_code == 0, result.output
    assert "Drawn into" in result.stdout
    data = path.read_bytes()
    if suffix == "png":
        assert data.startswith(b"\x89PNG")
        assert len(data) > 20_000
    elif suffix == "svg":
        assert ET.fromstring(data).tag.endswith("svg")
    else:
        HTMLParser().feed(data.decode())
        assert data.count(b"<td>chat, ") == 2
        assert b"<script" not in data


def bad_line(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text(SMALL.read_text()[:4000] + "\n{]\n")
    return path


def empty(tmp_path):
    path = tmp_path / "empty.jsonl"
    path.write_text("\n")
    return path


def pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([SMALL, "--pages", "-5"], "--pages must be numbers of at least 2, with commas, got '-5'"),
        ([SMALL, "--pages", "x"], "--pages must be numbers"),
        ([SMALL, "--pages", "1000", "--limit", 0], "--limit must be at least 1, got 0"),
        ([SMALL, "--pages", "1000", "--page-size", 0], "page_size must be at least 1, got 0"),
        ([SMALL, "--pages", "1001", "--shards", 2], "must divide num_pages 1001, got 2"),
        ([SMALL, "--pages", "1000", "--group", "half"], "'window:N' or 'chunk:N'"),
        ([SMALL, "--pages", "1000", "--free-order", "fifo"], "fifo"),
        ([SMALL, "--pages", "1000", "--plot", "a.pdf"], "must end in one of .png, .svg, .html"),
        (["nowhere.jsonl", "--pages", "1000"], "No such file"),
        ([SMALL.parent, "--pages", "1000"], "Is a directory"),
        ([bad_line, "--pages", "1000"], "bad.jsonl, line "),
        ([empty, "--pages", "1000"], "empty.jsonl: no request in it"),
        ([pipe, "--pages", "1000,2000"], "a pipe can be read once: give one size of --pages"),
    ],
    ids=lambda value: "" if isinstance(value, list) else value[:24],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(tmp_path, arguments, why):
    arguments = [a(tmp_path) if callable(a) else a for a in arguments]
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("pagedkv replay: ")
    assert why in line


def test_the_installed_command(tmp_path):
    command = [sys.executable, "-c", "from pagedkv.cli import main; main()", "replay", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert "--pages" in text
