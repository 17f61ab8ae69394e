"""Write the parts of the docs that are made from the code: the tables of the job's fields and of the states.

Each part stands between `<!--- fields: Job -->` or `<!--- machine: job -->` and `<!--- end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from khonsu.core import job, states
from khonsu.core.jobdocs import field_table

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = ("jobs.md", "states.md")
PART = re.compile(r"<!--- (fields|machine): (\w+) -->\n.*?<!--- end -->", re.DOTALL)


def main() -> None:
    """Fill the pages."""
    for name in PAGES:
        page = DOCS / name
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


def filled(text: str) -> str:
    """Return a page with its parts as the code makes them."""
    return PART.sub(
        lambda match: f"<!--- {match[1]}: {match[2]} -->\n\n{MAKERS[match[1]](match[2])}\n\n<!--- end -->", text
    )


def fields(name: str) -> str:
    """Return the table of the fields of a class."""
    return field_table(getattr(job, name))


def machine(name: str) -> str:
    """Return the table and the drawing of a state machine."""
    found = next(each for each in states.MACHINES if each.name == name)
    return f"{states.state_table(found)}\n\n```mermaid\n{states.state_diagram(found)}\n```"


MAKERS: dict[str, Callable[[str], str]] = {"fields": fields, "machine": machine}


if __name__ == "__main__":
    main()
