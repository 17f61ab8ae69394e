"""What keeps a task's process alive without the agent: a fork server, and one small helper per task.

The modules here run in a bare interpreter (`python -I -S .../supervisor/__main__.py`), which finds them as the package
`supervisor`. They import nothing but the standard library, and little of that: a helper's memory is paid per task.
"""

from __future__ import annotations
