"""Where a chart goes: an SVG file as it is, a PNG file through resvg (the extra ``png``)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

__all__ = ["save", "why_not"]


def why_not(path: Path) -> str:
    """Why no picture can be written of this name, before anybody measures for it; "" if it can."""
    if path.suffix not in (".svg", ".png"):
        return "pictures are SVG or PNG: name the file something.svg or something.png"
    if path.suffix == ".png" and find_spec("resvg_py") is None:
        return "PNG needs `pip install 'zeromesh[png]'`; SVG needs nothing"
    return ""


def save(path: Path, chart: str) -> None:
    """Write ``chart``, an SVG text. PNG shows text in a font of the system's."""
    if path.suffix == ".png":
        import resvg_py

        path.write_bytes(resvg_py.svg_to_bytes(svg_string=chart, zoom=2))
    else:
        path.write_text(chart, encoding="utf-8")
