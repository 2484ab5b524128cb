"""Items that a client keeps for us in `encrypted_content`: sealed on the way out, opened again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from services.kit.seal import Sealer, SealError, is_sealed
from services.worker.domain import Item, Job
from services.worker.errors import RequestRefusedError

ENCRYPTED_REASONING = "reasoning.encrypted_content"
_SUMMARY = "Summary of the conversation before this point:\n\n"


@dataclass(frozen=True, slots=True)
class ItemSeals:
    """Seals reasoning and compactions for the project of a job, so that no other can use them."""

    sealer: Sealer = field(default_factory=lambda: Sealer(()))

    def opened(self, job: Job) -> Job:
        """Return the job with what was sealed here in plain words, for a provider of any dialect.

        What other providers encrypted stays as it is. Raises `RequestRefusedError` for content that
        claims to be from here and is not, or was made for another project.
        """
        own = job.request.get("input")
        found = isinstance(own, list) and any(_is_ours(item) for item in own)
        if not found and not any(_is_ours(item) for item in job.history):
            return job
        project = job.command.principal.project
        history = [self._opened(item, project, "input") for item in job.history]
        request = job.request
        if isinstance(own, list):
            items = [self._opened(item, project, f"input[{n}]") for n, item in enumerate(own)]
            request = {**request, "input": items}
        return replace(job, request=request, history=history)

    def for_output(self, job: Job) -> Callable[[Item], None] | None:
        """Return what seals finished reasoning items in place, None when nobody asked for that."""
        if ENCRYPTED_REASONING not in (job.request.get("include") or ()) or not self.sealer.able:
            return None
        project = job.command.principal.project

        def seal(item: Item) -> None:
            if item.get("type") == "reasoning" and item.get("encrypted_content") is None:
                text = reasoning_text(item)
                item["encrypted_content"] = self.sealer.seal(text, owner=project, kind="reasoning")

        return seal

    def compaction(self, summary: str, *, project: str, item_id: str) -> Item:
        """Return the item that stands for a conversation; raises `SealError` without a secret."""
        sealed = self.sealer.seal(summary, owner=project, kind="compaction")
        return {"id": item_id, "type": "compaction", "encrypted_content": sealed}

    def _opened(self, item: Item, project: str, where: str) -> Item:
        if not _is_ours(item):
            return item
        kind = str(item.get("type"))
        try:
            text = self.sealer.open(item["encrypted_content"], owner=project, kind=kind)
        except SealError as error:
            raise RequestRefusedError(
                f"The encrypted content of item {item.get('id')} could not be verified.",
                param=f"{where}.encrypted_content",
                code="invalid_encrypted_content",
            ) from error
        if kind == "compaction":
            return {"type": "message", "role": "assistant", "content": _SUMMARY + text}
        plain = {name: value for name, value in item.items() if name != "encrypted_content"}
        return {**plain, "content": [{"type": "reasoning_text", "text": text}]}


def reasoning_text(item: Item) -> str:
    """Return what a reasoning item says in plain words: its content, else its summary."""
    for name in ("content", "summary"):
        parts: Any = item.get(name)
        if isinstance(parts, list):
            said = [str(part.get("text") or "") for part in parts if isinstance(part, dict)]
            if any(said):
                return "\n".join(said)
    return ""


def _is_ours(item: object) -> bool:
    return isinstance(item, dict) and is_sealed(item.get("encrypted_content"))
