"""What every transport must do, as one check for whoever writes one. No test framework is needed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Final

import anyio
from anyio.abc import TaskStatus

from khonsu.abc.transport import Connection, Identity, Request, Transport
from khonsu.core.secret import Secret
from khonsu.errors import Conflict, KhonsuError, NotFound, Unauthenticated, Unreachable, all_errors
from khonsu.testing.counterpart import CHUNKS, Counterpart, sample_error

MakeTransport = Callable[[Counterpart], AbstractAsyncContextManager[Transport]]

TIME_SECONDS_MAX: Final = 30.0
LARGE_BYTES: Final = 900_000
CREDENTIAL: Final = "kht1.check.0000000000"
OTHER_CREDENTIAL: Final = "kht1.other.0000000000"
TEXT: Final = 'Mondlicht ☾ "\\\u0000\u2028\U0001f319 / ? & %2F #'


class TransportCheckFailed(AssertionError):
    """A transport does not keep a promise of the interface."""


async def check_transport(make: MakeTransport, /) -> None:
    """Check that a transport keeps the promises of `khonsu.abc.Transport` and `Connection`.

    Args:
        make: Serves a `Counterpart` for as long as its block lasts, and yields a transport to it. Its `authority` is
            that of its TLS context.

    Raises:
        TransportCheckFailed: It does not; says which promise.

    """
    with _in_time():
        for check in _CHECKS:
            async with make(Counterpart()) as transport, transport.connect(_identity(CREDENTIAL)) as connection:
                await check(connection)
        await _check_credentials(make)
        await _check_close(make)


@contextmanager
def _in_time() -> Iterator[None]:
    """Fail a check that waits for ever for what a transport does not do."""
    try:
        with anyio.fail_after(TIME_SECONDS_MAX):
            yield
    except TimeoutError as error:
        notes = "; ".join(getattr(error.__context__, "__notes__", ()))
        raise TransportCheckFailed(f"what was promised did not happen in time. {notes}".rstrip()) from error


def _identity(credential: str) -> Identity:
    return Identity(credential=Secret(credential))


def _expect(promise: str, expected: object, found: object) -> None:
    if expected != found:
        raise TransportCheckFailed(f"{promise}: expected {expected!r:.200}, found {found!r:.200}")


async def _ask(connection: Connection, operation: str, **body: Any) -> Mapping[str, Any]:
    if "name" not in body and operation.startswith("job.") and operation not in ("job.list", "job.submit", "job.plan"):
        body["name"] = "web"
    if operation.startswith("job."):
        body["namespace"] = "default"
    return (await connection.call(Request(operation=operation, body=body))).body


async def _until(connection: Connection, promise: str, holds: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
    """Ask until the other side has done something; the time of the whole check is the limit."""
    told: Mapping[str, Any] = {}
    try:
        while not holds(told := await _ask(connection, "system.status")):
            await anyio.lowlevel.checkpoint()
    except BaseException as error:
        error.add_note(f"while waiting for: {promise}; the other side tells {told}")
        raise
    return told


# ---------------------------------------------------------------------------------------------------------- calls


async def _check_echo(connection: Connection) -> None:
    """Check that a request arrives as it was made."""
    request = Request(
        operation="job.submit",
        body={"namespace": TEXT, "job": {"name": TEXT, "list": [1, 2.5, True, None, {"deep": []}]}, "expect": None},
        idempotency_key="key-1",
        deadline_seconds=20.0,
    )
    heard = dict((await connection.call(request)).body)
    _expect("a body arrives whole", request.body, heard["body"])
    _expect("an idempotency key arrives", "key-1", heard["idempotency_key"])
    _expect("a deadline arrives", request.deadline_seconds, heard["deadline_seconds"])
    _expect("the identity's credential goes along", CREDENTIAL, heard["credential"])
    own = Request(operation="job.submit", body={"namespace": "default"}, credential=Secret(OTHER_CREDENTIAL))
    heard = dict((await connection.call(own)).body)
    _expect("a request's own credential goes first", OTHER_CREDENTIAL, heard["credential"])
    _expect("no idempotency key is made up", None, heard["idempotency_key"])
    _expect("a request is made once", 2, (await _ask(connection, "system.status"))["echoed"])


async def _check_reads(connection: Connection) -> None:
    """Check that the parameters of a read keep their kinds, and those that are null are absent."""
    body = {"namespace": "default", "name": TEXT.replace("\u0000", ""), "after": "1.7", "wait": 1.5}
    heard = await connection.call(Request(operation="job.get", body=body))
    _expect("a watch arrives whole", body, heard.body["body"])
    listed = await _ask(connection, "job.list", cursor=None, limit=20)
    _expect("null is absent in a read", {"namespace": "default", "limit": 20}, listed["body"])
    removed = await _ask(connection, "node.remove", name="mac")
    _expect("a removal arrives whole", {"name": "mac"}, removed["body"])


async def _check_values_are_not_shared(connection: Connection) -> None:
    """Check that what is changed on one side after a call does not change on the other."""
    body: dict[str, Any] = {"namespace": "default", "job": {"meta": {}}}
    heard = (await connection.call(Request(operation="job.submit", body=body))).body["body"]
    heard["job"]["meta"]["x"] = 1
    _expect("values are not shared", {"meta": {}}, body["job"])


async def _check_large(connection: Connection) -> None:
    """Check that a body of almost a megabyte passes."""
    text = "☾" * (LARGE_BYTES // 6)  # six ASCII letters each in JSON
    heard = await _ask(connection, "job.submit", job=text)
    _expect("a large body arrives whole", text, heard["body"]["job"])


async def _check_errors(connection: Connection) -> None:
    """Check that each error of the tree arrives with its class, message, hint and facts."""
    for code, kind in all_errors().items():
        sent, caught = sample_error(code), await _error_of(connection, "job.plan", code=code)
        if isinstance(sent, Unauthenticated):
            # A server may leave out why: whoever has no credential is told nothing.
            _expect("a refusal to talk arrives", True, isinstance(caught, Unauthenticated))
            continue
        _expect(f"{code} arrives as its class", kind, type(caught))
        _expect(f"{code} keeps message and hint", (sent.message, sent.hint), (caught.message, caught.hint))
        _expect(f"{code} keeps its facts", sent.facts(), caught.facts())
        _expect(f"{code} keeps whether to retry", sent.retryable, caught.retryable)


async def _check_failure(connection: Connection) -> None:
    """Check that what the other side did not expect arrives as a plain error, without its inside."""
    caught = await _error_of(connection, "job.revert", version=1)
    _expect("a failure of the other side is a plain error", KhonsuError, type(caught))
    _expect("a failure of the other side keeps its inside", False, "detail of the inside" in str(caught))


async def _error_of(connection: Connection, operation: str, **body: Any) -> KhonsuError:
    try:
        answer = await _ask(connection, operation, **body)
    except KhonsuError as error:
        return error
    raise TransportCheckFailed(f"{operation} was to be refused, but was answered with {answer!r:.200}")


async def _check_concurrent(connection: Connection) -> None:
    """Check that calls run side by side, also beside one that is held."""
    names: list[str] = []

    async def ask(name: str) -> None:
        heard = await _ask(connection, "job.get", name=name)
        names.append(str(heard["body"]["name"]))

    async with anyio.create_task_group() as group:
        group.start_soon(_hold, connection)
        await _until(connection, "a held call begins", lambda told: bool(told["begun"] == 1))
        async with anyio.create_task_group() as asking:
            for number in range(20):
                asking.start_soon(ask, f"job-{number}")
        group.cancel_scope.cancel()
    _expect("each call has its own answer", sorted(f"job-{number}" for number in range(20)), sorted(names))


async def _hold(connection: Connection) -> None:
    await _ask(connection, "job.result", after="1.1", wait=20.0)


async def _check_cancelled_caller(connection: Connection) -> None:
    """Check that a write goes on when its caller is cancelled; a read ends."""
    async with anyio.create_task_group() as group:
        group.start_soon(_ask, connection, "job.scale")
        await _until(connection, "a write begins", lambda told: bool(told["begun"] == 1))
        group.cancel_scope.cancel()
    _expect("the write is not cancelled", 0, (await _ask(connection, "system.status"))["finished"])
    await _ask(connection, "job.stop")
    await _until(connection, "a write goes on without its caller", lambda told: bool(told["finished"] == 1))
    async with anyio.create_task_group() as group:
        group.start_soon(_hold, connection)
        await _until(connection, "a watch begins", lambda told: bool(told["begun"] > 1))
        group.cancel_scope.cancel()
    await _until(connection, "a watch without a caller ends", lambda told: bool(told["reads_ended"] == 1))


async def _check_deadline(connection: Connection) -> None:
    """Check that a call ends at its deadline, the other side goes on."""
    body = {"namespace": "default", "name": "web"}
    try:
        await connection.call(Request(operation="job.scale", body=body, deadline_seconds=0.2))
    except Unreachable as error:
        _expect("a deadline that passed can be tried again", True, error.retryable)
    else:
        raise TransportCheckFailed("a call went on after its deadline")
    await _ask(connection, "job.stop")
    await _until(connection, "a write goes on after the deadline", lambda told: bool(told["finished"] == 1))


# -------------------------------------------------------------------------------------------------------- streams


def _logs(name: str) -> Request:
    return Request(operation="allocation.logs", body={"namespace": "default", "id": name, "follow": True})


def _upload(name: str) -> Request:
    return Request(operation="node.stream", body={"node": "n1", "id": name})


async def _check_opened(connection: Connection, request: Request) -> None:
    """Check that the request of a stream arrived as it was made."""
    heard = (await _ask(connection, "system.status"))["stream"]
    _expect("the parameters of a stream arrive whole", dict(request.body), heard["body"])
    _expect("the identity's credential goes along with a stream", CREDENTIAL, heard["credential"])


async def _check_stream_down(connection: Connection) -> None:
    """Check that a stream to the caller arrives whole and ends, also when single waits are cancelled."""
    received = bytearray()
    async with connection.stream(_logs("count")) as stream:
        await _check_opened(connection, _logs("count"))
        with anyio.CancelScope() as scope:
            scope.cancel()
            received += await stream.receive()
        try:
            while True:
                received += await stream.receive()
        except anyio.EndOfStream:
            pass
    _expect("a stream arrives whole", "".join(f"{n}\n" for n in range(1, CHUNKS + 1)), received.decode())


async def _check_stream_down_left(connection: Connection) -> None:
    """Check that leaving a stream ends it on the other side, whether it talks or is silent."""
    for number, name in enumerate(("endless", "silent"), 1):
        async with connection.stream(_logs(name)) as stream:
            _expect("a stream begins", True, (await stream.receive()).startswith(b"1\n"))
        await _until(connection, f"a stream that is left ends ({name})", _streams_ended(number))


def _streams_ended(number: int) -> Callable[[Mapping[str, Any]], bool]:
    return lambda told: bool(told["streams_ended"] == number)


async def _check_stream_refused(connection: Connection) -> None:
    """Check that a refusal is raised on entry, in both directions."""
    for request in (_logs("refused"), _upload("refused")):
        try:
            async with connection.stream(request):
                raise TransportCheckFailed(f"{request.operation} was to be refused")
        except NotFound as error:
            _expect("a refused stream has its facts", "refuse", error.nearest)


async def _check_stream_broken(connection: Connection) -> None:
    """Check that a stream that breaks on the other side does not look like one that ended, and says why."""
    async with connection.stream(_logs("broken")) as stream:
        _expect("what came before a stream broke arrives", b"1", (await stream.receive()).strip())
        try:
            while True:
                await stream.receive()
        except KhonsuError as error:
            _expect("a broken stream says why", (Conflict, "the source is gone"), (type(error), error.message))
            return
        except anyio.EndOfStream:
            raise TransportCheckFailed("a broken stream looks like one that ended") from None


async def _check_stream_up(connection: Connection) -> None:
    """Check that a stream from the caller arrives whole, and is complete when the block was left."""
    lines = [f"line {number} ☾\n" for number in range(50)] + ["x" * 200_000]
    async with connection.stream(_upload("sink")) as stream:
        await _check_opened(connection, _upload("sink"))
        for line in lines:
            await stream.send(line.encode())
        await stream.send(b"")
    told = await _ask(connection, "system.status")
    _expect("a sent stream arrives whole", {"received": "".join(lines), "complete": True}, told["uploads"]["sink"])


async def _check_stream_up_left(connection: Connection) -> None:
    """Check that a stream that is left with an error is not complete on the other side."""
    try:
        async with connection.stream(_upload("half")) as stream:
            await stream.send(b"half of")
            await _until(connection, "bytes arrive at once", lambda told: "half of" in str(told["uploads"]))
            raise LookupError
    except LookupError:
        pass
    told = await _until(connection, "a stream that is left ends", _streams_ended(1))
    _expect("a half stream is not complete", {"received": "half of", "complete": False}, told["uploads"]["half"])


async def _check_stream_up_ended(connection: Connection) -> None:
    """Check that when the other side ends a stream, the block ends with what it said, also while it sends nothing."""
    try:
        async with connection.stream(_upload("leave")) as stream:
            await stream.send(b"first")
            await anyio.sleep_forever()
    except Conflict as error:
        _expect("the end of a stream keeps its hint", "stop sending", error.hint)
    else:
        raise TransportCheckFailed("a stream went on after the other side had ended it")


_CHECKS: Final[tuple[Callable[[Connection], Awaitable[None]], ...]] = (
    _check_echo,
    _check_reads,
    _check_values_are_not_shared,
    _check_large,
    _check_errors,
    _check_failure,
    _check_concurrent,
    _check_cancelled_caller,
    _check_deadline,
    _check_stream_down,
    _check_stream_down_left,
    _check_stream_refused,
    _check_stream_broken,
    _check_stream_up,
    _check_stream_up_left,
    _check_stream_up_ended,
)

# ------------------------------------------------------------------------------------------------------ the ends


async def _check_credentials(make: MakeTransport) -> None:
    """Check that a transport brings identities that it was given, and one connection does not change another."""
    async with (
        make(Counterpart()) as transport,
        transport.connect(_identity(CREDENTIAL)) as one,
        transport.connect(_identity(OTHER_CREDENTIAL)) as other,
    ):
        for connection, credential in ((one, CREDENTIAL), (other, OTHER_CREDENTIAL), (one, CREDENTIAL)):
            heard = await _ask(connection, "job.get")
            _expect("each connection has its identity", credential, heard["credential"])


async def _check_close(make: MakeTransport) -> None:
    """Check that when the other side has gone, calls say so; what is held ends soon."""
    gone = anyio.Event()
    leave = anyio.Event()

    async def serve(*, task_status: TaskStatus[Transport]) -> None:
        async with make(Counterpart()) as transport:
            task_status.started(transport)
            await leave.wait()
        gone.set()

    async def hold(connection: Connection, errors: list[KhonsuError]) -> None:
        try:
            await _hold(connection)
        except KhonsuError as error:
            errors.append(error)

    held: list[KhonsuError] = []
    async with anyio.create_task_group() as group:
        transport = await group.start(serve)
        async with transport.connect(_identity(CREDENTIAL)) as connection:
            async with anyio.create_task_group() as holding:
                holding.start_soon(hold, connection, held)
                await _until(connection, "a watch begins", lambda told: bool(told["begun"] == 1))
                leave.set()
                await gone.wait()
            _expect("a watch ends with the other side", [True], [error.retryable for error in held])
            caught = await _error_of(connection, "system.status")
            _expect("the other side has gone", (True, True), (isinstance(caught, Unreachable), caught.retryable))
