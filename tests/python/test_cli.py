"""What all commands share: what they import, and how they end when they cannot go on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from pagedkv.commands.app import app
from pagedkv.commands.errors import guarded
from typer.testing import CliRunner

CHAT = str(Path(__file__).parents[2] / "examples" / "traces" / "chat.jsonl")
COMMANDS = ("generate", "plan", "replay", "replay-ops")
MAIN = [sys.executable, "-c", "from pagedkv.cli import main; main()"]
CONFIG = {
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 4096,
}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return path


def imported(code):
    """Modules of other packages that are imported after ``code``."""
    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {"gguf", "jax", "jinja2", "matplotlib", "msgspec", "prometheus_client", "tokenizers", "zmq"}


def test_declaring_the_commands_imports_nothing_that_they_need_to_run():
    found = imported("import pagedkv.commands.app")
    assert "typer" in found
    assert not found & (HEAVY | {"rich"})


def test_a_plan_needs_no_model(config):
    code = f"from typer.testing import CliRunner; from pagedkv.commands.app import app\n\
assert not CliRunner().invoke(app, ['plan', {str(config)!r}, '--memory', '1GiB']).exit_code"
    assert not imported(code) & HEAVY


def test_pagedkv_itself_imports_numpy_alone():
    code = "import pagedkv, sys; assert 'pagedkv.planning' not in sys.modules"
    found = imported(code)
    assert "numpy" in found
    assert not found & (HEAVY | {"rich", "typer"})


def test_lazy_names_are_found_and_listed():
    import pagedkv
    from pagedkv.planning import plan_memory

    assert pagedkv.plan_memory is plan_memory
    assert {"plan_memory", "KVPool", "CacheManager"} <= set(dir(pagedkv))
    for name in pagedkv._LAZY:
        assert getattr(pagedkv, name).__module__.startswith("pagedkv")
    with pytest.raises(AttributeError, match="no attribute 'plan_memories'"):
        _ = pagedkv.plan_memories


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("gguf", ["generate"], "serve"),
        ("tokenizers", ["generate"], "serve"),
        ("rich", ["plan", "config.json", "--memory", "1GiB"], "serve"),
        (
            "matplotlib",
            ["replay", CHAT, "--pages", "900", "--limit", "1", "--plot", "a.svg"],
            "plot",
        ),
    ],
)
def test_a_missing_module_is_one_line(config, monkeypatch, module, arguments, extra):
    code = f"import sys; sys.modules[{module!r}] = None; from pagedkv.cli import main; main()"
    monkeypatch.chdir(config.parent)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"pagedkv {arguments[0]}: {module}")
    assert line.endswith(f"is not installed: run pip install 'pagedkv[{extra}]'")
    assert done.returncode == 2


def ended(error, *, print_first=""):
    """The result of a command that raises ``error``."""
    small = typer.Typer()

    def fail() -> None:
        print(print_first, end="")
        raise error

    small.command()(guarded("some", fail))
    return CliRunner().invoke(small, [])


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (ValueError("[f] n must be\n1"), "pagedkv some: [f] n must be 1\n", 2),
        (OSError(28, "No space left on device"), "pagedkv some: No space left on device\n", 2),
        (OSError(2, "No such file", "a.json"), "pagedkv some: a.json: No such file\n", 2),
        (MemoryError(), "pagedkv some: not enough memory\n", 2),
        (KeyboardInterrupt(), "pagedkv some: interrupted\n", 130),
        (BrokenPipeError(), "", 141),
        (typer.Exit(1), "", 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_errors_end_in_a_line_and_a_code(error, line, code):
    result = ended(error, print_first="so far")
    assert (result.stdout, result.stderr, result.exit_code) == ("so far", line, code)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("a bug"), ModuleNotFoundError("x", name="pagedkv.x"), ImportError("x")],
    ids=repr,
)
def test_a_bug_of_ours_keeps_its_traceback(error):
    assert ended(error).exception is error


def test_a_reader_that_leaves_is_no_error(config):
    for options in ([], ["--json"]):
        reader, writer = os.pipe()
        os.close(reader)
        command = [*MAIN, "plan", config, "--memory", "1GiB", *options]
        done = subprocess.run(
            command, check=False, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=300
        )
        os.close(writer)
        assert (done.stderr, done.returncode) == ("", 141)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(config):
    with open("/dev/full", "w") as full:
        command = [*MAIN, "plan", config, "--memory", "1GiB"]
        done = subprocess.run(
            command, check=False, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300
        )
    assert done.stderr == "pagedkv plan: No space left on device\n"
    assert done.returncode == 2


def test_ctrl_c_in_a_replay_is_one_line(tmp_path):
    trace = tmp_path / "trace.jsonl"
    os.mkfifo(trace)  # so that the replay waits for more
    process = subprocess.Popen(
        [*MAIN, "replay", trace, "--pages", "1000"], stderr=subprocess.PIPE, text=True
    )
    with open(trace, "w") as file:  # returns once the replay reads
        file.write('{"input_length": 5, "hash_ids": [1]}\n')
        file.flush()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=300)
    assert error == "pagedkv replay: interrupted\n"
    assert process.returncode == 130


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout


@pytest.mark.parametrize("value", [2**31, 2**63])
@pytest.mark.parametrize(
    "option",
    [
        "--pages",
        "--token-budget",
        "--max-model-len",
        "--shards",
        "--prompt-tokens",
        "--prompt-priority",
        "--output-priority",
        "--max-pages",
        "--prompt-ttl",
    ],
)
def test_sizes_that_the_core_cannot_take_are_one_line(option, value):
    bits = 64 if option == "--prompt-ttl" else 32
    value = max(value, 2 ** (bits - 1))
    command = "replay-ops" if option == "--max-pages" else "replay"
    pages = ["--pages", "2000"] if command == "replay" else []
    result = CliRunner().invoke(app, [command, CHAT, *pages, option, str(value)])
    assert result.stderr == f"pagedkv {command}: {option} must be an int{bits}, got {value}\n"
    assert result.exit_code == 2
