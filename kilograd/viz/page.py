"""A graph drawing as one HTML file: the data, the style and the script in a page that needs no network.

Everything about places is decided before: ``data`` brings one finished layout per group, and the page (``page.js``)
only stretches them where groups are opened. Titles and details come from the user's code, so they travel as JSON in a
block that is never executed, and the page's content security policy allows its own script and style, by their hashes,
and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from importlib import resources
from string import Template
from typing import Any


def page(data: dict[str, Any], title: str) -> str:
    """The interactive page of a graph drawing, a whole HTML document.

    Args:
        data: ``{"direction", "blocks", "groups", "root"}``. Lengths are CSS pixels at zoom 1.

            ``direction`` is ``"TB"`` (top to bottom) or ``"LR"`` (left to right); ``root`` is the id of the outermost
            group. A block is ``{"title", "lines", "kind", "phase", "order", "details"}`` with an optional ``"heat"``
            between 0 and 1; a group is ``{"title", "lines", "kind", "parent", "details", "children", "open",
            "layout"}``. A layout is ``{"width", "height", "boxes", "ports", "edges"}``: boxes ``[x, y, width, height]``
            by child, ports ``[x, y]`` by ``"in:" + block`` or ``"out:" + block``, and edges ``{"from", "from_value",
            "to", "label", "points"}`` whose points are the 3n + 1 control points of a cubic Bézier curve from border
            to border. An open group takes ``inner width + 2·16`` by ``inner height + 32 + 16`` pixels, and
            its parent's layout is stretched so that it has this room.
        title: The heading and the window's title.

    Returns:
        The document's text; write it as UTF-8.

    Raises:
        TypeError: The data holds something JSON has no form for, or ``title`` is no string.
        ValueError: The data contradicts itself (an unknown child, a box without area, a NaN), named with its group.

    >>> layout = {"width": 40, "height": 20, "boxes": {"a": [0, 0, 40, 20]}, "ports": {}, "edges": []}
    >>> block = {"title": "relu", "lines": [], "kind": "op", "phase": "forward", "order": 0, "details": []}
    >>> root = {"title": "", "lines": [], "kind": "run", "parent": None, "details": [], "children": ["a"],
    ...         "open": True, "layout": layout}
    >>> text = page({"direction": "TB", "blocks": {"a": block}, "groups": {"r": root}, "root": "r"}, "My <net>")
    >>> "<title>My &lt;net&gt;</title>" in text
    True
    """
    if not isinstance(title, str):
        raise TypeError(f"page(): title must be a string, not {type(title).__name__}")
    _check(data)
    folder = resources.files(__package__)
    parts = {
        name: folder.joinpath(f"page.{name}").read_text("utf-8") for name in ("html", "css", "js")
    }
    return Template(parts["html"]).substitute(
        title=html.escape(
            title.encode("utf-8", "replace").decode()
        ),  # a lone surrogate has no UTF-8
        css=parts["css"],
        css_hash=_hash(parts["css"]),
        js=parts["js"],
        js_hash=_hash(parts["js"]),
        data=_inert(data),
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _inert(data: dict[str, Any]) -> str:
    """JSON without a character that means something to HTML: no string in it can end the block it stands in."""
    text = json.dumps(
        data, allow_nan=False, separators=(",", ":")
    )  # ASCII: U+2028 and surrogates are escaped
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _check(data: dict[str, Any]) -> None:
    """Finds what would make the page draw something wrong or nothing at all."""
    missing = [key for key in ("direction", "blocks", "groups", "root") if key not in data]
    if missing:
        raise ValueError(f"page(): data lacks {', '.join(map(repr, missing))}")
    blocks, groups, root = data["blocks"], data["groups"], data["root"]
    if data["direction"] not in ("TB", "LR"):
        raise ValueError(f"page(): direction must be 'TB' or 'LR', got {data['direction']!r}")
    if root not in groups:
        raise ValueError(f"page(): the root {root!r} is no group")
    if both := sorted(blocks.keys() & groups.keys()):
        raise ValueError(f"page(): {both[0]!r} is a block and a group; ids are unique")
    inside: dict[str, str] = {root: "nothing"}
    for gid, group in groups.items():
        for child in group["children"]:
            if child not in blocks and child not in groups:
                raise ValueError(
                    f"page(): group {gid!r} has the child {child!r}, which is neither block nor group"
                )
            if child in inside:
                raise ValueError(
                    f"page(): {child!r} lies in group {gid!r} and in {inside[child]!r}"
                )
            inside[child] = gid
        _check_layout(gid, group)
    if lost := [name for name in (*blocks, *groups) if name not in inside]:
        raise ValueError(f"page(): {lost[0]!r} lies in no group, so it would never be shown")


def _check_layout(gid: str, group: dict[str, Any]) -> None:
    layout = group["layout"]
    boxes, ports = layout["boxes"], layout["ports"]
    if boxes.keys() != set(group["children"]):
        odd = sorted(boxes.keys() ^ set(group["children"]))
        raise ValueError(
            f"page(): group {gid!r}: its children and its layout's boxes differ in {odd[0]!r}"
        )
    for name, (x, y, width, height) in boxes.items():
        if not (width > 0 and height > 0 and math.isfinite(x + y + width + height)):
            raise ValueError(
                f"page(): group {gid!r}: the box of {name!r} is {[x, y, width, height]}"
            )
    for edge in layout["edges"]:
        for end in (edge["from"], edge["to"]):
            if end not in boxes and end not in ports:
                raise ValueError(
                    f"page(): group {gid!r}: an edge ends at {end!r}, which is neither child nor port"
                )
        if len(edge["points"]) % 3 != 1 or len(edge["points"]) < 4:
            raise ValueError(
                f"page(): group {gid!r}: the edge {edge['from']!r} → {edge['to']!r} has {len(edge['points'])} control"
                " points; a chain of cubic curves has 3n + 1"
            )
