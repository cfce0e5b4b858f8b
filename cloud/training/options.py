"""Parse the NAME=VALUE options of the training commands. Pure; raises OptionError."""

from __future__ import annotations

from collections.abc import Sequence

from cloud.training.errors import OptionError
from cloud.training.table import TripChoice
from common.manifest import LARGEST, MovingAverage


def parse_names(text: str) -> tuple[str, ...]:
    """Comma-separated names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_layers(text: str) -> tuple[int, ...]:
    """Comma-separated sizes of hidden layers."""
    try:
        return tuple(int(size) for size in parse_names(text))
    except ValueError as error:
        raise OptionError("hidden", f"{text!r} does not parse", "Write 8,8 or 9.") from error


def parse_trip_choice(text: str) -> TripChoice:
    """'first', 'first:N' or 'all'."""
    kind, colon, number = text.partition(":")
    if text in {"all", "first"}:
        return TripChoice(None if text == "all" else 1)
    if kind == "first" and colon and number.isdecimal() and int(number) > 0:
        return TripChoice(int(number))
    raise OptionError("trips", f"{text!r} is unknown", "Use first, first:N or all.")


def parse_texts(option: str, texts: Sequence[str]) -> dict[str, str]:
    """NAME=TEXT, repeated."""
    return dict(_pair(option, text) for text in texts)


def parse_numbers(option: str, texts: Sequence[str]) -> dict[str, float]:
    """NAME=NUMBER, repeated."""
    return {name: _number(option, value) for name, value in parse_texts(option, texts).items()}


def parse_intervals(option: str, texts: Sequence[str]) -> dict[str, tuple[float, float]]:
    """NAME=LOW:HIGH, repeated."""
    intervals = {}
    for name, value in parse_texts(option, texts).items():
        low, _, high = value.partition(":")
        intervals[name] = (_number(option, low), _number(option, high))
        if not intervals[name][0] < intervals[name][1]:
            raise OptionError(option, f"{value!r} is empty", "Write NAME=LOW:HIGH, LOW below HIGH.")
    return intervals


def parse_moving_averages(texts: Sequence[str]) -> dict[str, MovingAverage]:
    """NAME=SIGNAL:TAU_S, repeated."""
    option = "moving-average"
    averages = {}
    for name, value in parse_texts(option, texts).items():
        signal, _, tau = value.rpartition(":")
        time_constant_s = _number(option, tau)
        if not signal or time_constant_s <= 0:
            remedy = "Write NAME=SIGNAL:TAU_S, for example current_30s=current_a:30."
            raise OptionError(option, f"{value!r} does not parse", remedy)
        averages[name] = MovingAverage(signal=signal, time_constant_s=time_constant_s)
    return averages


def _pair(option: str, text: str) -> tuple[str, str]:
    # The last '=' counts: a candidate's name never holds one, but neither does a value.
    name, equals, value = text.rpartition("=")
    if not (name and equals and value):
        raise OptionError(option, f"{text!r} does not parse", "Write NAME=VALUE.")
    return name, value


def _number(option: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise OptionError(option, f"{text!r} is no number", "Write NAME=NUMBER.") from error
    if not abs(number) <= LARGEST:
        raise OptionError(option, f"{text!r} is no number to work with", "Write a finite number.")
    return number
