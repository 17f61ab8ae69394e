"""Calling drivers, which are plug-ins: whatever one raises must not end the agent."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Any, TypeVar

from khonsu.abc.driver import AnyDriver
from khonsu.core.codec import from_json
from khonsu.core.job import JSON
from khonsu.errors import DriverError, KhonsuError

T = TypeVar("T")
_log = logging.getLogger(__name__)


async def call(driver: AnyDriver, verb: str, awaitable: Awaitable[T]) -> T:
    """Return what a verb of a driver returns.

    Raises:
        DriverError: It was refused, or the driver failed in a way that it should not.

    """
    try:
        return await awaitable
    except DriverError:
        raise
    except KhonsuError as error:
        failure = DriverError(error.message, hint=error.hint)
        failure.retryable = error.retryable
        raise failure from error
    except Exception as error:
        _log.exception("driver %s failed to %s", driver.name, verb)
        raise DriverError(f"the driver {driver.name} failed to {verb}: {type(error).__name__}: {error}") from error


def config_of(driver: AnyDriver, given: JSON) -> Any:
    """Return a driver's config, made of what a job says.

    Raises:
        DriverError: It is none, or the driver's class failed over it.

    """
    try:
        return from_json(driver.config_type, given)
    except Exception as error:
        raise DriverError(f"the config is none of the driver {driver.name}: {error}") from error
