"""The files that name the version of a release agree."""

import re
import tomllib
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_cmake_has_the_version():
    text = (ROOT / "CMakeLists.txt").read_text()
    assert re.search(r"project\(pagedkv VERSION (\S+)", text)[1] == VERSION


def test_changelog_has_the_version_with_its_date():
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    version, day = headings[1].split(" - ")
    assert version == VERSION
    assert date.fromisoformat(day)
