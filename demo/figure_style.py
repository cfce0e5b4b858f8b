"""The look of the report: one palette in a light and a dark form, and figures turned into SVG.

Colours stand in the SVG as CSS variables, so that the page changes between light and dark by
itself. Must never import pyplot: its figures and state are global.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from io import BytesIO, StringIO
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

# After Okabe and Ito: told apart with each kind of colour blindness, and in grey by lightness.
LONGEST_NAME: Final = 26
INK: Final = "#1b2430"
MUTED: Final = "#5b6776"
GRID: Final = "#e4e8ed"
PAPER: Final = "#fffffe"
FROZEN: Final = "#e09400"
LIVING: Final = "#0072b2"
UPDATE: Final = "#cc1f3b"
EXTRA: Final = "#009e73"
PALE: Final = "#b4bdc9"
WHITE: Final = "#ffffff"

# Each role: its CSS variable, and its colour on a dark page.
DARK: Final = {
    INK: ("ink", "#e8ecf2"),
    MUTED: ("muted", "#9ba8b8"),
    GRID: ("grid", "#2b333e"),
    PAPER: ("paper", "#161b22"),
    FROZEN: ("frozen", "#f2ac3c"),
    LIVING: ("living", "#62b5f0"),
    UPDATE: ("update", "#ff5c73"),
    EXTRA: ("extra", "#35c79b"),
    PALE: ("pale", "#59657a"),
}
WIDTH_IN: Final = 9.6
SIGMAS_95: Final = 1.96
PICTURE_DPI: Final = 160

# Any: matplotlib lists the names of its settings as types in some versions only.
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": PALE,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlepad": 8.0,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": PALE,
    "ytick.color": PALE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.8,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}


@dataclass(frozen=True)
class Drawing:
    """One figure of the page. `alternative` says in words and numbers what is seen."""

    key: str
    title: str
    caption: str
    alternative: str
    figure: Figure


@dataclass(frozen=True)
class LeftOut:
    """A figure that the run has no data for, with one sentence that says why."""

    key: str
    title: str
    reason: str


@contextmanager
def drawing_style() -> Iterator[None]:
    """The report's matplotlib settings; the caller's come back at the end."""
    with mpl.rc_context(_STYLE):
        yield


def new_figure(height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """An empty figure that no pyplot knows of."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    return Figure(figsize=(width_in, height_in), layout=layout)


def legend_on_top(figure: Figure, axes: Axes) -> None:
    """One row of explanations above the panels, taken from what `axes` has labelled."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=len(labels),
        borderaxespad=0.2,
        markerscale=1.8,
    )


def explain_below(axes: Axes) -> None:
    """One row of explanations below a panel of its own."""
    columns = len(axes.get_legend_handles_labels()[1])
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.13), ncols=columns, markerscale=1.5)


def log_volts(axes: Axes) -> None:
    """A logarithmic voltage axis whose ticks read 0.01, 0.02, 0.05, 0.1."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", left=False)


def short_name(name: str) -> str:
    """A parameter's name as a label: one on several inputs would leave no room for the axes."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def thousands(axes: Axes) -> None:
    """An x axis with few ticks, read as 12,000."""
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def picture_png(figure: Figure) -> bytes:
    """The figure as PNG bytes on light paper."""
    written = BytesIO()
    figure.savefig(
        written, format="png", dpi=PICTURE_DPI, facecolor=WHITE, metadata={"Software": None}
    )
    return written.getvalue()


def css_variables(*, dark: bool) -> str:
    """The palette as CSS custom properties."""
    pairs = ((name, night if dark else day) for day, (name, night) in DARK.items())
    return "".join(f"--{name}:{colour};" for name, colour in pairs)


def to_svg(drawing: Drawing) -> str:
    """The figure as an `<svg>` element for a page: named, described, small, free of outer links."""
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    written = StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": drawing.key}):
        drawing.figure.savefig(written, format="svg", metadata=nothing, transparent=True)
    return _for_page(written.getvalue(), drawing)


def _for_page(raw: str, drawing: Drawing) -> str:
    body = raw[raw.index("<svg") : raw.rindex("</svg>")].partition(">")
    view_box = re.search(r'viewBox="[^"]*"', body[0])
    inside = re.sub(r"<style.*?</style>", "", body[2], flags=re.DOTALL)
    inside, rules = _styles_to_classes(_slim(inside), drawing.key)
    name, story = f"{drawing.key}-title", f"{drawing.key}-story"
    return (
        f'<svg role="img" {view_box.group() if view_box else ""} '
        f'aria-labelledby="{name}" aria-describedby="{story}">'
        f'<title id="{name}">{escape(drawing.title)}</title>'
        f'<desc id="{story}">{escape(drawing.alternative)}</desc>'
        f"<style>{_themed(rules)}</style>{inside}</svg>"
    )


def _slim(svg: str) -> str:
    """Drop what a page does not need: names of groups, empty ones, null rotations, decimals."""
    svg = re.sub(r'<g id="[^"]*"/>', "", svg)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r' (?:d|x|y|transform|points)="[^"]*"', _rounded, svg)
    return re.sub(r">\s+<", "><", svg)


def _rounded(attribute: re.Match[str]) -> str:
    text = attribute.group().replace(" \n", "").replace("\n", "")
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number.group()):.2f}", text)


def _styles_to_classes(svg: str, key: str) -> tuple[str, str]:
    """Each distinct style becomes one class, as a dot drawn 3,000 times carries it 3,000 times."""
    names: dict[str, str] = {}

    def named(style: re.Match[str]) -> str:
        rule = re.sub(r"font-family: [^;]*", "font-family: inherit", style.group(1))
        return f'class="{names.setdefault(rule, f"{key}-{len(names)}")}"'

    svg = re.sub(r'style="([^"]*)"', named, svg)
    return svg, "".join(f".{name}{{{rule}}}" for rule, name in names.items())


def _themed(rules: str) -> str:
    for day, (name, _) in DARK.items():
        rules = rules.replace(day, f"var(--{name})")
    return rules
