"""Commands on their way to a run: leases, the queue in the background, the topic they come from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from contracts.responses import RunResponseV1
from contracts.topics import RESPONSES_COMMANDS
from services.kit.batches import Subscription
from services.kit.consumer import Consumers
from services.worker.checkpoints.saver import Checkpoints
from services.worker.checkpoints.store import CheckpointStore
from services.worker.control import Control
from services.worker.leases.keeper import LeaseKeeper
from services.worker.leases.letters import CommandLetters
from services.worker.leases.store import LeaseStore
from services.worker.leases.sweeps import Republisher, Sweeper
from services.worker.operations.runner import TYPES as OPERATIONS
from services.worker.outbox import Outbox
from services.worker.queue.dispatcher import Dispatcher
from services.worker.queue.reader import CommandReader
from services.worker.queue.rules import QueueBounds
from services.worker.queue.store import QueueStore
from services.worker.subscribers import Bounds, CommandIntake, UnknownCommands
from services.worker.wiring.runs import Runners
from services.worker.wiring.shared import Shared

_CLAIMS_AT_ONCE = 4
# Shorter than the tick of packs: everybody whose request waits here waits for its first byte.
_PACE_SECONDS = 0.003


@dataclass(frozen=True, slots=True)
class Leases:
    """`keeper` and `sweeper` are parts that start and stop."""

    store: LeaseStore
    keeper: LeaseKeeper
    sweeper: Sweeper
    letters: CommandLetters


@dataclass(frozen=True, slots=True)
class Queue:
    """Both are parts that start and stop, the reader first."""

    reader: CommandReader
    dispatcher: Dispatcher


@dataclass(frozen=True, slots=True)
class Commands:
    """Both are parts that start and stop, the outbox first."""

    outbox: Outbox
    intake: CommandIntake


def wire_leases(shared: Shared, runners: Runners) -> Leases:
    """Wire who runs what, and what looks for runs whose worker is gone."""
    settings, on_fatal = shared.settings, shared.runtime.fail
    store = LeaseStore(shared.engine, owner=settings.name, seconds=settings.lease_seconds)
    keeper = LeaseKeeper(store, seconds=settings.lease_seconds, on_fatal=on_fatal)
    keeper.on_cancelled = runners.responses.stop
    checkpoints = Checkpoints(
        CheckpointStore(shared.engine), shared.blobs, on_written=keeper.checkpointed
    )
    runners.responses.keep_with(keeper, checkpoints)
    letters = CommandLetters(shared.dead_letters)
    reader = partial(CommandReader, settings.kafka_bootstrap, client_id=settings.name)
    republisher = Republisher(shared.producer, letters, reader=reader)
    keeper.on_released = republisher.hand_over
    keeper.orderly = lambda: not shared.runtime.failed
    sweeper = Sweeper(store, republisher, every_seconds=settings.sweep_seconds, on_fatal=on_fatal)
    return Leases(store, keeper, sweeper, letters)


def wire_queue(shared: Shared, leases: Leases) -> Queue:
    """Wire where background responses wait for their turn."""
    settings = shared.settings
    reader = CommandReader(settings.kafka_bootstrap, client_id=settings.name)
    dispatcher = Dispatcher(
        QueueStore(shared.engine, owner=settings.name, seconds=settings.lease_seconds),
        reader,
        leases.keeper,
        bounds=QueueBounds(
            running=settings.max_background,
            per_key=settings.background_per_key,
            overdue_seconds=settings.background_overdue_seconds,
            poll_seconds=settings.background_poll_seconds,
            attempts=settings.max_attempts,
        ),
        on_fatal=shared.runtime.fail,
        letters=leases.letters,
    )
    return Queue(reader, dispatcher)


def wire_commands(shared: Shared, runners: Runners, leases: Leases, queue: Queue) -> Commands:
    """Wire what takes commands on, and where their output goes."""
    settings = shared.settings
    outbox = Outbox(
        shared.producer,
        shared.blobs,
        tick_seconds=settings.tick_ms / 1000,
        bound_bytes=settings.pending_bytes,
        on_fatal=shared.runtime.fail,
    )
    intake = CommandIntake(
        runners.operations,
        leases.keeper,
        outbox,
        shared.blobs,
        bounds=Bounds(
            settings.max_responses,
            settings.drain_seconds,
            settings.max_attempts,
            settings.max_file_bytes,
        ),
        park=queue.dispatcher.park,
    )
    queue.dispatcher.begin(intake)
    _watch(shared, intake, queue.dispatcher)
    return Commands(outbox, intake)


def wire_consumers(shared: Shared, leases: Leases, commands: Commands) -> Consumers:
    """Wire the topic of commands, as a part that starts and stops."""
    settings = shared.settings
    consumers = Consumers(
        settings.kafka_bootstrap,
        service="worker",
        dead_letters=shared.dead_letters,
        on_fatal=shared.runtime.fail,
    )
    consumers.subscribe(
        Subscription(
            topics=(RESPONSES_COMMANDS.name,),
            group="worker",
            types=frozenset({RunResponseV1.TYPE}) | OPERATIONS,
            handle=commands.intake.on_run_response,
            max_records=settings.batch_records,
            depth=_CLAIMS_AT_ONCE,
            pace_seconds=_PACE_SECONDS,
            unknown=UnknownCommands(leases.store, leases.letters).on_unknown,
        )
    )
    return consumers


def wire_control(shared: Shared, runners: Runners, leases: Leases, queue: Queue) -> Control:
    """Wire orders about responses under way, as a part that starts and stops."""

    def stop(response_id: str) -> None:
        runners.responses.stop(response_id)
        # It may wait in the queue: then it need not wait for its turn any more.
        queue.dispatcher.wake()

    return Control(
        leases.store,
        stop,
        bootstrap=shared.settings.kafka_bootstrap,
        dead_letters=shared.dead_letters,
    )


def _watch(shared: Shared, intake: CommandIntake, dispatcher: Dispatcher) -> None:
    """Show how much runs and waits."""
    watch = shared.metrics.watch
    watch("open_responses", "Responses that run here", lambda: intake.open_responses)
    watch("background_running", "Background responses that run here", lambda: dispatcher.running)
    watch("queued", "Background responses that wait, at all workers", lambda: dispatcher.waiting)
