"""The kills beside the real `twin-cloud serve`: `python -m bench.edge.kill_real_cloud [KILLS]`.

What the real filter makes of a breach depends on what it knew when it came, so that there is no car
to compare with; the rest of the truth is the same. Exit code 1 when something is wrong.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import demo.loop
from bench.edge.kill_check import SUMMARY, Ending, problems_of_real_cloud
from bench.edge.kill_fleet import Drive, Stage, at_once, drive_killed
from bench.edge.kill_lives import TableLives
from bench.edge.made_up_car import write_bundle
from common.revision import decode_revision, verify_chain

CARS = 2


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Broker and the real service; both end with the block."""
    bundle = write_bundle(folder / "bundle")
    with demo.loop.stage(bundle.path, folder / "service") as made:
        yield Stage(folder, bundle, made.broker.port, made.public_key, made.database, read)


def read(database: Path, vehicle_id: str, status: Mapping[str, Any]) -> Ending:
    """What the service keeps of a car; its chain of revisions is verified."""
    ending = Ending(status=status)
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10.0)) as db:
        db.row_factory = sqlite3.Row
        of_car = "WHERE vehicle_id = ? ORDER BY"
        trips = db.execute(f"SELECT {', '.join(SUMMARY)} FROM trip {of_car} id", (vehicle_id,))  # noqa: S608
        ending.trips = [dict(row) for row in trips]
        breaches = f"SELECT trip_id, odometer FROM breach {of_car} id"  # noqa: S608
        ending.breaches = [dict(row) for row in db.execute(breaches, (vehicle_id,))]
        revisions = f"SELECT number, content, hash, verdict FROM revision {of_car} number"  # noqa: S608
        found = db.execute(revisions, (vehicle_id,)).fetchall()
        quarantined = db.execute("SELECT topic FROM quarantine").fetchall()
    verify_chain(vehicle_id, [(row["content"], row["hash"]) for row in found])
    ending.contents.update({row["topic"]: 2 for row in quarantined})
    applied = [row for row in found if row["verdict"] == "applied"]
    if applied:
        ending.newest = applied[-1]["number"]
        ending.newest_theta = decode_revision(applied[-1]["content"]).theta
    return ending


def run(folder: Path, kills: int, seed: int = 11) -> tuple[list[Drive], list[str]]:
    """Drive and kill; what became of the cars, and what is wrong."""
    with stage(folder) as at:
        calls = [
            partial(drive_killed, at, TableLives, f"car-{number}", kills // CARS, seed + number)
            for number in range(CARS)
        ]
        drives = at_once(calls)
    found = [problems_of_real_cloud(drive.ending, drive.trips) for drive in drives]
    return drives, [f"car-{n}: {sentence}" for n, one in enumerate(found) for sentence in one]


def main(arguments: Sequence[str] = sys.argv[1:]) -> int:
    """Entry point."""
    with tempfile.TemporaryDirectory() as name:
        drives, problems = run(Path(name), int(arguments[0]) if arguments else 100)
    for drive in drives:
        tally, ending = drive.lives.tally, drive.ending
        print(
            f"{tally.kills} kills, {len(ending.trips)} trips, {len(ending.breaches)} breaches, "
            f"revision {ending.newest}"
        )
    print("\n".join(problems) or "nothing lost, nothing twice, the parameters are the cloud's")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
