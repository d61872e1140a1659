"""``{runs}``: code that runs when the page is built, followed by what it printed.

What the page shows is therefore what the code does today. The blocks of one page share their names,
from top to bottom; code that raises is a warning, and so breaks the build.

    ```{runs}
    :as: python
    print(graph)
    ```
"""

from __future__ import annotations

import contextlib
import io
import linecache
import traceback
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Runs(SphinxDirective):
    """Show Python code and its output; ``:as:`` names the output's language, ``:hide:`` the code."""

    has_content = True
    option_spec = {"as": directives.unchanged, "hide": directives.flag}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        text = "\n".join(self.content) + "\n"
        names = self.env.temp_data.setdefault("runs", {"__name__": "__main__"})
        count = names.setdefault("__blocks__", 0)
        names["__blocks__"] = count + 1
        shown: list[nodes.Node] = []
        if "hide" not in self.options:
            shown.append(self.block(text, "python", []))
        try:
            printed = run(text, f"{self.env.docname}, block {count + 1}", names)
        except Exception:
            last = traceback.format_exc(limit=-3)
            raise self.error(f"code on this page does not run:\n{last}") from None
        if printed:
            shown.append(self.block(printed, self.options.get("as", "text"), ["output"]))
        return shown

    def block(self, text: str, language: str, classes: list[str]) -> nodes.literal_block:
        """A block of code or of output."""
        node = nodes.literal_block(text, text, language=language, classes=classes)
        self.set_source_info(node)
        return node


def run(text: str, where: str, names: dict[str, Any]) -> str:
    """What a piece of code prints."""
    linecache.cache[where] = (len(text), None, text.splitlines(keepends=True), where)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(text, where, "exec"), names)
    return out.getvalue()


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("runs", Runs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
