"""Sensitivity: indices are those of the graph; the selection keeps what can be told apart."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.training.bundle_writer import write_bundle
from cloud.training.candidates import (
    Candidate,
    Kind,
    Overrides,
    Ranges,
    Target,
    list_candidates,
)
from cloud.training.errors import OptionError, TrainingRecordError, UnknownCandidateError
from cloud.training.identifiability import after_many, trip_information
from cloud.training.network import (
    NETWORK_FILE,
    FloatArray,
    Network,
    TrainingRecord,
    encode_record,
    load_record,
)
from cloud.training.selection import Choice, Evidence, select, unsupported
from cloud.training.sensitivity import Ranking, candidates_model, effects, rank
from cloud.training.sobol import Estimate, Indices, SobolSettings
from cloud.training.study import write_study
from cloud.training.tflite_writer import write_tflite
from cloud.training.train import candidates_of, finish, rank_again
from common.bundle import load_bundle
from common.manifest import Feature, Manifest, MovingAverage, PairIndex, Parameter, Sensitivity
from common.manifest import Target as VoltageTarget

FEATURES = [Feature("charge_ah", "Ah", -10.0, 10.0), Feature("current_a", "A", -9.0, 9.0)]
RANGES = Ranges(np.array([[0.0, 2.0], [-2.0, 2.0]]), np.array([2.0, 4.0]))
VOLTAGE = VoltageTarget("voltage_v", "V", 0.0, 5.0)
MANIFEST = Manifest(
    schema=1,
    name="test",
    model_sha256="0" * 64,
    features=FEATURES,
    target=VOLTAGE,
    parameters=[],
    measurement_noise_std_v=0.01,
    model_discrepancy_std_v=0.01,
    cutoff_voltage_v=2.5,
    error_threshold_v=0.05,
)


def record_of(slope: tuple[float, float] = (0.3, 0.05)) -> TrainingRecord:
    """Nearly linear: v = 3 − slope · (features − mean), through one weakly driven tanh unit."""
    network = Network(
        input_mean=np.array([1.0, 0.0]),
        input_scale=np.array([1.0, 1.0]),
        weights=(-1e-2 * np.array([slope]), np.array([[1e2]])),
        biases=(np.zeros(1), np.zeros(1)),
        output_mean=3.0,
        output_scale=1.0,
    )
    rng = np.random.default_rng(0)
    rows = rng.uniform(RANGES.features[:, 0], RANGES.features[:, 1], (200, 2))
    overrides = Overrides().as_json()
    trip = np.arange(200) // 50
    return TrainingRecord(
        network,
        RANGES.features,
        RANGES.target,
        rows,
        trip,
        np.full(200, 3.0),
        np.zeros(4, dtype=np.intp),
        overrides,
    )


def candidates(**changes: float) -> list[Candidate]:
    overrides = Overrides(prior_std={n.replace("__", ":"): std for n, std in changes.items()})
    return list_candidates(FEATURES, VOLTAGE, 1, RANGES, overrides)


def ranked(choice: Choice, found: list[Candidate] | None = None, samples: int = 256) -> Ranking:
    return rank(MANIFEST, record_of(), found or candidates(), choice, SobolSettings(samples))


def test_indices_of_an_additive_model_are_its_shares_of_variance() -> None:
    chosen = ranked(Choice(names=("offset:output",)), candidates(offset__output=0.2), 1024)
    indices = {index.name: index for index in chosen.sensitivity.indices}
    # Uniform inputs: variance slope² · width² / 12. Only the offset is purely additive here.
    variance = {"charge_ah": (0.3 * 2) ** 2 / 12, "offset:output": (4 * 0.2) ** 2 / 12}
    for name, own in variance.items():
        assert indices[name].first == pytest.approx(indices[name].total, abs=0.05)
        ratio = indices[name].total / indices["charge_ah"].total
        assert ratio == pytest.approx(own / variance["charge_ah"], rel=0.15)
        assert 0 < indices[name].total_ci < 0.5


def test_an_interaction_appears_as_a_pair_and_noise_does_not() -> None:
    strong = candidates(gain__current_a=0.5, gain__charge_ah=0.01, gain__output=0.01)
    found = rank(
        MANIFEST, record_of((0.01, 0.5)), strong, Choice(), SobolSettings(4096)
    ).sensitivity
    pairs = [(pair.first, pair.second) for pair in found.pairs]
    assert pairs[0] == ("current_a", "gain:current_a")
    assert found.pairs_tested == 10 * 9 // 2
    # As good as linear in that input: nothing acts with it but its gain and the unit behind both.
    assert set(pairs) <= {("current_a", "gain:current_a"), ("current_a", "weight:h0")}
    assert all(pair.ci < pair.index for pair in found.pairs)


def test_of_many_pairs_none_is_told_that_chance_alone_would_lift_above_its_interval() -> None:
    value, ci = np.zeros((2, 20, 20))
    value[0, 1], value[2, 3] = 0.012, 0.03  # 2.4 and 5.9 standard deviations
    ci[np.triu_indices(20, k=1)] = 0.01
    large = Estimate(np.full(20, 0.5), np.full(20, 0.01))
    indices = Indices(1024, settled=True, first=large, total=large, pairs=Estimate(value, ci))
    names = tuple(f"c{i}" for i in range(20))
    alone = Evidence(names, large.value, np.eye(20), 10 * np.eye(20))
    study = write_study([], {}, indices, alone, select(alone, Choice()), Choice())
    assert study.pairs == [PairIndex("c2", "c3", 0.03, 0.01)]
    assert "Of 190 pairs 1 act together beyond the noise." in study.explanation


def test_groups_are_the_kinds_of_candidates_and_the_inputs() -> None:
    found = {group.name: group for group in ranked(Choice()).sensitivity.groups}
    assert found["inputs"].members == ["charge_ah", "current_a"]
    assert found["output"].members == ["gain:output", "offset:output", "bias:output"]
    singles = {index.name: index for index in ranked(Choice()).sensitivity.indices}
    for group in found.values():
        members = [singles[name] for name in group.members]
        assert group.total + group.total_ci >= max(index.total for index in members) * 0.9
        assert group.first <= group.total + group.total_ci + group.first_ci


def test_the_same_seed_gives_the_same_indices_and_seed_0_is_a_seed() -> None:
    assert ranked(Choice(), samples=64).sensitivity == ranked(Choice(), samples=64).sensitivity


def test_every_input_and_candidate_is_listed_with_a_reason() -> None:
    found = ranked(Choice()).sensitivity.indices
    names = ["charge_ah", "current_a", *(candidate.name for candidate in candidates())]
    assert sorted(index.name for index in found) == sorted(names)
    assert all(index.reason for index in found)
    assert sum(index.selected for index in found) == 2


def evidence(total: Sequence[float], columns: FloatArray, names: Sequence[str] = ()) -> Evidence:
    """One trip of as many points as `columns` [m, C] has, volts per prior standard deviation."""
    information = trip_information(columns, np.zeros(len(columns), np.intp), lambda v: v / 0.02)
    found = tuple(names) or tuple(f"c{i}" for i in range(len(total)))
    return Evidence(found, np.array(total), information[0], after_many(information))


def test_a_collinear_candidate_is_skipped_for_the_next_that_can_be_told_apart() -> None:
    rows = np.linspace(-1, 1, 50)
    columns = np.stack([rows, 2 * rows + 1e-3, rows**2, np.ones(50)], axis=1)
    found = select(evidence([0.5, 0.4, 0.3, 0.2], columns), Choice(2))
    assert found.chosen == (0, 2)
    assert "left out: influential, but it cannot be told from c0" in found.reasons[1]
    assert "the data fix their sum only, posterior correlation -1.000" in found.reasons[1]
    assert "not needed" in found.reasons[3]


@given(st.integers(0, 2**32 - 1), st.floats(-30.0, 30.0).filter(lambda factor: abs(factor) > 0.1))
def test_two_collinear_candidates_are_never_both_selected(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    columns = rng.normal(size=(50, 5))
    columns[:, 3] = factor * columns[:, 1]
    found = select(evidence(rng.uniform(0, 1, 5).tolist(), columns), Choice(5))
    assert len({1, 3} & set(found.chosen)) == 1


@pytest.mark.parametrize("members", [2, 3, 6])
def test_a_combination_of_the_chosen_ones_is_skipped(members: int) -> None:
    own = np.random.default_rng(1).normal(size=(200, members + 1))
    combined = own[:, :members].sum(axis=1)
    columns = np.column_stack([own[:, :members], combined, own[:, -1]])
    total = np.arange(members + 2, 0.0, -1.0).tolist()
    found = select(evidence(total, columns), Choice(members + 1))
    assert found.chosen == (*range(members), members + 1)
    assert "together, condition number without bound" in found.reasons[members]


def test_an_influential_parameter_that_trips_say_nothing_of_is_left_out_and_says_so() -> None:
    columns = np.random.default_rng(2).normal(size=(50, 2)) * [1e-3, 0.1]
    found = select(evidence([0.8, 0.2], columns), Choice(2))
    assert found.chosen == (1,)
    assert "left out: influential, but 10 typical trips leave 69 %" in found.reasons[0]


def correlated(information: Sequence[Sequence[float]]) -> Evidence:
    """Candidates in this order, of which ten trips have the given information."""
    many = np.array(information)
    names = tuple(f"c{i}" for i in range(len(many)))
    return Evidence(names, np.arange(len(many), 0.0, -1.0), many / 10, many)


def test_a_candidate_that_the_chosen_ones_hide_is_left_out() -> None:
    found = select(correlated([[80.0, 18.0], [18.0, 6.0]]), Choice(2))
    assert found.chosen == (0,)
    assert found.reasons[1].endswith(
        "cannot be told from c0: 10 typical trips leave 58 % of its prior doubt, 38 % without it"
    )


def test_a_candidate_beside_which_a_chosen_one_is_no_longer_known_is_left_out() -> None:
    found = select(correlated([[6.0, 18.0], [18.0, 80.0]]), Choice(2))
    assert found.chosen == (0,)
    assert found.reasons[1].endswith("beside it c0 would keep 58 % of its prior doubt")


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_what_a_trip_teaches_is_counted_as_the_filter_counts_it(share: float) -> None:
    rough = msgspec.structs.replace(
        MANIFEST, model_discrepancy_std_v=0.5, discrepancy_correlation=share
    )
    choice = Choice(names=("offset:output",))
    found = rank(rough, record_of(), candidates(), choice, SobolSettings(64)).sensitivity
    assert found.identifiability is not None
    apart = np.abs(np.subtract.outer(np.arange(50), np.arange(50)))
    alike = np.exp(-apart / (share * 50)) if share else np.eye(50)
    # One prior standard deviation of the offset is 0.1 V on each of a trip's 50 points.
    effect = np.full(50, 0.1)
    per_trip = effect @ np.linalg.solve(0.01**2 * np.eye(50) + 0.5**2 * alike, effect)
    for learnt in found.identifiability.learnt:
        expected = (1 + learnt.trips * per_trip) ** -0.5
        assert learnt.posterior_std == pytest.approx([expected], abs=1e-3)


def test_a_model_that_no_trip_teaches_still_gets_a_parameter_with_the_doubt_said() -> None:
    columns = np.random.default_rng(3).normal(size=(50, 3)) * [0.0, 1e-4, 1e-4]
    found = select(evidence([0.5, 0.3, 0.2], columns), Choice(2))
    assert found.chosen == (1,)
    assert "chosen, since a model needs a parameter, though 10 typical trips" in found.reasons[1]


def test_offsets_of_both_inputs_are_never_chosen_together_in_a_linear_model() -> None:
    # Both only shift the voltage, like the offset of the output; the rest is made weak.
    weak = dict.fromkeys(["gain__charge_ah", "gain__current_a", "gain__output"], 1e-3)
    chosen = ranked(Choice(7), candidates(**weak, weight__h0=1e-3)).chosen
    shifts = {"offset:charge_ah", "offset:current_a", "offset:output"}
    assert chosen[0].name in shifts
    assert len(shifts & {candidate.name for candidate in chosen}) == 1


def test_names_given_by_the_user_are_taken_with_a_warning() -> None:
    found = ranked(Choice(names=("offset:output", "offset:charge_ah")))
    assert [candidate.name for candidate in found.chosen] == ["offset:output", "offset:charge_ah"]
    reasons = {index.name: index.reason for index in found.sensitivity.indices}
    assert "though it cannot be told from offset:output" in reasons["offset:charge_ah"]
    assert reasons["offset:output"].endswith("chosen by name")
    told = found.sensitivity.explanation
    assert "Chosen by name from 8 candidates: offset:output" in told
    assert "Doubtful is offset:charge_ah: it cannot be told from offset:output" in told
    assert found.sensitivity.identifiability is not None
    weakest = found.sensitivity.identifiability.weakest
    assert weakest == (
        "after one typical trip least is learnt of offset:charge_ah: 100 % of its prior doubt is "
        "left"
    )


def test_the_explanation_names_what_was_chosen_and_what_was_influential_and_left_out() -> None:
    found = ranked(Choice()).sensitivity
    for index in found.indices:
        if index.selected or "left out: influential" in index.reason:
            assert index.name in found.explanation
    assert "Influential, but left out:" in found.explanation
    assert "256 base samples, the most that were allowed" in found.explanation
    assert "condition number" in found.explanation


def test_a_gain_on_an_input_that_never_changed_is_not_ranked() -> None:
    ranges = Ranges(np.array([[0.0, 2.0], [-1.001, -1.0]]), RANGES.target)
    record = record_of((0.3, 3.0))
    constant = record.rows.copy()
    constant[:, 1] = -1.0
    narrow = replace(record, feature_ranges=ranges.features, rows=constant, overrides={})
    found = list_candidates(FEATURES, VOLTAGE, 1, ranges, Overrides())
    indices = rank(MANIFEST, narrow, found, Choice(9), SobolSettings(64)).sensitivity.indices
    gain = next(index for index in indices if index.name == "gain:current_a")
    assert (gain.total, gain.selected) == (0.0, False)
    assert "training saw a range of 0.001 only" in gain.reason
    assert not unsupported(found[0], ["charge_ah", "current_a"], narrow)
    by_name = rank(MANIFEST, narrow, found, Choice(names=(gain.name,)), SobolSettings(64))
    assert by_name.sensitivity.indices[3].total > 0


def test_without_any_effect_nothing_can_be_selected() -> None:
    with pytest.raises(OptionError, match="no candidate has any effect"):
        select(evidence([0.0, 0.0], np.zeros((5, 2))), Choice())


def test_effects_are_volts_per_prior_standard_deviation() -> None:
    found = candidates(offset__output=0.2)
    record = record_of()
    columns = effects(candidates_model(MANIFEST, record, found), record.rows, found)
    by_name = dict(zip([c.name for c in found], columns.T, strict=True))
    np.testing.assert_allclose(by_name["offset:output"], 0.2, atol=1e-5)
    np.testing.assert_allclose(by_name["gain:charge_ah"], -0.1 * 0.3 * record.rows[:, 0], atol=1e-4)


def test_candidates_and_their_defaults() -> None:
    found = {candidate.name: candidate for candidate in candidates()}
    assert set(found) == {
        "gain:charge_ah",
        "gain:current_a",
        "offset:charge_ah",
        "offset:current_a",
        "gain:output",
        "offset:output",
        "weight:h0",
        "bias:output",
    }
    assert found["offset:current_a"].parameter == Parameter(
        "offset:current_a", "A", 0.0, 0.05 * 4.0, -4.0, 4.0
    )
    assert found["gain:output"].parameter == Parameter("gain:output", "1", 1.0, 0.1, 0.2, 5.0)
    assert found["weight:h0"].target == Target(Kind.LAST_WEIGHT, (0,))


def test_the_last_bias_is_never_chosen_beside_the_offset_nor_before_it() -> None:
    names = ("offset:output", "bias:output")
    for totals in ([0.4, 0.5], [0.5, 0.4]):
        selected = select(evidence(totals, np.ones((5, 2)), names), Choice(2))
        assert [names[c] for c in selected.chosen] == ["offset:output"]
        assert any("cannot be told from" in reason for reason in selected.reasons)


def test_a_signal_and_its_moving_average_share_a_candidate() -> None:
    features = [*FEATURES, Feature("slow_a", "A", -9.0, 9.0, MovingAverage("current_a", 60.0))]
    ranges = Ranges(np.tile([0.0, 1.0], (3, 1)), RANGES.target)
    found = {c.name: c for c in list_candidates(features, VOLTAGE, 1, ranges, Overrides())}
    assert found["gain:current_a+slow_a"].target == Target(Kind.INPUT_GAIN, (1, 2))


def test_a_response_is_a_candidate_only_where_it_is_named() -> None:
    response = "response:charge_ah+current_a"
    plain = list_candidates(FEATURES, VOLTAGE, 1, RANGES, Overrides())
    named = list_candidates(FEATURES, VOLTAGE, 1, RANGES, Overrides(), [response])
    given = list_candidates(FEATURES, VOLTAGE, 1, RANGES, Overrides(trip_std={response: 0.2}))
    assert {c.name for c in named} - {c.name for c in plain} == {response}
    (found,) = (c for c in named if c.name == response)
    assert found.target == Target(Kind.RESPONSE, (0, 1))
    assert found.parameter == Parameter(response, "1", 1.0, 0.1, 0.2, 5.0)
    assert [c.parameter.trip_std for c in given if c.name == response] == [0.2]


@pytest.mark.parametrize(
    "name",
    [
        "gain:charge_ah+nothing",
        "gain:charge_ah+charge_ah",
        "offset:charge_ah+current_a",
        "x",
        "response:x",
    ],
)
def test_unknown_candidates_are_refused(name: str) -> None:
    with pytest.raises(UnknownCandidateError, match="no candidate"):
        list_candidates(FEATURES, VOLTAGE, 1, RANGES, Overrides(), [name])


@pytest.mark.parametrize("samples", [0, 1, 100, -4])
def test_sample_counts_that_unbalance_the_sequence_are_refused(samples: int) -> None:
    with pytest.raises(OptionError, match="power of two"):
        SobolSettings(samples)


def test_choices_that_make_no_sense_are_refused() -> None:
    with pytest.raises(OptionError, match="too few"):
        Choice(0)
    with pytest.raises(OptionError, match="twice"):
        Choice(names=("a", "a"))


def test_a_bundle_ranked_again_keeps_its_network_and_changes_its_parameters(
    tmp_path: Path,
) -> None:
    record = record_of()
    first = rank(
        MANIFEST, record, candidates_of(MANIFEST, record, Choice()), Choice(), SobolSettings(64)
    )
    before = finish(MANIFEST, record, first, tmp_path / "one")
    choice = Choice(names=("gain:charge_ah+current_a",))
    overrides = Overrides(process_noise={choice.names[0]: 1e-6})
    again = rank_again(tmp_path / "one", choice, SobolSettings(64), overrides)
    after = finish(*again, tmp_path / "two")
    assert after.sha256 != before.sha256
    assert after.manifest.parameter_names == choice.names
    assert after.manifest.parameters[0].process_noise == 1e-6
    kept = rank_again(tmp_path / "two", choice, SobolSettings(64), Overrides())
    assert kept[2].chosen[0].parameter.process_noise == 1e-6
    assert load_bundle(tmp_path / "one").sha256 == before.sha256


def test_the_whole_study_survives_the_manifest(tmp_path: Path) -> None:
    record = record_of()
    choice = Choice(3)
    ranking = rank(
        MANIFEST, record, candidates_of(MANIFEST, record, choice), choice, SobolSettings(64)
    )
    finish(MANIFEST, record, ranking, tmp_path / "one")
    kept = load_bundle(tmp_path / "one").manifest.sensitivity
    assert kept == ranking.sensitivity
    assert kept.identifiability is not None
    assert [learnt.trips for learnt in kept.identifiability.learnt] == [1, 10]
    assert kept.identifiability.names == [c.name for c in ranking.chosen]


def test_a_manifest_of_an_older_version_still_decodes() -> None:
    old = {"samples": 1024, "indices": [], "pairs": []}
    found = msgspec.convert(old, Sensitivity)
    assert (found.groups, found.identifiability, found.explanation) == ([], None, "")
    kept = load_bundle(Path("tests/data/fleet_bundle")).manifest.sensitivity
    assert kept is not None
    assert kept.samples == 1024


def test_the_record_of_an_older_version_knows_no_trips_and_is_ranked_as_one(
    tmp_path: Path,
) -> None:
    record = record_of()
    with np.load(io.BytesIO(encode_record(record))) as arrays:
        older = {name: arrays[name] for name in arrays.files if name != "trip"}
    (tmp_path / NETWORK_FILE).parent.mkdir()
    np.savez(tmp_path / NETWORK_FILE, **older)
    found = load_record(tmp_path)
    np.testing.assert_array_equal(found.trip, np.zeros(len(record.rows)))


def test_an_imported_bundle_without_training_record_is_refused(tmp_path: Path) -> None:
    found = candidates()[:1]
    model = write_tflite(record_of().network, [found[0].target])
    manifest = Manifest(
        **{name: getattr(MANIFEST, name) for name in MANIFEST.__struct_fields__}
        | {
            "model_sha256": hashlib.sha256(model).hexdigest(),
            "parameters": [found[0].parameter],
        }
    )
    write_bundle(tmp_path / "foreign", manifest, model)
    with pytest.raises(TrainingRecordError, match="imported bundle has none"):
        rank_again(tmp_path / "foreign", Choice(), SobolSettings(64), Overrides())
