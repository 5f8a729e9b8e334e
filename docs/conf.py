"""The documentation as a site: ``make docs``. Nothing is fetched while it is built."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from helptext import blocks
from pygments.lexers.special import TextLexer

from zbeam_shared import __version__

project = "zbeam"
release = version = __version__
copyright = "the zbeam authors"
language = "en"
smartquotes = False  # they would make one dash of --json

# Python's own documentation is elsewhere, and nothing is fetched to link there.
nitpick_ignore = [("py:class", "collections.abc.Callable")]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_click"]
source_suffix = {".md": "markdown"}
exclude_patterns: list[str] = []

# Headings of four levels have the anchors that a forge gives them, so that links between the
# files work in both places.
myst_heading_anchors = 5
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"zbeam {release}"
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "native"


def _reread(text: str | None) -> list[str]:
    """Return a help text in reStructuredText, its verbatim paragraphs as code."""
    lines: list[str] = []
    for block in blocks(text):
        if block.title:
            lines += [f".. rubric:: {block.title}", ""]
        if block.verbatim:
            kind = "sh" if block.title == "Examples" else "text"
            lines += [f".. code-block:: {kind}", "", *(f"    {line}" for line in block.lines), ""]
        else:
            lines += [*(line.replace("*", r"\*").replace("`", r"\`") for line in block.lines), ""]
    return lines


def _description(_app: Any, ctx: Any, lines: list[str]) -> None:
    lines[:] = _reread(ctx.command.help)


def _epilog(_app: Any, ctx: Any, lines: list[str]) -> None:
    lines[:] = _reread(ctx.command.epilog)


def _options(_app: Any, ctx: Any, lines: list[str]) -> None:
    """Leave out of each command what every one of them takes."""
    if ctx.parent is None:
        return
    common = {name for option in ctx.find_root().command.params for name in option.opts}
    kept, keep = [], True
    for line in lines:
        if line.startswith(".. option:: "):
            keep = line.removeprefix(".. option:: ").split()[0].rstrip(",") not in common
        if keep:
            kept.append(line)
    lines[:] = kept


def _take_in(app: Any, name: str, source: list[str]) -> None:
    """Add to the index what it does not name: a new document needs no line there to be found."""
    if name == "index":
        more = sorted(app.env.found_docs - set(source[0].split()) - {name})
        if more:
            source[0] += "\n".join(["", "```{toctree}", ":caption: More", "", *more, "```", ""])


def setup(app: Any) -> None:
    """Connect the above."""
    app.connect("sphinx-click-process-description", _description)
    app.connect("sphinx-click-process-options", _options)
    app.connect("sphinx-click-process-epilog", _epilog)
    app.connect("source-read", _take_in)
    # Drawn by forges; here the table of transitions is shown as it is written, because the
    # extension that draws it fetches its program from elsewhere.
    app.add_lexer("mermaid", TextLexer)
