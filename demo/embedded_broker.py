"""An MQTT 3.1.1 broker in pure Python (amqtt), as a process of its own that can be killed.

For laptops without Mosquitto. Must never be used in production: it keeps nothing over a restart.
Ends by itself when its parent does, because then its standard input closes.
"""

from __future__ import annotations

import asyncio
import errno
import sys
from typing import Final

from amqtt.broker import Broker
from amqtt.errors import BrokerError

READY: Final = "embedded broker is listening"
PORT_TAKEN: Final = "Address already in use"


def main(arguments: list[str]) -> int:
    """Serve `127.0.0.1:<arguments[0]>` until standard input closes; the exit status."""
    return asyncio.run(_serve(int(arguments[0])))


async def _serve(port: int) -> int:
    broker = Broker(_config(port))
    try:
        await broker.start()
    except BrokerError as error:
        print(_explain(error), file=sys.stderr)
        return 1
    print(READY, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    await broker.shutdown()
    return 0


def _explain(error: BrokerError) -> str:
    cause = error.__cause__
    taken = isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE
    return PORT_TAKEN if taken else str(error)


def _config(port: int) -> dict[str, object]:
    return {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {
            "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True},
        },
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
