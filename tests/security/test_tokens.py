from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khonsu.core.secret import Secret
from khonsu.errors import MalformedToken, Unauthenticated
from khonsu.security.fingerprint import Fingerprint
from khonsu.security.tokens import BearerToken, JoinToken

AUTHORITY = Fingerprint(hashlib.sha256(b"authority").digest())


def _chance(seed: bytes = b"seed") -> Callable[[int], bytes]:
    counter = iter(range(1000))
    return lambda count: hashlib.shake_256(seed + bytes([next(counter)])).digest(count)


@given(st.binary(min_size=32, max_size=32))
def test_fingerprint_round_trip(digest: bytes) -> None:
    """Every fingerprint has one text, which gives it back."""
    fingerprint = Fingerprint(digest)
    text = str(fingerprint)
    assert text.startswith("khc1")
    assert len(text) == 60
    assert Fingerprint.parse(f" {text}\n") == fingerprint


@pytest.mark.parametrize("size", [0, 31, 33])
def test_fingerprint_of_another_length_is_refused(size: int) -> None:
    """A fingerprint is a SHA-256."""
    with pytest.raises(ValueError, match="32 bytes"):
        Fingerprint(bytes(size))


@given(st.binary(min_size=8, max_size=8))
def test_tokens_round_trip(seed: bytes) -> None:
    """A token's text gives the token back, also with white space around it."""
    bearer = BearerToken.new(_chance(seed))
    assert bearer.text().reveal().startswith(f"kht1.{bearer.id}.")
    assert BearerToken.parse(Secret(f"\n {bearer.text().reveal()} ")) == bearer
    join = JoinToken.new(AUTHORITY, _chance(seed))
    assert join.text().reveal().startswith(f"khj1.{AUTHORITY.body}.{join.id}.")
    assert JoinToken.parse(join.text().reveal()) == join
    assert join.authority == AUTHORITY


def test_two_tokens_differ() -> None:
    """Every token is another one."""
    chance = _chance()
    first, second = BearerToken.new(chance), BearerToken.new(chance)
    assert first.id != second.id
    assert first.secret != second.secret


def test_matches_only_its_own_digest() -> None:
    """A token fits the digest that was kept of it, and no other."""
    chance = _chance()
    token, other = BearerToken.new(chance), BearerToken.new(chance)
    assert token.matches(token.digest())
    assert BearerToken.parse(token.text()).matches(token.digest())
    assert not other.matches(token.digest())
    assert not token.matches("")
    assert not token.matches("é")
    assert not BearerToken(id=other.id, secret=token.secret).matches(token.digest())


def test_the_digest_tells_nothing() -> None:
    """What is kept is a SHA-256 and has no part of the token."""
    token = BearerToken.new(_chance())
    assert len(token.digest()) == 64
    assert token.secret.reveal() not in token.digest()


def test_a_token_is_not_shown() -> None:
    """A token in a log shows its id and nothing that opens a door."""
    token = JoinToken.new(AUTHORITY, _chance())
    assert token.id in repr(token)
    assert token.secret.reveal() not in repr(token) + str(token) + str(token.text())


def _texts() -> tuple[str, str, str]:
    chance = _chance()
    return (
        BearerToken.new(chance).text().reveal(),
        JoinToken.new(AUTHORITY, chance).text().reveal(),
        str(AUTHORITY),
    )


BEARER, JOIN, FINGERPRINT = _texts()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        ("hello", 'does not begin with "kht1."'),
        ("ghp_" + "a" * 36, 'does not begin with "kht1."'),
        (JOIN, "is a join token instead"),
        (FINGERPRINT, "is a fingerprint instead"),
        ("kht1", "is cut: it has 0 of 2 parts"),
        (BEARER.rpartition(".")[0], "is cut: it has 1 of 2 parts"),
        (BEARER[:-1], "is cut: 55 of 56 letters"),
        (BEARER[:-56], "is cut: 0 of 56 letters"),
        (BEARER + "a", "is too long: 57 of 56"),
        (BEARER + ".a", "has 3 parts"),
        (BEARER + "a" * 500, "is too long: "),
        (BEARER[:-1] + ("a" if BEARER[-1] != "a" else "b"), "is mistyped"),
        (BEARER[:-5] + "1" + BEARER[-4:], "a letter that cannot be in it"),
        (BEARER[:-5] + "é" + BEARER[-4:], "a letter that cannot be in it"),
        (BEARER[:-56] + BEARER[-56:].upper(), "a letter that cannot be in it"),
        ("kht1.." + BEARER[-56:], "has an id that is none"),
        ("kht1.A_b." + BEARER[-56:], "has an id that is none"),
        ("kht1.other." + BEARER[-56:], "is mistyped"),
    ],
)
def test_malformed_bearer_tokens(text: str, message: str) -> None:
    """What is wrong with a text is said, and the text itself is not."""
    with pytest.raises(MalformedToken) as caught:
        BearerToken.parse(text)
    assert message in str(caught.value)
    assert "an access token was expected" in str(caught.value)
    assert isinstance(caught.value, Unauthenticated)
    assert not text.strip() or BEARER[-30:-5] not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BEARER, "is an access token instead"),
        (JOIN[:-3], "is cut: 53 of 56 letters"),
        (JOIN.replace(".", ".a", 1), "is mistyped"),
        (".".join(JOIN.split(".")[:3]), "is cut: it has 2 of 3 parts"),
        (JOIN.replace(AUTHORITY.body, Fingerprint(bytes(32)).body), "is mistyped"),
    ],
)
def test_malformed_join_tokens(text: str, message: str) -> None:
    """A join token is checked whole, the authority that it names included."""
    with pytest.raises(MalformedToken) as caught:
        JoinToken.parse(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'does not begin with "khc1"'),
        (JOIN, 'does not begin with "khc1"'),
        (FINGERPRINT[:-1], "is cut: 55 of 56 letters"),
        (FINGERPRINT[:10] + ("a" if FINGERPRINT[10] != "a" else "b") + FINGERPRINT[11:], "is mistyped"),
    ],
)
def test_malformed_fingerprints(text: str, message: str) -> None:
    """A mistyped fingerprint is told apart from a wrong server."""
    with pytest.raises(MalformedToken) as caught:
        Fingerprint.parse(text)
    assert message in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_a_token_or_malformed(text: str) -> None:
    """No text raises anything else."""
    for parse in (BearerToken.parse, JoinToken.parse, Fingerprint.parse):
        with pytest.raises(MalformedToken):
            parse(text)


@given(st.integers(0, len(JOIN) - 1), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_any_one_wrong_letter_is_noticed(place: int, letter: str) -> None:
    """One wrong letter anywhere in a join token is noticed before anything is sent."""
    text = JOIN[:place] + letter + JOIN[place + 1 :]
    if text == JOIN:
        return
    with pytest.raises(MalformedToken):
        JoinToken.parse(text)


def test_what_a_client_needs_loads_no_cryptography() -> None:
    """Tokens, trust and private files cost an agent no more than the standard library."""
    modules = ", ".join(f"khonsu.security.{name}" for name in ("files", "fingerprint", "tokens", "trust"))
    program = f"import sys, {modules}; print('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"False\n"
