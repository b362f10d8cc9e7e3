"""Plots as inline SVG that follows the page: no ground of its own, the page's colours and font, light or dark."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

from ..errors import HashretError

# Matplotlib draws in these colours, and the SVG names the page's own in their place.
_TEXT, QUIET, LINE, FIRST, SECOND = "#010101", "#020202", "#030303", "#040404", "#050505"
_ON_PAGE = {
    _TEXT: "currentColor", QUIET: "var(--quiet)", LINE: "var(--plain)", FIRST: "var(--accent)",
    SECOND: "var(--second)",
}  # fmt: skip
_STYLE = {
    "font.size": 9, "svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": QUIET, "axes.labelcolor": _TEXT, "text.color": _TEXT, "xtick.color": QUIET,
    "ytick.color": QUIET, "xtick.labelcolor": _TEXT, "ytick.labelcolor": _TEXT, "axes.linewidth": 0.6,
    "axes.grid": True, "grid.color": LINE, "grid.linewidth": 0.5, "axes.axisbelow": True, "legend.frameon": False,
    "lines.linewidth": 1.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
}  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """A drawing with its title, and in words what it shows: ``svg`` is markup."""

    title: str
    svg: str
    caption: str


def check_matplotlib():
    """Raise HashretError where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise HashretError("the report's plots need matplotlib: pip install 'hashret[report]'") from None


def plot(title, caption, draw, size=(4.6, 2.9), rows=1, **options):
    """Let ``draw(axes)`` draw, and return it as a `Plot`: ``rows`` axes below each other, ``size`` in inches."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not the user's own style
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": title})
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots(rows, **options))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return Plot(title, _inline(buffer.getvalue(), title), caption)


def _inline(svg, title):
    """A whole SVG file as an element of a page."""
    from markupsafe import Markup, escape

    box = re.search(r'viewBox="([^"]*)"', svg)[1]
    svg = svg[svg.index("<defs>") :]
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
        (r"\s*<defs>\s*<style.*?</style>\s*</defs>", ""),  # of the page
        (r"<!--.*?-->\s*", ""),  # each text once more
        (r'<g id="[^"]*"', "<g"),  # not unique on a page of several plots
        (r"font-family: [^;\"]*;? ?", ""),
        (r' transform="rotate\(-0 [^"]*"', ""),
        (r"\n\s*", "\n"),
    )
]
