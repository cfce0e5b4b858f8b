"""The report of a demo: self-contained, told in words too, honest about what it has no data for."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import pytest

from demo.figure_style import DARK
from demo.report import report_page, write_report
from tests.made_up_run import made_up, manifest, nothing

KEYS = [
    "error",
    "fleet",
    "trip",
    "history",
    "sobol",
    "chord",
    "identifiability",
    "parameters",
    "health",
]
ROOT = Path(__file__).resolve().parent.parent


class Element(NamedTuple):
    tag: str
    attributes: dict[str, str | None]
    inside: tuple[str, ...]


class Page(HTMLParser):
    """Every element of a page with the tags round it, and the text under each path of tags."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs), tuple(self._open)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs), tuple(self._open)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.texts.append((tuple(self._open), data))

    def text_of(self, tag: str) -> str:
        return "".join(text for inside, text in self.texts if tag in inside)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One written report, shared by the tests that only read it."""
    made = tmp_path_factory.mktemp("report") / "not" / "there yet"
    assert write_report(made, made_up()) == made / "report.html"
    return made


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_loads_nothing_from_elsewhere(html: str) -> None:
    page = Page(html)
    assert not {element.tag for element in page.elements} & {
        "script", "link", "iframe", "img", "image", "object", "embed", "base",
    }  # fmt: skip
    for element in page.elements:
        for name, value in element.attributes.items():
            if name in {"href", "xlink:href", "src", "srcset", "action", "data"}:
                assert (value or "").startswith("#") or element.tag == "a"
    assert not re.findall(r"url\((?!#)|@import", html)
    assert "default-src 'none'" in html


def test_web_addresses_stand_in_the_sources_only(html: str) -> None:
    links = [e for e in Page(html).elements if e.tag == "a"]
    assert [link.attributes["href"] for link in links] == ["https://example.org/fleet"]
    outside = html[: html.index("<h2>Sources</h2>")]
    assert not re.findall(r"https?://", outside)


def test_every_figure_has_a_title_a_caption_and_words_for_who_cannot_see_it(html: str) -> None:
    for key in KEYS:
        piece = re.search(rf'<figure class="card" id="{key}">.*?</figure>', html, re.DOTALL)
        assert piece, key
        page = Page(piece.group())
        (picture,) = [e for e in page.elements if e.tag == "svg"]
        named = {e.attributes["id"] for e in page.elements if e.tag in {"title", "desc"}}
        assert picture.attributes["role"] == "img"
        told = {picture.attributes["aria-labelledby"], picture.attributes["aria-describedby"]}
        assert told == named
        assert page.text_of("title") == page.text_of("h2") != ""
        assert re.search(r"\d", page.text_of("desc")), "the words give no number"
        caption = page.text_of("figcaption")
        assert caption.endswith(".")
        assert ". " not in caption, "a caption is one sentence"


def test_every_axis_that_has_a_unit_says_it(html: str) -> None:
    written = Page(html).text_of("text")
    for label in ("mean absolute error (V)", "odometer (km)", "voltage (V)", "health (%)"):
        assert label in written


def test_no_name_stands_twice_in_the_page(html: str) -> None:
    names = [e.attributes["id"] for e in Page(html).elements if "id" in e.attributes]
    assert len(names) == len(set(names))
    assert set(re.findall(r"url\(#([^)]*)\)", html)) <= set(names)


def test_the_colours_follow_the_readers_system_and_paper_is_light(html: str) -> None:
    assert "@media screen and (prefers-color-scheme:dark)" in html
    assert "@media print" in html
    figures = html[html.index("<svg") :]
    assert not [day for day in DARK if day in figures], "a colour that the theme cannot change"


def test_the_summary_and_the_words_are_told(html: str) -> None:
    page = Page(html)
    assert "Updates per 1,000 trips431" in page.text_of("table")
    for word in ("trip", "breach", "revision", "θ", "band"):
        assert word in [text for inside, text in page.texts if inside[-1:] == ("dt",)]


def test_the_picture_is_a_png_wide_enough_for_a_readme(folder: Path) -> None:
    raw = (folder / "picture.png").read_bytes()
    assert raw.startswith(b"\x89PNG")
    assert struct.unpack(">II", raw[16:24]) == (1760, 656)


def test_the_page_says_why_these_parameters_and_a_sentence_for_each_candidate(html: str) -> None:
    why = html[html.index('id="why"') :].partition("</section>")[0]
    assert "The made-up rule took &lt;both&gt; gains." in why
    assert "<strong>output_gain</strong>: rank 1" in why
    assert "<li>output_offset: left out</li>" in why
    assert (
        html.index('id="identifiability"') < html.index('id="why"') < html.index('id="parameters"')
    )


def test_a_run_of_nothing_still_makes_a_page_that_explains_itself(tmp_path: Path) -> None:
    html = write_report(tmp_path, nothing()).read_text(encoding="utf-8")
    page = Page(html)
    assert not [e for e in page.elements if e.tag == "svg"]
    told = [e.attributes.get("id") for e in page.elements if e.tag == "section"]
    assert [key for key in told if key] == KEYS
    assert "no summary" in html
    assert (tmp_path / "picture.png").is_file()


def test_names_from_the_run_never_become_markup() -> None:
    results = replace(
        made_up(vehicles=1, trips=12, name="<img src=x>&$a$"),
        manifest=manifest(with_study=False),
        title="<script>alert(1)</script>",
        summary={"<b>label": "<i>text"},
        sources=["<u>", 'https://example.org/"onclick="x'],
    )
    page = Page(report_page(results))
    assert not {e.tag for e in page.elements} & {"img", "script", "b", "i", "u"}
    assert not [e for e in page.elements if "onclick" in e.attributes]
    assert "<img src=x>&$a$-001" in page.text_of("text")


def test_the_report_never_loads_pyplot() -> None:
    code = (
        "import sys; from demo import figure_error, report; from tests import made_up_run; "
        "report.to_svg(figure_error.error_per_trip(made_up_run.made_up(1, 5))); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
