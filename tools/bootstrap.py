"""Make the virtual environment: packages pinned by hash, the project itself, a broker.

Runs on a bare Python 3.11-3.13, so nothing beyond the standard library may be imported here.
Must never need root nor write outside the checkout (the installers' own caches apart).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from demo.debian_packages import PackageUnavailableError, unpack  # noqa: E402 - needs the path

LOCK: Final = "requirements/dev.lock"
INSTALLER_LOCK: Final = "requirements/bootstrap.lock"
WHEELS_ONLY: Final = ("--only-binary", ":all:")
NO_NETWORK: Final = re.compile(
    r"name resolution|Name or service not known|dns error|nodename nor servname"
    r"|Network is unreachable|No route to host|Connection refused|ConnectTimeout",
    re.IGNORECASE,
)
HEARTBEAT_S: Final = 3.0


class BootstrapError(Exception):
    """The bootstrap cannot go on; the text says what is missing and what to do."""


class StepFailedError(Exception):
    """A command failed; the text is the last thing that it said."""


class Bootstrap:
    """The steps, in order; each either succeeds or says why not."""

    def __init__(self, venv: Path) -> None:
        self.venv = venv
        self.python = venv / "bin" / "python"
        self.log = venv / "bootstrap.log"

    def run(self, stamp: str) -> None:
        """Do everything; the stamp is written last. Raises BootstrapError."""
        started = time.monotonic()
        (self.venv / ".ready").unlink(missing_ok=True)
        self.make_environment()
        self.install()
        self.provide_broker()
        (self.venv / ".ready").write_text(stamp, encoding="utf-8")
        say(f"Ready after {time.monotonic() - started:.0f} s.")

    def make_environment(self) -> None:
        """An empty environment of the running Python, unless there is one already."""
        if self._is_of_this_python():
            return
        shutil.rmtree(self.venv, ignore_errors=True)
        say(f"Python {sys.version.split()[0]} from {sys.executable}")
        command = [sys.executable, "-m", "venv", "--without-pip", str(self.venv)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise BootstrapError(
                f"Python's venv module does not work ({last_line(done.stdout + done.stderr)}): "
                f"{venv_remedy()}"
            )

    def install(self) -> None:
        """The locked packages and the project, by uv where possible and by pip otherwise."""
        if any(self._uv_installed(uv) for uv in (shutil.which("uv"), self._own_uv())):
            return
        pip = self._pip()
        if self._fetched_uv(pip) and self._uv_installed(self._own_uv()):
            return
        try:
            self._install_with(pip, "pip")
        except StepFailedError as error:
            raise self._not_installed(error) from error

    def provide_broker(self) -> None:
        """Find or unpack the broker now, so that nothing waits for it later."""
        try:
            self._step("Looking for a broker", [str(self.python), "-m", "demo.broker"])
        except StepFailedError as error:
            raise BootstrapError(str(error)) from error
        say(self._logged().strip())

    def _is_of_this_python(self) -> bool:
        """Whether the folder holds a working environment of the very Python that runs."""
        question = "import sys; print(sys.version, sys.base_prefix)"
        try:
            done = subprocess.run(
                [str(self.python), "-c", question], check=False, capture_output=True, text=True
            )
        except OSError:
            return False
        return done.stdout.strip() == f"{sys.version} {sys.base_prefix}".strip()

    def _own_uv(self) -> str | None:
        """The uv of the environment, if an earlier run fetched it."""
        return shutil.which(str(self.venv / "bin" / "uv"))

    def _uv_installed(self, uv: str | None) -> bool:
        """Whether this uv exists and did all the work."""
        if uv is None:
            return False
        try:
            self._install_with([uv, "pip"], "uv")
        except StepFailedError as error:
            say(f"{uv} failed ({error}); trying another way.")
            return False
        return True

    def _pip(self) -> list[str]:
        """A command that is pip for the environment. Raises BootstrapError."""
        inside = [str(self.python), "-m", "pip"]
        ways = (
            (inside, None),
            (inside, [str(self.python), "-m", "ensurepip"]),
            ([sys.executable, "-m", "pip", "--python", str(self.python)], None),
        )
        for pip, preparation in ways:
            if (preparation is None or succeeds(preparation)) and succeeds([*pip, "--version"]):
                return [*pip, "--disable-pip-version-check"]
        return [str(self.python), str(self._unpacked_pip()), "--disable-pip-version-check"]

    def _unpacked_pip(self) -> Path:
        """Pip out of Debian's own package, for machines without python3-venv."""
        tree = ROOT / ".broker" / "python3-pip-whl"
        try:
            unpack("python3-pip-whl", tree)
        except PackageUnavailableError as error:
            raise BootstrapError(
                f"There is no pip for {sys.executable}, and Debian's could not be fetched "
                f"({error.reason}): {venv_remedy()}"
            ) from error
        wheel = next(tree.glob("usr/share/python-wheels/pip-*.whl"), None)
        if wheel is None:
            raise BootstrapError(f"There is no pip for {sys.executable}: {venv_remedy()}")
        return wheel / "pip"

    def _fetched_uv(self, pip: list[str]) -> bool:
        """Whether uv is in the environment now. Raises BootstrapError without a network."""
        command = [*pip, "install", "--quiet", "--retries", "2", "--require-hashes", *WHEELS_ONLY]
        try:
            self._step("Fetching the installer", [*command, "-r", INSTALLER_LOCK])
        except StepFailedError as error:
            if NO_NETWORK.search(self._logged()):
                raise self._not_installed(error) from error
            return False
        return True

    def _install_with(self, tool: list[str], name: str) -> None:
        target = ["--python", str(self.python)] if name == "uv" else []
        install = [*tool, "install", "--quiet", *target]
        locked = [*install, "--require-hashes", *WHEELS_ONLY, "-r", LOCK]
        self._step(f"Installing {count_packages()} packages with {name} (first time only)", locked)
        project = [*install, "--no-deps", "--no-build-isolation", "--editable", "."]
        self._step("Installing the project", project)

    def _step(self, title: str, command: list[str]) -> None:
        """Run a command with a sign of life every few seconds. Raises StepFailedError."""
        say(title, end=" ")
        with self.log.open("w+", encoding="utf-8", errors="replace") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=clean_environment(self.venv),
            )
            while not finished(process):
                say(".", end="")
        say("")
        if process.returncode:
            raise StepFailedError(last_line(self._logged()))

    def _logged(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def _not_installed(self, error: StepFailedError) -> BootstrapError:
        if NO_NETWORK.search(self._logged()):
            return BootstrapError(
                "The packages cannot be downloaded, there is no way to the package index: connect "
                f"this machine (or set HTTPS_PROXY) and repeat. Details: {self.log}"
            )
        return BootstrapError(
            f"The packages of {LOCK} cannot be installed on {sys.platform} with Python "
            f"{sys.version.split()[0]}: {error}. Details: {self.log}"
        )


def venv_remedy() -> str:
    """What to do for a Python without venv or pip."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return (
        f"install it (Debian, Ubuntu: sudo apt-get install python{version}-venv) "
        "or name another Python: make ... PYTHON=/path/to/python3.12"
    )


def clean_environment(venv: Path) -> dict[str, str]:
    """The caller's environment without what would point an installer elsewhere."""
    strays = {
        "PYTHONHOME",
        "PYTHONPATH",
        "PIP_USER",
        "PIP_TARGET",
        "PIP_PREFIX",
        "UV_SYSTEM_PYTHON",
    }
    kept = {name: value for name, value in os.environ.items() if name not in strays}
    return {**kept, "VIRTUAL_ENV": str(venv.absolute())}


def count_packages() -> int:
    """How many packages the lock file names."""
    return len(re.findall(r"^[\w.-]+==", (ROOT / LOCK).read_text(encoding="utf-8"), re.MULTILINE))


def finished(process: subprocess.Popen[bytes]) -> bool:
    """Wait a moment; whether the process has ended."""
    try:
        process.wait(HEARTBEAT_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def succeeds(command: list[str]) -> bool:
    """Whether a command exists and ends well, in silence."""
    try:
        return not subprocess.run(command, check=False, capture_output=True).returncode
    except OSError:
        return False


def last_line(text: str) -> str:
    """The line to show of an installer's complaint."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    causes = [line for line in lines if re.match(r"error|cause|×|caused by", line, re.IGNORECASE)]
    return (causes or lines or ["it said nothing"])[-1].rstrip(".")


def say(text: str, end: str = "\n") -> None:
    """Speak to the user at once."""
    print(text, end=end, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Bootstrap the environment `arguments[0]`, stamp it with `arguments[1]`."""
    try:
        Bootstrap(Path(arguments[0]).absolute()).run(arguments[1])
    except BootstrapError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("\nInterrupted; the next run goes on from here.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
