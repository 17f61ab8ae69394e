"""The job file that `khonsu job init` writes: it runs as it stands, and shows what else there is in comments."""

from __future__ import annotations

from string import Template
from typing import Final

from khonsu.core.names import check_name
from khonsu.errors import InvalidJob

TEMPLATE: Final = Template("""\
# A job. `khonsu job run FILE` submits it; docs/jobs.md has every field.

name = "$name"
# type = "service"        # or "batch" (runs to its end), "system" (one per node), "sysbatch" (both)
count = 1                 # copies
# priority = 50           # 1..100, higher goes first

# Where copies may run: "ATTRIBUTE OPERATOR VALUE". `khonsu node status NAME` shows the attributes of a node.
# constraints = ["os = linux", "label.disk = ssd"]

# A port is "dynamic" (one is chosen), a number, or { host = 15432, task = 5432 }.
ports = { http = "dynamic" }

# cpu in cores, memory as 64MiB or 1GiB.
resources = { cpu = 0.1, memory = "64MiB" }

# How often a task is started again on its node, and then on others.
# restart = { attempts = 3, within = "10m", delay = "2s" }
# reschedule = { delay = "5s", delay_max = "10m" }

# How a new version replaces the old one.
# update = { max_parallel = 1, healthy_for = "5s", auto_revert = true }

driver = "binary"

# What runs. $${port.http} stands for the port; it is also in the variable KHONSU_PORT_HTTP.
[config]
command = "python3"
args = ["-m", "http.server", "$${port.http}"]

# [env]
# GREETING = "hello from $${node.name}"

# Files that are fetched before the task starts; by https, or with a digest by http too.
# [[artifacts]]
# source = "https://example.org/tool-1.0.tar.gz"
# sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
""")


def job_template(name: str = "web") -> str:
    """Return the text of a new job file.

    Raises:
        InvalidJob: The name is none that a job may have.

    """
    problems = check_name(name, "name")
    if problems:
        raise InvalidJob(problems)
    return TEMPLATE.substitute(name=name)
