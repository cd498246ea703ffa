"""Every example that a reader may copy runs: docstrings, README and docs, `pagedkv ...` lines too."""

import ast
import doctest
import importlib
import inspect
import json
import pkgutil
import re
import shlex
from pathlib import Path

import pagedkv
import pytest
from pagedkv import ops
from pagedkv.commands.app import app
from pagedkv.serving import prompts
from tiny_gemma3 import write_tiny_gemma3
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
NAMES = {
    name: value
    for module in (pagedkv._core, pagedkv)
    for name, value in ((name, getattr(module, name)) for name in dir(module))
    if not name.startswith("_")
}


def public_objects():
    """(name, object) of what modules of the package define, methods among them."""
    modules = [pagedkv, pagedkv._core]
    for info in pkgutil.walk_packages(pagedkv.__path__, "pagedkv."):
        modules.append(importlib.import_module(info.name))
    for module in modules:
        for name, value in vars(module).items():
            if not inspect.ismodule(value) and getattr(value, "__module__", "") == module.__name__:
                yield f"{module.__name__}.{name}", value
                if inspect.isclass(value):
                    for member, function in vars(value).items():
                        function = getattr(function, "__func__", function)
                        yield f"{module.__name__}.{name}.{member}", function


PUBLIC = [
    name
    for name, value in ((name, getattr(pagedkv, name)) for name in dir(pagedkv))
    if getattr(value, "__module__", "").startswith("pagedkv")
    and not name.startswith("_")
    and not value.__module__.startswith("pagedkv.cache")  # docs/paged_attention_cache.md has those
]
DOCUMENTED = {
    name: value
    for name, value in public_objects()
    if isinstance(getattr(value, "__doc__", None), str) and ">>>" in value.__doc__
}
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Code blocks, each with those that go on from it, as one.
GOES_ON = re.compile(r"```\n(?:(?!```).*\n)*?<!-- goes on -->\n```python\n")
BLOCKS = [
    pytest.param(text, id=f"{path.name}-{number}")
    for path in DOCUMENTS
    for number, text in enumerate(
        re.findall(
            r"^```python\n(.*?)^```", GOES_ON.sub("", path.read_text()), re.MULTILINE | re.DOTALL
        )
    )
]
# "$ pagedkv ..." and the lines it prints, to the next command. Those that serve a real model have tests
# of their own, unless it does not matter which model it is.
ANY_MODEL = re.compile(r"generate --(events|metrics-port)\b")
COMMANDS = [
    pytest.param(command, output, id=command)
    for path in DOCUMENTS
    for text in re.findall(r"^```console\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    for command, output in re.findall(r"^\$ pagedkv (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE)
    if not command.startswith("generate") or ANY_MODEL.match(command)
]
SPEED = re.compile(r"[\d.]+ M\s*$", re.MULTILINE)


def printed(text):
    """Lines without what differs from run to run."""
    lines = (" ".join(line.split()) for line in SPEED.sub("SPEED\n", text).splitlines())
    return "".join(f"{line}\n" for line in lines if line)


def write_config(folder, name):
    """The config of a model that docs/planner.md names."""
    text = (ROOT / "docs" / "planner.md").read_text()
    variable = {"gemma-3-27b": "gemma_3_27b", "llama-3.1-70b": "llama"}[name]
    config = re.search(rf"^{variable} = (\{{.*?\}})$", text, re.MULTILINE | re.DOTALL)[1]
    (folder / name).mkdir()
    (folder / name / "config.json").write_text(
        json.dumps({"max_position_embeddings": 131072} | ast.literal_eval(config))
    )


def test_there_are_examples():
    assert len(DOCUMENTED) >= 5
    assert BLOCKS
    assert COMMANDS


def test_reference_has_every_public_name():
    pages = "".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    named = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    public = {f"pagedkv.{name}" for name in PUBLIC} | {
        f"pagedkv.ops.{name}" for name in ops.__all__
    }
    # Some stand under the module that they are of.
    named |= {
        f"pagedkv.{name}" for name, module in pagedkv._LAZY.items() if f"{module}.{name}" in named
    }
    assert public - named == {"pagedkv.ops.KVLayout"}  # of `pagedkv`


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_docstring_example_runs(name):
    parsed = doctest.DocTestParser().get_doctest(
        inspect.getdoc(DOCUMENTED[name]), dict(NAMES), name, None, None
    )
    report: list[str] = []
    assert doctest.DocTestRunner().run(parsed, out=report.append).failed == 0, "".join(report)


@pytest.mark.parametrize("code", BLOCKS)
def test_document_example_runs(code, monkeypatch):
    monkeypatch.chdir(ROOT)  # they read examples/
    exec(compile(code, "example", "exec"), {})  # noqa: S102 - our own documents


@pytest.mark.parametrize(("command", "output"), COMMANDS)
def test_command_prints_what_is_shown(command, output, tmp_path, monkeypatch):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for name in re.findall(r"(\S+)/config.json", command):
        write_config(tmp_path, name)
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(command)
    if ANY_MODEL.match(command):
        monkeypatch.setattr(prompts, "SYSTEM_PROMPT", "Be brief and kind and the best.")
        model = write_tiny_gemma3(tmp_path / "tiny.gguf")
        arguments += ["--model", str(model), "--max-new-tokens", "2", "--page-size", "4"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
    assert result.exit_code == (2 if output.startswith("pagedkv ") else 0), result.output
    shown, found = printed(output), printed(result.output)
    # "..." stands for any lines.
    assert doctest.OutputChecker().check_output(shown, found, doctest.ELLIPSIS), found
