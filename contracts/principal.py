"""Who a request belongs to, as every message carries it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Principal(BaseModel):
    """The owner of a response and of all that follows from it.

    `project` is the isolation boundary; `key_id` names the API key, `user` an optional end user and
    `chat` the conversation of the client's own that costs are grouped by.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    project: str
    key_id: str
    user: str | None = None
    chat: str | None = None
