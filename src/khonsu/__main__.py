"""`python -m khonsu` is the command line."""

from __future__ import annotations

from khonsu.cli import main

if __name__ == "__main__":
    main(prog_name="khonsu")
