"""Start the fork server: `python -I -S .../khonsu/supervisor/__main__.py DIRECTORY IDLE_SECONDS`.

Returns as soon as the server listens (or another one serves the directory); the server goes on in the background.
"""

from __future__ import annotations

import importlib
import os
import sys

if __name__ == "__main__":
    # At the end of the path, so that nothing of Khonsu can stand before the standard library.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.exit(importlib.import_module("supervisor.forkserver").main(sys.argv[1:]))
