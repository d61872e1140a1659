"""Writers: a scene as SVG, PNG or PDF; a diagram as Graphviz's DOT or as Mermaid."""

from __future__ import annotations

import io
import math
import warnings
from html import escape
from typing import Any

from kilograd.viz.arrange import Point, shortened
from kilograd.viz.diagram import Diagram, Part
from kilograd.viz.scene import Box, Curve, Scene, Text, colors

FONT = "'DejaVu Sans', Verdana, 'Segoe UI', Helvetica, Arial, sans-serif"
ARROW, STROKE = "#5b6577", 1.2


def svg(scene: Scene) -> str:
    """The picture as one SVG document."""
    w, h = scene.width, scene.height
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w:.0f}" height="{h:.0f}" '
        f'viewBox="0 0 {w:.1f} {h:.1f}" font-family="{FONT}" role="img">',
        f"<title>{_clean(scene.title or 'graph')}</title>",
        f'<rect width="{w:.1f}" height="{h:.1f}" fill="white"/>',
    ]
    for shape in scene.shapes:
        if type(shape) is Box:
            dash = ' stroke-dasharray="5 3"' if shape.dashed else ""
            tip = f"<title>{_clean(shape.tip)}</title>" if shape.tip else ""
            parts.append(
                f'<rect x="{shape.x:.1f}" y="{shape.y:.1f}" width="{shape.width:.1f}" '
                f'height="{shape.height:.1f}" rx="{shape.radius:.0f}" fill="{shape.fill}" '
                f'stroke="{shape.border}"{dash}>{tip}</rect>'
            )
        elif type(shape) is Text:
            anchor = ' text-anchor="middle"' if shape.middle else ""
            weight = ' font-weight="bold"' if shape.bold else ""
            parts.append(
                f'<text x="{shape.x:.1f}" y="{shape.y + 0.35 * shape.size:.1f}" '
                f'font-size="{shape.size:g}"{anchor}{weight} fill="{shape.color}">'
                f"{_clean(shape.text)}</text>"
            )
        else:
            points = _short_of_head(shape)
            rest = " ".join(f"{x:.1f},{y:.1f}" for x, y in points[1:])
            start = f"M{points[0][0]:.1f},{points[0][1]:.1f} C{rest}"
            parts.append(
                f'<path d="{start}" fill="none" stroke="{ARROW}" stroke-width="{STROKE}"/>'
            )
            if shape.arrow:
                corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in _head(shape.points))
                parts.append(f'<polygon points="{corners}" fill="{ARROW}"/>')
    return "\n".join([*parts, "</svg>"])


def _clean(text: str) -> str:
    """Text for XML."""
    return escape(_printable(text))


def _printable(text: str) -> str:
    """A text without control characters other than line ends, and without halves of characters."""
    text = "".join(c if c >= " " or c == "\n" else " " for c in text)
    return text.encode("utf-8", "replace").decode()


def _head(points: list[Point]) -> list[Point]:
    """The corners of the arrow head at the end of a curve."""
    (x, y), before = points[-1], points[-2]
    for p in reversed(points[:-1]):
        if math.dist(p, points[-1]) > 0.1:
            before = p
            break
    angle = math.atan2(y - before[1], x - before[0])
    back = lambda turn: (x - 7 * math.cos(angle + turn), y - 7 * math.sin(angle + turn))  # noqa: E731
    return [(x, y), back(0.42), back(-0.42)]


def _short_of_head(curve: Curve) -> list[Point]:
    """The curve without the last bit, which lies under its arrow head."""
    if not curve.arrow:
        return curve.points
    _, one, two = _head(curve.points)
    return [*curve.points[:-1], ((one[0] + two[0]) / 2, (one[1] + two[1]) / 2)]


def figure(scene: Scene) -> Any:
    """The picture as a matplotlib figure, one unit a point.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
        from matplotlib.path import Path
    except ImportError as e:
        raise ImportError("PNG and PDF need matplotlib: pip install 'kilograd[viz]'") from e
    fig = Figure(figsize=(scene.width / 72, scene.height / 72))
    FigureCanvasAgg(fig)
    axes = fig.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, scene.width)
    axes.set_ylim(scene.height, 0)
    axes.axis("off")
    for z, shape in enumerate(scene.shapes):
        if type(shape) is Box:
            corners = f"round,pad=0,rounding_size={shape.radius}"
            axes.add_patch(
                FancyBboxPatch(
                    (shape.x, shape.y), shape.width, shape.height, boxstyle=corners, zorder=z,
                    facecolor=shape.fill, edgecolor=shape.border, linewidth=1,
                    linestyle=(0, (5, 3)) if shape.dashed else "-",
                )
            )  # fmt: skip
        elif type(shape) is Text:
            axes.text(
                shape.x, shape.y, shape.text.replace("$", r"\$"), fontsize=shape.size, zorder=z,
                ha="center" if shape.middle else "left", va="center_baseline", color=shape.color,
                weight="bold" if shape.bold else "normal", family="DejaVu Sans",
            )  # fmt: skip
        else:
            codes = [Path.MOVETO, *[Path.CURVE4] * (len(shape.points) - 1)]
            line = Path(_short_of_head(shape), codes)
            axes.add_patch(PathPatch(line, fill=False, edgecolor=ARROW, linewidth=STROKE, zorder=z))
            if shape.arrow:
                axes.add_patch(
                    Polygon(_head(shape.points), facecolor=ARROW, edgecolor="none", zorder=z)
                )
    return fig


MOST_PIXELS = 12_000  # along one side of a PNG


def raster(scene: Scene, form: str, dpi: float = 144) -> bytes:
    """The picture as PNG (``dpi`` dots per inch, fewer for very large pictures) or PDF."""
    largest = max(scene.width, scene.height) / 72
    file = io.BytesIO()
    made_when = {"CreationDate": None} if form == "pdf" else {}  # the same picture, the same file
    with warnings.catch_warnings():  # a letter that the font lacks is drawn as a small box
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        picture = figure(scene)
        picture.savefig(file, format=form, dpi=min(dpi, MOST_PIXELS / largest), metadata=made_when)
    return file.getvalue()


# --- text -----------------------------------------------------------------------------------------


def _shown(diagram: Diagram) -> tuple[dict[str, str], dict[tuple[str, str], None]]:
    """A short name for each visible block, and the arrows between them."""
    names = {part.id: f"n{k}" for k, part in enumerate(diagram.visible())}
    arrows: dict[tuple[str, str], None] = {}
    for u, v in diagram.arrows:
        a, b = diagram.shown_as(u), diagram.shown_as(v)
        if a != b:
            arrows[names[a], names[b]] = None
    return names, arrows


def dot(diagram: Diagram) -> str:
    """The diagram in Graphviz's language, open groups as clusters."""
    names, arrows = _shown(diagram)
    lines = [
        "digraph {",
        f"  rankdir={diagram.direction};",
        '  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=11];',
        f'  edge [color="{ARROW}"];',
    ]
    if diagram.title:
        lines.append(f"  label={_quoted(diagram.title)}; labelloc=t;")

    def write(group: str, indent: str) -> None:
        for id in inside[group]:
            part = diagram.part(id)
            fill, border = colors(part)
            if id in names:
                label = _quoted("\n".join([shortened(part.title), *map(shortened, part.lines)]))
                lines.append(
                    f'{indent}{names[id]} [label={label}, fillcolor="{fill}", color="{border}"];'
                )
            else:
                lines.append(f"{indent}subgraph cluster_{len(lines)} {{")
                lines.append(
                    f'{indent}  label={_quoted(part.title)}; color="{border}"; style=dashed;'
                )
                write(id, indent + "  ")
                lines.append(indent + "}")

    inside = diagram.children()
    write("root", "  ")
    lines += [f"  {a} -> {b};" for a, b in arrows]
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    text = _printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'


def mermaid(diagram: Diagram) -> str:
    """The diagram as a Mermaid flowchart, open groups as subgraphs."""
    names, arrows = _shown(diagram)
    inside = diagram.children()
    lines = [f"flowchart {diagram.direction}"]
    if diagram.title:
        lines[:0] = ["---", f"title: {_mermaid(diagram.title)}", "---"]
    styles: dict[str, list[str]] = {}

    def write(group: str, indent: str) -> None:
        for id in inside[group]:
            part = diagram.part(id)
            if id in names:
                text = "<br>".join(
                    [_mermaid(shortened(part.title)), *[_mermaid(shortened(s)) for s in part.lines]]
                )
                lines.append(f'{indent}{names[id]}["{text}"]')
                styles.setdefault(_style(part), []).append(names[id])
            else:
                lines.append(f'{indent}subgraph g{len(lines)}["{_mermaid(part.title)}"]')
                write(id, indent + "  ")
                lines.append(f"{indent}end")

    write("root", "  ")
    lines += [f"  {a} --> {b}" for a, b in arrows]
    for k, (style, members) in enumerate(styles.items()):
        lines.append(f"  classDef c{k} {style}")
        lines.append(f"  class {','.join(members)} c{k}")
    return "\n".join([*lines, ""])


def _style(part: Part) -> str:
    fill, border = colors(part)
    return f"fill:{fill},stroke:{border},color:#1d2433"


def _mermaid(text: str) -> str:
    """Text for a Mermaid label: what could end the label or start markup is written as a number."""
    return "".join(c if c.isalnum() or c in " .,_-+=×→…" else f"#{ord(c)};" for c in text)
