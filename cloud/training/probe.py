"""Judge a bundle's model in a process of its own: an interpreter may crash on a broken file.

`python -m cloud.training.probe BUNDLE` prints a verdict as JSON. Must never run a foreign model in
the calling process: what survives in one process may crash the next.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from cloud.training.contract_check import Problem, contract_problem
from common.bundle import load_bundle
from common.errors import ModelContractError

DEADLINE_S: Final = 60.0
CRASH: Final = Problem(
    "the interpreter crashes or hangs on it",
    "The file is damaged or no .tflite: export or copy it again.",
)


class Verdict(msgspec.Struct, frozen=True):
    """The first breach of the contract, if any; `tensors` when the tensors are to blame."""

    problem: Problem | None = None
    tensors: str = ""


def judge(bundle: Path) -> Verdict:
    """The verdict of a child process; a crash or a missed deadline is a problem like any other."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module, no shell
            [sys.executable, "-m", "cloud.training.probe", str(bundle)],
            env=environment,
            capture_output=True,
            timeout=DEADLINE_S,
            check=True,
        )
        return msgspec.json.decode(done.stdout, type=Verdict)
    except (subprocess.SubprocessError, msgspec.MsgspecError):
        return Verdict(CRASH)


def main(folder: Path) -> None:
    """Do in this process what may crash it, and print the verdict."""
    try:
        verdict = Verdict(contract_problem(load_bundle(folder)))
    except ModelContractError as error:
        verdict = Verdict(tensors=error.problem)
    sys.stdout.buffer.write(msgspec.json.encode(verdict))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
