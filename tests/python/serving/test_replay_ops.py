"""`pagedkv generate --record` and `pagedkv replay-ops`: a served model's calls, made again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trace_file
from pagedkv import replay_ops
from pagedkv.commands import serve
from pagedkv.commands.app import app
from pagedkv.serving import prompts
from pagedkv.serving.engine import Engine
from pagedkv.serving.paged_model import PagedModel
from typer.testing import CliRunner, Result


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "ops.trace"


@pytest.fixture
def generate(llama_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Records `pagedkv generate` on the tiny model."""
    monkeypatch.setattr(prompts, "SYSTEM_PROMPT", "Be brief and kind and the best.")
    monkeypatch.setattr(serve, "QUESTIONS", ("Why?", "And the?", "Who?", "What is 12?"))

    def generate(*options: str) -> Result:
        sizes = ["--pages", "24", "--page-size", "8", "--max-new-tokens", "6"]
        arguments = ["generate", "--model", str(llama_path), "--record", str(trace), *sizes]
        return CliRunner().invoke(app, [*arguments, *options])

    return generate


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["replay-ops", *map(str, arguments)])


def test_a_served_model_replays_to_the_same_pages(model: PagedModel, trace: Path) -> None:
    rng = np.random.default_rng(3)
    shared = rng.integers(3, 265, 30)
    engine = Engine(model, eos_id=2, num_pages=14, page_size=8, batch_size=4, chunk_size=16)
    engine.manager.start_recording(trace)
    for i in range(6):
        prompt = np.concatenate([shared, rng.integers(3, 265, 5 + i)]).astype(np.int32)
        engine.submit(f"r{i}", prompt, 8)
    while engine.has_work:
        engine.step()
    num_ops = engine.manager.stop_recording()
    assert engine.stats.num_tokens_reused > 0
    assert engine.stats.num_preemptions > 0
    engine.manager.assert_no_leaks()

    report = replay_ops(trace, check=True)
    assert report.difference is None
    assert report.was_stopped
    assert report.num_ops == num_ops > 50


def test_generate_records_what_replay_ops_repeats(generate: Any, trace: Path) -> None:
    result = generate()
    assert result.exit_code == 0, result.output
    replayed = run(trace, "--check")
    assert replayed.exit_code == 0, replayed.output
    assert replayed.output.startswith(f"{replay_ops(trace).num_ops} ops in ")
    assert "all answers are the same" in replayed.output


def test_one_answer_is_recorded_as_well(generate: Any, trace: Path) -> None:
    result = generate("--prompt", "Why?")
    assert result.exit_code == 0, result.output
    assert run(trace).exit_code == 0


def test_a_trace_without_its_end_says_so(generate: Any, trace: Path) -> None:
    generate()
    trace.write_bytes(trace.read_bytes()[:-3])
    result = run(trace)
    assert result.exit_code == 0
    assert "ends in the middle of a record: the recording was not stopped." in result.output


def test_a_difference_is_named(generate: Any, trace: Path) -> None:
    generate()
    first, *rest = trace_file.read_records(trace)
    assert first[1:2] == trace_file.put_int(24)
    trace_file.write_records(trace, [first[:1] + trace_file.put_int(23) + first[2:], *rest])
    result = run(trace)
    assert result.exit_code == 1
    assert "Op 1 differs: match(request='visitor-0', shard=-1)" in result.output
    assert "recorded: 0; 23 pages free, 0 cached" in result.output
    assert "replayed: 0; 22 pages free, 0 cached" in result.output


def test_bad_files_give_one_clear_line(generate: Any, trace: Path) -> None:
    def refuse(message: str, *options: str) -> None:
        result = run(trace, *options)
        assert result.exit_code == 2
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1

    refuse("No such file or directory")
    trace.write_bytes(b"not a trace at all")
    refuse("is no op trace")
    generate()
    refuse("the pool has 24 pages, more than max_pages 8", "--max-pages", "8")
    data = bytearray(trace.read_bytes())
    data[len(data) // 2] ^= 1
    trace.write_bytes(data)
    refuse("the trace is damaged")


def test_what_cannot_be_recorded_gives_one_clear_line(llama_path: Path, generate: Any) -> None:
    result = generate("--compare")
    assert result.exit_code == 2
    assert "--record writes one run: leave --compare out" in result.stderr
    result = generate("--record", "/none/ops.trace")
    assert result.exit_code == 2
    assert "/none/ops.trace" in result.stderr
    assert len(result.stderr.splitlines()) == 1
