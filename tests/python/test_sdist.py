"""The source distribution: all that a build needs, and nothing that lies about in a checkout."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("cmake", "cpp", "python", "xla_ffi")
FILES = {"CHANGELOG.md", "CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml"}
BUILT = {".so", ".pyc", ".pyd"}


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Paths in the sdist, below its one folder."""
    folder = tmp_path_factory.mktemp("sdist")
    code = f"import scikit_build_core.build as b; b.build_sdist({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    (archive,) = folder.iterdir()
    with tarfile.open(archive) as tar:
        return {name.partition("/")[2] for name in tar.getnames()}


def test_has_what_a_build_needs_and_nothing_else(members):
    sources = {
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in BUILT and ".egg-info" not in str(path)
    }
    assert members == sources | FILES | {"PKG-INFO"}


def test_python_files_of_builds_are_left_out(members):
    assert not [name for name in members if Path(name).suffix in BUILT or "__pycache__" in name]
