import builtins
import sys
from pathlib import Path
from typing import Any

import pagedkv.cli
import pytest
from pagedkv.commands import serve
from pagedkv.commands.app import app
from pagedkv.serving import prompts
from tiny_gemma3 import write_tiny_gemma3
from typer.testing import CliRunner, Result


@pytest.fixture
def run(llama_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `pagedkv generate` on the tiny model, whose 128 tokens hold a short system prompt."""
    monkeypatch.setattr(prompts, "SYSTEM_PROMPT", "Be brief and kind and the best.")
    monkeypatch.setattr(serve, "QUESTIONS", ("Why?", "And the?", "Who?", "What is 12?"))

    def run(*options: str) -> Result:
        sizes = ["--pages", "128", "--page-size", "8", "--max-new-tokens", "6"]
        arguments = ["generate", "--model", str(llama_path), *sizes, *options]
        return CliRunner().invoke(app, arguments)

    return run


def row(output: str, name: str) -> list[str]:
    """The cells of a row of the table, numbers without their commas."""
    (line,) = [line for line in output.splitlines() if name in line and "│" in line]
    return [cell.strip().replace(",", "") for cell in line.strip("│").split("│")][1:]


def test_compare_finds_all_answers_identical(run: Any) -> None:
    result = run("--compare")
    assert result.exit_code == 0, result.output
    assert "4 of 4 answers are identical." in result.output
    without, with_cache = map(int, row(result.output, "tokens prefilled"))
    assert without > with_cache
    reused = row(result.output, "tokens reused")
    assert reused == ["0", str(without - with_cache)]
    assert f"saved {1 - with_cache / without:.1%} of the prefill" in result.output


def test_compare_fails_if_an_answer_differs(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_visitors = serve.serve_visitors

    def forget_a_token(server: Any, prefix_cache: bool, max_new_tokens: int) -> Any:
        result = serve_visitors(server, prefix_cache, max_new_tokens)
        if prefix_cache:
            result.answers[2].pop()
        return result

    monkeypatch.setattr(serve, "serve_visitors", forget_a_token)
    result = run("--compare")
    assert result.exit_code == 1
    assert "3 of 4 answers are identical." in result.output


def test_one_run_shows_answers_and_a_table(run: Any) -> None:
    result = run()
    assert result.exit_code == 0, result.output
    assert "Why?" in result.output
    assert len(row(result.output, "tokens reused")) == 1
    assert int(row(result.output, "tokens reused")[0]) > 0


def test_without_prefix_cache_nothing_is_reused(run: Any) -> None:
    result = run("--no-prefix-cache")
    assert result.exit_code == 0, result.output
    assert row(result.output, "tokens reused") == ["0"]


def test_a_hybrid_model_compares_as_well(run: Any, tmp_path: Path) -> None:
    path = write_tiny_gemma3(tmp_path / "gemma.gguf")
    result = run("--compare", "--model", str(path), "--page-size", "4", "--pages", "256")
    assert result.exit_code == 0, result.output
    assert "4 of 4 answers are identical." in result.output
    assert int(row(result.output, "tokens reused")[1]) > 0


def test_pages_are_given_for_each_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    servers: list[Any] = []
    monkeypatch.setattr(serve, "answer", lambda server, *_: servers.append(server))
    path = write_tiny_gemma3(tmp_path / "gemma.gguf")
    arguments = ["generate", "--model", str(path), "--prompt", "Who?"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert servers[0].num_pages == 6 * 640


def test_prompt_is_answered(run: Any) -> None:
    result = run("--prompt", "Why?")
    assert result.exit_code == 0, result.output
    assert "tokens prefilled" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pages", "1"], "[Engine] num_pages must be at least 2, got 1"),
        (["--page-size", "0"], "[Engine] page_size must be at least 1, got 0"),
        (["--batch-size", "-3"], "[Engine] batch_size must be at least 1, got -3"),
        (["--chunk-size", "0"], "[Engine] chunk_size must be at least 1, got 0"),
        (["--max-new-tokens", "0"], "max_new_tokens must be at least 1, got 0"),
        (["--pages", "5"], "the pool has 4 to give"),
        (["--max-new-tokens", "500"], "the model takes at most 128"),
        (["--model", "/none.gguf"], "/none.gguf: No such file or directory"),
        (["--prompt", "Why?", "--compare"], "leave --prompt out"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_bad_values_give_one_clear_line(run: Any, options: list[str], message: str) -> None:
    result = run(*options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_missing_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real_import = builtins.__import__

    def without_typer(name: str, *args: Any) -> Any:
        if name == "typer":
            raise ModuleNotFoundError("No module named 'typer'", name="typer")
        return real_import(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_typer)
    for module in [name for name in sys.modules if name.startswith("pagedkv.commands")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(SystemExit) as exit_info:
        pagedkv.cli.main()
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error == "pagedkv: typer is not installed: run pip install 'pagedkv[serve]'\n"


def test_help_lists_the_commands() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "generate" in result.output
    assert "continuous batching" in result.output
