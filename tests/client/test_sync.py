"""The synchronous client and the cluster in one object, with real processes."""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import khonsu
from khonsu.client.portal import Portal


@pytest.fixture(scope="module")
def cluster() -> Iterator[khonsu.LocalCluster]:
    """Return a cluster of two nodes with labels."""
    with khonsu.LocalCluster(nodes=2, labels=[{"rack": "a"}, {"rack": "b"}]) as made:
        yield made


def public(kind: type) -> dict[str, inspect.Signature]:
    """Return the signatures of the public methods of a class."""
    found = inspect.getmembers(kind, inspect.isfunction)
    return {name: inspect.signature(method) for name, method in found if not name.startswith("_")}


def test_both_clients_have_the_same_names_and_types() -> None:
    """Each method of `Client` is one of `SyncClient` with the same parameters; a stream is a synchronous one."""
    ours, theirs = public(khonsu.SyncClient), public(khonsu.Client)
    assert set(ours) - set(theirs) == {"close"}
    for name, signature in theirs.items():
        assert ours[name].parameters == signature.parameters, name
        expected = re.sub(r"^Stream\[", "SyncStream[", str(signature.return_annotation))
        assert str(ours[name].return_annotation) == expected, name


def test_both_clients_say_the_same_of_each_method() -> None:
    """The first line of each docstring is the same."""
    for name in public(khonsu.Client):
        ours, theirs = (inspect.getdoc(getattr(kind, name)) for kind in (khonsu.SyncClient, khonsu.Client))
        assert ours is not None
        assert theirs is not None
        assert theirs.splitlines()[0] == ours.splitlines()[0]


def test_a_job_runs_and_its_output_can_be_read(cluster: khonsu.LocalCluster) -> None:
    """`run` waits for the end, and `logs` is a context manager and an iterator."""
    job = khonsu.Job.single("hello", khonsu.BinaryConfig("/bin/echo", args=["hello"]), type="batch")
    result = cluster.client.run(job, timeout="30s").raise_for_status()
    assert (result.status, result.exit_code) == ("complete", 0)
    with cluster.client.logs("hello") as lines:
        assert [line.text for line in lines] == ["hello"]
    with cluster.client.events(job="hello", follow=False) as events:
        assert "allocation-complete" in [event.type for event in events]


def test_output_is_followed_to_the_copies_that_replace_others(cluster: khonsu.LocalCluster) -> None:
    """Whoever follows a job hears of every copy of it, and is let go when the job is over."""
    say = khonsu.BinaryConfig("/bin/sh", args=["-c", "echo $KHONSU_ALLOC_ID; exec sleep 600"])
    cluster.client.run(khonsu.Job.single("say", say, update=khonsu.Update(healthy_for=0)), timeout="30s")
    with cluster.client.logs("say", follow=True, tail=1) as lines:
        first = next(lines).allocation
        cluster.client.stop_allocation(first)
        second = next(lines)
        assert (second.text, second.allocation) != (first, first)
        cluster.client.stop("say")
        assert not list(lines)


def test_labels_are_those_of_each_node(cluster: khonsu.LocalCluster) -> None:
    """Nodes are named by number and have the labels that were given for them."""
    nodes = cluster.client.wait_for_nodes(2, timeout="10s")
    assert {node.name: node.labels["rack"] for node in nodes} == {"node-0": "a", "node-1": "b"}


def test_errors_are_raised_where_the_call_was_made(cluster: khonsu.LocalCluster) -> None:
    """What the control plane refuses is raised to the caller, as it is."""
    with pytest.raises(khonsu.NotFound) as caught:
        cluster.client.job("nothing")
    assert (caught.value.kind, caught.value.name) == ("job", "nothing")
    with pytest.raises(khonsu.NotFound), cluster.client.logs("nothing"):
        pass


def test_calls_may_come_from_several_threads(cluster: khonsu.LocalCluster) -> None:
    """The client can be shared."""
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(len(cluster.client.nodes()))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == [2] * 5


def test_a_callback_cannot_wait_for_its_own_thread(cluster: khonsu.LocalCluster) -> None:
    """A client that is used in a callback of its own says so, and does not hang."""

    def ask(_: khonsu.JobResult) -> None:
        cluster.client.jobs()

    cluster.client.submit(khonsu.Job.single("call", khonsu.BinaryConfig("/bin/true"), type="batch"))
    with pytest.raises(khonsu.KhonsuError, match="wait for itself"):
        cluster.client.wait("call", timeout="20s", progress=ask)


def test_a_stream_is_entered_once(cluster: khonsu.LocalCluster) -> None:
    """A stream that was read cannot be read again, and says what to do."""
    stream = cluster.client.events(follow=False)
    with stream:
        pass
    with pytest.raises(khonsu.KhonsuError, match="once"), stream:
        pass


def test_a_cluster_with_a_directory_goes_on_where_it_ended(data_dir: Path) -> None:
    """Jobs, nodes and history are there again, and a service runs again."""
    web = khonsu.Job.single(
        "web",
        khonsu.BinaryConfig("/bin/sleep", args=["600"]),
        update=khonsu.Update(healthy_for="10ms"),
        reschedule=khonsu.Reschedule(delay="10ms"),
    )
    with khonsu.LocalCluster(data_dir=data_dir) as cluster:
        cluster.client.run(web, timeout="20s").raise_for_status()
        node = cluster.client.node("node-0").id
    with khonsu.LocalCluster(data_dir=data_dir) as cluster:
        assert cluster.client.node("node-0").id == node
        assert cluster.client.wait("web", timeout="20s").status == "healthy"
        assert cluster.client.submit(web).outcome == "unchanged"


def test_a_closed_cluster_says_so() -> None:
    """Closing twice does nothing; a call after it says what is wrong."""
    cluster = khonsu.LocalCluster(nodes=0)
    cluster.close()
    cluster.close()
    with pytest.raises(khonsu.KhonsuError, match="closed"):
        cluster.client.jobs()


def test_an_impossible_cluster_is_refused() -> None:
    """Wrong numbers are told before anything starts, and a failed start leaves no thread behind."""
    before = loops()
    with pytest.raises(khonsu.InvalidRequest, match="nodes"):
        khonsu.LocalCluster(nodes=-1)
    with pytest.raises(khonsu.InvalidRequest, match="labels"):
        khonsu.LocalCluster(nodes=2, labels=[{}])
    with pytest.raises(khonsu.InvalidRequest, match="label"):
        khonsu.LocalCluster(nodes=1, labels={"no good": "x"})
    assert loops() == before


def loops() -> int:
    """Return how many clusters have a thread."""
    return sum(thread.name == "khonsu-cluster" for thread in threading.enumerate())


def test_an_interrupted_call_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever interrupts a call from the keyboard does not leave it running in the background."""
    import anyio

    portal = Portal("khonsu-test")
    cancelled = threading.Event()

    async def forever() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    class Interrupted:
        """The future of a call during which Ctrl-C is pressed."""

        def __init__(self, future: object) -> None:
            self.cancel = future.cancel  # type: ignore[attr-defined]

        def result(self) -> None:
            """Be interrupted."""
            raise KeyboardInterrupt

    running = portal._running()
    start = running.start_task_soon
    monkeypatch.setattr(running, "start_task_soon", lambda function: Interrupted(start(function)))
    with pytest.raises(KeyboardInterrupt):
        portal.call(forever)
    monkeypatch.undo()
    portal.close()
    assert cancelled.wait(5)
