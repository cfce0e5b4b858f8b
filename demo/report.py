"""The report of a demo run: one HTML file that needs nothing else, and the README's picture.

Must never load anything from elsewhere, and never let a name from the run become markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Final

from common.manifest import SobolIndex
from demo.figure_style import Drawing, LeftOut, css_variables, to_svg
from demo.figures import picture, report_figures
from demo.results import RunResults

_WHAT_THIS_IS: Final = (
    "Each vehicle predicts its battery's voltage along every trip with a small neural net and "
    "compares it with what was measured. While the error stays below the threshold it is silent. "
    "A trip above it, a breach, travels to the cloud, where a Bayesian calibration moves the few "
    "parameters that matter; the new revision travels back and is judged by the vehicle before it "
    "is applied. This page shows one run of that loop, made by the same agent, broker and service "
    "that run in earnest."
)
_EVIDENCE: Final = "identifiability"
_GLOSSARY: Final = (
    ("trip", "What was sampled between key-on and key-off; a whole cycle in data of single cells."),
    ("error", "Mean absolute difference of predicted and measured voltage over one trip."),
    ("frozen model", "The model as it was trained, never updated."),
    ("living twin", "The same model file with the parameters of the revision in force."),
    ("breach", "A trip whose error exceeds the threshold."),
    ("revision", "One numbered, immutable, signed set of parameters of one vehicle."),
    ("update", "A revision that the vehicle judged on the breach that caused it, and applied."),
    ("θ", "The parameters that are calibrated: a few inputs of the model's graph."),
    ("band", "The range that holds the truth with 95 % probability, as the twin itself sees it."),
    ("Sobol index", "The share of the output's variance that an input causes, alone or with all."),
    ("posterior", "What is known after the data; prior: before. Both as standard deviations."),
    ("condition number", "How much better the best known combination is known than the worst."),
    ("state of health", "What the battery still gives until it is empty, relative to new."),
)
_CSS: Final = """
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);line-height:1.55;
font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:62rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:clamp(1.7rem,4vw,2.4rem);line-height:1.15;letter-spacing:-.02em;margin:0}
h2{font-size:1.15rem;line-height:1.3;letter-spacing:-.01em;margin:0 0 .5rem}
p{margin:.75rem 0;max-width:46rem}
.subtitle{font-size:1.1rem;color:var(--muted);margin-top:.5rem}
.card{background:var(--paper);border:1px solid var(--grid);border-radius:12px;
padding:1.25rem 1.4rem;margin:1.25rem 0}
.card.left-out{color:var(--muted);border-style:dashed;background:none}
figcaption{color:var(--muted);font-size:.92rem;max-width:48rem;margin-top:.5rem}
.drawing{overflow-x:auto}
.drawing svg{display:block;width:100%;height:auto;min-width:38rem;
stroke-linejoin:round;stroke-linecap:butt;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:700;font-size:1.15rem;padding-bottom:.5rem}
th,td{text-align:left;font-weight:400;padding:.45rem 0;border-top:1px solid var(--grid);
vertical-align:baseline;overflow-wrap:anywhere}
tr:first-child>*{border-top:0}
th{color:var(--muted);width:52%;padding-right:1.5rem}
td{font-weight:600}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.35rem 1.25rem;margin:0}
dt{font-weight:600}
dd{margin:0;color:var(--muted)}
li{overflow-wrap:anywhere;margin:.3rem 0}
a{color:var(--living)}
@media print{main{max-width:none;padding:0}.card{break-inside:avoid;border-color:#ccc}
.drawing{overflow:visible}.drawing svg{min-width:0}body{font-size:10.5pt}}
"""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_report(folder: Path, results: RunResults) -> Path:
    """Write `report.html` and `picture.png` into `folder`; returns the page's path.

    The folder is made when it is missing. Raises OSError when it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "report.html"
    page.write_text(report_page(results), encoding="utf-8")
    (folder / "picture.png").write_bytes(picture(results))
    return page


def report_page(results: RunResults) -> str:
    """The whole page as HTML text."""
    body = "".join(_body(results))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(results.title)}</title><style>{_style()}</style></head>\n"
        f"<body><main>\n{body}</main></body></html>\n"
    )


def _style() -> str:
    """Light unless the reader's system is dark; on paper always light."""
    light = f"{css_variables(dark=False)}--page:#f5f6f8;color-scheme:light dark"
    dark = f"{css_variables(dark=True)}--page:#0d1117"
    return (
        f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}{_CSS}"
        "@media print{:root{--page:#fff}}"
    )


def _body(results: RunResults) -> Iterable[str]:
    yield f"<header><h1>{escape(results.title)}</h1>"
    yield f'<p class="subtitle">{escape(results.subtitle)}</p>'
    yield f"<p>{escape(_WHAT_THIS_IS)}</p></header>\n"
    yield _summary(results)
    for figure in report_figures(results):
        yield _section(figure)
        if figure.key == _EVIDENCE:
            yield _why(results)
    yield _sources(results.sources)
    yield _glossary()


def _summary(results: RunResults) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td>{escape(text)}</td></tr>'
        for label, text in results.summary.items()
    )
    if not rows:
        return '<section class="card left-out">This run has no summary.</section>\n'
    head = "<caption>The run in numbers</caption>"
    return f'<section class="card"><table>{head}<tbody>{rows}</tbody></table></section>\n'


def _section(figure: Drawing | LeftOut) -> str:
    heading = f"<h2>{escape(figure.title)}</h2>"
    if isinstance(figure, LeftOut):
        told = f"<p>{escape(figure.reason)}</p>"
        return f'<section class="card left-out" id="{figure.key}">{heading}{told}</section>\n'
    return (
        f'<figure class="card" id="{figure.key}">{heading}'
        f'<div class="drawing">{to_svg(figure)}</div>'
        f"<figcaption>{escape(figure.caption)}</figcaption></figure>\n"
    )


def _why(results: RunResults) -> str:
    """The paragraph on the selection, and each input's and candidate's sentence."""
    study = results.manifest.sensitivity
    if study is None or not study.explanation:
        return ""
    items = "".join(
        f"<li>{_named(index)}: {escape(index.reason)}</li>"
        for index in sorted(study.indices, key=lambda index: -index.total)
        if index.reason
    )
    return (
        '<section class="card" id="why"><h2>Why these parameters</h2>'
        f"<p>{escape(study.explanation)}</p><details><summary>Every candidate</summary>"
        f"<ul>{items}</ul></details></section>\n"
    )


def _named(index: SobolIndex) -> str:
    return f"<strong>{escape(index.name)}</strong>" if index.selected else escape(index.name)


def _sources(sources: Iterable[str]) -> str:
    items = "".join(f"<li>{_linked(source)}</li>" for source in sources)
    told = f"<ul>{items}</ul>" if items else "<p>This run names no source.</p>"
    return f'<section class="card"><h2>Sources</h2>{told}</section>\n'


def _linked(source: str) -> str:
    """The text with its web addresses made links; a link is followed only by the reader."""
    pieces = re.split(r"(https?://[^\s<>\"']*[^\s<>\"'.,;:)])", source)
    return "".join(
        f'<a href="{escape(piece)}" rel="noreferrer">{escape(piece)}</a>' if odd else escape(piece)
        for piece, odd in ((piece, position % 2) for position, piece in enumerate(pieces))
    )


def _glossary() -> str:
    words = "".join(f"<dt>{escape(w)}</dt><dd>{escape(told)}</dd>" for w, told in _GLOSSARY)
    return f'<section class="card"><h2>Words</h2><dl>{words}</dl></section>\n'
