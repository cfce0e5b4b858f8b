"""The typed client of the operator API: `TwinClient(base_url, key)`, one method for each operation.

How it grows: an operation of the API has a method of its `operationId`'s name, in the module of its
subject (`reading.py`, `ordering.py`, …), as a class over `Transport` that `TwinClient` inherits. It
answers with the server's own schemas (`cloud.api.schemas`), gives lists as iterators over all their
pages, and raises what `errors.py` holds. A test compares the methods with the API's description.
"""

from __future__ import annotations

from cloud.client.client import TwinClient

__all__ = ["TwinClient"]
