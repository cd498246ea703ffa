import builtins
import socket
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pagedkv.cli
import pytest
import zmq
from event_reader import Subscriber, keys_of
from pagedkv.commands import serve
from pagedkv.commands.app import app
from pagedkv.serving import prompts
from pagedkv.serving.engine import Engine
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def between_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Engine], None]], None]:
    """Lets a function look at the engine before each step."""
    step = Engine.step

    def install(look: Callable[[Engine], None]) -> None:
        def looked_at(engine: Engine) -> Any:
            look(engine)
            return step(engine)

        monkeypatch.setattr(Engine, "step", looked_at)

    return install


@pytest.mark.parametrize("options", [[], ["--prompt", "Why? What is the and the and the?"]])
def test_a_subscriber_gets_the_events_of_a_run(
    run: Any, between_steps: Any, options: list[str]
) -> None:
    endpoint, replay = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    engines: list[Engine] = []
    subscribers: list[Subscriber] = []
    with zmq.Context() as context:

        def follow(engine: Engine) -> None:
            engines.append(engine)
            if not subscribers:
                subscribers.append(Subscriber(context, endpoint, replay))
                assert subscribers[0].ask(0) == []
                time.sleep(0.5)  # until it has subscribed
            subscribers[0].listen()

        between_steps(follow)
        result = run("--events", endpoint, "--events-replay", replay, *options)
        assert result.exit_code == 0, result.output
        (subscriber,) = subscribers
        subscriber.listen(1000)
        subscriber.close()
    assert f"KV events at {endpoint}, replays at {replay}" in result.output
    # Hashes on the wire are the low 64 bits, which end a digest.
    found = {
        (group, int.from_bytes(digest[-8:], "big")) for group, digest in keys_of(engines[0].manager)
    }
    assert len(found) > 3
    assert set(subscriber.index.keys) == found
    assert subscriber.num_live > 1


def test_metrics_can_be_scraped_during_a_run(run: Any, between_steps: Any) -> None:
    port = free_port()
    scraped: list[tuple[str, int]] = []

    def scrape(engine: Engine) -> None:
        url = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            scraped.append((answer.read().decode(), engine.stats.num_tokens_reused))

    between_steps(scrape)
    result = run("--metrics-port", str(port), "--events", "tcp://127.0.0.1:*")
    assert result.exit_code == 0, result.output
    assert f"Metrics at http://127.0.0.1:{port}/metrics" in result.output
    text, num_reused = scraped[-1]
    assert num_reused == int(row(result.output, "tokens reused")[0]) > 0
    assert f"\npagedkv_prefix_cache_hit_tokens_total {float(num_reused)}\n" in text
    assert "\npagedkv_preemptions_total " in text
    assert "\npagedkv_event_batches_total " in text
    with pytest.raises(OSError, match="refused"):  # the server ends with the run
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--events", "nowhere"], "--events: Invalid argument (addr='nowhere')"),
        (["--events", "tcp://127.0.0.1:99999"], "a port must be at most 65535"),
        (["--metrics-port", "99999"], "--metrics-port must be in [0, 65535], got 99999"),
        (["--metrics-port", "-1"], "--metrics-port must be in [0, 65535], got -1"),
        (["--events-replay", "tcp://127.0.0.1:*"], "give --events too"),
        (["--events", "tcp://127.0.0.1:*", "--compare"], "leave --compare out"),
        (["--metrics-port", "0", "--compare"], "leave --compare out"),
        (["--events", "tcp://127.0.0.1:*", "--no-prefix-cache"], "leave --no-prefix-cache out"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_followed_gives_one_clear_line(
    run: Any, options: list[str], message: str
) -> None:
    result = run(*options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_ports_in_use_give_one_clear_line(run: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for options in (
            ["--metrics-port", str(port)],
            ["--events", f"tcp://127.0.0.1:{port}"],
            ["--events", "tcp://127.0.0.1:*", "--events-replay", f"tcp://127.0.0.1:{port}"],
        ):
            result = run(*options)
            assert result.exit_code == 2
            assert "Address already in use" in result.stderr
            assert str(port) in result.stderr
            assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("module", "option", "extra"),
    [
        ("zmq", ["--events", "tcp://127.0.0.1:*"], "events"),
        ("msgspec", ["--events", "tcp://127.0.0.1:*"], "events"),
        ("prometheus_client", ["--metrics-port", "0"], "metrics"),
    ],
)
def test_missing_extras_say_what_to_install(
    run: Any, monkeypatch: pytest.MonkeyPatch, module: str, option: list[str], extra: str
) -> None:
    for name in [n for n in sys.modules if n.startswith((module, f"pagedkv.{extra}"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    result = run(*option)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"pagedkv generate: {module}")
    assert line.endswith(f"is not installed: run pip install 'pagedkv[{extra}]'")
