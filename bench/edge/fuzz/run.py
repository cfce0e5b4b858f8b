"""`python -m bench.edge.fuzz.run TARGET --inputs N [--seed S] [--plant FAULT]`: one campaign.

Guided by coverage where atheris is installed (Linux on x86-64), else blind, and it says so. One
line of JSON comes out: how many inputs, how long, what was found. Must never go on after a find:
the input is written to `--keep`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

LONGEST_INPUT = 16_384


@dataclass(frozen=True)
class Outcome:
    """`found`: the type of what was raised, empty when nothing was; `inputs`: those that passed.

    `seconds` of the processor: so many inputs a second fit into a core of their own.
    """

    target: str
    inputs: int
    seconds: float
    engine: str
    found: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 whether something was found or not."""
    parser = argparse.ArgumentParser(prog="python -m bench.edge.fuzz.run", description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plant", metavar="FAULT", help="break the agent first, to see it found")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for the input that was found")
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="begin with it, add to it")
    options = parser.parse_args(arguments)
    campaign = Campaign(options.target, options.inputs, options.keep, options.corpus)
    atheris = _atheris()
    if atheris is None:
        campaign.prepare(options.plant)
        campaign.run_blind(options.seed)
    else:
        with atheris.instrument_imports(include=["common", "edge_agent"]):
            campaign.prepare(options.plant)
        campaign.run_guided(atheris, options.seed)
    return 0


class Campaign:
    """Counts inputs, and tells at the first find or at the end."""

    def __init__(self, name: str, inputs: int, keep: Path | None, corpus: Path | None) -> None:
        self._name, self._inputs, self._keep, self._corpus = name, inputs, keep, corpus
        self._done = 0
        self._begun_s = 0.0
        self._engine = ""
        self._at_end: Callable[[], object] = lambda: None

    def prepare(self, plant: str | None) -> None:
        """Load the target (and with it the agent)."""
        from bench.edge.fuzz.plants import planted  # noqa: PLC0415 - instrumented as it is loaded
        from bench.edge.fuzz.targets import target_of  # noqa: PLC0415 - the same
        from bench.edge.fuzz.vehicle import clean_up  # noqa: PLC0415 - the same

        logging.disable(logging.CRITICAL)
        self._target, self._clean_up = target_of(self._name), clean_up
        if plant is not None:
            planted(plant)

    def run_blind(self, seed: int) -> None:
        """Without coverage every input is a few mutations away from a seed."""
        from bench.edge.fuzz.mutation import blind  # noqa: PLC0415 - as the target

        self._begin("blind")
        for data in blind(self._target, seed):
            self._one(data[:LONGEST_INPUT])

    def run_guided(self, atheris: Any, seed: int) -> None:
        """libFuzzer keeps what reaches new code and goes on from there."""

        def mutate(data: bytes, max_size: int, number: int) -> bytes:
            def plain(part: bytes) -> bytes:
                mutated: bytes = atheris.Mutate(part, max_size)
                return mutated

            return self._target.mutate(data, Random(number), plain)[:max_size]  # noqa: S311

        flags = [f"-seed={seed}", f"-max_len={LONGEST_INPUT}", "-rss_limit_mb=0", "-len_control=0"]
        with tempfile.TemporaryDirectory(prefix="twin-corpus-") as corpus:
            for number, data in enumerate(self._target.seeds):
                (Path(corpus) / str(number)).write_bytes(data)
            self._at_end = partial(shutil.rmtree, corpus, ignore_errors=True)
            folders = [str(self._corpus)] if self._corpus else []  # the first is added to
            atheris.Setup([sys.argv[0], *flags, *folders, corpus], self._one, custom_mutator=mutate)
            self._begin("coverage")
            atheris.Fuzz()

    def _begin(self, engine: str) -> None:
        self._engine, self._begun_s = engine, time.process_time()

    def _one(self, data: bytes) -> None:
        try:
            self._target.check(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a find
            self._end(data, error)
        self._done += 1
        if self._done >= self._inputs:
            self._end(b"", None)

    def _end(self, data: bytes, error: Exception | None) -> None:
        """Tell, and leave the process here: libFuzzer would call it a crash of its own."""
        found = "" if error is None else type(error).__name__
        outcome = Outcome(
            self._name, self._done, time.process_time() - self._begun_s, self._engine, found
        )
        if error is not None:
            traceback.print_exception(error, file=sys.stderr)
            if self._keep is not None:
                self._keep.mkdir(parents=True, exist_ok=True)
                digest = hashlib.sha256(data).hexdigest()[:16]
                (self._keep / f"{self._name}-{digest}").write_bytes(data)
        print(json.dumps(asdict(outcome)), flush=True)
        sys.stderr.flush()
        self._at_end()
        self._clean_up()
        os._exit(0)


def _atheris() -> Any:
    try:
        return importlib.import_module("atheris")
    except ImportError:
        print("atheris is not here: blind mutations instead of guided ones", file=sys.stderr)
        return None


if __name__ == "__main__":
    sys.exit(main())
