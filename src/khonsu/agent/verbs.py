"""Calling drivers, which are plug-ins: whatever one raises or returns must not end the agent."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from khonsu.abc.driver import AnyDriver
from khonsu.core.codec import from_json, plain_json
from khonsu.core.job import JSON
from khonsu.errors import DriverError, InvalidRequest, KhonsuError

T = TypeVar("T")
_log = logging.getLogger(__name__)


async def call(driver: AnyDriver, verb: str, awaitable: Awaitable[T], *, kind: type = object) -> T:
    """Return what a verb of a driver returns, if it is of a kind; of mappings only those that are JSON.

    Raises:
        DriverError: It was refused, or the driver failed in a way that it should not.

    """
    with _guarded(driver, verb):
        value = await awaitable
        if not isinstance(value, kind):
            raise TypeError(f"it returned {type(value).__name__}, not {kind.__name__}")
        if kind is Mapping:
            plain_json(value)
        return value


def config_of(driver: AnyDriver, given: JSON) -> Any:
    """Return a driver's config, made of what a job says.

    Raises:
        DriverError: It is none, or the driver's class failed over it.

    """
    with _guarded(driver, "read its config"):
        try:
            return from_json(driver.config_type, given)
        except (InvalidRequest, ValueError) as error:
            raise DriverError(f"the config is none of the driver {driver.name}: {error}") from error


@contextmanager
def _guarded(driver: AnyDriver, verb: str) -> Iterator[None]:
    """Have whatever is raised be a `DriverError`."""
    try:
        yield
    except DriverError:
        raise
    except KhonsuError as error:
        failure = DriverError(error.message, hint=error.hint)
        failure.retryable = error.retryable
        raise failure from error
    except Exception as error:
        _log.exception("driver %s failed to %s", driver.name, verb)
        raise DriverError(f"the driver {driver.name} failed to {verb}: {type(error).__name__}: {error}") from error
