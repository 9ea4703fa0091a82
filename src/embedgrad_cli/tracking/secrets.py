"""Takes keys out of what a library says, before it is written or printed."""

from __future__ import annotations

import os
import re

SECRET = re.compile(r"KEY|TOKEN|PASSWORD|SECRET", re.IGNORECASE)  # in the name of an environment variable
SHORTEST = 6  # of a value that is looked for
IN_ADDRESS = re.compile(r"//[^/@\s]+@")
IN_QUERY = re.compile(r"(://[^\s?]*)\?\S+")
HIDDEN = "…"


def without_secrets(text: str) -> str:
    """The text without the values of environment variables that hold keys, and without passwords in addresses."""
    values = [value for name, value in os.environ.items() if SECRET.search(name) and len(value) >= SHORTEST]
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return IN_QUERY.sub(rf"\1?{HIDDEN}", IN_ADDRESS.sub(f"//{HIDDEN}@", text))
