"""Every error of the contract: what was wrong, where, and what to do.

Must never hold logic beyond building a sentence. `TransientError` marks what a retry may cure.
"""

from __future__ import annotations

from typing import Literal

SignatureProblem = Literal["untrusted_key", "revoked_key", "bad_signature"]


class TwinError(Exception):
    """Base of every error that the project raises on purpose."""


class TransientError(TwinError):
    """May succeed when tried again without changing anything."""


class ContractError(TwinError):
    """A message breaks the contract; the sender must be corrected."""


class UnknownSchemaError(ContractError):
    """The message was written for another schema version."""

    def __init__(self, found: object, known: int) -> None:
        self.found, self.known = found, known
        super().__init__(
            f"The message has schema {found!r}, this software knows schema {known}: "
            "upgrade the older side before it sends more."
        )


class MalformedMessageError(ContractError):
    """The payload does not parse, or a field has the wrong type, length or range."""

    def __init__(self, kind: str, problem: str) -> None:
        self.kind, self.problem = kind, problem
        super().__init__(f"A {kind} message was refused: {problem}. Correct its sender.")


class TopicError(ContractError):
    """A topic or a name that becomes part of one is not of the contract."""

    def __init__(self, what: str, value: str) -> None:
        self.what, self.value = what, value
        super().__init__(f"{value[:80]!r} is no valid {what}: use 1-64 of A-Z a-z 0-9 _ -.")


class BundleError(TwinError):
    """A bundle is missing, damaged, or does not fit the contract."""

    def __init__(self, where: object, problem: str, remedy: str) -> None:
        self.where, self.problem = where, problem
        super().__init__(f"The bundle at {where} cannot be used: {problem}. {remedy}")


class ModelContractError(BundleError):
    """The .tflite has other tensors than the manifest declares."""

    def __init__(self, where: object, problem: str) -> None:
        super().__init__(
            where,
            problem,
            "A model takes 'features' float32[n, F] and 'parameters' float32[n, P] "
            "and gives one 'voltage' float32[n, 1].",
        )


class SignatureError(TwinError):
    """A signature does not prove what it should; `reason` is the contract's word for why."""

    def __init__(self, problem: str, reason: SignatureProblem = "bad_signature") -> None:
        self.problem, self.reason = problem, reason
        super().__init__(f"The signature cannot be trusted: {problem}. Check the trusted keys.")


class KeyStatementError(ContractError):
    """A statement about keys is not signed as it must be, or not next in turn."""

    def __init__(self, problem: str, reason: str) -> None:
        self.problem, self.reason = problem, reason
        super().__init__(
            f"A key statement was refused ({reason}): {problem}. The keys stay as they were; "
            "publish the whole chain of statements, signed by a root key."
        )


class FreshnessError(ContractError):
    """What says that nothing newer is held back does not prove it."""

    def __init__(self, problem: str, reason: str) -> None:
        self.problem, self.reason = problem, reason
        super().__init__(
            f"The cloud's word was not believed ({reason}): {problem}. It is asked again."
        )


class KeyFileError(TwinError):
    """A key file is missing or not what it should be."""

    def __init__(self, path: object, problem: str) -> None:
        self.path, self.problem = path, problem
        remedy = "Make keys with `twin-cloud keys create` in a folder where you may write."
        super().__init__(f"The key file {path} {problem}. {remedy}")


class ChainError(TwinError):
    """The hash chain of one vehicle is broken."""

    def __init__(self, vehicle_id: str, number: int, problem: str) -> None:
        self.vehicle_id, self.number, self.problem = vehicle_id, number, problem
        super().__init__(
            f"The chain of vehicle {vehicle_id} breaks at revision {number}: {problem}. "
            "Somebody edited the history: restore it from a backup and find out who."
        )

    def __reduce__(self) -> tuple[type[ChainError], tuple[str, int, str]]:
        """From one process to another it goes by what it was made of."""
        return ChainError, (self.vehicle_id, self.number, self.problem)


class CalibrationError(TwinError):
    """A calibration cannot be carried out on this evidence."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"No calibration is possible: {problem}. The old revision stays in force.")


class QuestionError(TwinError):
    """A question about a vehicle cannot be answered as it was put."""

    def __init__(self, where: str, problem: str) -> None:
        self.where, self.problem = where, problem
        super().__init__(f"The question cannot be answered: {where}: {problem}. Correct that.")


class NoHealthError(TwinError):
    """A bundle lets no state of health be read: no section, or its new battery is no yardstick."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"The bundle lets no state of health be read: {problem}. Train it anew.")


class TooFewVehiclesError(TwinError):
    """A fleet is too small, or too young, for a prior of its own."""

    def __init__(self, vehicles: int, needed: int) -> None:
        self.vehicles, self.needed = vehicles, needed
        super().__init__(
            f"The fleet has no prior of its own yet: {vehicles} vehicles have revisions over a "
            f"common age, {needed} are needed. Until then the bundle's own prior serves."
        )
