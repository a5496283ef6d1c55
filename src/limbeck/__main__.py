"""`python -m limbeck` is the command `limbeck`."""

from __future__ import annotations

import sys

from limbeck.cli import main

if __name__ == "__main__":
    sys.exit(main())
