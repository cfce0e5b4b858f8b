"""`python -m bench.science` from end to end, on as little as shows every section."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.science import __main__ as command
from bench.science.goals import GOALS
from bench.science.plan import QUICK
from cloud.training import fit

TINY = replace(
    QUICK,
    reporting_seeds=(101,),
    vehicles=1,
    others=2,
    trips=90,
    thresholds_v=(0.05,),
    values_each=1,
    posterior_cases=1,
    chain_steps=6000,
    cycle_stride=20,
    car_trips=4,
    timing_repeats=1,
    timing_vehicles=16,
    processes=0,
)


@pytest.mark.timeout(300)
def test_one_command_gives_every_section_in_every_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A rough network is enough to see every section.
    for name, value in (("RESTARTS", 1), ("FINAL_ITERATIONS", 200), ("ALL_ITERATIONS", 50)):
        monkeypatch.setattr(fit, name, value)
    docs = tmp_path / "science.md"
    monkeypatch.setattr(command, "QUICK", TINY)
    monkeypatch.setattr(command, "DOCS", docs)
    assert command.main(["--quick", "--json", "--docs", "--out", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "out" / "science.json").read_text()) == found
    assert found["plan"]["reporting_seeds"] == [101]
    assert [goal["name"] for goal in found["goals"]] == [goal.name for goal in GOALS]
    assert {goal["figure"] for goal in found["goals"]} <= set(found["figures"])
    assert all(goal["measured"] is not None for goal in found["goals"])
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    text = docs.read_text(encoding="utf-8")
    for goal in GOALS:
        assert goal.name in text
        assert goal.name in page
    assert page.count("<svg") == 6
    assert page.count("<h2>") == text.count("\n## ")
