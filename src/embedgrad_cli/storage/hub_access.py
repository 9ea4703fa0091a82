"""The hub when it is not in reach."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

SECONDS = 5
COMMIT = re.compile("[0-9a-f]{40}")  # a revision that will always be the same files


@contextmanager
def offline_if_out_of_reach(*configs: Any) -> Iterator[None]:
    """Look only in the cache when the hub cannot be reached: its library would try again for half a minute.

    Args:
        configs: further modules with a switch `HF_HUB_OFFLINE` of their own, such as `datasets.config`.
    """
    from huggingface_hub import constants

    switches = [constants, *configs]
    before = [switch.HF_HUB_OFFLINE for switch in switches]
    address = urlsplit(constants.ENDPOINT)
    try:
        if not (all(before) or getproxies()):  # behind a proxy only the library knows the way
            socket.create_connection((address.hostname, address.port or 443), timeout=SECONDS).close()
    except OSError:
        for switch in switches:
            switch.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.HF_HUB_OFFLINE = value
