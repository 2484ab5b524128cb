"""What a response was given: its own input, and the items of its history before that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from services.intake.admission.keys import ApiKey
from services.intake.conversations.turns import TurnTaker
from services.intake.domain import StoredResponse, input_items, output_items
from services.intake.errors import response_not_found
from services.intake.items.history import Reader
from services.intake.items.item import Identified, identified
from services.intake.items.listing import ListQuery, page


@dataclass
class InputItems:
    """Lists what responses were given."""

    reader: Reader
    conversations: TurnTaker
    max_chain: int

    async def list(self, response_id: str, query: ListQuery, key: ApiKey) -> dict[str, Any]:
        """Return one page of a response's input items as the API lists them.

        Raises `ApiError`: 404, 400 when `after` or `before` name no item.
        """
        # What is deleted is known at once, and a response that is missing is waited for just once.
        if await self.reader.get(response_id, project=key.project) is None:
            raise response_not_found(response_id)
        chain = await self.reader.chain(response_id, project=key.project, most=self.max_chain)
        if not chain:
            raise response_not_found(response_id)
        before = await self.conversations.before(chain[0])
        return page([*before, *given_to_last(chain)], query)


def given_to_last(chain: Sequence[StoredResponse]) -> list[Identified]:
    """Return the items of all responses of a chain up to the input of the last, with their ids."""
    entries: list[Identified] = []
    for row in chain:
        if row.request is None:
            continue
        items = input_items(orjson.loads(row.request))
        if row is chain[-1]:
            entries += identified(items, row.response_id)
        elif row.response is not None:
            items += output_items(orjson.loads(row.response))
            entries += identified(items, row.response_id)
    return entries
