"""The registry of jobs, by name and in the order of the report."""

from __future__ import annotations

from benchmarks.versus.jobs import calls, data, plain, published
from benchmarks.versus.jobs.job import LIMITS, LOOP, Job

__all__ = ["JOBS", "LIMITS", "LOOP", "Job"]

JOBS: dict[str, Job] = {
    job.name: job for room in (plain, data, calls, published) for job in room.JOBS
}
