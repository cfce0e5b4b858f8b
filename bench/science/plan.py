"""How large a run is. Values only; tuning seeds and reporting seeds never meet."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Sizes of a run; None means all there are.

    `cycle_stride` takes every so many of a reported cell's cycles, `tuning_stride` of the others';
    `vehicles` and `others` are those of one seed's fleet, `teachers` those whose first trips train
    the bundle, `values_each` the values of a grid that are tried.
    """

    tuning_seeds: tuple[int, ...] = (1, 2)
    reporting_seeds: tuple[int, ...] = tuple(range(101, 111))
    vehicles: int = 4
    others: int = 8
    trips: int = 100
    teachers: int = 100
    thresholds_v: tuple[float, ...] = (0.02, 0.03, 0.05, 0.1)
    values_each: int | None = None
    posterior_cases: int = 3
    chain_steps: int = 20_000
    cells: int | None = None
    cycle_stride: int = 1
    tuning_stride: int = 6
    car_seeds: tuple[int, ...] = (0, 1, 2)
    car_trips: int | None = None
    timing_repeats: int = 20
    timing_vehicles: int = 256
    processes: int = 2


FULL = Plan()
QUICK = Plan(
    tuning_seeds=(1,),
    reporting_seeds=(101, 102),
    vehicles=2,
    others=3,
    teachers=20,
    thresholds_v=(0.05,),
    values_each=1,
    posterior_cases=2,
    chain_steps=6_000,
    cells=1,
    cycle_stride=12,
    tuning_stride=24,
    car_seeds=(0,),
    car_trips=6,
    timing_repeats=2,
    timing_vehicles=64,
)
