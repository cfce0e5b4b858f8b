"""Errors of training: what was wrong, where, what to do. No logic beyond building a sentence."""

from __future__ import annotations

from common.errors import TwinError


class TrainingError(TwinError):
    """Base of what can go wrong between a table and a bundle."""


class TableError(TrainingError):
    """A table of trips cannot be used; `column` and `row` (1 = first data row) say where."""

    def __init__(
        self,
        table: object,
        problem: str,
        remedy: str,
        *,
        column: str | None = None,
        row: int | None = None,
    ) -> None:
        self.table, self.problem, self.column, self.row = table, problem, column, row
        place = f", column {column!r}" if column is not None else ""
        place += f", row {row}" if row is not None else ""
        super().__init__(f"The table {table}{place} cannot be used: {problem}. {remedy}")


class OptionError(TrainingError):
    """An option of the training makes no sense."""

    def __init__(self, option: str, problem: str, remedy: str) -> None:
        self.option, self.problem = option, problem
        super().__init__(f"{option}: {problem}. {remedy}")


class UnknownCandidateError(OptionError):
    """A name that is no candidate for θ of this model."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        self.name = name
        super().__init__(
            "parameters",
            f"{name!r} is no candidate of this model",
            f"Candidates are {', '.join(known)}, and gain:<feature>+<feature> for a common gain.",
        )


class ForwardMismatchError(TrainingError):
    """The written .tflite does not compute what the training library computes."""

    def __init__(self, found_v: float, allowed_v: float) -> None:
        self.found_v, self.allowed_v = found_v, allowed_v
        super().__init__(
            f"The written model differs from the trained one by {found_v:.2g} V, {allowed_v:.2g} V "
            "are allowed: float32 loses digits to large weights (try another --seed or a smaller "
            "--hidden) or to a feature with a huge offset (subtract it from that column first)."
        )


class TrainingRecordError(TrainingError):
    """The training record of a bundle is missing or damaged."""

    def __init__(self, path: object, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(
            f"The training record {path} cannot be read ({problem}): sensitivity needs the folder "
            "that `twin-cloud train` wrote; an imported bundle has none."
        )


class OutputExistsError(TrainingError):
    """Something else stands where the bundle should go."""

    def __init__(self, path: object) -> None:
        self.path = path
        super().__init__(
            f"{path} exists and is another bundle or no bundle at all; it was left as it is. "
            "Give another --out, or remove it first."
        )


class OutputNotWritableError(TrainingError):
    """The operating system refuses to write the bundle."""

    def __init__(self, path: object, cause: OSError) -> None:
        self.path = path
        super().__init__(
            f"The bundle cannot be written to {path} ({cause.strerror or cause}): free some space, "
            "or give --out in a folder where you may write."
        )


class ImportRefusedError(TrainingError):
    """A foreign model does not keep the contract."""

    def __init__(self, model: object, problem: str, remedy: str) -> None:
        self.model, self.problem = model, problem
        super().__init__(f"The model {model} was not imported: {problem}. {remedy}")
