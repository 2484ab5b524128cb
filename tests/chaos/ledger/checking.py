"""The check after a run: wait until everything is done, gather the evidence, apply the rules."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from aiohttp import ClientSession, ClientTimeout
from aiokafka.errors import KafkaError
from sqlalchemy.exc import DBAPIError

from services.kit.database import create_engine
from tests.chaos.ledger.charges import check_costs
from tests.chaos.ledger.evidence import Evidence, Report
from tests.chaos.ledger.leftovers import check_artifacts, check_leftovers, check_webhooks
from tests.chaos.ledger.outcomes import check_clients, check_outcomes
from tests.chaos.ledger.reads import Api, gather_calls, gather_executions
from tests.chaos.ledger.tables import Tables
from tests.chaos.ledger.topics import WholeTopics, gather_topics
from tests.chaos.ledger.work import check_calls, check_tools
from tests.chaos.load import Load
from tests.chaos.load.hooks import Hooks

DRAIN_S = 90.0
_POLL_S = 0.5
_QUIET_POLLS = 2
_READ_S = 30.0
_UNKEPT_READ = 12


async def check(
    *,
    load: Load,
    kafka_bootstrap: str,
    database_url: str,
    intakes: Sequence[str],
    admin_key: str,
    upstream_control_url: str,
    blobs: Mapping[str, str],
    drain_seconds: float = DRAIN_S,
) -> Report:
    """Hold the books of a stopped load together and say what does not fit.

    Waits up to `drain_seconds` until nothing is open; every server must run. `blobs` says where
    the object store is; everything in it is looked at through the API.
    """
    evidence = Evidence(asked=load.log.asked)
    deadline = asyncio.get_running_loop().time() + drain_seconds
    engine = create_engine(database_url, pool_size=2, name="chaos")
    headers = {"authorization": f"Bearer {admin_key}"}
    try:
        async with (
            WholeTopics.opened(kafka_bootstrap) as topics,
            ClientSession(headers=headers, timeout=ClientTimeout(total=_READ_S)) as http,
        ):
            tables = Tables(engine)
            evidence.not_drained = await drained(
                tables, topics, kafka_bootstrap, seconds=drain_seconds
            )
            await gather_topics(topics, evidence)
            artifacts = await tables.gather(evidence)
            api = Api(http, intakes)
            await api.responses(readable(evidence), evidence)
            await api.artifacts(artifacts, evidence)
            await api.costs(evidence)
            await gather_calls(http, upstream_control_url, evidence)
            await _heard(load.hooks, evidence, deadline)
    finally:
        await engine.dispose()
        await load.hooks.stop()
    if load.executions is not None:
        gather_executions(load.executions, load.log.run, evidence)
    report = judged(evidence)
    report.count("clients that were too many", load.log.skipped)
    report.violations += [f"load: a client broke: {error!r}" for error in load.log.broken]
    return report


async def _heard(hooks: Hooks, evidence: Evidence, deadline: float) -> None:
    """Wait until every webhook has come, at the longest until then."""
    while True:
        evidence.webhooks = hooks.told()
        report = Report()
        check_webhooks(evidence, report)
        if not report.violations or asyncio.get_running_loop().time() >= deadline:
            return
        await asyncio.sleep(_POLL_S)


def readable(evidence: Evidence) -> list[str]:
    """Return the responses to read: all that are kept, and a few of the others.

    An intake looks for a young id that it does not know for seconds before it says so.
    """
    unkept = [command.response_id for command in evidence.commands if not command.store]
    left_out = set(unkept[_UNKEPT_READ:])
    return [response_id for response_id in evidence.known() if response_id not in left_out]


def judged(evidence: Evidence) -> Report:
    """Apply every rule."""
    report = Report()
    for rule in (
        check_clients,
        check_outcomes,
        check_calls,
        check_tools,
        check_costs,
        check_artifacts,
        check_leftovers,
        check_webhooks,
    ):
        rule(evidence, report)
    return report


async def drained(
    tables: Tables, topics: WholeTopics, bootstrap: str, *, seconds: float
) -> list[str]:
    """Wait until all topics are read and nothing is open; return in words what still is."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    quiet = 0
    while True:
        try:
            open_work = await tables.open_work()
            lags = await topics.lags(bootstrap)
            open_work += [f"{group} is {lag} behind" for group, lag in lags.items() if lag]
        except (DBAPIError, KafkaError, OSError) as error:
            open_work = [repr(error)]
        quiet = 0 if open_work else quiet + 1
        if quiet >= _QUIET_POLLS:
            return []
        if loop.time() >= deadline:
            return [f"after {seconds:g} s: {what}" for what in open_work]
        await asyncio.sleep(_POLL_S)
