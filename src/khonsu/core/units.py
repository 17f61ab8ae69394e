"""Units: durations, sizes and CPU as people write them, and as the model keeps them.

A duration is kept in seconds (float), a size in bytes (int), CPU in thousandths of a core (int).
"""

from __future__ import annotations

import math
import re
from datetime import timedelta

DurationLike = float | str | timedelta
SizeLike = int | str
CPULike = float | str


class Millis(int):
    """Thousandths of a core, for where a number would be taken for cores: `Resources(cpu=Millis(250))`."""


_DURATION_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+", re.ASCII)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_SIZE_BYTES = {
    "": 1, "B": 1,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50,
    "KB": 10**3, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15,
}  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", re.ASCII)

DURATION_EXAMPLE = 'seconds or a duration such as "1m30s"'
SIZE_EXAMPLE = 'bytes or a size such as "64MiB" or "64MB"'
CPU_EXAMPLE = "cores, such as 0.5"
DURATION_SECONDS_MAX = 1e10
"""Some 300 years; a time that is farther away cannot be written as a date."""
CORES_END = 1e6
"""No machine has a million cores; below that a thousandth is exact."""
_FLOAT_NOISE = 1e-6
_DIGITS_MAX = 30


def seconds(value: DurationLike) -> float:
    """Return a duration in seconds.

    Args:
        value: Seconds, a text such as `"1m30s"` or `"250ms"`, or a `timedelta`.

    Raises:
        ValueError: It is none of these, is negative, or is too long to be added to a time.

    """
    given: object = value
    if isinstance(given, timedelta):
        result = given.total_seconds()
    elif isinstance(given, str) and _DURATION.fullmatch(given.strip()):
        result = sum(float(number) * _DURATION_SECONDS[unit] for number, unit in _DURATION_PART.findall(given))
    elif isinstance(given, (int, float)) and not isinstance(given, bool):
        result = _float(given)
    else:
        raise ValueError(f"{given!r} is not a duration; write {DURATION_EXAMPLE}")
    if not 0.0 <= result <= DURATION_SECONDS_MAX:
        raise ValueError(f"{given!r} is not a duration; it is negative or longer than 300 years")
    return result


def optional_seconds(value: DurationLike | None) -> float | None:
    """Return a duration in seconds, or None as it is."""
    return None if value is None else seconds(value)


def size_bytes(value: SizeLike) -> int:
    """Return a size in bytes: `"64MiB"` is binary, `"64MB"` decimal, a number is bytes.

    Raises:
        ValueError: It is no size, or is negative.

    """
    given: object = value
    if isinstance(given, int) and not isinstance(given, bool):
        result = given
    elif isinstance(given, str) and (match := _SIZE.fullmatch(given.strip())) and match[2] in _SIZE_BYTES:
        result = _product(match[1], _SIZE_BYTES[match[2]])
    else:
        raise ValueError(f"{given!r} is not a size; write {SIZE_EXAMPLE}")
    if result < 0:
        raise ValueError(f"{value!r} is not a size; it is negative")
    return result


def optional_size_bytes(value: SizeLike | None) -> int | None:
    """Return a size in bytes, or None as it is."""
    return None if value is None else size_bytes(value)


def cpu_millis(value: CPULike) -> int:
    """Return CPU in thousandths of a core: `0.5` or `"0.5"` cores are 500.

    Raises:
        ValueError: It is no number of cores, is negative, or is finer than a thousandth.

    """
    if isinstance(value, Millis):
        if value < 0:
            raise ValueError(f"{int(value)} thousandths of a core are negative")
        return int(value)
    number = math.nan if isinstance(value, bool) else _float(value)
    if not 0.0 <= number < CORES_END:
        raise ValueError(f"{value!r} is not a number of cores; write {CPU_EXAMPLE}")
    millis = round(number * 1000)
    if abs(millis - number * 1000) > _FLOAT_NOISE:
        raise ValueError(f"{value!r} is finer than a thousandth of a core")
    return millis


def optional_cpu_millis(value: CPULike | None) -> int | None:
    """Return CPU in thousandths of a core, or None as it is."""
    return None if value is None else cpu_millis(value)


def _float(value: object) -> float:
    """Return a number as float: not a number where it is none, infinity where it is too large for one."""
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return math.nan


def _product(digits: str, unit: int) -> int:
    """Return digits times a unit, exact unless there is a decimal point."""
    if len(digits) > _DIGITS_MAX:
        raise ValueError(f"{digits[:_DIGITS_MAX]}... is not a size; it has more than {_DIGITS_MAX} digits")
    return round(float(digits) * unit) if "." in digits else int(digits) * unit


def format_duration(value: float) -> str:
    """Return seconds as people write them, for example `1m30s`; exact down to a millisecond."""
    millis = round(value * 1000) if value < 2**53 else round(value) * 1000  # the largest floats have no thousandfold
    parts = []
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, millis = divmod(millis, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def format_size(value: int) -> str:
    """Return bytes as people write them, exact where the unit divides them, else with one decimal."""
    for unit in ("PiB", "TiB", "GiB", "MiB", "KiB"):
        if value >= _SIZE_BYTES[unit]:
            whole, rest = divmod(value, _SIZE_BYTES[unit])
            tenths = (10 * value + _SIZE_BYTES[unit] // 2) // _SIZE_BYTES[unit]  # a mistake may be beyond all floats
            return f"{whole}{unit}" if not rest else f"{tenths // 10}.{tenths % 10}{unit}"
    return f"{value}B"


def format_cpu(value: int) -> str:
    """Return thousandths of a core as cores, exactly."""
    whole, rest = divmod(value, 1000)
    return f"{whole}.{rest:03}".rstrip("0") if rest else str(whole)
