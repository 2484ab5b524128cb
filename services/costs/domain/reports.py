"""What may be asked of the ledger, and the shape of the answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from contracts.costs import CostRecordedV1
from services.costs.errors import ProjectHiddenError

GROUPS = ("model", "key", "chat", "day", "project", "user", "provider", "tool", "service_tier")
"""What costs can be grouped by; `day` is a day in UTC."""

FILTERS = ("response_id", "model", "key", "chat", "user", "provider", "tool")
"""What a report can be narrowed to, by equality."""

MAX_PAGE = 1000
MAX_OFFSET = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportQuery:
    """Which lines to sum up and how. `start` is inclusive, `end` exclusive, by `occurred_at`.

    `project` is None only for a caller that may see all projects.
    """

    group_by: tuple[str, ...]
    project: str | None
    start: datetime | None = None
    end: datetime | None = None
    filters: Mapping[str, str] = field(default_factory=dict)
    limit: int = 100
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinesQuery:
    """A page of the lines of one response, in the order of their ids, those after `after`."""

    response_id: str
    project: str | None
    after: str | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Lines summed up. `cost_usd` leaves out what is unpriced; it is None when nothing is priced.

    `quantities` are by unit.
    """

    cost_usd: Decimal | None
    unpriced_lines: int
    estimated_lines: int
    quantities: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Group:
    """One group of a report: its names by what the report is grouped by, None for "none"."""

    names: Mapping[str, str | None]
    sums: Sums


@dataclass(frozen=True, slots=True)
class Report:
    """A page of groups, dearest first (by day: in order), and the sums over all of them."""

    groups: tuple[Group, ...]
    total: Sums
    has_more: bool


@dataclass(frozen=True, slots=True)
class LinesPage:
    """A page of ledger lines."""

    lines: tuple[CostRecordedV1, ...]
    has_more: bool


def visible_project(asked: str | None, *, own: str, is_admin: bool) -> str | None:
    """Return the project to show, None for all; raises `ProjectHiddenError`."""
    if is_admin:
        return asked
    if asked is not None and asked != own:
        raise ProjectHiddenError("the costs of this project are not yours to see")
    return own
