"""Collect the Python blocks of the docs into files that type checkers can read.

Each page becomes `build/docs_code/PAGE.py`, with every block on the lines it has in the page, so that a checker's
message names the line to go to. Blocks after `<!--- skip: next -->` are left out, as in the tests.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "build" / "docs_code"
FUTURE = "from __future__ import annotations"


def main() -> None:
    """Write one file per page that has Python in it."""
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        lines = python_lines(page.read_text(encoding="utf-8").splitlines())
        if any(lines):
            name = re.sub(r"\W", "_", str(page.relative_to(ROOT).with_suffix("")).lower())
            (TARGET / f"{name}.py").write_text("\n".join(lines) + "\n", encoding="utf-8")


def python_lines(lines: list[str]) -> list[str]:
    """Return the lines of a page with everything blank that is not Python."""
    kept = []
    inside = skip = False
    for line in lines:
        fence = line.startswith("```")
        if fence and not inside:
            inside = line.strip() == "```python" and not skip
            skip = False
            kept.append("")
        elif fence:
            inside = False
            kept.append("")
        else:
            skip = skip or line.strip() == "<!--- skip: next -->"
            kept.append(line if inside and line != FUTURE else "")
    return kept


if __name__ == "__main__":
    main()
