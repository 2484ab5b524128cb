"""From faults on demand to a plan of what goes wrong with one delivery."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tests.upstream import refusals
from tests.upstream.language import Fault
from tests.upstream.refusals import RefusalError, invalid
from tests.upstream.sse import Wire

_HUGE_BYTES = 700 * 1024


@dataclass
class Plan:
    """What goes wrong. Counts are of events; `None` means never."""

    refusal: RefusalError | None = None
    reset: bool = False
    hang_s: float = 0.0
    hold_after: int | None = None
    hold_key: str = ""
    document: Literal["whole", "malformed", "truncated", "html", "empty"] = "whole"
    cut_after: int | None = None
    cut_hard: bool = False
    end_after: int | None = None
    truncate_after: int | None = None
    stall_after: int | None = None
    stall_s: float = 0.0
    interval_s: float = 0.0
    broken_json_after: int | None = None
    garbage_after: int | None = None
    huge_bytes: int | None = None
    wire: Wire = field(default_factory=Wire)


class Attempts:
    """Counts attempts, so that a fault can be limited to the first ones. Not thread-safe."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def active(self, faults: Sequence[Fault], conversation: str) -> list[Fault]:
        """The faults that still apply to this attempt at `conversation`, which it counts."""
        return [fault for fault in faults if self._applies(fault, conversation)]

    def _applies(self, fault: Fault, conversation: str) -> bool:
        if fault.times is None:
            return True
        key = f"{fault.name}#{fault.key}" if fault.key else f"{fault}|{conversation}"
        self._seen[key] += 1
        return self._seen[key] <= fault.times


def plan_of(faults: Sequence[Fault], model: str) -> Plan:
    """Combine faults into one plan. Raises RefusalError (400) for a name that does not exist."""
    plan = Plan()
    for fault in faults:
        refusal = refusals.by_name(fault.name, fault.args[0] if fault.args else None, model)
        if refusal is not None:
            plan.refusal = refusal
        elif fault.name in _FAULTS:
            _FAULTS[fault.name](plan, fault)
        else:
            known = ", ".join(sorted(_FAULTS))
            message = f"No fault '{fault.name}'. Faults: a status code, context, quota, {known}."
            raise invalid(message, code="unknown_fault")
    return plan


def _after(attribute: str, default: int) -> Callable[[Plan, Fault], None]:
    return lambda plan, fault: setattr(plan, attribute, int(fault.arg(0, default)))


def _document(state: str) -> Callable[[Plan, Fault], None]:
    return lambda plan, _: setattr(plan, "document", state)


def _wire(**settings: object) -> Callable[[Plan, Fault], None]:
    def change(plan: Plan, _: Fault) -> None:
        for attribute, value in settings.items():
            setattr(plan.wire, attribute, value)

    return change


def _reset(plan: Plan, fault: Fault) -> None:
    if fault.args:
        plan.cut_after, plan.cut_hard = int(fault.args[0]), True
    else:
        plan.reset = True


def _hang(plan: Plan, fault: Fault) -> None:
    plan.hang_s = fault.arg(0, 5.0)


def _hold(plan: Plan, fault: Fault) -> None:
    plan.hold_after, plan.hold_key = int(fault.arg(0, 0)), fault.key or ""


def _stall(plan: Plan, fault: Fault) -> None:
    plan.stall_after, plan.stall_s = int(fault.arg(0, 3)), fault.arg(1, 5.0)


def _slow(plan: Plan, fault: Fault) -> None:
    plan.interval_s = fault.arg(0, 0.05)


def _malformed(plan: Plan, fault: Fault) -> None:
    plan.document = "malformed"
    plan.broken_json_after = int(fault.arg(0, 3))


def _truncated(plan: Plan, fault: Fault) -> None:
    plan.document = "truncated"
    plan.truncate_after = int(fault.arg(0, 3))


def _split(plan: Plan, fault: Fault) -> None:
    plan.wire.split = int(fault.arg(0, 7))


_FAULTS: dict[str, Callable[[Plan, Fault], None]] = {
    "reset": _reset,
    "hang": _hang,
    "hold": _hold,
    "cut": _after("cut_after", 3),
    "eof": _after("end_after", 3),
    "stall": _stall,
    "slow": _slow,
    "malformed_json": _malformed,
    "malformed_sse": _after("garbage_after", 3),
    "truncated_json": _truncated,
    "content_type": _document("html"),
    "empty": _document("empty"),
    "huge": _after("huge_bytes", _HUGE_BYTES),
    "split": _split,
    "awkward": _wire(awkward=True),
    "crlf": _wire(eol=b"\r\n"),
    "cr": _wire(eol=b"\r"),
    "bom": _wire(bom=True),
    "comments": _wire(comments=True),
    "keepalive": _wire(keepalives=True),
    "multiline": _wire(multiline=True),
    "no_space": _wire(space=False),
    "no_names": _wire(names=False),
    "no_done": _wire(done=False),
}
