"""`twin-cloud` in the test's own process: a new one takes seconds."""

from __future__ import annotations

import sys

import pytest

from cloud import cli


def twin_cloud(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command line."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["twin-cloud", *map(str, words)])
    try:
        code: object = cli.main()
    except SystemExit as ended:
        code = ended.code
    return (code if isinstance(code, int) else 0, *capsys.readouterr())
