"""docs/extending.md says how the tree is: files it names exist, lines it quotes are in them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "extending.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:[\w.]+/)+[\w.]+\.\w+)`", TEXT)))
QUOTES = re.findall(r"^```cpp\n// (\S+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_names_and_quotes_files():
    assert len(NAMED) > 30
    assert len(QUOTES) == TEXT.count("```cpp") > 4


@pytest.mark.parametrize("name", NAMED)
def test_named_file_exists(name):
    assert (ROOT / name).is_file()


@pytest.mark.parametrize(("name", "lines"), QUOTES, ids=[name for name, _ in QUOTES])
def test_quoted_lines_are_in_the_file(name, lines):
    assert lines in (ROOT / name).read_text()


@pytest.mark.parametrize("word", ["SlidingWindow", "sliding_window"])
def test_table_of_types_has_every_file_of_one(word):
    """No file of the core, the bindings or the specs that knows the type is left out."""
    files = [*(ROOT / "cpp").rglob("*"), *(ROOT / "python" / "bindings").rglob("*")]
    knowing = {
        str(path.relative_to(ROOT))
        for path in files
        if path.is_file() and re.search(rf"{word}(Spec|Policy|_spec|\.cc|\.h)\b", path.read_text())
    }
    assert knowing <= set(NAMED)


def test_table_of_ops_has_every_file_of_one():
    files = [*(ROOT / "xla_ffi").rglob("*"), *(ROOT / "python" / "pagedkv" / "ops").rglob("*.py")]
    knowing = {
        str(path.relative_to(ROOT))
        for path in files
        if path.is_file() and re.search(r"scatter_pages|ScatterPages", path.read_text())
    }
    assert knowing <= set(NAMED)
