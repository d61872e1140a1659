"""``.. names:: kilograd.nn`` with ``:room: kilograd.nn.conv``: the reference of a room's public names.

The names are those of the room's ``__all__`` (or of the public module's, without a room), each
documented under the module that gives it out. So a new name shows up by itself, in its category.
"""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Names(SphinxDirective):
    """Document all names of a room; ``:only:`` chooses some of them, ``:without:`` leaves some out."""

    required_arguments = 1
    option_spec = {  # noqa: RUF012
        "room": directives.unchanged_required,
        "only": directives.unchanged_required,
        "without": directives.unchanged_required,
        "bare": directives.flag,  # classes without their members
    }

    def run(self) -> list[nodes.Node]:
        public = self.arguments[0]
        try:
            found = names(public, **self.chosen())
        except (ImportError, AttributeError) as e:
            raise self.error(str(e)) from None
        lines: list[str] = []
        for name, what in found.items():
            lines.append(f".. auto{kind(what)}:: {public}.{name}")
            if "bare" in self.options and inspect.isclass(what):
                lines.append("   :no-members:")
            lines.append("")
        node = nodes.container()
        source, _ = self.get_source_info()
        self.state.nested_parse(StringList(lines, source), self.content_offset, node)
        return node.children

    def chosen(self) -> dict[str, str]:
        """The options that choose among the names."""
        return {k: v for k, v in self.options.items() if k in ("room", "only", "without")}


def names(public: str, room: str = "", only: str = "", without: str = "") -> dict[str, Any]:
    """The public names of a room, and what they are.

    Raises:
        AttributeError: the public module does not give out one of them.
    """
    module = resolved(public)
    source = resolved(room or public)
    listed = only.split() or getattr(source, "__all__", None) or own_names(source)
    return {name: getattr(module, name) for name in listed if name not in without.split()}


def resolved(path: str) -> Any:
    """The object at a dotted path: a module, or an attribute of one."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        parent, _, name = path.rpartition(".")
        if not parent:
            raise
        return getattr(resolved(parent), name)


def own_names(module: ModuleType) -> list[str]:
    """The public functions and classes that a module without ``__all__`` defines, in their order."""
    return [
        name
        for name, what in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(what) or inspect.isfunction(what))
        and what.__module__ == module.__name__
    ]


def kind(what: Any) -> str:
    """Which of autodoc's directives documents an object."""
    if inspect.isclass(what):
        return "exception" if issubclass(what, BaseException) else "class"
    return "function" if callable(what) else "data"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("names", Names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
