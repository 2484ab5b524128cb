"""What went before a response: stored responses, conversations, and the files that both name."""

from __future__ import annotations

from dataclasses import dataclass

from contracts.topics import RESPONSES_COMMANDS, RESPONSES_LIFECYCLE
from services.intake.clients import ArtifactFiles
from services.intake.conversations.service import Conversations
from services.intake.conversations.store import ConversationStore
from services.intake.conversations.turns import TurnTaker
from services.intake.conversations.turns_store import TurnStore
from services.intake.files import RequestFiles
from services.intake.items.history import Reader
from services.intake.items.inputs import InputItems
from services.intake.store import ResponseStore
from services.intake.wiring.shared import Shared
from services.kit.group_progress import GroupProgress


@dataclass(frozen=True, slots=True)
class History:
    """The stores that are projected into, and what reads them."""

    store: ResponseStore
    reader: Reader
    turn_store: TurnStore
    turns: TurnTaker
    conversation_store: ConversationStore
    conversations: Conversations
    inputs: InputItems
    files: RequestFiles | None


def wire_history(shared: Shared) -> History:
    """Wire what is read before a request can go to a worker."""
    settings, clock = shared.settings, shared.clock
    # A database that hangs is refused as late as a log that does.
    answer_seconds = settings.accept_timeout_seconds
    store = ResponseStore(shared.engine, answer_seconds=answer_seconds)
    progress = GroupProgress(
        settings.kafka_bootstrap,
        group="intake",
        topics=(RESPONSES_COMMANDS, RESPONSES_LIFECYCLE),
        clock=clock,
    )
    reader = Reader(store, clock, wait_seconds=settings.projection_wait_seconds, progress=progress)
    turn_store = TurnStore(
        shared.engine,
        # Longer than any request waits for Kafka, with time for its command to be projected.
        reserved_seconds=6 * settings.accept_timeout_seconds,
        run_seconds=settings.response_timeout_seconds,
        max_bytes=settings.max_history_bytes,
        answer_seconds=answer_seconds,
    )
    turns = TurnTaker(turn_store, clock, wait_seconds=settings.projection_wait_seconds)
    conversation_store = ConversationStore(shared.engine, answer_seconds=answer_seconds)
    files = _request_files(shared)
    return History(
        store=store,
        reader=reader,
        turn_store=turn_store,
        turns=turns,
        conversation_store=conversation_store,
        conversations=Conversations(conversation_store, turns, reader.has_told, clock, files),
        inputs=InputItems(reader, turns, max_chain=settings.max_chain),
        files=files,
    )


def _request_files(shared: Shared) -> RequestFiles | None:
    """Return what finds the files of requests; None when their owner's address is not known."""
    settings = shared.settings
    if settings.artifacts_url is None:
        return None
    token = settings.antiphon_internal_token.get_secret_value()
    return RequestFiles(
        ArtifactFiles(shared.clients, base_url=settings.artifacts_url, internal_token=token),
        max_files=settings.max_request_files,
        max_bytes=settings.max_request_file_bytes,
    )
