"""The installer, below a folder of its own: swaps, roll back, what stays. Python, pip, systemd and
the agent are stand-ins here; tests at the end use the real ones.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.waiting import eventually

ROOT = Path(__file__).resolve().parent.parent
UNIT = ROOT / "deploy" / "systemd" / "edge-agent.service"
SCRIPTS = sorted((ROOT / "deploy" / "edge").glob("*.sh"))

# Programs that change a machine or reach a network only write down that they were called. The
# stand-ins' state is files: `world/down` names versions that do not come up, and so on.
STAND_INS = {
    "id": "echo 0",
    "sleep": "",
    "sync": "",
    "useradd": "echo $* > $WORLD/user",
    "userdel": "rm $WORLD/user",
    "getent": "test -e $WORLD/user",
    "runuser": 'shift 3; exec "$@"',
    # Without the owners that only root can give.
    "install": 'for a; do shift; case $a in -o|-g) skip=1;; *) if [ -n "$skip" ]; then skip=; '
    'else set -- "$@" "$a"; fi;; esac; done; exec /usr/bin/install "$@"',
    "systemctl": r"""
        echo "$*" >> $WORLD/systemctl
        now=$(basename "$(readlink $LIVING_TWIN_ROOT/opt/living-twin/current)")
        case $* in
            enable*) touch $WORLD/enabled ;;
            disable*) rm -f $WORLD/enabled $WORLD/active ;;
            is-enabled*) test -e $WORLD/enabled ;;
            is-active*) test -e $WORLD/active ;;
            restart*)
                rm -f $WORLD/active
                case $now in $(cat $WORLD/down)) exit 1 ;; esac
                touch $WORLD/active ;;
            show*NRestarts*) case $now in $(cat $WORLD/flapping)) echo 2 ;; *) echo 0 ;; esac ;;
        esac""",
    "python3": r"""
        case $* in
            -c*) cat $WORLD/python ;;
            --version) echo Python 3.11.2 ;;
            '-m venv '*)
                mkdir -p $3/bin $3/lib
                if test -e $WORLD/cut; then kill -9 $PPID; exit; fi
                cp $WORLD/pip $3/bin/python
                cp $WORLD/agent $3/bin/edge-agent ;;
        esac""",
}
PIP = '#!/bin/sh\ncase $* in *"pip install"*edge*lock*) test ! -e $WORLD/offline ;; esac\n'
AGENT = r"""#!/bin/sh
case $1 in
    --version) echo 0 ;;
    check)
        case $(basename "$(dirname "$(dirname "$0")")") in
            $(cat $WORLD/refusing)) echo "edge-agent: no" >&2; exit 1 ;;
            *) echo fine ;;
        esac ;;
esac
"""


class Machine:
    """A root folder, a checkout whose version can be raised, and the stand-ins on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.root, self.world = folder / "root", folder / "world"
        self.checkout = folder / "checkout"
        for place in (self.root / "run/systemd/system", self.world, folder / "bin"):
            place.mkdir(parents=True)
        for name in ("deploy/edge", "deploy/systemd", "requirements"):
            shutil.copytree(ROOT / name, self.checkout / name)
        for name in ("common", "edge_agent"):
            (self.checkout / name).mkdir()
        (self.checkout / "LICENSE").touch()
        for name, text in STAND_INS.items():
            path = folder / "bin" / name
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(0o755)
        for name, text in (("pip", PIP), ("agent", AGENT), ("python", "3.11 True\n")):
            (self.world / name).write_text(text)
            (self.world / name).chmod(0o755)
        for name in ("down", "flapping", "refusing"):
            self.make(name, "nothing")
        self.release("1.0.0")
        self.environment = {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "LIVING_TWIN_ROOT": str(self.root),
            "WORLD": str(self.world),
        }

    def release(self, number: str) -> None:
        (self.checkout / "edge_agent/__init__.py").write_text(f'__version__ = "{number}"\n')

    def make(self, fault: str, versions: str = "") -> None:
        """Versions (a shell pattern) that are `down`, `flapping` or `refusing`."""
        (self.world / fault).write_text(versions)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(self.checkout / "deploy/edge/install.sh"), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def well(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def base(self) -> Path:
        return self.root / "opt/living-twin"

    def versions(self) -> list[str]:
        return sorted(p.name.split("-")[0] for p in self.base.glob("[0-9]*"))

    def current(self) -> str:
        return (self.base / "current").readlink().name.split("-")[0]

    def called(self, word: str) -> int:
        path = self.world / "systemctl"
        return path.read_text().count(word) if path.exists() else 0

    def files(self) -> dict[str, bytes]:
        return {
            str(p.relative_to(self.root)): p.read_bytes()
            for p in self.root.rglob("*")
            if p.is_file()
        }


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_first_install_makes_user_folders_version_and_unit_and_starts(machine: Machine) -> None:
    machine.well()
    assert "--system" in (machine.world / "user").read_text()
    assert (machine.current(), machine.versions()) == ("1.0.0", ["1.0.0"])
    unit = machine.root / "etc/systemd/system/edge-agent.service"
    assert unit.read_bytes() == UNIT.read_bytes()
    assert (machine.root / "etc/systemd/journald@edge-agent.conf").exists()
    assert (machine.root / "etc/edge-agent/agent.toml").exists()
    assert (machine.root / "etc/edge-agent/tls").stat().st_mode & 0o777 == 0o700
    assert (machine.root / "var/lib/edge-agent").stat().st_mode & 0o777 == 0o700
    assert (machine.root / "usr/local/bin/edge-agent").readlink() == Path(
        "/opt/living-twin/current/bin/edge-agent"
    )
    assert machine.called("restart") == 1


def test_what_is_not_configured_yet_is_installed_and_not_started(machine: Machine) -> None:
    machine.make("refusing", "1.0.0*")
    said = machine.well()
    assert "Before the agent can start" in said
    assert "edge-agent: no" in said
    assert (machine.current(), machine.called("restart")) == ("1.0.0", 0)
    assert not (machine.world / "enabled").exists()


def test_a_second_run_changes_nothing_and_restarts_nothing(machine: Machine) -> None:
    machine.well()
    before = machine.files()
    assert "1.0.0" in machine.well("upgrade")
    assert machine.files() == before
    assert machine.called("restart") == 1


def test_an_upgrade_keeps_configuration_state_and_the_version_before(machine: Machine) -> None:
    machine.well()
    kept = {
        machine.root / "etc/edge-agent/agent.toml": "mine",
        machine.root / "etc/edge-agent/tls/vehicle.key": "key",
        machine.root / "var/lib/edge-agent/state.db": "state",
    }
    for path, text in kept.items():
        path.write_text(text)
    for number in ("1.1.0", "1.2.0"):
        machine.release(number)
        machine.well("upgrade")
    assert (machine.current(), machine.versions()) == ("1.2.0", ["1.1.0", "1.2.0"])
    assert {path: path.read_text() for path in kept} == kept


def test_other_code_of_the_same_number_is_another_version(machine: Machine) -> None:
    machine.well()
    (machine.checkout / "common/new.py").touch()
    machine.well("upgrade")
    assert machine.versions() == ["1.0.0", "1.0.0"]


def test_a_version_that_refuses_what_the_running_one_accepts_is_not_put_in_place(
    machine: Machine,
) -> None:
    machine.well()
    machine.release("1.1.0")
    machine.make("refusing", "1.1.0*")
    found = machine.run("upgrade")
    assert (found.returncode, machine.current(), machine.called("restart")) == (4, "1.0.0", 1)
    assert "nothing was changed" in found.stderr


@pytest.mark.parametrize("fault", ["down", "flapping"])
def test_a_version_that_does_not_come_up_is_rolled_back(machine: Machine, fault: str) -> None:
    machine.well()
    machine.release("1.1.0")
    (machine.checkout / "deploy/systemd/edge-agent.service").write_text("[Service] of 1.1.0")
    machine.make(fault, "1.1.0*")
    found = machine.run("upgrade")
    assert (found.returncode, machine.current()) == (5, "1.0.0")
    assert re.search(
        r"1\.1\.0\S* does not come up: journalctl .* 1\.0\.0\S* runs again", found.stderr
    )
    assert (machine.world / "active").exists()
    unit = machine.root / "etc/systemd/system/edge-agent.service"
    assert unit.read_bytes() == UNIT.read_bytes()


def test_a_first_version_that_does_not_come_up_is_told_and_stays(machine: Machine) -> None:
    machine.make("down", "*")
    found = machine.run()
    assert (found.returncode, machine.current()) == (5, "1.0.0")


def test_an_upgrade_does_not_start_what_somebody_has_disabled(machine: Machine) -> None:
    machine.well()
    for file in ("enabled", "active"):
        (machine.world / file).unlink()
    machine.release("1.1.0")
    assert "not enabled" in machine.well("upgrade")
    assert (machine.current(), machine.called("restart")) == ("1.1.0", 1)


def test_a_rollback_goes_to_the_version_before_and_back_again(machine: Machine) -> None:
    machine.well()
    machine.release("1.1.0")
    machine.well("upgrade")
    machine.well("rollback")
    assert machine.current() == "1.0.0"
    machine.well("rollback")
    assert machine.current() == "1.1.0"
    assert machine.called("restart") == 4


def test_without_a_version_before_there_is_no_rollback(machine: Machine) -> None:
    machine.well()
    found = machine.run("rollback")
    assert (found.returncode, "no version before" in found.stderr) == (1, True)
    assert machine.current() == "1.0.0"


def test_an_installed_version_brings_the_script_along(machine: Machine) -> None:
    machine.well()
    machine.release("1.1.0")
    machine.well("upgrade")
    own = machine.base / "current/install.sh"
    done = subprocess.run(["sh", str(own), "rollback"], env=machine.environment, check=False)
    assert (done.returncode, machine.current()) == (0, "1.0.0")


def test_without_a_network_nothing_changes(machine: Machine) -> None:
    machine.well()
    machine.release("1.1.0")
    machine.make("offline")
    found = machine.run("upgrade")
    assert (found.returncode, machine.current(), machine.versions()) == (1, "1.0.0", ["1.0.0"])
    assert "is there a way to the package index" in found.stderr


def test_a_run_that_was_cut_off_is_begun_again(machine: Machine) -> None:
    machine.well()
    machine.release("1.1.0")
    machine.make("cut")
    assert machine.run("upgrade").returncode == -9
    (machine.world / "cut").unlink()
    assert (machine.current(), machine.versions()) == ("1.0.0", ["1.0.0", "1.1.0"])
    (half,) = machine.base.glob("1.1.0*")
    (half / "rest").touch()
    eventually(lambda: machine.run("upgrade").returncode == 0)  # the lock goes with its last child
    assert (machine.current(), (half / "rest").exists()) == ("1.1.0", False)


def test_an_uninstall_leaves_configuration_and_state_and_a_purge_nothing(machine: Machine) -> None:
    untouched = set(machine.files())
    machine.well()
    (machine.root / "var/lib/edge-agent/state.db").touch()
    (machine.base / "twin-cloud").mkdir()  # somebody else's
    machine.well("uninstall")
    assert set(machine.files()) - untouched == {
        "etc/edge-agent/agent.toml",
        "etc/edge-agent/environment",
        "var/lib/edge-agent/state.db",
    }
    assert (machine.base / "twin-cloud").is_dir()
    assert not (machine.world / "enabled").exists()
    machine.well("uninstall", "--purge")
    assert set(machine.files()) == untouched
    assert not (machine.world / "user").exists()
    machine.well("uninstall")


@pytest.mark.parametrize(
    ("python", "says"), [("3.11 False\n", "64-bit Raspberry Pi OS"), ("3.9 True\n", "Python 3.11")]
)
def test_a_machine_that_does_not_fit_is_told_why(machine: Machine, python: str, says: str) -> None:
    (machine.world / "python").write_text(python)
    for name in ("python3.11", "python3.12", "python3.13"):
        shutil.copy(machine.world.parent / "bin/python3", machine.world.parent / "bin" / name)
    found = machine.run()
    assert (found.returncode, says in found.stderr) == (3, True)
    assert not (machine.root / "etc/edge-agent").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--help"], 0), (["fly"], 2), (["--purge"], 2), (["rollback", "-x"], 2)],
)
def test_usage(machine: Machine, arguments: list[str], code: int) -> None:
    found = machine.run(*arguments)
    assert found.returncode == code
    assert not machine.base.exists()


def test_can_is_a_version_of_its_own(machine: Machine) -> None:
    machine.well()
    machine.well("--with-can")
    assert (machine.base / "current").readlink().name.endswith("-can")


def test_the_unit_names_a_program_only_when_there_is_one() -> None:
    """The shell line of ExecStart: the agent is the main process, fed by SAMPLES or by nobody."""
    (line,) = re.findall(r"^ExecStart=/bin/bash -c '(.*)'$", UNIT.read_text(), re.MULTILINE)
    agent = "/opt/living-twin/current/bin/edge-agent run --config /etc/edge-agent/agent.toml"
    assert line.endswith(f"exec {agent}")
    line = line.replace(agent, "sh -c 'echo $$; cat'")
    for samples, fed in (("echo 1 2", "1 2\n"), ("", "")):
        process = subprocess.Popen(
            ["bash", "-c", line],
            env={**os.environ, "SAMPLES": samples},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.communicate(timeout=20)[0] == f"{process.pid}\n{fed}"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_the_units_exposure_is_at_most_two() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20"]
    done = subprocess.run([*command, str(UNIT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (exposure,) = re.findall(r"exposure level for edge-agent.service: (\d+\.\d)", done.stdout)
    assert float(exposure) <= 2.0


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not here")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_scripts_are_clean(script: Path) -> None:
    done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def locked(name: str) -> dict[str, list[str]]:
    """Requirement line → its hashes."""
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if re.match(r"[a-z]", line)]
    return {
        line.split("--hash")[0].strip(): re.findall(r"sha256:[0-9a-f]{64}", line) for line in lines
    }


@pytest.mark.parametrize("name", ["edge.lock", "edge-can.lock", "build.lock"])
def test_the_vehicles_lock_files_pin_the_developers_versions_with_hashes(name: str) -> None:
    pins = locked(name)
    assert all(pins.values())
    versions = {line.split(" ;")[0].strip() for line in pins}
    known = {line.split(" ;")[0].strip() for line in locked("dev.lock")}
    if name != "edge-can.lock":
        assert versions <= known
    else:
        assert {v for v in versions if v.startswith(("python-can", "cantools"))}


def test_the_vehicles_lock_file_carries_a_runtime_for_each_python() -> None:
    lines = list(locked("edge.lock"))
    assert any(re.match(r"tflite-runtime==.*< '3.12'", line) for line in lines)
    assert any(re.match(r"ai-edge-litert==.*>= '3.12'", line) for line in lines)
    assert not any(line.startswith(("scipy", "pandas", "fastapi")) for line in lines)


def test_a_slimmed_environment_keeps_what_runs_and_runs_it_without_docstrings(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "agent"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name, text in {
        "some/__init__.py": '"""What it is for."""\n',
        "some/tests/test_it.py": "",
        "some/__init__.pyi": "",
        "cffi/api.py": "",
        "_cffi_backend.so": "",
        "numpy/f2py/main.py": "",
        "numpy/core/numeric.py": "",
    }.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    program = folder / "bin" / "edge-agent"
    program.write_text(
        f"#!{folder}/bin/python\nimport some\nprint(some.__doc__, some.__cached__)\n"
    )
    program.chmod(0o755)
    for _ in range(2):  # a second time nothing changes
        subprocess.run(["sh", ROOT / "deploy" / "edge" / "slim.sh", folder], check=True)
        left = {str(p.relative_to(site)) for p in site.rglob("*") if p.suffix != ".pyc"}
        assert left == {
            *("some", "some/__init__.py", "some/__pycache__", "_cffi_backend.so"),
            *("numpy", "numpy/core", "numpy/core/numeric.py", "numpy/core/__pycache__"),
        }
        said = subprocess.run([program], check=True, capture_output=True, text=True).stdout
        assert said.startswith("None ")
        assert Path(said.split()[1]).exists()


@pytest.fixture
def real(tmp_path: Path) -> Callable[[], Machine]:
    """A machine whose Python and pip are the real ones; systemd and root stay stand-ins."""

    def make() -> Machine:
        machine = Machine(tmp_path)
        stand_in = tmp_path / "bin/python3"
        stand_in.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        for name in ("common", "edge_agent"):
            shutil.rmtree(machine.checkout / name)
            shutil.copytree(ROOT / name, machine.checkout / name)
        machine.environment = {**os.environ, **machine.environment}
        return machine

    return make


@pytest.mark.timeout(600)
@pytest.mark.skipif(not os.environ.get("CI"), reason="downloads 40 MB; CI=true asks for it")
def test_a_real_installation_from_the_lock_file_is_small(real: Callable[[], Machine]) -> None:
    machine = real()
    said = machine.well()
    assert "Before the agent can start" in said
    (folder,) = machine.base.glob("[0-9]*")
    megabytes = sum(p.stat().st_blocks for p in folder.rglob("*") if not p.is_symlink()) / 2048
    assert megabytes <= 150
    packages = {p.name for p in folder.glob("lib/python*/site-packages/*")}
    assert {"common", "edge_agent", "numpy"} <= packages
    assert not packages & {"cloud", "demo", "firmware_sim", "pip"}
