"""The HTTP edge: `/v1/costs` and `/v1/costs/lines`, for callers that intake vouches for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from contracts.costs import CostRecordedV1
from services.costs.domain.reports import Group, LinesPage, Report, Sums
from services.costs.errors import ParameterError, ProjectHiddenError
from services.costs.parameters import lines_query, report_query
from services.costs.service import Reports
from services.kit.codec import dumps
from services.kit.http import NotInternalError, error_response, internal_caller

_RETRY_AFTER_SECONDS = "2"


@dataclass(frozen=True)
class CostsApi:
    """Handlers over the ledger; `token` is the secret that services share."""

    ledger: Reports
    token: str

    async def report(self, request: Request) -> Response:
        """`GET /v1/costs`: sums of the caller's project, or of all for an admin."""
        caller = internal_caller(request, token=self.token)
        query = report_query(_parameters(request), caller)
        report = await self.ledger.report(query)
        next_page = str(query.offset + query.limit) if report.has_more else None
        return _json(_report(report, next_page))

    async def lines(self, request: Request) -> Response:
        """`GET /v1/costs/lines`: the ledger lines of one response."""
        caller = internal_caller(request, token=self.token)
        page = await self.ledger.lines(lines_query(_parameters(request), caller))
        return _json(_lines(page))


def create_app(ledger: Reports, *, token: str, health: Sequence[BaseRoute]) -> Starlette:
    """Return the service's whole HTTP application."""
    api = CostsApi(ledger, token)
    routes = [Route("/v1/costs", api.report), Route("/v1/costs/lines", api.lines)]
    return Starlette(routes=[*health, *routes], exception_handlers=_ERRORS)


def _parameters(request: Request) -> Sequence[tuple[str, str]]:
    return request.query_params.multi_items()


def _json(content: Mapping[str, Any]) -> Response:
    return Response(dumps(content), media_type="application/json")


def _report(report: Report, next_page: str | None) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [_group(group) for group in report.groups],
        "total": _sums(report.total),
        "has_more": report.has_more,
        "next_page": next_page,
    }


def _group(group: Group) -> dict[str, Any]:
    return {"object": "costs.group", "group": group.names, **_sums(group.sums)}


def _sums(sums: Sums) -> dict[str, Any]:
    return {
        "cost_usd": _amount(sums.cost_usd),
        "unpriced_lines": sums.unpriced_lines,
        "estimated_lines": sums.estimated_lines,
        "quantities": sums.quantities,
    }


def _lines(page: LinesPage) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [_line(line) for line in page.lines],
        "first_id": page.lines[0].line_id if page.lines else None,
        "last_id": page.lines[-1].line_id if page.lines else None,
        "has_more": page.has_more,
    }


def _line(line: CostRecordedV1) -> dict[str, Any]:
    principal = line.principal
    return {
        "object": "costs.line",
        "id": line.line_id,
        "response_id": line.response_id,
        "project": principal.project,
        "key": principal.key_id,
        "user": principal.user,
        "chat": principal.chat,
        "provider": line.provider,
        "model": line.model or None,
        "tool": line.tool,
        "unit": line.unit,
        "quantity": line.quantity,
        "unit_price_usd": _amount(line.unit_price_usd),
        "cost_usd": _amount(line.cost_usd),
        "unpriced_reason": line.unpriced_reason,
        "price_source": line.price_source,
        "service_tier": line.service_tier,
        "estimated": line.estimated,
        "occurred_at": line.occurred_at,
    }


def _amount(amount: Decimal | None) -> str | None:
    return None if amount is None else format(amount.normalize(), "f")


async def _on_parameter(_: Request, error: Exception) -> Response:
    param = error.param if isinstance(error, ParameterError) else None
    return error_response(400, str(error), param=param, code="invalid_parameter")


async def _on_hidden(_: Request, error: Exception) -> Response:
    return error_response(403, str(error), param="project", code="insufficient_permissions")


async def _on_stranger(_: Request, __: Exception) -> Response:
    return error_response(401, "this address is for services of the installation only")


async def _on_outage(_: Request, __: Exception) -> Response:
    answer = error_response(503, "the ledger can't be read at the moment", kind="server_error")
    answer.headers["retry-after"] = _RETRY_AFTER_SECONDS
    return answer


async def _on_http(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return error_response(status, "no such route" if status == 404 else "method not allowed")


_ERRORS: Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    ParameterError: _on_parameter,
    ProjectHiddenError: _on_hidden,
    NotInternalError: _on_stranger,
    SQLAlchemyError: _on_outage,
    OSError: _on_outage,
    HTTPException: _on_http,
}
