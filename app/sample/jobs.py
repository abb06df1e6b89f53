"""The jobs of the sample; app/jobs.py has the others."""

from app.schemas.search_job import RebuildWords
from app.services import covers
from app.services.rankings import RankingService
from app.services.search_index import SearchIndexService
from chassis.files.orphans import UsedKeys
from chassis.job_worker.registry import Handler, JobContext, PeriodicJob
from chassis.jobs.job import Job
from chassis.schemas.page import MAX_LIMIT

REBUILD_FOR = 40  # s; in one run, which ends at the latest when the next is due

FILE_OWNERS: dict[str, UsedKeys] = {covers.FOLDER: covers.used_keys}


async def rebuild_words(context: JobContext, job: RebuildWords, key: str) -> None:
    await SearchIndexService(context.resources).rebuild_of_author(job)


async def refresh_rankings(context: JobContext) -> None:
    """So that no visitor has to wait for them."""
    await RankingService(context.resources).books(MAX_LIMIT)


async def rebuild_outdated_words(context: JobContext) -> None:
    """After a deploy that splits texts in another way; the next one goes on."""
    await SearchIndexService(context.resources).rebuild_outdated(REBUILD_FOR)


HANDLERS: dict[type[Job], Handler] = {RebuildWords: rebuild_words}
PERIODIC_JOBS = {
    "refresh_rankings": PeriodicJob(60, refresh_rankings),
    "rebuild_outdated_words": PeriodicJob(60, rebuild_outdated_words),
}
