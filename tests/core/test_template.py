from __future__ import annotations

import re

import pytest

from khonsu.core.template import job_template
from khonsu.core.toml import loads_jobs
from khonsu.core.validate import check_job
from khonsu.errors import InvalidJob


def test_the_template_is_a_right_job() -> None:
    """What `khonsu job init` writes can be submitted as it stands, under the name that was asked for."""
    (job,) = loads_jobs(job_template("hello"))
    assert check_job(job) == ()
    assert (job.name, job.groups[0].tasks[0].config["args"]) == ("hello", ["-m", "http.server", "${port.http}"])


def test_what_the_template_shows_in_comments_is_right_too() -> None:
    """Every line that is commented out can be used."""
    text = re.sub(r"^# (?=[a-z_]+ = |\[)", "", job_template(), flags=re.MULTILINE)
    (job,) = loads_jobs(text)
    assert (job.groups[0].restart is not None, len(job.constraints), len(job.groups[0].tasks[0].artifacts)) == (
        True,
        2,
        1,
    )


def test_a_template_needs_a_name() -> None:
    """A name that no job may have is refused."""
    with pytest.raises(InvalidJob):
        job_template('a"\nb')
