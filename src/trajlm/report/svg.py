"""Matplotlib figures as inline SVG that follows the page: its fonts, its colours, its width.

Figures are drawn in stand-in colours; `inline` turns each into a CSS variable, so one drawing
serves light and dark mode. Style attributes become presentation attributes, which a content
security policy without `unsafe-inline` allows. Equal input gives equal bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from trajlm.report.html import Markup, tag

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER, DATA, BEYOND = (f"#0000{i:02x}" for i in range(1, 7))
NUM_SERIES = 6
SERIES = tuple(f"#0001{i:02x}" for i in range(NUM_SERIES))
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    DATA: "--data",
    BEYOND: "--beyond",
    **{colour: f"--series-{i + 1}" for i, colour in enumerate(SERIES)},
}
# The same in a picture of its own, on white: the page's light colours (style.css).
LIGHT = {
    INK: "#1b1e23",
    MUTED: "#596270",
    GRID: "#e4e5e8",
    PAPER: "#ffffff",
    DATA: "#b9bec7",
    BEYOND: "#b4690e",
    **dict(
        zip(SERIES, ("#0072b2", "#c8500a", "#007d5c", "#a63d84", "#806600", "#4a4f57"), strict=True)
    ),
}
WIDE, NARROW = 960, 358  # CSS pixels: the column at desktop width, the screen less its margins

SVG = "{http://www.w3.org/2000/svg}"
XLINK = "{http://www.w3.org/1999/xlink}href"
KEPT = frozenset(
    [
        *("fill", "fill-opacity", "fill-rule", "opacity", "text-anchor"),
        *("font-size", "font-weight", "font-style"),
        *("stroke", "stroke-width", "stroke-linecap", "stroke-linejoin", "stroke-opacity"),
        *("stroke-dasharray", "stroke-dashoffset", "stroke-miterlimit"),
    ]
)
COORDINATES = frozenset({"d", "x", "y", "width", "height", "transform"})
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "trajlm",
    "text.parse_math": False,
    "font.size": 13,
    "axes.titlesize": 13,
    "axes.labelsize": 13,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 1.0,
    "grid.color": GRID,
    "grid.linewidth": 1.0,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.unicode_minus": True,
    "path.simplify": True,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.1,
}


def render(
    draw: Callable[[Figure, bool], None],
    *,
    key: str,
    alt: str,
    heights: tuple[int, int],
) -> Markup:
    """The drawing for desktop and for phone width; CSS shows one. `heights` in CSS pixels.

    `draw(figure, narrow)` fills a figure; `key` is unique on the page. Raises `ImportError`
    where matplotlib is not installed.
    """
    wide = inline(_draw(draw, False, heights[0]), key=f"{key}-wide", alt=alt)
    narrow = inline(_draw(draw, True, heights[1]), key=f"{key}-narrow", alt=alt)
    return tag("div", tag("div", wide, class_="wide"), tag("div", narrow, class_="narrow"))


def _draw(draw: Callable[[Figure, bool], None], narrow: bool, height: int) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        # 72 units an inch: one SVG unit is one CSS pixel.
        size = ((NARROW if narrow else WIDE) / 72, height / 72)
        figure = Figure(figsize=size, dpi=72, layout="constrained")
        draw(figure, narrow)
        buffer = io.StringIO()
        empty = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", metadata=empty)
    return buffer.getvalue()


def inline(source: str, *, key: str, alt: str) -> Markup:
    """An SVG document as an element of the page, named by `alt`."""
    root = ElementTree.fromstring(source)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{SVG}metadata", f"{SVG}style") or "}" not in str(child.tag):
                parent.remove(child)
    used = set(re.findall(r"#([\w.-]+)", " ".join(_references(root))))
    for element in root.iter():
        _rewrite(element, key, used)
    for element in root.iter(f"{SVG}g"):
        _hoist(element)
    view_box = root.get("viewBox", "")
    root.attrib.clear()
    # Matplotlib sets these two in its style element.
    root.attrib.update({"viewBox": view_box, "stroke-linejoin": "round", "stroke-linecap": "butt"})
    root.attrib.update({"class": "chart", "role": "img", "aria-label": alt})
    ElementTree.register_namespace("", SVG[1:-1])
    text = ElementTree.tostring(root, encoding="unicode")
    for colour, variable in VARIABLES.items():
        text = text.replace(f'"{colour}"', f'"var({variable})"')
    text = text.replace(f' xmlns="{SVG[1:-1]}"', "")
    return Markup(re.sub(r">\s+<", "><", text))


def _hoist(group: ElementTree.Element) -> None:
    """What all marks of a scatter share is said once: `use` inherits it."""
    marks = [mark for child in group for mark in (child, *child) if mark.tag == f"{SVG}use"]
    if len(marks) < 4 or len(marks) != len([c for c in group if c.tag != f"{SVG}defs"]):
        return
    shared = set(marks[0].items()).intersection(*(mark.items() for mark in marks))
    for name, value in sorted(shared):
        if name in KEPT:
            group.set(name, value)
            for mark in marks:
                del mark.attrib[name]


def _short(name: str, value: str) -> str:
    """Coordinates to a hundredth of a pixel: half the bytes, the same picture."""
    return re.sub(r"(\d\.\d\d)\d+", r"\1", value) if name in COORDINATES else value


def _references(root: ElementTree.Element) -> list[str]:
    return [value for e in root.iter() for name, value in e.items() if name != "id"]


def _rewrite(element: ElementTree.Element, key: str, used: set[str]) -> None:
    """Ids and references get the figure's prefix; a style becomes attributes."""
    identity = element.attrib.pop("id", None)
    style = element.attrib.pop("style", "")
    for name in list(element.attrib):
        value = element.attrib[name]
        if name == XLINK:
            del element.attrib[name]
            name = "href"
        element.set(name, re.sub(r"^(url\()?#", rf"\1#{key}-", _short(name, value)))
    if identity in used:
        element.set("id", f"{key}-{identity}")
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":
            size = re.search(r"([\d.]+)px", value)
            weight = re.match(r"(bold|\d{3})\b", value)
            element.set("font-size", size[1] if size else "12")
            if weight:
                element.set("font-weight", weight[1])
        elif name in KEPT:
            element.set(name, re.sub(r"^url\(#", f"url(#{key}-", value))
