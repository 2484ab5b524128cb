"""A scripted model provider: a real HTTP server that speaks the Responses and Chat APIs.

Run it as `python -m tests.upstream --port N` (one JSON line with `base_url` when it listens), in
the loop of a test with `async with ScriptedUpstream() as upstream`, or in a process of its own
with `with UpstreamProcess() as upstream`. Both have `base_url`, `enqueue`, `release`, `reset`.

Directives say what to answer. They are taken from the first of these that has any: a queued
answer, `metadata.script`, the last user text, the model name (`scripted-<script>` or
`scripted-fault-<fault>`). Each stands at the start of the text, of a line, or after ` ; `:

    say: hello world            answer with this text
    tokens: 100                 answer with the text `w0 w1 ... w99`, one delta each
    script:<name> [argument]    answer with a named script (scripts.py), see below
    call: tool {"a": 1}         call an offered tool; again for parallel calls. A tool is found by
                                its name or the end of a prefixed one (`echo` finds `srv__echo`);
                                `call!:` calls even a tool that is not offered
    then: tool {"b": 2}         call in the next round, after the outputs of the first one
    usage: {"input_tokens": 9}  override usage (also cached_tokens, cache_write_tokens,
                                output_tokens, reasoning_tokens)
    delay: 0.02                 seconds between events
    fault:<name>                let something go wrong, see below; faults combine

Once a loop of calls has all its outputs the answer is `tool -> output`, a line per call, or the
text of `say:` with `{output}` replaced. Without directives the answer is an instance of the JSON
schema if one was asked for, else `echo: <last user text>` (plus ` [+n]` for n attachments).
Usage counts one token per word; `max_output_tokens` cuts the text and ends `incomplete`.

Scripts of both dialects: text [words], unicode, empty, long [n], huge [bytes], logprobs,
annotations, refusal, reasoning, reasoning_alias, function_call, text_and_call, parallel_calls,
interleaved_calls, bad_arguments, json, recall (prior user and assistant texts joined by `|`),
instructions, seen (what arrived, as JSON), incomplete, content_filter, failed [code],
failed_early [code], error [code], phases, reasoning_encrypted, queued. Only Responses:
custom_tool, everything, web_search, file_search, code_interpreter, image, image_big,
image_failed, mcp, mcp_failed, mcp_list_failed, mcp_approval, audio, shell, compaction; an
argument is the query or prompt and the text after the item. The same prompt gives the same PNG.

A fault is `name[@number[,number]][xTIMES][#key]`: numbers are its arguments, `xTIMES` limits it
to the first attempts at the same conversation (with `#key`: at anything under that key).

    400 context 401 403 404 429@retry_after quota 500 502 503@retry_after 504   error statuses
    reset                   RST before any byte; `reset@N` after N events
    hang@S                  S seconds before the first byte
    hold@N#key              wait (N events in, 0 by default) for `POST /_release?key=key`
    cut@N  eof@N            close the connection / end the body cleanly after N events
    stall@N,S  slow@S       one wait of S seconds after N events / S seconds between events
    malformed_json[@N]  truncated_json[@N]  malformed_sse[@N]  content_type  empty
    huge@BYTES              one delta of that size (700 KiB)
    split@BYTES  awkward    writes of that many bytes / cuts in characters and line ends
    crlf cr bom comments keepalive multiline no_space no_names no_done   other ways to write SSE

Cuts of a JSON answer send half of it. A background response goes on without its reader: it is
`in_progress` until its `hold@N` is released, `GET ...?stream=true&starting_after=M` tells the rest
of it (a fault counts this delivery's events), and asking again with the same idempotency key is
no second run; the ledger marks exchanges that began one with `run`.

Control API: `POST /_script` (a text, an object `{do, match, times}` or
`{raw: {status, headers, body}, ...}`, or a list of them; `match` is sought in the last user text
and the model), `POST /_release[?key=]`, `POST /_reset`,
`GET /_requests[?match=]`, `GET /_stats`. Requests are checked as the real API does: unknown
parameters (unless lenient), calls without outputs and outputs without calls are refused with
400, models that start with `unknown` with 404. `/v1/responses/input_tokens` counts a token per
word, `/v1/responses/compact` keeps the user's messages; both obey faults.
"""

from tests.upstream.process import UpstreamProcess
from tests.upstream.server import ScriptedUpstream

__all__ = ["ScriptedUpstream", "UpstreamProcess"]
