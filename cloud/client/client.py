"""`TwinClient`: every operation of the API, and nothing else.

Must never hold logic: a subject's operations stand in its own module.
"""

from __future__ import annotations

from cloud.client.deriving import Deriving
from cloud.client.following import Following
from cloud.client.keys import Keys
from cloud.client.maintaining import Maintaining
from cloud.client.reading import Reading
from cloud.client.releasing import Releasing


class TwinClient(Reading, Deriving, Releasing, Maintaining, Following, Keys):
    """A client of one service. Use it as a context manager, or `close` it."""
