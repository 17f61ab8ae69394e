"""The command line: one composition of the parts, which formats what the client returns."""

from __future__ import annotations

from khonsu.cli.lazy import Noun, Root, Verb

__all__ = ["main"]

_JOB = (
    Verb("run", "khonsu.cli.run:run", "Submit jobs and wait for them."),
    Verb("plan", "khonsu.cli.files:plan", "Show what submitting a job would change."),
    Verb("validate", "khonsu.cli.files:validate", "Check job files, without a server."),
    Verb("list", "khonsu.cli.job:list_", "List jobs."),
    Verb("status", "khonsu.cli.job:status", "Show a job: what runs, what happened, and why."),
    Verb("logs", "khonsu.cli.logs:job_logs", "Show the output of a job's copies."),
    Verb("stop", "khonsu.cli.job:stop", "Stop a job."),
    Verb("history", "khonsu.cli.job:history", "List the versions of a job."),
    Verb("revert", "khonsu.cli.job:revert", "Go back to an earlier version of a job."),
    Verb("scale", "khonsu.cli.job:scale", "Change how many copies run."),
    Verb("wait", "khonsu.cli.run:wait", "Wait for a job."),
    Verb("explain", "khonsu.cli.job:explain", "Say where copies are, and why others are nowhere."),
    Verb("init", "khonsu.cli.files:init", "Write a job file to start from."),
    Verb("schema", "khonsu.cli.files:schema", "Print the JSON Schema of job files, for editors."),
)
_NODE = (
    Verb("list", "khonsu.cli.node:list_", "List nodes."),
    Verb("status", "khonsu.cli.node:status", "Show a node and what runs on it."),
    Verb("drain", "khonsu.cli.node:drain", "Move all work off a node."),
    Verb("undrain", "khonsu.cli.node:undrain", "Give a node work again."),
    Verb("invite", "khonsu.cli.node:invite", "Print the line that makes another machine a node."),
    Verb("remove", "khonsu.cli.node:remove", "Forget a node that is down."),
)
_ALLOC = (
    Verb("list", "khonsu.cli.alloc:list_", "List allocations."),
    Verb("status", "khonsu.cli.alloc:status", "Show an allocation and its tasks."),
    Verb("logs", "khonsu.cli.logs:alloc_logs", "Show the output of an allocation."),
    Verb("stop", "khonsu.cli.alloc:stop", "Stop one copy; its slot is placed again."),
)
_CONTEXT = (
    Verb("list", "khonsu.cli.login:context_list", "List the control planes that you are logged in to."),
    Verb("use", "khonsu.cli.login:context_use", "Choose the control plane that is meant from now on."),
)
_EVENT = (Verb("watch", "khonsu.cli.event:watch", "Show what happens, as it happens."),)

main = Root(
    (
        Verb("dev", "khonsu.cli.dev:dev", "Run a control plane and an agent for yourself, and keep their data."),
        Verb("server", "khonsu.cli.server:server", "Run a control plane."),
        Verb("agent", "khonsu.cli.agent:agent", "Run an agent: make this machine a node."),
        Verb("login", "khonsu.cli.login:login", "Log in to a control plane."),
        Verb("doctor", "khonsu.cli.doctor:doctor", "Check what usually goes wrong, and say what to do."),
    ),
    (
        Noun("job", "Jobs: what is to run.", _JOB),
        Noun("node", "Nodes: the machines.", _NODE),
        Noun("alloc", "Allocations: the copies of groups on nodes.", _ALLOC),
        Noun("event", "Events: what happened.", _EVENT),
        Noun("context", "Contexts: the control planes that you are logged in to.", _CONTEXT),
    ),
    (
        Verb("run", "khonsu.cli.run:run", "Short for `job run`."),
        Verb("ps", "khonsu.cli.job:list_", "Short for `job list`."),
        Verb("logs", "khonsu.cli.logs:job_logs", "Short for `job logs`."),
        Verb("stop", "khonsu.cli.job:stop", "Short for `job stop`."),
    ),
)
