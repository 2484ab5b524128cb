"""Operations beside responses: they are asked of a worker and answered at once, nothing is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Protocol

import orjson

from contracts.operations import CompactConversationV1, CountInputTokensV1
from contracts.principal import Principal
from contracts.responses import RunResponseV1
from services.intake.accepted import Answer
from services.intake.admission.estimate import estimate_tokens
from services.intake.admission.keys import ApiKey
from services.intake.admission.limiter import Ask
from services.intake.body import parse_json
from services.intake.conversations.turns import TurnTaker, check_id
from services.intake.domain import conversation_of
from services.intake.errors import ApiError, history_too_large, model_not_found
from services.intake.items.item import Identified
from services.intake.items.listing import ListQuery
from services.intake.operations.request import (
    CompactConversation,
    CountInputTokens,
    Operation,
    parse_operation,
)
from services.intake.service import Responses
from services.kit.ids import new_id

_MOST_ITEMS = 100_000


class ConversationItems(Protocol):
    """Where the items of conversations are."""

    async def list(
        self, conversation_id: str, *, project: str, query: ListQuery
    ) -> tuple[Sequence[Identified], bool]:
        """Return one page of items and whether there are more; 404 without the conversation."""
        ...


@dataclass
class Operations:
    """Counts input tokens and compacts conversations, by way of the workers."""

    responses: Responses
    conversations: ConversationItems
    turns: TurnTaker

    async def count_input_tokens(self, body: bytes, key: ApiKey) -> Answer:
        """Return what the input of this request would count; raises `ApiError`."""
        document = parse_json(body)
        request = parse_operation(document, CountInputTokens)
        assert isinstance(document, dict)
        self._check_model(request, key)
        conversation = conversation_of(document)
        if conversation is None:
            history = await self._before(request, key)
        else:
            history = await self._said_in(conversation, key)
        return await self._ask(CountInputTokensV1, request, body, history, key)

    async def compact(self, body: bytes, key: ApiKey) -> Answer:
        """Return a shorter conversation for the one given; raises `ApiError`."""
        request = parse_operation(parse_json(body), CompactConversation)
        self._check_model(request, key)
        history = await self._before(request, key)
        return await self._ask(CompactConversationV1, request, body, history, key)

    def _check_model(self, request: Operation, key: ApiKey) -> None:
        known = self.responses.providers.serving(request.model)
        if not known or not key.allows(request.model):
            raise model_not_found(request.model)

    async def _before(self, request: Operation, key: ApiKey) -> bytes | None:
        if request.previous_response_id is None:
            return None
        return (await self.responses.context(request.previous_response_id, key)).items

    async def _said_in(self, conversation_id: str, key: ApiKey) -> bytes:
        """Return the items of a conversation as JSON, without taking a turn in it."""
        check_id(conversation_id)
        await self.turns.caught_up(conversation_id, self.responses.reader.has_told)
        query = ListQuery(descending=False, limit=_MOST_ITEMS)
        entries, more = await self.conversations.list(
            conversation_id, project=key.project, query=query
        )
        items = orjson.dumps([entry.item for entry in entries])
        if more or len(items) > self.responses.bounds.max_history_bytes:
            raise history_too_large("conversation")
        return items

    async def _within_limits(
        self, command: RunResponseV1, body: bytes, history: bytes | None, key: ApiKey
    ) -> Answer:
        """Ask once the key's limits admit it; only compacting uses tokens, of what it is given."""
        limits = self.responses.limits
        if key.limits is None or limits is None:
            return await self.responses.ask(command, body, history)
        tokens = 0
        if isinstance(command, CompactConversationV1):
            given = {"body": orjson.loads(body), "history": orjson.loads(history or b"[]")}
            most_output = self.responses.bounds.estimated_output_tokens
            tokens = estimate_tokens(given, most_output=most_output)
        ask = Ask(key.key_id, key.limits, command.response_id, tokens)
        answer, headers = await limits.run(ask, partial(self.responses.ask, command, body, history))
        if tokens == 0 or answer.status >= HTTPStatus.BAD_REQUEST:
            # These have no end on the log that would free what was reserved.
            limits.give_back(ask)
        return replace(answer, headers=(*answer.headers, *headers))

    async def _ask(
        self,
        contract: type[RunResponseV1],
        request: Operation,
        body: bytes,
        history: bytes | None,
        key: ApiKey,
    ) -> Answer:
        command = contract(
            response_id=new_id("resp"),
            principal=Principal(project=key.project, key_id=key.key_id, user=key.user),
            model=request.model,
            accepted_at=self.responses.clock.now(),
            events_partition=self.responses.hub.partition,
            store=False,
            previous_response_id=request.previous_response_id,
        )
        if self.responses.open_requests >= self.responses.bounds.max_open:
            raise ApiError(
                429,
                "Too many requests are open on this server.",
                kind="rate_limit_error",
                code="server_overloaded",
                retry_after_seconds=1,
            )
        try:
            return await self._within_limits(command, body, history, key)
        except ApiError as error:
            if error.code != "timeout":
                raise
            message = "The answer takes too long, try again."
            raise ApiError(504, message, kind="server_error", code="timeout") from error
