"""Figures as files and as parts of a page: SVG and PNG, the same bytes for the same figure."""

import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from anna import io
from anna.reporting.figures import Drawn, drawing
from anna.reporting.style import PALETTE

_PNG_DPI = 150

_NOT_FOR_A_PAGE = re.compile(
    r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>|<defs>\s*</defs>", re.DOTALL
)
"""Of a stand-alone SVG file. Its style rule would hold for the whole page."""

_ID = re.compile(r'\b(id="|href="#|url\(#)')


class Plot(NamedTuple):
    """A rendered figure."""

    name: str
    title: str
    svg: bytes | None
    """None: there was nothing to draw."""
    png: bytes | None


def render(drawn: Sequence[Drawn]) -> list[Plot]:
    """Return the figures as bytes that hold no date, no random id and no version."""
    return [
        Plot(name, title, _svg(name, figure) if figure else None, _png(figure) if figure else None)
        for name, title, figure in drawn
    ]


def save(folder: Path, plots: Sequence[Plot]) -> None:
    """Write `<name>.svg` and `<name>.png` of every plot that was drawn, in place of what `folder` held."""
    with io.atomic(folder) as temporary:
        temporary.mkdir()
        for plot in plots:
            if plot.svg and plot.png:
                (temporary / f"{plot.name}.svg").write_bytes(plot.svg)
                (temporary / f"{plot.name}.png").write_bytes(plot.png)


def inline(plot: Plot) -> str:
    """Return the `<svg>` element of a plot, to stand in a page.

    Ids get the plot's name in front, as several figures share the page. Colours become CSS variables with the names of
    the palette, so that the page's scheme decides them, and sizes are left to the page.

    Raises:
        ValueError: If the plot was not drawn.
    """
    if plot.svg is None:
        raise ValueError(f"plot {plot.name!r} was not drawn")
    text = _NOT_FOR_A_PAGE.sub("", plot.svg.decode("utf-8")).strip()
    text = _ID.sub(rf"\g<1>{plot.name}-", text)
    for role, colour in PALETTE.items():
        text = text.replace(colour.light, f"var(--{role})")
    text = re.sub(r"font-family: [^;\"]*; ?", "", text)
    return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', text, count=1)


def _svg(name: str, figure: Figure) -> bytes:
    # Text stays text: it can be searched and read aloud, and takes the page's typeface. Dates and versions are left
    # out, and ids derive from the figure's name instead of a random number.
    with drawing(svg__fonttype="none", svg__hashsalt=name):
        buffer = BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


def _png(figure: Figure) -> bytes:
    with drawing():
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=_PNG_DPI, metadata={"Software": None})
    return buffer.getvalue()
