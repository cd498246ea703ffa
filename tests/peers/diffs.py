"""Unified diffs, taken out of a document and applied: strictly, each hunk at its own line."""

import re
from collections.abc import Callable
from pathlib import Path

FENCE = re.compile(r"^```diff\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^--- a/(.*)\n\+\+\+ b/(.*)\n", re.MULTILINE)
HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


def diffs_of(document: Path) -> dict[str, str]:
    """The hunks of each file, by its path."""
    found = {}
    for text in FENCE.findall(document.read_text()):
        _, *parts = FILE.split(text)
        for before, after, hunks in zip(*[iter(parts)] * 3, strict=True):
            assert before == after
            found[before] = hunks
    return found


def apply(diff: str, text: str) -> str:
    """The text after the diff.

    Raises:
      ValueError: If a hunk does not fit the text, or its own head.
    """
    old, new, position = text.splitlines(), [], 0
    lines = iter(diff.splitlines())
    for line in lines:
        head = HUNK.match(line)
        if head is None:
            raise ValueError(f"no hunk begins with {line!r}")
        begin, num_old, _, num_new = (int(number or 1) for number in head.groups())
        start = begin - 1 if num_old else begin
        new += old[position:start]
        if len(new) + 1 != int(head[3]):
            raise ValueError(f"{line} begins at line {len(new) + 1} of the result")
        position = start
        while num_old > 0 or num_new > 0:
            sign, content = (body := next(lines, "?"))[:1] or " ", body[1:]
            if sign in " -":
                if position >= len(old) or old[position] != content:
                    raise ValueError(f"line {position + 1} is not {content!r}")
                position += 1
                num_old -= 1
            if sign in " +":
                new.append(content)
                num_new -= 1
            if sign not in " +-":
                raise ValueError(f"{line} ends too early")
    return "\n".join(new + old[position:]) + "\n"


def whole_file(diff: str, keep: Callable[[str], bool]) -> str:
    """The lines of a diff of a whole file that `keep` their sign."""
    lines = [line for line in diff.splitlines() if not line.startswith("@@")]
    return "\n".join(line[1:] for line in lines if keep(line[:1] or " ")) + "\n"
