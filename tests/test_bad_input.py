"""Bad input at the command lines: one sentence with a remedy, a telling exit code, nothing harmed.

Each row is what a tester once made a program fall over with, or lie about.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import pytest

import demo.__main__
import demo.real
from demo.run import exit_code
from tests.support_edge import KEY, aged_bundle, write_bundle

ROOT = Path(__file__).resolve().parent.parent
TRAIN = "train table.csv --features distance_km,speed --target voltage_v --out bundle"


@dataclass(frozen=True)
class Place:
    """A folder to type commands in."""

    folder: Path

    def run(self, module: str, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *command.split()],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    def refused(self, module: str, command: str, code: int, *says: str) -> None:
        done = self.run(module, command)
        said = done.stderr.split("TensorFlow Lite XNNPACK delegate for CPU.\n")[-1]
        assert "Traceback" not in done.stderr
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        for words in says:
            assert words in said, said

    def demo_refused(
        self, main: Callable[[list[str]], int], command: str, code: int, *says: str
    ) -> None:
        """As `refused`, in this process: a demonstration takes seconds to be loaded."""
        said = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stderr(said):
            done = exit_code(partial(main, command.split()))
        assert done == code, (done, said.getvalue())
        for words in says:
            assert words in said.getvalue()

    def agent(self, *lines: str, state: str = "state.db") -> None:
        write_bundle(self.folder / "bundle")
        public = self.folder / "public.pem"
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        public.write_bytes(
            KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        text = f'vehicle_id = "car"\nbundle = "bundle"\nstate = "{state}"\n'
        text += 'trusted_keys = ["public.pem"]\n' + "\n".join(lines)
        (self.folder / "agent.toml").write_text(text)

    def table(self, change: Callable[[list[str]], list[str]]) -> None:
        rows = [
            f"car,{trip},{number * 3.0},{17 + trip},{4.2 - 0.01 * number - 0.001 * trip}"
            for trip in range(6)
            for number in range(60)
        ]
        header = "vehicle_id,trip_id,distance_km,speed,voltage_v"
        (self.folder / "table.csv").write_text("\n".join([header, *change(rows)]) + "\n")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ("--vehicles 0", 2, "vehicles = 0"),
        ("--trips -1", 2, "trips = -1"),
        ("--trips 5000 --vehicles 1", 1, "is worn out after"),
        ("--seed -1", 2, "seed = -1"),
        ("--threshold 0", 2, "threshold: 0 V makes no sense"),
        ("--threshold nan", 2, "threshold: nan V makes no sense"),
        ("--out file", 1, "name another folder with --out"),
    ],
)
def test_a_demo_that_makes_no_sense_costs_no_earlier_result(
    place: Place, options: str, code: int, says: str
) -> None:
    earlier = place.folder / "earlier"
    earlier.mkdir()
    (earlier / ".living-twin-run").touch()
    (earlier / "report.html").write_text("precious")
    (place.folder / "file").touch()
    out = "" if "--out" in options else " --out earlier"
    place.demo_refused(demo.__main__.main, options + out, code, says)
    assert (earlier / "report.html").read_text() == "precious"


HEADER = "cell,cycle,throughput_before_ah,time_s,discharged_ah,current_a,voltage_v\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (gzip.compress(HEADER.encode())[:20], "ended before"),
        (gzip.compress(HEADER.encode()), "it has no rows"),
        (gzip.compress(f"{HEADER}A,1,0,0,0,-1,abc\n".encode()), "something else than numbers"),
        (gzip.compress(f"{HEADER}A,,0,0,0,-1,4\n".encode()), "cycle has empty cells"),
        (b"no gzip", "Not a gzipped file"),
    ],
    ids=["torn", "header only", "text", "empty cell", "no gzip"],
)
def test_damaged_measurements_are_named(place: Place, content: bytes, says: str) -> None:
    (place.folder / "data/calce_cs2").mkdir(parents=True)
    (place.folder / "data/calce_cs2/CS2_1.csv.gz").write_bytes(content)
    place.demo_refused(demo.real.main, "--data data --out out", 1, "CS2_1.csv.gz", says)
    assert not (place.folder / "out").exists()


@pytest.mark.parametrize(
    ("module", "options"), [("demo", "--threshold 0 --out out"), ("demo.real", "--data nowhere")]
)
def test_a_demo_that_cannot_begin_ends_with_a_sentence(
    place: Place, module: str, options: str
) -> None:
    code = 2 if module == "demo" else 1
    place.refused(module, options, code, "demo: ")


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ("--threshold 0", 2, "threshold: 0 V makes no sense"),
        ("--noise-std 0", 2, "noise-std: 0 V makes no sense"),
        ("--cutoff-voltage nan", 2, "cutoff-voltage: nan V makes no sense"),
        ("--seed 99999999999999999999", 2, "less than or equal to 4294967294"),
        ("--prior gain:output=1e200", 2, "'1e200' is no number to work with"),
        ("--features vehicle_id,speed", 2, "vehicle_id tells rows apart"),
        ("--out file/bundle", 1, "The bundle cannot be written to file/bundle"),
    ],
)
def test_training_options_that_make_no_sense_are_named(
    place: Place, options: str, code: int, says: str
) -> None:
    place.table(lambda rows: rows)
    (place.folder / "file").touch()
    place.refused("cloud", f"{TRAIN} {options}", code, says)
    assert not (place.folder / "bundle").exists()


def test_a_cell_that_float32_cannot_hold_is_named(place: Place) -> None:
    place.table(lambda rows: [*rows[:4], rows[4].replace("12.0", "1e300"), *rows[5:]])
    place.refused("cloud", TRAIN, 1, "column 'distance_km', row 5", "1e+300, no number to train on")


def test_tls_files_are_relative_to_the_configuration_and_named_when_they_cannot_be_used(
    place: Place,
) -> None:
    place.agent('[mqtt.tls]\nca_file = "ca.pem"\ncert_file = "c.pem"\nkey_file = "k.pem"')
    place.refused("edge_agent", "run --config agent.toml", 1, str(place.folder / "ca.pem"))
    (place.folder / "ca.pem").write_text("no PEM")
    place.refused("edge_agent", "run --config agent.toml", 1, "[mqtt.tls] cannot be used")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('[mqtt]\nhost = ""', "mqtt.host"),
        (f'[mqtt]\nhost = "{"a" * 64}.example"', "mqtt.host"),
        ('[source]\nkind = "file"', "source.path names none"),
        ('[limits]\nbase = "x"', "base"),
        ("[limits", "Correct it and start again"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_named(place: Place, line: str, says: str) -> None:
    place.agent(line)
    place.refused("edge_agent", "run --config agent.toml", 1, "agent.toml cannot be used", says)


@pytest.mark.parametrize("name", ["base", "bundle"])
def test_a_configuration_takes_no_field_that_is_not_the_users(place: Place, name: str) -> None:
    place.agent()
    config = place.folder / "agent.toml"
    text = config.read_text()
    line = 'base = "/x"\n' if name == "base" else 'bundle = "a\\u0000b"\n'
    config.write_text(line + text.replace('bundle = "bundle"\n', "" if name == "bundle" else "\\g"))
    place.refused("edge_agent", "run --config agent.toml", 1, "agent.toml cannot be used")


def test_another_programs_database_is_neither_adopted_nor_written_into(place: Place) -> None:
    place.agent(state="theirs.db")
    with closing(sqlite3.connect(place.folder / "theirs.db")) as db:
        db.execute("CREATE TABLE precious (x)")
    before = (place.folder / "theirs.db").read_bytes()
    says = ("theirs.db cannot be used", "another program's database", "Give another path")
    place.refused("edge_agent", "run --config agent.toml", 1, *says)
    with closing(sqlite3.connect(place.folder / "theirs.db")) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("precious",)]
    assert len((place.folder / "theirs.db").read_bytes()) == len(before)
    place.refused("edge_agent", "status --config agent.toml", 1, "cannot be read")


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_damaged_model_that_fits_its_hash_is_refused_before_the_interpreter_crashes(
    place: Place, share: float
) -> None:
    place.agent()
    bundle = aged_bundle(place.folder / "bundle")
    model = bundle.model[: int(share * len(bundle.model))]
    (place.folder / "bundle/voltage_model.tflite").write_bytes(model)
    manifest = msgspec.json.decode((place.folder / "bundle/manifest.json").read_bytes())
    manifest["model_sha256"] = hashlib.sha256(model).hexdigest()
    (place.folder / "bundle/manifest.json").write_bytes(msgspec.json.encode(manifest))
    place.refused("edge_agent", "run --config agent.toml", 1, "truncated, damaged or no .tflite")


def test_a_replay_that_finds_nothing_says_where_to_look(place: Place) -> None:
    place.agent()
    header = "vehicle_id,trip_id,time_s,odometer,distance_km,load_kg,voltage_v\n"
    (place.folder / "trips.csv").write_text(header + "other,T1,1,1,1,4000,4\n,T1,1,1,1,4000,4\n")
    done = place.run("edge_agent", "replay trips.csv --config agent.toml --json")
    assert done.returncode == 0
    assert '"samples_refused": 1' in done.stdout
    assert "no trip was found for car" in done.stderr


def test_one_byte_that_is_no_utf8_costs_a_row_not_the_file(place: Place) -> None:
    place.agent()
    header = b"trip_id,time_s,odometer,distance_km,load_kg,voltage_v\n"
    rows = [b"T1,%d,%d,%d,500,4.0\n" % (number, number, number) for number in range(20)]
    (place.folder / "trips.csv").write_bytes(header + b"T\xe9,1,1,1,4000,4\n" + b"".join(rows))
    done = place.run("edge_agent", "replay trips.csv --config agent.toml --json")
    assert done.returncode == 0
    assert '"trips": 1' in done.stdout


@pytest.mark.parametrize("command", ["verify", "history car", "quarantine"])
def test_looking_at_an_empty_file_neither_writes_it_nor_calls_it_good(
    place: Place, command: str
) -> None:
    (place.folder / "twin.db").touch()
    place.refused("cloud", f"{command} --database twin.db", 1, "twin.db cannot be used")
    assert (place.folder / "twin.db").stat().st_size == 0
    assert [file.name for file in place.folder.iterdir()] == ["twin.db"]
