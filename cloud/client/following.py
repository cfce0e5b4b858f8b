"""The stream of events: as the service sends it, or followed over interruptions.

Must never lose an event without a word: what is kept no longer is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from cloud.api.operator_schemas import EventItem
from cloud.client.errors import ProblemAnswerError, ServiceUnreachableError
from cloud.client.transport import Transport

V1: Final = "/api/v1"
EVENTS: Final = "text/event-stream"
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
TOO_MANY, FIRST_OF_SERVER = 429, 500
Said = EventItem | str | None
"""An event; the name of one about the stream itself (`gap`, `dropped`); None: it lives."""


class Following(Transport):
    """Operations that wait for what happens."""

    def stream_events(self, **params: object) -> Iterator[EventItem]:
        """What happens from now on, or `after` the id of an event, until the service ends it."""
        return (said for said in self._said(params) if isinstance(said, EventItem))

    def follow_events(
        self, after: str, told: Callable[[str], None], **params: object
    ) -> Iterator[EventItem]:
        """What happens behind the event with that id, for ever: an end is only an interruption.

        `told` is given a sentence for each, and where events are kept no longer.
        Raises ProblemAnswerError: the service refuses (not: it has no time now).
        """
        last, pause_s = after, FIRST_PAUSE_S
        while True:
            problem = "The service ended the stream."
            try:
                for said in self._said({**params, "after": last}):
                    pause_s = FIRST_PAUSE_S
                    if isinstance(said, EventItem):
                        last = said.id
                        yield said
                    elif said == "gap":
                        told(f"Events right behind {last} are kept no longer: some are missing.")
            except ServiceUnreachableError as error:
                problem = str(error)
            except ProblemAnswerError as error:
                if error.status < FIRST_OF_SERVER and error.status != TOO_MANY:
                    raise
                problem = str(error)
            told(f"{problem} Trying again, from event {last} on.")
            self._sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def newest_event(self) -> str:
        """The id behind which nothing has happened yet that this caller may see."""
        page = self.send("GET", f"{V1}/events", params={"limit": 1}).json()
        return str(page["items"][0]["id"]) if page["items"] else "0"

    def _said(self, params: dict[str, object]) -> Iterator[Said]:
        name = data = b""
        for line in _lines(self.stream(f"{V1}/events/stream", params=params, accept=EVENTS)):
            field, _, value = line.partition(b": ")
            if not line:
                if data and not name:
                    yield EventItem.model_validate_json(data)
                elif name:
                    yield name.decode()
                name = data = b""
            elif not field:
                yield None
            elif field == b"event":
                name = value
            elif field == b"data":
                data = value


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
