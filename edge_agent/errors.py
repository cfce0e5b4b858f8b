"""What can go wrong on the vehicle, in sentences that an installer can act on.

Must never hold logic beyond building a sentence.
"""

from __future__ import annotations

import sqlite3

from common.errors import TransientError, TwinError


class ConfigError(TwinError):
    """The configuration file is missing, malformed, or names something that is not there."""

    def __init__(self, path: object, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(
            f"The configuration {path} cannot be used: {problem}. Correct it and start again."
        )


class SourceError(TwinError):
    """The sample source cannot be read at all."""

    def __init__(self, source: object, problem: str) -> None:
        self.source, self.problem = source, problem
        super().__init__(
            f"No samples can be read from {source}: {problem}. Give a CSV table, plain or "
            "gzip, or a Parquet file."
        )


class CanSetupError(TwinError):
    """The DBC, the map of signals or the interface cannot be used at all."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(
            f"The CAN bus cannot be read: {problem}. Correct [source.can] and start again."
        )


class ExtraMissingError(TwinError):
    """A source needs a library that is not installed on this vehicle."""

    def __init__(self, what: str, library: str, remedy: str) -> None:
        self.library = library
        super().__init__(f"{what} needs {library}, which does not load. {remedy}.")


class LiveOffError(TwinError):
    """There is no live view to be watched."""

    def __init__(self) -> None:
        super().__init__(
            "The live view is off: the configuration has no [live]. Write [live] into it, and "
            "start the agent again."
        )


class RefusedSampleError(TwinError):
    """One sample cannot be believed; it is counted and kept, and the trip goes on."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"A sample was refused: {problem}.")


class StorageError(TransientError):
    """The state could not be written; what was there before is intact."""

    def __init__(self, path: object, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(
            f"The state file {path} could not be written ({problem}): free some space or make it "
            "writable. The agent drives on with what it has and tries again."
        )


class DamagedRowError(sqlite3.DatabaseError):
    """The state file gave back what was never written there; the agent begins a file anew."""

    def __init__(self, where: str, problem: str) -> None:
        self.where, self.problem = where, problem
        super().__init__(f"A row of {where} is damaged: {problem}.")


class StateUnusableError(TwinError):
    """There is no state that could be opened, or it is no agent's."""

    def __init__(self, path: object, problem: str, remedy: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(f"The state file {path} cannot be used: {problem}. {remedy}")


class StateInUseError(TwinError):
    """Another agent runs on the same state file."""

    def __init__(self, path: object) -> None:
        self.path = path
        super().__init__(
            f"Another agent is running on {path}: stop it first, or give this one its own file."
        )


class LinkError(TwinError):
    """The link to the broker cannot even be set up."""

    def __init__(self, files: tuple[str, ...], cause: Exception) -> None:
        self.files = files
        super().__init__(
            f"The files of [mqtt.tls] cannot be used ({cause}): {', '.join(files)}. Give PEM files "
            "that this user may read; paths are relative to the configuration."
        )


class BrokerUnreachableError(TransientError):
    """The broker did not answer in the time that the caller allowed."""

    def __init__(self, host: str, port: int, problem: str) -> None:
        self.host, self.port = host, port
        super().__init__(
            f"The broker at {host}:{port} cannot be reached ({problem}): check [mqtt] host and "
            "port, and that it runs."
        )


class NoAnswerError(TransientError):
    """The cloud gave no outcome for a breach in the time that the caller allowed."""

    def __init__(self, waiting: int, seconds: float) -> None:
        self.waiting = waiting
        super().__init__(
            f"{waiting} breach(es) got no answer within {seconds:g} s: is `twin-cloud serve` "
            "running on the same broker, with this bundle? They stay on disk and are offered again."
        )


class EnrolmentError(TwinError):
    """Key, request or certificate of the vehicle cannot be made or do not fit."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"Nothing was installed: {problem}.")
