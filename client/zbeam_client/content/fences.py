"""Code fences round an answer, read as CommonMark reads them. Policy: no I/O.

A fence is closed by one of the same character that is at least as long and has nothing behind it.
A model that puts a whole text into a fence often forgets that: its text has fences of the same
length. So where the first one that could close is not the end, the last one may be, if all fences
in between open and close.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from zbeam_client.content.documents import Unreadable

BOUNDARY = "---"
"""The line before frontmatter and the one after it."""
_FENCE = re.compile(r" {0,3}(`{3,}+|~{3,}+)(.*)")
_STRAY_CHARS = 200
"""A line before or after a fenced answer ("Here is the file:") is at most so long."""
_FOR_TEXTS = ("markdown", "md")
"""What is said of a fence with a text in it: it holds the answer, and is no code in one."""
_MOST = 3
_LEADING = re.compile(r"\A(?:[ \t]*\n|\ufeff)+")


class _Fence(NamedTuple):
    mark: str
    info: str

    def closes(self, opened: _Fence) -> bool:
        return not self.info and self.mark.startswith(opened.mark)


def strip_fences(text: str, form: str) -> str:
    """Return the inside of a fence that holds the whole answer; any other text as it is.

    One line before the fence and, of data, one after it are dropped. What follows a fence with
    nothing but frontmatter in it is the text that belongs to it. Blank lines and byte order marks
    at the beginning are taken off. Raises ``Unreadable`` for a fence that is not closed.
    """
    for _ in range(_MOST):
        text = _LEADING.sub("", text)
        inside = _Lines(text.split("\n"), form).inside()
        if inside is None:
            return text
        text = "\n".join(inside)
    raise Unreadable(f"the answer is in {_MOST} code fences or more, one in the other")


class _Lines:
    """The lines of an answer, and the fences among them by their lines' numbers."""

    def __init__(self, lines: list[str], form: str) -> None:
        self._lines = lines
        self._form = form
        found = ((n, _fence_in(line)) for n, line in enumerate(lines))
        self._fences = {n: fence for n, fence in found if fence is not None}

    def inside(self) -> list[str] | None:
        """Return the lines in the fence that holds the answer, None if there is none."""
        lines, form = self._lines, self._form
        start, stray = self._start()
        if start is None:
            return None
        opened = self._fences[start]
        ends = [n for n, fence in self._fences.items() if n > start and fence.closes(opened)]
        if not ends:
            if stray and form != "text":
                return None  # the data's own reader tells what is wrong
            raise Unreadable("the answer begins with a code fence that is not closed")
        first, last = ends[0], ends[-1]
        if form == "frontmatter" and _is_frontmatter(lines[start + 1 : first]):
            return lines[start + 1 : first] + lines[first + 1 :]
        if self._may_end(first):
            return lines[start + 1 : first]
        of_text = opened.info.lower() in _FOR_TEXTS
        # A text may begin with one piece of code and end with another.
        nested = form != "text" or of_text or not self._balanced(first + 1, len(lines))
        if nested and self._may_end(last) and self._balanced(start + 1, last):
            return lines[start + 1 : last]
        if form == "text" and of_text and not stray:
            raise Unreadable("only a part of the answer is in its code fence: none is needed")
        return None

    def _start(self) -> tuple[int | None, bool]:
        """Return the line of the fence, and whether a stray one comes before it."""
        filled = [n for n, line in enumerate(self._lines) if line.strip()][:2]
        if filled and filled[0] in self._fences:
            return filled[0], False
        if len(filled) < 2 or len(self._lines[filled[0]]) > _STRAY_CHARS:
            return None, False
        fence = self._fences.get(filled[1])
        if fence is None or self._lines[filled[1]].startswith(" "):
            return None, False
        # A line and then some code is a text; data never is.
        if self._form == "text" and fence.info.lower() not in _FOR_TEXTS:
            return None, False
        return filled[1], True

    def _balanced(self, start: int, end: int) -> bool:
        """Tell whether every fence that opens in these lines is closed in them."""
        opened = None
        for n, fence in self._fences.items():
            if not start <= n < end:
                continue
            if opened is None:
                opened = fence
            elif fence.closes(opened):
                opened = None
        return opened is None

    def _may_end(self, end: int) -> bool:
        """Tell whether nothing comes behind the fence's end or, of data, one stray line."""
        stray = 0 if self._form == "text" else 1
        for n in range(end + 1, len(self._lines)):
            if self._lines[n].strip():
                stray -= 1
                if stray < 0 or n in self._fences or len(self._lines[n]) > _STRAY_CHARS:
                    return False
        return True


def _fence_in(line: str) -> _Fence | None:
    found = _FENCE.fullmatch(line)
    if found is None or (found[1][0] == "`" and "`" in found[2]):
        return None  # ```code``` in one line is no fence
    return _Fence(found[1], found[2].strip())


def _is_frontmatter(lines: list[str]) -> bool:
    """Tell whether these lines are frontmatter without a text after it."""
    filled = [line.rstrip() for line in lines if line.strip()]
    return filled[:1] == filled[-1:] == [BOUNDARY] and filled.count(BOUNDARY) == 2
