from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback

import pytest
from attrs import asdict, frozen
from cattrs import Converter
from cattrs.errors import StructureHandlerNotFoundError

from khonsu.core.secret import Secret

CANARY = "canary-3f9c1"


@frozen
class _Holder:
    name: str
    password: Secret


def test_reveals_its_text_only_when_asked() -> None:
    """A secret gives its text to who asks for it."""
    assert Secret(CANARY).reveal() == CANARY


@pytest.mark.parametrize(
    "show",
    [
        str,
        repr,
        "{}".format,
        "{:>40}".format,
        "{!r}".format,
        lambda secret: "%s" % secret,  # noqa: UP031 - the old way is what logging uses
        lambda secret: f"{[secret]} { ({'a': secret}) }",
        lambda secret: repr(_Holder("db", secret)),
        lambda secret: repr(asdict(_Holder("db", secret))),
        lambda secret: json.dumps({"a": secret}, default=str),
        lambda secret: logging.LogRecord("a", 10, "a", 1, "%s", (secret,), None).getMessage(),
        lambda secret: repr(vars(type(secret))),
    ],
)
def test_shows_stars(show: object) -> None:
    """No way of turning a secret into text shows it."""
    assert callable(show)
    assert CANARY not in show(Secret(CANARY))


def test_is_not_in_the_traceback_of_its_misuse() -> None:
    """An error about a secret does not show it."""
    with pytest.raises(TypeError) as caught:
        Secret(Secret(CANARY))  # type: ignore[arg-type]
    with pytest.raises(TypeError) as caught_bytes:
        Secret(CANARY.encode())  # type: ignore[arg-type]
    shown = "".join(traceback.format_exception_only(caught.value) + traceback.format_exception_only(caught_bytes.value))
    assert CANARY not in shown


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_is_not_pickled(protocol: int) -> None:
    """A secret does not leave the process by pickle, alone or in something else."""
    with pytest.raises(TypeError, match="reveal"):
        pickle.dumps(_Holder("db", Secret(CANARY)), protocol)


def test_is_not_json() -> None:
    """JSON refuses a secret."""
    with pytest.raises(TypeError):
        json.dumps(Secret(CANARY))


def test_is_not_serialised_by_a_converter() -> None:
    """A cattrs converter neither writes a secret as text nor makes one."""
    converter = Converter()
    assert CANARY not in repr(converter.unstructure(_Holder("db", Secret(CANARY))))
    with pytest.raises(StructureHandlerNotFoundError):
        converter.structure(CANARY, Secret)


def test_equal_texts_are_equal_secrets() -> None:
    """Secrets compare by their text, with secrets only."""
    assert Secret("ä") == Secret("ä")
    assert Secret("a") != Secret("b")
    assert Secret("a") != Secret("aa")
    assert Secret("a") != "a"


def test_is_not_hashed() -> None:
    """A secret is no key of a dictionary."""
    with pytest.raises(TypeError, match="hashed"):
        {Secret("a")}


def test_copies_are_the_secret_itself() -> None:
    """Copying a value that holds a secret keeps the secret."""
    holder = _Holder("db", Secret(CANARY))
    assert copy.deepcopy(holder).password is holder.password
    assert copy.copy(holder).password is holder.password


def test_of_takes_text_or_a_secret() -> None:
    """What a user passes as text or as a secret becomes a secret."""
    secret = Secret(CANARY)
    assert Secret.of(secret) is secret
    assert Secret.of(CANARY) == secret
