"""Figures as parts of a page: SVG whose colours, fonts and identifiers are the page's."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from interlocking_backprop.compare.report.figures import theme

TIP = "tip:"
_COLOR = re.compile(r"#[0-9a-f]{6}\b")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_REFERENCE = re.compile(r"(?<=url\(#)[^)]+|(?<=^#).+")


def inline_svg(figure: Figure, name: str, description: str) -> Markup:
    """Turns a figure into an SVG element of an HTML page.

    What is drawn with a ``gid`` that begins with `TIP` shows the rest of it when pointed at.

    Args:
        figure: drawn in the colours of the theme.
        name: unique on the page.
        description: for those who cannot see it.

    Raises:
        KeyError: if a colour is none of the theme's.
    """
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "interlocking-backprop"}):
        file = io.StringIO()
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=metadata)
    root = ElementTree.fromstring(file.getvalue())
    view = root.attrib["viewBox"]
    used = {match.group() for element in root.iter() for v in element.attrib.values() for match in _references(v)}
    for parent in list(root.iter()):
        for child in list(parent):
            # Its rules would hold for the whole page.
            if child.tag.endswith("}style"):
                parent.remove(child)
    for element in list(root.iter()):
        _adopt(element, name, used)
    root.attrib.clear()
    root.attrib.update({"viewBox": view, "class": "figure", "role": "img", "aria-label": description})
    # The serializer has escaped all text.
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _references(value: str) -> list[re.Match[str]]:
    return list(_REFERENCE.finditer(value))


def _adopt(element: ElementTree.Element, name: str, used: set[str]) -> None:
    """Makes an element a part of the page."""
    element.tag = element.tag.rsplit("}", 1)[-1]
    attributes = {}
    for key, value in element.attrib.items():
        key = key.rsplit("}", 1)[-1]
        if key == "id":
            if value.startswith(TIP):
                title = ElementTree.Element("title")
                title.text = value.removeprefix(TIP)
                element.insert(0, title)
            elif value in used:
                attributes["id"] = f"{name}-{value}"
            continue
        value = _REFERENCE.sub(lambda match: f"{name}-{match.group()}", value)
        if key in ("d", "x", "y", "width", "height", "transform"):
            value = _LONG_NUMBER.sub(lambda match: f"{float(match.group()):.2f}", value).replace("\n", " ").strip()
        if key == "style":
            value = _style(value)
        if not (key == "transform" and value.startswith("rotate(-0 ")):
            attributes[key] = value
    element.attrib.clear()
    element.attrib.update(attributes)
    if element.tag not in ("text", "title"):
        element.text = None
    element.tail = None


def _style(style: str) -> str:
    """Without fonts, which are the page's, and with variables in place of colours."""
    parts = [part.strip() for part in style.split(";") if not part.strip().startswith("font-family")]
    return _COLOR.sub(lambda match: theme.css_color(match.group()), "; ".join(parts))
