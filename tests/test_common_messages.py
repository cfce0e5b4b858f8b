"""The contract's messages: what is written is read, and nothing else is believed."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ContractError, MalformedMessageError, TopicError, UnknownSchemaError
from common.messages import (
    MAX_ODOMETER,
    MAX_PAYLOAD_BYTES,
    Acknowledgement,
    Breach,
    Declined,
    Message,
    Receipt,
    SignedRevision,
    Status,
    Trace,
    TripSummary,
    decode,
    encode,
    message_id,
)
from common.revision import Cause, Revision, decode_revision, encode_revision
from common.topics import DOWNWARD, UPWARD, check_identifier, parse_topic, subscription, topic

HEX = "0123456789abcdef"
KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (TripSummary, Breach, Status, SignedRevision, Acknowledgement, Receipt)
}
identifiers = st.text("abcXYZ019_-", min_size=1, max_size=64)
digests = st.text(HEX, min_size=64, max_size=64)
message_ids = st.text(HEX, min_size=32, max_size=32)
counts = st.integers(0, 2**53 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
amounts = st.floats(0, 1e12)
odometers = st.floats(0, MAX_ODOMETER)
numbers = st.integers(0, 10**9)
times = st.floats(0, 3e10)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
volts = st.none() | finite


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    points = draw(st.integers(2, 8))
    column = st.lists(finite, min_size=points, max_size=points)
    features = draw(st.lists(column | finite, min_size=1, max_size=4))
    return Trace(draw(column), features, draw(column))


trip_summaries = st.builds(
    TripSummary,
    schema=st.just(1),
    message_id=message_ids,
    vehicle_id=identifiers,
    trip_id=identifiers,
    bundle=digests,
    revision=numbers,
    started_at=times,
    duration_s=amounts,
    odometer_start=odometers,
    odometer_end=odometers,
    samples=counts,
    refused_samples=counts,
    error_v=amounts,
    band95_v=amounts,
    coverage95=st.floats(0, 1),
    feature_means=st.lists(finite, max_size=4),
)
breaches = st.builds(
    Breach,
    schema=st.just(1),
    message_id=message_ids,
    vehicle_id=identifiers,
    trip_id=identifiers,
    bundle=digests,
    revision=numbers,
    odometer=odometers,
    error_v=amounts,
    threshold_v=amounts,
    trace=traces(),
)
statuses = st.builds(
    Status,
    schema=st.just(1),
    vehicle_id=identifiers,
    agent_version=texts,
    bundle=digests,
    revision=numbers,
    outbox_depth=counts,
    awaiting=st.lists(message_ids, max_size=16),
    sent_at=times,
)
signed_revisions = st.builds(
    SignedRevision,
    schema=st.just(1),
    key_id=st.text(HEX, min_size=16, max_size=16),
    signature=st.text(HEX, min_size=128, max_size=128),
    revision=texts,
)
acknowledgements = st.builds(
    Acknowledgement,
    schema=st.just(1),
    message_id=message_ids,
    vehicle_id=identifiers,
    revision=numbers,
    revision_hash=digests,
    detail=texts,
    error_before_v=volts,
    error_after_v=volts,
    decided_at=times,
)
receipts = st.builds(
    Receipt,
    schema=st.just(1),
    vehicle_id=identifiers,
    message_ids=st.lists(message_ids, max_size=5),
    declined=st.lists(st.builds(Declined, message_id=message_ids, reason=texts), max_size=3),
)
messages: st.SearchStrategy[Message] = st.one_of(
    trip_summaries, breaches, statuses, signed_revisions, acknowledgements, receipts
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def decode_as_its_kind(payload: bytes, kind: str) -> Any:
    return decode(payload, KINDS[kind])


def numbers_in(value: Any) -> list[float]:
    if isinstance(value, float):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [n for item in value for n in numbers_in(item)] if isinstance(value, list) else []


@given(messages)
def test_every_message_survives_its_bytes(message: Message) -> None:
    assert decode_as_its_kind(encode(message), type(message).__name__) == message


@given(messages, st.sampled_from([None, True, 1, 0.5, "x", [1, "x"], {"a": {"b": []}}]))
def test_an_unknown_field_is_ignored(message: Message, value: Any) -> None:
    fields = json.loads(encode(message)) | {"from_the_future": value}
    kind = type(message).__name__
    assert decode_as_its_kind(json.dumps(fields).encode(), kind) == message


@given(messages, st.integers().filter(lambda schema: schema != 1))
def test_an_unknown_schema_is_named(message: Message, schema: int) -> None:
    payload = json.dumps(json.loads(encode(message)) | {"schema": schema}).encode()
    expected = UnknownSchemaError if abs(schema) < 2**63 else ContractError
    with pytest.raises(expected):
        decode_as_its_kind(payload, type(message).__name__)


@given(st.binary(max_size=200), st.sampled_from(sorted(KINDS)))
def test_garbage_bytes_are_malformed(payload: bytes, kind: str) -> None:
    with pytest.raises(MalformedMessageError):
        decode_as_its_kind(payload, kind)


@given(messages, st.data())
def test_a_damaged_message_is_refused_or_read_whole(message: Message, data: st.DataObject) -> None:
    payload = encode(message)
    start = data.draw(st.integers(0, len(payload)))
    end = data.draw(st.integers(start, len(payload)))
    damaged = payload[:start] + data.draw(st.binary(max_size=4)) + payload[end:]
    refused_or_whole(damaged, type(message).__name__)


@given(messages, st.data(), json_values)
def test_a_field_of_any_other_value_is_refused_or_read_whole(
    message: Message, data: st.DataObject, value: Any
) -> None:
    fields = json.loads(encode(message))
    place = fields
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else [0, -1]))
        if not (isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans())):
            break
        place = place[key]
    place[key] = value
    refused_or_whole(json.dumps(fields, allow_nan=True).encode(), type(message).__name__)


def refused_or_whole(payload: bytes, kind: str) -> None:
    """No other exception than the contract's, and no number that is not finite."""
    try:
        found = decode_as_its_kind(payload, kind)
    except ContractError:
        return
    assert all(math.isfinite(number) for number in numbers_in(msgspec.to_builtins(found)))
    assert decode_as_its_kind(encode(found), kind) == found


TRIP = TripSummary(
    message_id="0" * 32,
    vehicle_id="v",
    trip_id="t",
    bundle="0" * 64,
    revision=0,
    started_at=0.0,
    duration_s=1.0,
    odometer_start=0.0,
    odometer_end=1.0,
    samples=10,
    refused_samples=0,
    error_v=0.1,
    band95_v=0.1,
    coverage95=0.9,
    feature_means=[1.0],
    breach=False,
)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("error_v", "NaN"),
        ("error_v", "Infinity"),
        ("error_v", "1e999"),
        ("error_v", "-1e999"),
        ("error_v", "-0.1"),
        ("error_v", '"0.1"'),
        ("error_v", "null"),
        ("error_v", "[0.1]"),
        ("samples", "-1"),
        ("samples", "1.5"),
        ("samples", "true"),
        ("coverage95", "1.01"),
        ("started_at", "32503680000"),
        ("vehicle_id", '""'),
        ("vehicle_id", '"a/b"'),
        ("vehicle_id", '"a\\n"'),
        ("vehicle_id", f'"{"a" * 65}"'),
        ("trip_id", '"+"'),
        ("bundle", f'"{"0" * 63}"'),
        ("bundle", f'"{"0" * 64}\\n"'),
        ("bundle", f'"{"G" * 64}"'),
        ("message_id", '"\\ud800"'),
        ("feature_means", "[NaN]"),
        ("feature_means", "1.0"),
        ("breach", "1"),
        ("schema", '"1"'),
    ],
)
def test_a_field_of_the_wrong_type_or_range_is_malformed(field: str, text: str) -> None:
    raw = {name: json.dumps(value) for name, value in msgspec.to_builtins(TRIP).items()}
    raw[field] = text
    payload = "{" + ",".join(f'"{name}":{value}' for name, value in raw.items()) + "}"
    with pytest.raises(MalformedMessageError):
        decode(payload.encode(), TripSummary)


@pytest.mark.parametrize("field", ["schema", "message_id", "error_v", "breach"])
def test_a_missing_field_is_malformed(field: str) -> None:
    fields = {k: v for k, v in json.loads(encode(TRIP)).items() if k != field}
    with pytest.raises(MalformedMessageError, match=field):
        decode(json.dumps(fields).encode(), TripSummary)


def test_a_payload_beyond_the_limit_is_malformed_before_it_is_parsed() -> None:
    payload = encode(TRIP)
    fits = payload + b" " * (MAX_PAYLOAD_BYTES - len(payload))
    assert decode(fits, TripSummary) == TRIP
    with pytest.raises(MalformedMessageError, match="too many"):
        decode(fits + b" ", TripSummary)


@pytest.mark.parametrize("payload", [b"[" * 100_000, b'{"schema":' * 20_000])
def test_deep_nesting_is_malformed_and_exhausts_nothing(payload: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        decode(payload[:MAX_PAYLOAD_BYTES], Breach)


@given(st.binary(max_size=100))
def test_garbage_is_no_revision(content: bytes) -> None:
    with pytest.raises(ContractError):
        decode_revision(content)


@given(st.integers(1, 3), st.data())
def test_a_revision_survives_its_bytes_exactly(parameters: int, data: st.DataObject) -> None:
    states = 2 * parameters

    def numbers(count: int) -> list[float]:
        return data.draw(st.lists(st.floats(-1e30, 1e30), min_size=count, max_size=count))

    made = Revision(
        vehicle_id="v",
        number=data.draw(st.integers(1, 10**9)),
        parent_hash="0" * 64,
        base=0,
        bundle="0" * 64,
        odometer=data.draw(odometers),
        theta=numbers(parameters),
        rate=numbers(parameters),
        covariance=numbers(states * (states + 1) // 2),
        cause=Cause(
            kind="breach",
            message_id="0" * 32,
            trip_id="t",
            points=50,
            nis=1.0,
            error_before_v=1.0,
            error_after_v=0.5,
        ),
        created_at=1.0,
        code_version="1",
    )
    assert decode_revision(encode_revision(made)) == made
    assert encode_revision(decode_revision(encode_revision(made))) == encode_revision(made)


@given(identifiers, identifiers, identifiers, identifiers)
def test_a_message_id_is_a_pure_function_of_what_it_is_about(
    vehicle: str, trip: str, other_vehicle: str, other_trip: str
) -> None:
    own = message_id(vehicle, trip, "breach")
    assert own == message_id(vehicle, trip, "breach")
    assert re.fullmatch("[0-9a-f]{32}", own)
    assert own != message_id(vehicle, trip, "trip")
    same = (vehicle, trip) == (other_vehicle, other_trip)
    assert (own == message_id(other_vehicle, other_trip, "breach")) is same


@given(identifiers, st.sampled_from([*UPWARD, *DOWNWARD]))
def test_a_topic_names_vehicle_and_kind(vehicle: str, kind: Any) -> None:
    name = topic(vehicle, kind)
    assert parse_topic(name) == (vehicle, kind)
    assert name.count("/") <= 7
    assert len(name.encode()) <= 256
    assert subscription(kind).replace("+", vehicle) == name


@pytest.mark.parametrize(
    "identifier",
    ["", "+", "#", "a/b", "a+", "a#", "a\n", "\n", "a b", "ä", "a\x00", "..", "a" * 65, "$SYS"],
)
def test_an_identifier_that_could_leave_its_tree_is_refused(identifier: str) -> None:
    with pytest.raises(TopicError):
        check_identifier("vehicle id", identifier)
    with pytest.raises(TopicError):
        topic(identifier, "trip")
    with pytest.raises(TopicError):
        parse_topic(f"twin/v1/{identifier}/trip")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "twin",
        "twin/v1/a",
        "twin/v1/a/b",
        "twin/v2/a/trip",
        "other/v1/a/trip",
        "twin/v1/a/trip/",
    ],
)
def test_a_topic_outside_the_contract_is_refused(name: str) -> None:
    with pytest.raises(TopicError):
        parse_topic(name)
