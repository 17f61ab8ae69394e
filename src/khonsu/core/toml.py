"""Job files: TOML to jobs and back."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from khonsu.core.brief import brief_job
from khonsu.core.job import Job
from khonsu.core.mistakes import show
from khonsu.core.parse import parse_jobs
from khonsu.errors import InvalidJob, NotFound, Problem

FILE_BYTES_MAX: Final = 2**20
"""How large a job file may be."""

_PLACE: Final = re.compile(r"(.*?) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def load_jobs(path: Path | str, /) -> tuple[Job, ...]:
    """Return the jobs of a file.

    Raises:
        InvalidJob: The file is too large, no text, no TOML, or a job in it is wrong; has every mistake.
        NotFound: There is no such file.

    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise NotFound("job file", str(path)) from None
    except OSError as error:
        raise InvalidJob([Problem(str(path), error.strerror or str(error), "a file that can be read")]) from None
    return loads_jobs(data, file=str(path))


def loads_jobs(text: str | bytes, /, *, file: str = "job file") -> tuple[Job, ...]:
    """Return the jobs of a file's text; `file` is its name in messages.

    Raises:
        InvalidJob: It is too large, no text, no TOML, or a job in it is wrong; has every mistake.

    """
    data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    if len(data) > FILE_BYTES_MAX:
        raise InvalidJob(
            [Problem(file, f"more than {FILE_BYTES_MAX} bytes", f"at most {FILE_BYTES_MAX} bytes (1 MiB)")]
        )
    try:
        plain = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidJob([Problem(f"{file}:{line}", f"the byte {data[error.start]:#04x}", "UTF-8 text")]) from None
    try:
        table = tomllib.loads(plain)
    except ValueError as error:
        raise InvalidJob([_syntax(str(error), plain, file)]) from None
    except RecursionError:
        raise InvalidJob([Problem(file, "tables or lists nested too deep", "a job")]) from None
    return parse_jobs(table)


def _syntax(message: str, text: str, file: str) -> Problem:
    """Return what is wrong with TOML: the file, line and column, and what is written there."""
    match = _PLACE.fullmatch(message)
    if match is None:
        return Problem(file, "what is not TOML", message)
    lines = text.split("\n")
    line = int(match[2]) if match[2] else max(number for number, each in enumerate(lines, 1) if each or number == 1)
    column = int(match[3]) if match[3] else len(lines[line - 1]) + 1
    return Problem(f"{file}:{line}:{column}", show(lines[line - 1].strip()), f"TOML: {match[1]}")


# -------------------------------------------------------------------------------------------------------------- writing


def dumps_job(job: Job, /) -> str:
    """Return a job as the text of a job file, without what has its default.

    Raises:
        ValueError: Its config holds a null, which TOML does not have.

    """
    return "\n".join(_table(brief_job(job), ())).strip() + "\n"


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    """Return the lines of a table: what fits on a line first, then lists of tables and larger tables."""
    lines, below = [], []
    for key, value in table.items():
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for item in value:
                below += ["", f"[[{_keys((*path, key))}]]", *_table(item, (*path, key))]
        elif key in ("config", "env", "meta") and value:
            below += ["", f"[{_keys((*path, key))}]", *_table(value, (*path, key))]
        else:
            lines.append(f"{_keys((key,))} = {_value(value)}")
    return lines + below


def _keys(keys: tuple[str, ...]) -> str:
    return ".".join(key if _BARE_KEY.fullmatch(key) else _text(key) for key in keys)


def _text(text: str) -> str:
    # TOML takes JSON's escapes, but for DEL, which must be escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_keys((key,))} = {_value(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    if value is None:
        raise ValueError("TOML has no null")
    return _text(value) if isinstance(value, str) else json.dumps(value)
