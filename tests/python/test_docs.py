"""Every example that a reader may copy runs: docstrings, README and docs."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pagedkv
import pytest

ROOT = Path(__file__).parents[2]
NAMES = {
    name: value
    for name, value in {**vars(pagedkv._core), **vars(pagedkv)}.items()
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


DOCUMENTED = {
    name: value
    for name, value in public_objects()
    if isinstance(getattr(value, "__doc__", None), str) and ">>>" in value.__doc__
}
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(text, id=f"{path.name}-{number}")
    for path in DOCUMENTS
    for number, text in enumerate(
        re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    )
]


def test_there_are_examples():
    assert len(DOCUMENTED) >= 5
    assert BLOCKS


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_docstring_example_runs(name):
    parsed = doctest.DocTestParser().get_doctest(
        inspect.getdoc(DOCUMENTED[name]), dict(NAMES), name, None, None
    )
    report: list[str] = []
    assert doctest.DocTestRunner().run(parsed, out=report.append).failed == 0, "".join(report)


@pytest.mark.parametrize("code", BLOCKS)
def test_document_example_runs(code):
    exec(compile(code, "example", "exec"), {})  # noqa: S102 - our own documents
