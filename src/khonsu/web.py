"""The HTTP client library, without the command line of its own that it loads where it can.

That takes 5 MB and a third of the time in which a command of ours starts: `httpx.main`, which nothing here uses, tells
then how to install it. A program that imports httpx itself before Khonsu does has all of it.
"""

from __future__ import annotations

import sys

_COMMAND_LINE = "httpx._main"

if "httpx" in sys.modules:
    import httpx
else:
    sys.modules[_COMMAND_LINE] = None  # type: ignore[assignment]  # what importlib takes for a module that is not there
    try:
        import httpx
    finally:
        del sys.modules[_COMMAND_LINE]

__all__ = ["httpx"]
