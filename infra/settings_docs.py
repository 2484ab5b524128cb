"""Writes the tables of settings into docs/admin.md: `python -m infra.settings_docs [--check]`."""

from __future__ import annotations

import argparse
import re
import socket
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from contracts.providers import ProviderConfig
from infra import settings_words as words
from infra.local.settings import CHECKOUT, LocalSettings
from services.artifacts.settings import ArtifactsSettings
from services.costs.clients.price_file import ModelPrices, ToolPrices
from services.costs.settings import CostsSettings
from services.intake.settings import IntakeSettings
from services.kit.settings import ServiceSettings
from services.mcp_broker.servers_file import ServerConfig
from services.mcp_broker.settings import McpBrokerSettings
from services.webhooks.settings import WebhooksSettings
from services.worker.settings import WorkerSettings

PAGE = CHECKOUT / "docs" / "admin.md"
_SECTION = re.compile(
    r"(?P<begin><!-- settings (?P<name>[a-z_]+): [^>]*-->\n).*?(?P<end><!-- /settings -->)",
    re.DOTALL,
)
_SERVICES: dict[str, tuple[type[ServiceSettings], words.Words]] = {
    "intake": (IntakeSettings, words.INTAKE),
    "worker": (WorkerSettings, words.WORKER),
    "mcp_broker": (McpBrokerSettings, words.MCP_BROKER),
    "artifacts": (ArtifactsSettings, words.ARTIFACTS),
    "costs": (CostsSettings, words.COSTS),
    "webhooks": (WebhooksSettings, words.WEBHOOKS),
}
_FILES: dict[str, tuple[type[BaseModel], words.Words]] = {
    "provider": (ProviderConfig, words.PROVIDER),
    "mcp_server": (ServerConfig, words.MCP_SERVER),
    "model_prices": (ModelPrices, words.MODEL_PRICES),
    "tool_prices": (ToolPrices, words.TOOL_PRICES),
}
_KINDS: dict[object, str] = {
    bool: "yes or no",
    int: "integer",
    float: "number",
    Decimal: "amount",
    str: "text",
    Path: "path",
    SecretStr: "secret",
    tuple: "list",
    frozenset: "list",
    dict: "table",
}
_BOUNDS = (("gt", "> "), ("ge", ">= "), ("lt", "< "), ("le", "<= "))


class SettingsDocsError(Exception):
    """The tables can't be made; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    field: FieldInfo
    text: str


def tables() -> dict[str, str]:
    """Return every table as Markdown, by the name of its section."""
    made = {
        "shared": _table(_of_base(words.SHARED, shared=True)),
        "common": _table(_of_base(words.COMMON, shared=False, prefix="<PREFIX>_")),
        "local": _table(_rows(LocalSettings, LocalSettings.model_fields, words.LOCAL)),
    }
    for service, (settings, texts) in _SERVICES.items():
        made[service] = _table(_of_service(settings, texts))
    for name, (model, texts) in _FILES.items():
        made[name] = _table(_rows(model, model.model_fields, texts, variable=False))
    return made


def _of_base(texts: words.Words, *, shared: bool, prefix: str = "") -> list[_Row]:
    fields = ServiceSettings.model_fields
    wanted = [name for name, field in fields.items() if _is_shared(field) is shared]
    return _rows(ServiceSettings, wanted, texts, prefix=prefix)


def _of_service(settings: type[ServiceSettings], texts: words.Words) -> list[_Row]:
    own = [name for name in settings.model_fields if name not in ServiceSettings.model_fields]
    prefix = str(settings.model_config["env_prefix"])
    return [
        _rows(settings, [name], words.SHARED)[0]
        if _is_shared(settings.model_fields[name])
        else _rows(settings, [name], texts, prefix=prefix)[0]
        for name in own
    ]


def _is_shared(field: FieldInfo) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("shared"))


def _rows(
    model: type[BaseModel],
    names: Iterable[str],
    texts: words.Words,
    *,
    prefix: str = "",
    variable: bool = True,
) -> list[_Row]:
    rows = []
    for name in names:
        if name not in texts:
            raise SettingsDocsError(
                f"{model.__name__}.{name} has no description: add it to infra/settings_words.py"
            )
        shown = f"{prefix}{name.upper()}" if variable else name
        rows.append(_Row(shown, model.model_fields[name], texts[name]))
    return rows


def _table(rows: Sequence[_Row]) -> str:
    head = "| name | value | default | meaning |\n|---|---|---|---|\n"
    return head + "".join(
        f"| `{row.name}` | {_value(row.field)} | {_default(row.field)} | {row.text} |\n"
        for row in rows
    )


def _value(field: FieldInfo) -> str:
    kinds = [kind for kind in _branches(field.annotation) if kind is not NoneType]
    origin = get_origin(kinds[0])
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kinds[0]))
    kind = _KINDS[origin or kinds[0]]
    bounds = [
        f"{sign}{getattr(constraint, name):g}"
        if abs(getattr(constraint, name)) < 1_000_000
        else f"{sign}{getattr(constraint, name)}"
        for constraint in field.metadata
        for name, sign in _BOUNDS
        if isinstance(getattr(constraint, name, None), int | float)
    ]
    return ", ".join([kind, *bounds])


def _branches(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (Union, UnionType):
        return tuple(kind for branch in get_args(annotation) for kind in _branches(branch))
    return (get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation,)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is socket.gethostname:
        return "the host's name"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Path) and value.is_absolute():
        value = value.relative_to(CHECKOUT)
    if value is None or value == "" or (isinstance(value, dict | frozenset | tuple) and not value):
        return "unset"
    if isinstance(value, int) and value >= 1024 * 1024 and value % (1024 * 1024) == 0:
        return f"`{value}` ({value // (1024 * 1024)} MiB)"
    if isinstance(value, int) and value >= 1024 and value % 1024 == 0:
        return f"`{value}` ({value // 1024} KiB)"
    if isinstance(value, float):
        return f"`{value:g}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(repr(item) for item in value)}]`".replace("'", '"')
    return f"`{value}`"


def rendered(page: str) -> str:
    """Return the page with every table made anew; raises `SettingsDocsError`."""
    made = tables()
    found = [match["name"] for match in _SECTION.finditer(page)]
    if sorted(found) != sorted(made):
        raise SettingsDocsError(
            f"the page has sections for {', '.join(sorted(found))}, not {', '.join(sorted(made))}"
        )
    return _SECTION.sub(
        lambda match: f"{match['begin']}\n{made[match['name']]}\n{match['end']}", page
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables, or with `--check` say whether they are current; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.settings_docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 when stale")
    options = parser.parse_args(arguments)
    page = PAGE.read_text(encoding="utf-8")
    try:
        wanted = rendered(page)
    except SettingsDocsError as error:
        print(error, file=sys.stderr)
        return 1
    if wanted == page:
        return 0
    if options.check:
        print("docs/admin.md is stale: run `python -m infra.settings_docs`", file=sys.stderr)
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
