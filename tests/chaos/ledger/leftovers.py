"""Rules 4, 5 and 6: files are those that answers have, and nothing is left lying about."""

from __future__ import annotations

from collections import defaultdict
from hashlib import sha256

from tests.chaos.ledger.evidence import Evidence, Report, StoredArtifact


def check_artifacts(evidence: Evidence, report: Report) -> None:
    """Every file of an answer is an artifact with its bytes, and there are no others."""
    kept: dict[str, list[StoredArtifact]] = defaultdict(list)
    for artifact in evidence.artifacts:
        kept[artifact.response_id].append(artifact)
        if artifact.status != 200:
            sentence = f"the download of {artifact.artifact_id} gives {artifact.status}"
            report.violate("artifacts", artifact.response_id, sentence)
        elif (artifact.sha256, artifact.size_bytes) != (
            artifact.content_sha256,
            artifact.content_bytes,
        ):
            sentence = f"{artifact.artifact_id} has other bytes than its sha256 says"
            report.violate("artifacts", artifact.response_id, sentence)
    report.count("artifacts", len(evidence.artifacts))
    known = evidence.known()
    for response_id, asked in known.items():
        outcome = evidence.outcome(response_id)
        gone = response_id in evidence.deleted or (outcome is not None and not outcome.store)
        drawn = asked is not None and asked.image is not None
        wanted = drawn and not gone and outcome is not None and outcome.status == "completed"
        found = kept.get(response_id, [])
        if not wanted:
            if found and (gone or not drawn):
                ids = [artifact.artifact_id for artifact in found]
                report.violate("artifacts", response_id, f"nothing refers to {ids}")
            continue
        assert asked is not None
        assert asked.image is not None
        expected = [sha256(asked.image).hexdigest()]
        if [artifact.sha256 for artifact in found] != expected:
            sums = [artifact.sha256 for artifact in found]
            sentence = f"expected one artifact with the sha256 {expected[0]}, found {sums}"
            report.violate("artifacts", response_id, sentence)
    for response_id in kept.keys() - known.keys():
        report.violate("artifacts", response_id, "it has artifacts, but was never accepted")


def check_leftovers(evidence: Evidence, report: Report) -> None:
    """No lease, checkpoint, tool call or dead letter is left."""
    for sentence in evidence.not_drained:
        report.violations.append(f"drain: {sentence}")
    for lease in evidence.leases:
        sentence = f"its lease is still {lease.state} (attempt {lease.attempt}, {lease.owner!r})"
        report.violate("leases", lease.response_id, sentence)
    for response_id in evidence.checkpoints:
        report.violate("checkpoints", response_id, "a checkpoint is left")
    for call_id in evidence.open_tool_calls:
        report.violate("tools", call_id, "the call is still open in mcp_broker.calls")
    for topic, reasons in evidence.dead_letters.items():
        report.count("dead letters", len(reasons))
        for reason in reasons:
            report.violate("dead letters", topic, reason)


def check_webhooks(evidence: Evidence, report: Report) -> None:
    """Each background response that ended was told to the endpoint, at least once."""
    if evidence.webhooks is None:
        return
    for response_id, asked in evidence.known().items():
        outcome = evidence.outcome(response_id)
        if asked is None or outcome is None or not asked.body.get("background"):
            continue
        event = f"response.{outcome.status}"
        found = evidence.webhooks.get(response_id, set())
        if event not in found and response_id not in evidence.deleted:
            sentence = f"expected the webhook {event}, found {sorted(found) or 'none'}"
            report.violate("webhooks", response_id, sentence)
    report.count("webhooks", sum(map(len, evidence.webhooks.values())))
