"""Run the self-test beside the agent, and hear what came of it.

Must never wait for it, and never believe anything but a whole answer: a crash is an answer, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Final

import msgspec

from edge_agent.bundle_update.self_test import Answer, Question

DEADLINE_S: Final = 180.0
COMMAND: Final = (sys.executable, "-P", "-m", "edge_agent.bundle_update.self_test")


def _environment() -> dict[str, str]:
    """The same modules as the agent, and one thread."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {
        **os.environ,
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


class SelfTest:
    """One run; files instead of pipes: neither side can make the other wait."""

    def __init__(self, question: Question, now: float, command: Sequence[str] = COMMAND) -> None:
        """Raises OSError when it cannot be started."""
        self._give_up_s = now + DEADLINE_S
        with tempfile.TemporaryFile() as asked:
            asked.write(msgspec.json.encode(question))
            asked.seek(0)
            self._answer = tempfile.TemporaryFile()  # noqa: SIM115 - read when the process has ended
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                command,
                stdin=asked,
                stdout=self._answer,
                stderr=subprocess.DEVNULL,
                env=_environment(),
            )

    def problem(self, now: float) -> str | None:
        """None while it runs; then what is wrong, empty when nothing is."""
        code = self._process.poll()
        if code is None:
            if now < self._give_up_s:
                return None
            self.close()
            return f"it gave no answer within {DEADLINE_S:g} s"
        found = self._read()
        self._answer.close()
        if code != 0:
            return f"it ended with signal {-code}" if code < 0 else f"it ended with code {code}"
        return "it gave no answer" if found is None else found.problem

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._answer.close()

    def _read(self) -> Answer | None:
        self._answer.seek(0)
        try:
            return msgspec.json.decode(self._answer.read(), type=Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
