"""The gate: who a caller is, and whether that role may do this. The only place where it is decided."""

from __future__ import annotations

from attrs import frozen

from khonsu.abc.transport import Request
from khonsu.control.batch import Batch
from khonsu.control.calls import Call, Caller
from khonsu.control.state import State
from khonsu.core.ids import NodeId
from khonsu.core.operations import OPERATIONS, Operation, Role
from khonsu.core.records import Credential, Time
from khonsu.core.secret import Secret
from khonsu.errors import InvalidRequest, NotAllowed, Unauthenticated
from khonsu.security.tokens import BearerToken, JoinToken

WHO_ARE_YOU = "this needs a valid credential"


KNOWN_MAX = 20_000
"""So many credentials are known again without a look at their checksum and hash."""


@frozen
class _Local:
    """A credential of this process only: never stored, gone with it."""

    token: BearerToken
    role: Role


@frozen
class _Known:
    """A credential that was found to be right: as long as its record is the same, its text is too."""

    text: Secret
    record: Credential | _Local
    caller: Caller


class Gate:
    """Checks the credential of every request."""

    def __init__(self, state: State) -> None:
        """Know the stored credentials, and make those of this process."""
        self._state = state
        self._local: dict[str, _Local] = {}
        self._known: dict[str, _Known] = {}

    def local(self, role: Role) -> Secret:
        """Return the credential of a role that lives as long as this process: for its own clients and agents."""
        # One for each role: a program may make a client for every request that it serves.
        for known in self._local.values():
            if known.role is role:
                return known.token.text()
        token = BearerToken.new(self._state.env.token_bytes)
        self._local[token.id] = _Local(token, role)
        return token.text()

    def issue(self, batch: Batch, role: Role, node: NodeId | None = None) -> Secret:
        """Make a credential that is stored with a batch, and return its text, which is shown once."""
        token = BearerToken.new(self._state.env.token_bytes)
        batch.put(Credential(id=token.id, role=role.value, node=node, secret_hash=token.digest(), created_at=batch.now))
        return token.text()

    def admit(self, request: Request) -> tuple[Operation, Call]:
        """Return the operation and the call of a request that may be made.

        Raises:
            Unauthenticated: The credential is missing, malformed, unknown, revoked or expired.
            NotAllowed: The caller's role may not do this.
            InvalidRequest: There is no such operation.

        """
        caller = self._identify(request.credential)
        operation = OPERATIONS.get(request.operation)
        if operation is None:
            raise InvalidRequest(f"there is no operation {request.operation!r}")
        _check_role(operation, caller)
        return operation, Call(request=request, caller=caller)

    def authenticate(self, operation: str, credential: Secret | None) -> None:
        """Check who asks, before anything else of a request was read.

        Raises:
            Unauthenticated: The credential is missing, malformed, unknown, revoked or expired.
            NotAllowed: The caller's role may not do this.

        """
        caller = self._identify(credential)
        if operation in OPERATIONS:
            _check_role(OPERATIONS[operation], caller)

    def _identify(self, credential: Secret | None) -> Caller:
        if credential is None:
            raise Unauthenticated(WHO_ARE_YOU)
        if credential.reveal().lstrip().startswith("khj1"):
            return self._identify_invited(JoinToken.parse(credential))
        known = self._known.get(_public_part(credential))
        if known is None or known.record is not self._record(known.caller.credential) or known.text != credential:
            known = self._check(credential)
        if isinstance(known.record, Credential) and _over(known.record.expires_at, self._state.now()):
            raise Unauthenticated(WHO_ARE_YOU)
        return known.caller

    def _check(self, credential: Secret) -> _Known:
        """Check a credential for the first time, or one that was not right before."""
        token = BearerToken.parse(credential)
        match self._record(token.id):
            case _Local() as record if record.token.secret == token.secret:
                caller = Caller(role=record.role, credential=token.id)
            case Credential() as record if token.matches(record.secret_hash):
                caller = Caller(role=Role(record.role), credential=record.id, node=record.node)
            case _:
                raise Unauthenticated(WHO_ARE_YOU)
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        known = self._known[token.id] = _Known(credential, record, caller)
        return known

    def _record(self, key: str) -> Credential | _Local | None:
        return self._local.get(key) or self._state.tables.credentials.get(key)

    def _identify_invited(self, token: JoinToken) -> Caller:
        record = self._state.tables.join_tokens.get(token.id)
        if record is None or not token.matches(record.secret_hash) or _over(record.expires_at, self._state.now()):
            raise Unauthenticated(
                "the join token was used, has run out, or is of another control plane",
                hint="make a new one with `khonsu node invite`",
            )
        return Caller(role=Role.JOIN, credential=token.id, join_token=token.id)


def _public_part(credential: Secret) -> str:
    """Return the id of a bearer token, or anything where it is none."""
    return credential.reveal().partition(".")[2].partition(".")[0]


def _check_role(operation: Operation, caller: Caller) -> None:
    if operation.role is not caller.role and operation.role is not Role.ANYBODY:
        raise NotAllowed(
            f"{operation.name} is not for the role {caller.role}",
            hint=f"it takes a credential of the role {operation.role}",
        )


def _over(expires_at: Time | None, now: float) -> bool:
    return expires_at is not None and expires_at <= now
