"""`edge-agent status --watch`: the running agent, once a second, in a terminal.

Redraws a terminal in place; writes a line a second where there is none, or an object with --json.
Must never write to the agent, and never end because it does not answer: it says so, and tries on.
"""

from __future__ import annotations

import http.client
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

import msgspec

from edge_agent.config import Config
from edge_agent.errors import LiveOffError
from edge_agent.live.text import BARS, PLAIN_BARS, line, screen
from edge_agent.live.view import LiveView

EVERY_S: Final = 1.0
ANSWER_S: Final = 5.0
ANSWER_BYTES: Final = 1 << 20
OWN_SCREEN, NO_CURSOR = "\x1b[?1049h", "\x1b[?25l"
CURSOR, OLD_SCREEN = "\x1b[?25h", "\x1b[?1049l"
HOME, TO_END = "\x1b[H", "\x1b[J"


def run(config: Config, *, as_json: bool, out: TextIO = sys.stdout) -> int:
    """Until somebody stops it. Raises LiveOffError."""
    if config.live is None:
        raise LiveOffError
    port = config.live.port
    try:
        if out.isatty() and not as_json:
            with _own_screen(out):
                _redraw(port, out)
        else:
            _lines(port, out, as_json=as_json)
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    return 0


def asked(port: int) -> LiveView | str:
    """The view, or why there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    try:
        connection.request("GET", "/live.json")
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            return f"it answers {answer.status}"
        return msgspec.json.decode(answer.read(ANSWER_BYTES), type=LiveView)
    except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()


def _redraw(port: int, out: TextIO) -> None:
    bars = BARS if (out.encoding or "").lower().startswith("utf") else PLAIN_BARS
    for found in _views(port):
        lines = [_no_answer(port, found)] if isinstance(found, str) else screen(found, bars)
        width, height = shutil.get_terminal_size()
        shown = [text[: width - 1] for text in [*lines, "", "Ctrl-C ends"]][: height - 1]
        out.write(HOME + "".join(f"{text}\x1b[K\r\n" for text in shown) + TO_END)
        out.flush()


def _lines(port: int, out: TextIO, *, as_json: bool) -> None:
    for found in _views(port):
        if isinstance(found, str):
            sys.stderr.write(f"edge-agent: {_no_answer(port, found)}\n")
            continue
        out.write((msgspec.json.encode(found).decode() if as_json else line(found)) + "\n")
        out.flush()


def _views(port: int) -> Iterator[LiveView | str]:
    while True:
        yield asked(port)
        time.sleep(EVERY_S)


def _no_answer(port: int, why: str) -> str:
    return f"no answer on 127.0.0.1:{port} ({why}); does the agent run? Trying on."


@contextmanager
def _own_screen(out: TextIO) -> Iterator[None]:
    """What stood in the terminal stands there again afterwards."""
    out.write(OWN_SCREEN + NO_CURSOR)
    try:
        yield
    finally:
        out.write(CURSOR + OLD_SCREEN)
        out.flush()
