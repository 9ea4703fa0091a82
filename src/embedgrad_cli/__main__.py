"""`python -m embedgrad_cli` is the command `embedgrad`."""

from __future__ import annotations

import sys

from embedgrad_cli.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
