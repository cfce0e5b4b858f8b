"""What a client of the API raises: the server's problem details as an exception, or no server.

Must never hide what the server said: the whole problem is kept.
"""

from __future__ import annotations

from typing import Any

from common.errors import TransientError, TwinError


class ProblemAnswerError(TwinError):
    """The service answered with a problem (RFC 9457); `problem` is its body."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status, self.problem = status, problem
        title, detail = problem.get("title", f"status {status}"), problem.get("detail", "")
        super().__init__(f"The service refused ({status} {title}): {detail}")


class NotThereError(ProblemAnswerError):
    """404: what is asked for is not there, or not this caller's to see."""


class NotAllowedError(ProblemAnswerError):
    """401 or 403: the key is missing, wrong, or does not reach so far."""


class ContradictionError(ProblemAnswerError):
    """409 or 412: what is asked for contradicts what is known."""


class WrongQuestionError(ProblemAnswerError):
    """406, 415 or 422: a parameter or a field is wrong; `problem["violations"]` names it."""


class NoSuchListError(TwinError):
    """No list has that name, or it is one of a vehicle and none is named, or the other way."""

    def __init__(self, what: str, *, needs_vehicle: bool) -> None:
        self.what = what
        problem = "name its vehicle (--vehicle)" if needs_vehicle else "see `--help`"
        super().__init__(f"There is no list {what!r} like that: {problem}.")


class ServiceUnreachableError(TransientError):
    """No answer came."""

    def __init__(self, address: str, cause: BaseException) -> None:
        self.address = address
        super().__init__(
            f"The service at {address} does not answer ({cause}): check --server, and that it runs."
        )


_KINDS = {
    401: NotAllowedError,
    403: NotAllowedError,
    404: NotThereError,
    406: WrongQuestionError,
    409: ContradictionError,
    412: ContradictionError,
    415: WrongQuestionError,
    422: WrongQuestionError,
}


def error_of(status: int, problem: dict[str, Any]) -> ProblemAnswerError:
    """The exception for a problem."""
    return _KINDS.get(status, ProblemAnswerError)(status, problem)
