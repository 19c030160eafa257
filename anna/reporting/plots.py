"""Figures as files and as parts of a page: SVG and PNG, the same bytes for the same figure."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from anna import io
from anna.reporting import figures
from anna.reporting.gather import Facts
from anna.reporting.style import PALETTE, light

_PNG_DPI = 150

_NOT_FOR_A_PAGE = re.compile(
    r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>|<defs>\s*</defs>", re.DOTALL
)
"""Of a stand-alone SVG file. Its style rule would hold for the whole page."""

_ID = re.compile(r'\b(id="|href="#|url\(#)')

FIGURES: Sequence[tuple[str, str, Callable[[Facts], Figure | None]]] = (
    ("scores", "Scores by category, student against the baselines", figures.draw_scores),
    ("ablation", "What each part of the recipe is worth", figures.draw_ablation),
    ("training", "Training curve", figures.draw_training),
    ("fused_scores", "Fused scores before and after the filter", figures.draw_spread),
    ("entropy", "Entropy of the soft labels", figures.draw_entropy),
    ("ingest_drops", "Rows dropped by ingest, by reason", figures.draw_ingest_drops),
    ("filter_drops", "Candidates and queries dropped by the filter, by reason", figures.draw_filter_drops),
    ("cost", "Time and rows per stage", figures.draw_cost),
)
"""Name, title and function of each figure."""

_RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.parse_math": False,  # a task may be called $x$
    "text.color": light("ink"),
    "axes.facecolor": light("surface"),
    "axes.edgecolor": light("muted"),
    "axes.labelcolor": light("muted"),
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": light("grid"),
    "grid.linewidth": 0.8,
    "xtick.color": light("muted"),
    "ytick.color": light("muted"),
    "xtick.labelcolor": light("ink"),
    "ytick.labelcolor": light("ink"),
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": light("surface"),
    "savefig.facecolor": light("surface"),
}


class Plot(NamedTuple):
    """A rendered figure."""

    name: str
    title: str
    svg: bytes | None
    """None: there was nothing to draw."""
    png: bytes | None


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in the report's style, whatever this machine's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def render(facts: Facts) -> list[Plot]:
    """Return every figure, in the order of the page, as bytes that hold no date, no random id and no version."""
    with drawing():
        drawn = [(name, title, draw(facts)) for name, title, draw in FIGURES]
    return [plot(name, title, figure) for name, title, figure in drawn]


def plot(name: str, title: str, figure: Figure | None) -> Plot:
    """Return a figure that was drawn under `drawing` as bytes."""
    return Plot(name, title, _svg(name, figure) if figure else None, _png(figure) if figure else None)


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
    with drawing(), mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        buffer = BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


def _png(figure: Figure) -> bytes:
    with drawing():
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=_PNG_DPI, metadata={"Software": None})
    return buffer.getvalue()
