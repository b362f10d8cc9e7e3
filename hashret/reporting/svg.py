"""Plots as inline SVG that take colours and font from the page, light or dark, and have no background."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import HashretError

if TYPE_CHECKING:
    from markupsafe import Markup

# Matplotlib draws in these colours, and the SVG names the page's own in their place.
_TEXT, QUIET, LINE, FIRST, SECOND = "#010101", "#020202", "#030303", "#040404", "#050505"
_ON_PAGE = {
    _TEXT: "currentColor", QUIET: "var(--quiet)", LINE: "var(--plain)", FIRST: "var(--accent)",
    SECOND: "var(--second)",
}  # fmt: skip
_STYLE: dict[Any, Any] = {
    "font.size": 9, "svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": QUIET, "axes.labelcolor": _TEXT, "text.color": _TEXT, "xtick.color": QUIET,
    "ytick.color": QUIET, "xtick.labelcolor": _TEXT, "ytick.labelcolor": _TEXT, "axes.linewidth": 0.6,
    "axes.grid": True, "grid.color": LINE, "grid.linewidth": 0.5, "axes.axisbelow": True, "legend.frameon": False,
    "lines.linewidth": 1.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
}  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """A drawing, as markup, with its title and a caption that says in words what it shows."""

    title: str
    svg: Markup
    caption: str


def check_matplotlib() -> None:
    """Check that matplotlib is installed.

    Raises:
        HashretError: it is not.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise HashretError("the report's plots need matplotlib: pip install 'hashret[report]'") from None


def plot(
    title: str,
    caption: str,
    draw: Callable[[Any], None],
    size: tuple[float, float] = (4.6, 2.9),
    count: int = 1,
    **options: Any,
) -> Plot:
    """Draw a plot by calling ``draw`` with its axes.

    Args:
        size: width and height in inches.
        count: number of axes below each other; ``draw`` gets an array of them where they are several.
        options: further arguments of matplotlib's ``Figure.subplots``.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not the user's own style
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": title})
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots(count, **options))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return Plot(title, _inline(buffer.getvalue(), title), caption)


def _inline(svg: str, title: str) -> Markup:
    """Turn the SVG file that matplotlib writes into an element of a page."""
    from markupsafe import Markup, escape

    head, defs, svg = svg.partition("<defs>")
    box = re.findall(r'viewBox="([^"]*)"', head)[0]
    svg = defs + svg
    for pattern, into in _SHORTER:
        svg = pattern.sub(into, svg)
    svg = _TAG.sub(lambda tag: _DIGITS.sub(r"\1", tag[0]), svg)
    for colour, name in _ON_PAGE.items():
        svg = svg.replace(colour, name)
    return Markup(f'<svg viewBox="{box}" role="img" aria-label="{escape(title)}">{svg}')


_TAG, _DIGITS = re.compile(r"<[^>]*>"), re.compile(r"(\d\.\d\d)\d+")  # coordinates, never the text between tags
_SHORTER = [
    (re.compile(pattern, re.DOTALL), into)
    for pattern, into in (
        (r"\s*<defs>\s*<style.*?</style>\s*</defs>", ""),  # the page has its own style
        (r"<!--.*?-->\s*", ""),  # comments repeat every text
        (r'<g id="[^"]*"', "<g"),  # an id is not unique on a page of several plots
        (r"font-family: [^;\"]*;? ?", ""),
        (r' transform="rotate\(-0 [^"]*"', ""),
        (r"\n\s*", "\n"),
    )
]
