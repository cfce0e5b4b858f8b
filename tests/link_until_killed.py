"""A service that receives and never commits: it prints what came, until it is killed.

Arguments: the configuration's file, and how many messages to wait for before it says so.
"""

from __future__ import annotations

import queue
import random
import sys
import threading
from pathlib import Path

from cloud.config import load_config
from cloud.mqtt.choice import open_link
from cloud.mqtt.protocol import Inbox


def main() -> None:
    config = load_config(Path(sys.argv[1]))
    inbox: Inbox = queue.Queue(1024)
    link = open_link(config.mqtt, inbox, lambda: told("connected"), random.Random(1))
    link.start()
    for _ in range(int(sys.argv[2])):
        inbox.get()
    told("received")
    threading.Event().wait()


def told(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
