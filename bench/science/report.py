"""The report in its three forms: an HTML page that needs nothing else, Markdown, and a terminal.

Must never hold a number of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

import rich.table
from rich.console import Console

from bench.science.content import sections
from bench.science.content_base import Section, Table
from bench.science.drawings import drawings
from bench.science.results import Results
from demo.figure_style import Drawing, css_variables, drawing_style, to_svg

TITLE: Final = "The calibration against its peers"
_CSS: Final = """
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);line-height:1.55;
font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:66rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:clamp(1.7rem,4vw,2.4rem);line-height:1.15;margin:0}
h2{font-size:1.15rem;margin:0 0 .5rem}
p{margin:.75rem 0;max-width:50rem}
.card{background:var(--paper);border:1px solid var(--grid);border-radius:12px;
padding:1.25rem 1.4rem;margin:1.25rem 0}
figure{margin:1.25rem 0 0}
figcaption{color:var(--muted);font-size:.92rem}
.wide{overflow-x:auto}
svg{display:block;width:100%;height:auto;min-width:38rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;margin:1rem 0}
th,td{text-align:right;font-weight:400;padding:.35rem .6rem;border-top:1px solid var(--grid);
white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0;white-space:normal}
thead th{color:var(--muted);border-top:0}
"""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(results: Results) -> str:
    """The whole page as HTML text."""
    with drawing_style():
        drawn = drawings(results)
        body = "".join(_section(section, drawn) for section in sections(results))
    light = f"{css_variables(dark=False)}--page:#f5f6f8;color-scheme:light dark"
    dark = f"{css_variables(dark=True)}--page:#0d1117"
    style = f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}{_CSS}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{TITLE}</title><style>{style}</style></head>\n"
        f"<body><main><h1>{TITLE}</h1>{body}</main></body></html>\n"
    )


def _section(section: Section, drawn: dict[str, Drawing]) -> str:
    tables = "".join(_html_table(table) for table in section.tables)
    figures = "".join(_figure(drawn[key]) for key in section.drawings)
    text = escape(section.text)
    return (
        f'<section class="card"><h2>{escape(section.title)}</h2><p>{text}</p>{tables}{figures}'
        "</section>\n"
    )


def _figure(drawing: Drawing) -> str:
    title, caption = escape(drawing.title), escape(drawing.caption)
    return (
        f'<figure><div class="wide">{to_svg(drawing)}</div>'
        f"<figcaption><b>{title}.</b> {caption}</figcaption></figure>"
    )


def _html_table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in table.headings)
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows
    )
    inside = f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
    return f'<div class="wide"><table>{inside}</table></div>'


def markdown(results: Results) -> str:
    """The same tables for the docs, without the figures."""
    return "\n".join(_markdown_lines(results))


def _markdown_lines(results: Results) -> Iterator[str]:
    yield f"# {TITLE}\n"
    yield (
        "Written by `python -m bench.science --docs`; do not edit. Figures and curves stand in the "
        "report of the same command, `runs/science/report.html`.\n"
    )
    for section in sections(results):
        yield f"## {section.title}\n"
        yield f"{section.text}\n"
        for table in section.tables:
            yield _markdown_row(table.headings)
            yield _markdown_row(("---", *["---:"] * (len(table.headings) - 1)))
            yield from (_markdown_row(row) for row in table.rows)
            yield ""


def _markdown_row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def print_goals(results: Results, console: Console) -> None:
    """The table of goals for a person at a terminal."""
    goals = sections(results)[0]
    (table,) = goals.tables
    shown = rich.table.Table(title=f"{TITLE} ({results.seconds:.0f} s)")
    for number, heading in enumerate(table.headings):
        shown.add_column(heading, justify="right" if number else "left")
    for row in table.rows:
        shown.add_row(*row)
    console.print(shown)
