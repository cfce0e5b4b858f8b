"""The figures of a demo's report: they show what the run found, all of it, or say why not."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import matplotlib as mpl
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.manifest import PairIndex, Sensitivity
from demo.chord import FULL_CIRCLE, arcs, ribbons, significant
from demo.figure_data import envelope, error_tables, window
from demo.figure_error import error_per_trip, fleet_view
from demo.figure_identifiability import identifiability
from demo.figure_parameters import parameters_over_odometer, state_of_health
from demo.figure_sensitivity import chord_plot, sobol_bars
from demo.figure_style import Drawing, LeftOut, drawing_style, to_svg
from demo.figure_voltage import trip_before_and_after, whole_history
from demo.results import RunResults
from tests.made_up_run import made_up, manifest, nothing, study

WITHOUT_ERRORS = [
    replace(row, error_v=math.nan, error_frozen_v=math.nan) for row in made_up(1, 3).trips
]


def drawn(made: Drawing | LeftOut) -> Drawing:
    assert isinstance(made, Drawing)
    return made


def svg_of(draw: Callable[[RunResults], Drawing | LeftOut], results: RunResults) -> str:
    with drawing_style():
        return to_svg(drawn(draw(results)))


def dots(svg: str, colour: str) -> int:
    """How many marks of a colour of the palette an SVG shows, the legend's one included."""
    names = re.findall(rf"\.([\w-]+){{fill: var\(--{colour}\)", svg)
    return sum(len(re.findall(rf'<use [^>]*class="{name}"', svg)) for name in names)


def test_the_same_run_gives_the_same_picture_of_errors() -> None:
    assert svg_of(error_per_trip, made_up()) == svg_of(error_per_trip, made_up())


def test_each_update_is_a_red_dot_and_each_other_trip_a_blue_one() -> None:
    results = made_up()
    updates = sum(row.updated for row in results.trips)
    svg = svg_of(error_per_trip, results)
    assert dots(svg, "update") == updates + 1
    assert dots(svg, "living") == len(results.trips) - updates + 1
    assert dots(svg, "frozen") == len(results.trips) + 1


@pytest.mark.parametrize(
    ("changed", "draw", "reason"),
    [
        ({"trips": []}, error_per_trip, "No trip was recorded"),
        ({"trips": []}, fleet_view, "No trip was recorded"),
        ({"trips": WITHOUT_ERRORS}, error_per_trip, "No trip was recorded"),
        ({"trips": WITHOUT_ERRORS}, fleet_view, "No trip was recorded"),
        ({"example": None}, trip_before_and_after, "No trip of this run brought an update"),
        ({"history": nothing().history}, whole_history, "no sample-by-sample history"),
        ({"manifest": manifest(with_study=False)}, sobol_bars, "no sensitivity study"),
        ({"manifest": manifest(with_study=False)}, chord_plot, "no sensitivity study"),
        ({"manifest": manifest(with_study=False)}, identifiability, "what trips can tell apart"),
        ({"revisions": []}, parameters_over_odometer, "No revision was made"),
        ({"trips": []}, state_of_health, "carry no state of health"),
    ],
)
def test_a_figure_without_data_says_in_one_sentence_why(
    changed: dict[str, Any], draw: Callable[[RunResults], Drawing | LeftOut], reason: str
) -> None:
    made = draw(replace(made_up(), **changed))
    assert isinstance(made, LeftOut)
    assert reason in made.reason
    assert made.reason.count(".") == 1


def test_effects_that_cannot_be_told_from_zero_are_left_out_and_counted() -> None:
    made = drawn(chord_plot(made_up()))
    assert "2 of 9 pairs are ignored" in made.caption
    none_told = Sensitivity(8, study().indices, [], pairs_tested=91)
    quiet = chord_plot(
        replace(made_up(), manifest=msgspec.structs.replace(manifest(), sensitivity=none_told))
    )
    assert isinstance(quiet, LeftOut)
    assert "None of the 91 second-order effects" in quiet.reason
    weak = Sensitivity(8, study().indices, [PairIndex("load_kg", "speed_m_s", 0.01, 0.02)])
    none = chord_plot(
        replace(made_up(), manifest=msgspec.structs.replace(manifest(), sensitivity=weak))
    )
    assert isinstance(none, LeftOut)
    assert "can be told from zero" in none.reason


def test_groups_stand_below_the_inputs_when_the_study_has_them() -> None:
    made = drawn(sobol_bars(made_up()))
    assert len(made.figure.axes) == 2
    labels = [label.get_text() for label in made.figure.axes[1].get_yticklabels()]
    assert labels == ["output", "inputs"]
    older = msgspec.structs.replace(study(), groups=[])
    alone = sobol_bars(
        replace(made_up(), manifest=msgspec.structs.replace(manifest(), sensitivity=older))
    )
    assert len(drawn(alone).figure.axes) == 1


def test_what_cannot_be_told_apart_is_framed_and_told() -> None:
    made = drawn(identifiability(made_up()))
    cells, bars = made.figure.axes
    numbers = [text.get_text() for text in cells.texts]
    assert numbers == ["+0.31", "-0.99", "+0.20"]
    frames = [patch for patch in cells.patches if not patch.get_fill()]
    assert len(frames) == 1
    assert "Not to be told apart: output_gain with last_bias -0.99" in made.alternative
    assert "4 after 1 trip, 4 after 10 trips" in made.caption
    assert [text.get_text() for text in bars.texts] == ["4.0 %", "8.0 %", "1.3 %", "2.5 %"]


def test_a_refused_revision_is_not_drawn_as_one_in_force() -> None:
    results = made_up()
    refused = replace(results.revisions[0], verdict="refused: outside the bounds")
    made = drawn(
        parameters_over_odometer(replace(results, revisions=[refused, *results.revisions[1:]]))
    )
    assert "1 revisions that a vehicle refused are left out" in made.caption


def test_health_without_truth_is_drawn_alone() -> None:
    results = made_up()
    blind = [replace(row, health_truth=None) for row in results.trips]
    made = drawn(state_of_health(replace(results, trips=blind)))
    assert "truth is not known" in made.alternative
    assert len(made.figure.axes) == 1


def test_drawing_leaves_no_trace_in_the_callers_matplotlib() -> None:
    own = {"font.size": 77.0, "svg.fonttype": "path", "svg.hashsalt": "mine", "axes.grid": False}
    callers: Any = own
    with mpl.rc_context(callers):
        svg_of(error_per_trip, made_up(vehicles=1, trips=5))
        after: Any = mpl.rcParams
        assert {name: after[name] for name in own} == own


def test_a_long_life_stays_small_on_the_page() -> None:
    results = made_up(vehicles=3, trips=1000, samples=350)
    assert results.history.odometer.size == 350_000
    drawings = [svg_of(error_per_trip, results), svg_of(whole_history, results)]
    assert sum(map(len, drawings)) < 1_000_000
    assert "every 3 trips" in drawings[1]


def test_a_big_fleet_is_drawn_in_part_and_says_so() -> None:
    rows = [
        replace(row, vehicle_id=f"car-{i % 100}", odometer=float(i))
        for i, row in enumerate(made_up(vehicles=1).trips[:1] * 10_000)
    ]
    made = drawn(error_per_trip(replace(made_up(), trips=rows)))
    assert "drawn for 34 of 100 vehicles" in made.caption


def test_vehicles_with_fewer_trips_leave_gaps_not_zeros() -> None:
    first = made_up(vehicles=1).trips[0]
    one = replace(first, vehicle_id="a", odometer=0.0, error_frozen_v=0.1, error_v=0.01)
    rows = [one, replace(one, odometer=9.0, error_v=0.02), replace(one, vehicle_id="b")]
    frozen, living = error_tables(rows)
    np.testing.assert_array_equal(living, [[0.01, 0.02], [0.01, np.nan]])
    np.testing.assert_array_equal(frozen, [[0.1, 0.1], [0.1, np.nan]])


def test_the_envelope_holds_the_extremes_of_each_trip() -> None:
    odometer, voltage = np.arange(6.0), np.array([4.0, 3.0, 3.5, 4.1, np.nan, 2.9])
    found = envelope(odometer, voltage, np.array([0.0, 3.0]))
    np.testing.assert_array_equal(found.odometer, [0, 3, 5])
    np.testing.assert_array_equal(found.low_v, [3.0, 2.9, 2.9])
    np.testing.assert_array_equal(found.high_v, [4.0, 4.1, 4.1])


@pytest.mark.parametrize(("share", "expected"), [(0, (0, 30)), (0.5, (40, 70)), (1, (70, 100))])
def test_a_closer_look_shows_three_whole_trips(share: float, expected: tuple[int, int]) -> None:
    part = window(np.arange(100.0), np.arange(0.0, 100.0, 10.0), share, 1200)
    assert (part.start, part.stop) == expected


NAMES = [f"input_{i}" for i in range(12)]
PAIRS = st.lists(
    st.builds(
        lambda ends, index: PairIndex(NAMES[ends[0]], NAMES[ends[1]], index, 0.0),
        st.tuples(st.integers(0, 11), st.integers(0, 11)).filter(lambda ends: ends[0] < ends[1]),
        st.floats(0.001, 0.5),
    ),
    unique_by=lambda pair: (pair.first, pair.second),
    max_size=20,
)


@given(PAIRS)
def test_arcs_go_once_round_the_circle_without_overlap(pairs: list[PairIndex]) -> None:
    found = arcs(NAMES, pairs)
    edges = [edge for arc in found for edge in (arc.start, arc.stop)]
    assert edges == sorted(edges)
    assert edges[0] > 0
    assert edges[-1] < FULL_CIRCLE


@given(PAIRS)
def test_ribbons_stay_in_their_arcs_apart_and_as_wide_as_their_index(
    pairs: list[PairIndex],
) -> None:
    spans: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES}
    widths = []
    for ribbon in ribbons(NAMES, pairs):
        spans[ribbon.pair.first].append(ribbon.first)
        spans[ribbon.pair.second].append(ribbon.second)
        widths.append((ribbon.first[1] - ribbon.first[0]) / ribbon.pair.index)
    assert widths == pytest.approx([widths[0]] * len(widths) if widths else [])
    for arc in arcs(NAMES, pairs):
        edges = [edge for span in sorted(spans[arc.name]) for edge in span]
        edges = [arc.start, *edges, arc.stop]
        assert all(b - a > -1e-9 for a, b in itertools.pairwise(edges))


def test_only_pairs_whose_interval_lies_above_zero_are_significant() -> None:
    pairs = [
        PairIndex("a", "b", 0.02, 0.03),
        PairIndex("a", "c", 0.02, 0.01),
        PairIndex("b", "c", -0.04, 0.01),
        PairIndex("c", "d", 0.05, 0.01),
    ]
    assert [(pair.first, pair.second) for pair in significant(pairs)] == [("c", "d"), ("a", "c")]
