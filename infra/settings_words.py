"""What each setting means, for the tables in docs/admin.md; `infra.settings_docs` makes them."""

from __future__ import annotations

Words = dict[str, str]

SHARED: Words = {
    "kafka_bootstrap": "Kafka's address, `host:port`, several separated by commas.",
    "database_url": "PostgreSQL, `postgresql://user:password@host:port/database`. "
    "For a socket: `postgresql://user@/database?host=/folder`.",
    "s3_endpoint": "Object store, `http(s)://host[:port]`. Unset: files below `BLOB_DIR`.",
    "s3_access_key": "Access key of the object store.",
    "s3_secret_key": "Secret key of the object store.",
    "s3_region": "Region that requests to the object store are signed for.",
    "s3_bucket": "Bucket; made at the start of artifacts when it is missing.",
    "blob_dir": "Folder for blobs without an object store. All services must see the same folder.",
    "antiphon_internal_token": "Secret that intake shows to the services behind it. "
    "Unset: they refuse every request.",
    "otel_exporter_otlp_endpoint": "Where traces go, over OTLP/HTTP. Unset: nothing is traced.",
    "log_level": "Least level of our own log lines.",
    "log_format": "`json` has one object a line, `console` is for people.",
    "antiphon_admin_key": "An API key with the scope `admin` that needs no record. Unset: none.",
    "antiphon_providers": "The [providers file](#the-providers-file).",
    "upstream_base_url": "One provider for every model, in place of the providers file.",
    "upstream_dialect": "What that provider speaks: `responses` or `chat`.",
    "upstream_api_key": "Key for that provider.",
    "antiphon_seal_secret": "Secret that items are sealed with which clients keep for us "
    "(`encrypted_content`), and signing secrets of webhooks. Several by commas: the first seals, "
    "all open. Unset: webhooks take `ANTIPHON_INTERNAL_TOKEN`, nothing else is sealed, "
    "`/v1/responses/compact` works with `responses` providers alone.",
}
COMMON: Words = {
    "host": "Address to listen on.",
    "port": "Port to listen on; 0 takes any free one. Intake's default is 8080.",
    "database_pool": "Most connections to PostgreSQL.",
    "shutdown_seconds": "How long each part of the process may take to stop.",
}
LOCAL: Words = {
    "antiphon_home": "Folder for data, logs and downloads.",
    "antiphon_downloads": "Folder for fetched Java archives; several homes may share it. "
    "Unset: `downloads` in the home.",
    "antiphon_host": "Address that intake listens on.",
    "antiphon_port": "Port that intake listens on. All others are chosen free and remembered.",
    "antiphon_admin_key": "The admin key. Unset: made once and kept in the home.",
    "antiphon_internal_token": "Secret between services. Unset: made once and kept in the home.",
    "antiphon_seal_secret": "Secret for items that clients keep. "
    "Unset: made once and kept in the home.",
    "antiphon_providers": "The providers file. "
    "Unset: see [Choose the upstream](#choose-the-upstream).",
    "antiphon_node": "Where the MCP servers for Node are installed.",
    "kafka_bootstrap": "Your own Kafka in place of the embedded one.",
    "kafka_brokers": "How many embedded brokers; with 3, topics have three replicas, two of them "
    "in sync. A home keeps its number.",
    "database_url": "Your own PostgreSQL in place of the embedded one.",
    "s3_endpoint": "Your own object store in place of the embedded one.",
    "upstream_base_url": "Your own upstream in place of the model on this machine.",
    "openai_api_key": "Asks OpenAI, as `infra/local/providers.toml` says.",
    "demo_model": "The model that `antiphon demo` asks.",
    "mcp_broker_servers": "The [MCP servers file](#the-mcp-servers-file). "
    "Unset: `infra/local/mcp_servers.toml`.",
    "intake_replicas": "How many intakes; the same as `--replicas intake=N`.",
    "worker_replicas": "How many workers; the same as `--replicas worker=N`.",
    "intake_drain_seconds": "Intake's own setting; it is killed 15 s later.",
    "worker_drain_seconds": "The worker's own setting; it is killed 15 s later.",
    "log_format": "Passed on to the services.",
}
INTAKE: Words = {
    "artifacts_url": "Base URL of artifacts. Unset: `/v1/artifacts` and `/v1/files` answer 404.",
    "costs_url": "Base URL of costs. Unset: `/v1/costs` answers 404.",
    "mcp_broker_url": "Base URL of the MCP broker. Unset: `/v1/mcp` answers 404.",
    "webhooks_url": "Base URL of webhooks. Unset: `/v1/webhook_endpoints` answers 404.",
    "events_partition": "The partition of `responses.events` that this replica reads. "
    "Unset: the first that no other replica reads.",
    "max_body_bytes": "Largest request body; above it 413.",
    "max_open_requests": "Most requests that wait for an answer at once; above it 429.",
    "max_bodies_bytes": "Most bytes of request bodies in memory that are not on Kafka yet, "
    "WebSockets included; above it 429. Plan about five times as much memory.",
    "fair_share_from": "From this part of open requests, bodies and WebSockets on a key has no "
    "more than its share of them; above it 429.",
    "max_buffered_bytes": "Most bytes of events that wait in memory for all clients together; "
    "above it those that are furthest behind are cut off.",
    "max_log_reads": "Most streams that are read from the log at once for clients that resume, "
    "each with a Kafka consumer of its own; others wait, then 503.",
    "max_stream_buffer_bytes": "What may wait for a slow reader of a stream. "
    "Above it the stream is cut; the reader can resume.",
    "response_timeout_seconds": "How long a JSON request waits; above it 504, "
    "and the response goes on.",
    "accept_timeout_seconds": "How long Kafka may take to acknowledge a request, and the database "
    "to answer what a client waits for; above it 503.",
    "idempotency_seconds": "How long an `Idempotency-Key` is kept.",
    "projection_wait_seconds": "How long a read waits for a response of the last minute "
    "that is not in the database yet.",
    "drain_delay_seconds": "How long requests are still taken after a stop was asked for, while "
    "`/readyz` says no already: as long as your load balancer needs to see that.",
    "drain_seconds": "How long requests under way may go on after that. Then streams end without "
    "`[DONE]` and can be resumed at another replica.",
    "heartbeat_seconds": "Pause after which a silent stream gets a comment line.",
    "stall_seconds": "How long a client may take no byte of what waits for it; "
    "then its connection is cut. The reader can resume.",
    "max_websockets": "Most WebSockets at once; above it the handshake gets 503.",
    "websocket_seconds": "How long a WebSocket may live; a response that runs then is finished.",
    "websocket_ping_seconds": "Pause between pings to a WebSocket, and how long each may go "
    "unanswered.",
    "websocket_context_bytes": "What may be kept for the next turns of all WebSockets, "
    "the least recently used dropped first.",
    "max_chain": "Most responses before one, by `previous_response_id`.",
    "max_request_files": "Most places where a request, with what precedes it, may name files.",
    "max_request_file_bytes": "Most bytes of files in a request, with what precedes it.",
    "max_history_bytes": "Most bytes of JSON in the history of a request.",
    "limit_timeout_seconds": "How long PostgreSQL may take to judge requests of keys with limits; "
    "above it this intake judges alone.",
    "limit_pause_seconds": "How long it goes on alone before it asks PostgreSQL again.",
    "limit_output_tokens": "Most output tokens that a request is estimated to use.",
    "limit_debt_minutes": "How many minutes of its limit of tokens a key may owe "
    "when responses used more than was estimated.",
    "limit_reservation_hours": "How long the estimate for a response waits for its end.",
    "max_keys": "Most API keys, revoked ones included; each intake has all in memory.",
    "max_key_grace_seconds": "Longest time that an old secret stays good after a rotation.",
}
WORKER: Words = {
    "name": "Name of this worker, in its leases and in Kafka. Give each its own.",
    "max_responses": "Most responses that run at once; the rest waits on the topic.",
    "max_background": "Most background responses that run at once beside them; "
    "the rest waits in the [queue](operations.md#the-queue-of-background-responses).",
    "background_per_key": "Most background responses of one API key that run at once, "
    "at all workers together.",
    "background_overdue_seconds": "What has waited so long has its turn before every priority.",
    "background_poll_seconds": "How often an idle worker looks into the queue.",
    "batch_records": "Most commands that are claimed in one statement.",
    "lease_seconds": "How long a worker owns a response without renewing. "
    "It renews three times in that time.",
    "sweep_seconds": "Pause between searches for expired leases.",
    "drain_seconds": "How long running responses may go on after a stop was asked for.",
    "max_attempts": "How often a response is begun before it ends as failed.",
    "tick_ms": "Least time between two packs to one partition.",
    "max_log_reads": "Most responses of dead workers that are read back from the log at once, each "
    "with a Kafka consumer of its own; others wait.",
    "pending_bytes": "Bytes that may wait for one partition before upstreams are read slower.",
    "max_file_bytes": "Most bytes of files that requests name, as base64 in memory, for all "
    "responses that run; others wait. Plan about three times as much memory.",
    "max_event_bytes": "Largest single event of a provider.",
    "max_response_bytes": "Largest JSON answer of a provider.",
    "max_turns": "Most model turns in one response.",
    "tool_timeout_seconds": "How long a worker waits for the result of a tool.",
    "results_partition": "The partition of `tools.results` that this worker reads. "
    "Unset: from a hash of its name.",
}
MCP_BROKER: Words = {
    "servers": "The [MCP servers file](#the-mcp-servers-file).",
    "max_records": "Most calls that are claimed in one transaction.",
    "lease_seconds": "After how long a crashed broker's calls are run again.",
    "max_call_seconds": "Longest call, whatever its deadline says.",
    "retention_hours": "How long finished calls are remembered, to answer a repeated one.",
    "purge_seconds": "Pause between clean-ups of old calls.",
    "output_max_bytes": "Longest text that the model gets from a tool; the rest is cut.",
    "content_max_bytes": "Most content blocks of a result, in bytes; the rest is left out.",
    "drain_seconds": "How long open calls may go on after a stop was asked for.",
    "stuck_seconds": "Not alive when calls wait and none was taken for so long.",
}
ARTIFACTS: Words = {
    "max_files": "Most files that are kept of one response.",
    "max_file_bytes": "Largest file that is kept.",
    "max_response_bytes": "Largest Response object that is searched for files.",
    "batch_records": "Most facts in one batch.",
    "keep_claims_days": "How long payloads that were too big for a message stay in the object "
    "store; longer than Kafka keeps the messages.",
    "remember_deleted_days": "How long a deleted response is remembered, "
    "so that a late fact does not bring it back.",
    "stall_seconds": "Not alive when facts wait and none was handled for so long.",
    "max_upload_bytes": "Largest file that a client may upload; above it 413.",
    "max_uploads": "Most uploads that are open at once, each with up to 10 MiB of memory; "
    "above it 503.",
    "upload_idle_seconds": "How long an upload may send nothing before it is given up.",
    "batch_files_days": "How long files with the purpose `batch` stay, unless `expires_after` "
    "says otherwise.",
    "sweep_files_seconds": "Pause between two looks for files whose time is over. "
    "They are not readable a moment longer; their bytes are.",
}
COSTS: Words = {
    "prices": "A [price file](#prices) of your own, which counts before published prices.",
    "consumer_group": "Kafka group. Another name reads everything that Kafka still has, "
    "to build a ledger in a new database.",
    "batch_records": "Most facts that are charged in one transaction.",
    "stall_seconds": "Not alive when facts wait and none was charged for so long.",
}
WEBHOOKS: Words = {
    "allow_http": "Whether the URL of an endpoint may begin with `http://`.",
    "allow_private": "Whether webhooks may go to private, loopback and link-local addresses, "
    "metadata services of clouds among them.",
    "allow_networks": "Networks that webhooks may go to although they are not public, such as "
    "`10.20.0.0/16,fd12::/16`.",
    "max_endpoints": "Most endpoints of one project.",
    "concurrency": "Most webhooks that one instance sends at a time.",
    "endpoint_concurrency": "Most webhooks that go to one endpoint at a time, from all instances.",
    "connect_seconds": "How long making a connection to an endpoint may take.",
    "timeout_seconds": "How long one attempt may take, its name and its answer included.",
    "lease_seconds": "How long a webhook waits when the instance that was sending it has died; "
    "more than `WEBHOOKS_TIMEOUT_SECONDS`.",
    "poll_seconds": "How often an idle instance looks for webhooks that are due.",
    "max_attempts": "Most attempts for one webhook.",
    "first_retry_seconds": "Longest pause after the first failed attempt; it doubles each time.",
    "longest_retry_seconds": "Longest pause between two attempts.",
    "give_up_hours": "No attempt is made later than so long after the first.",
    "trip_failures": "An endpoint that failed so often in a row gets one webhook at a time, "
    "with pauses, until one is taken.",
    "longest_probe_seconds": "Longest of those pauses.",
    "keep_days": "How long deliveries that are over can be seen; longer than Kafka keeps facts, "
    "so that none is sent again.",
    "sweep_seconds": "Pause between two looks for old deliveries.",
    "batch_records": "Most facts in one batch.",
    "stall_seconds": "Not alive when facts wait and none was handled for so long.",
}
PROVIDER: Words = {
    "name": "Name in cost lines and logs: lower-case letters, digits, `_`, `.`, `-`.",
    "dialect": "`responses`: it speaks the Responses API, streams pass through as bytes. "
    "`chat`: it speaks Chat Completions, the worker translates.",
    "base_url": "URL before `/responses`, `/chat/completions` and `/models`.",
    "api_key_env": "Name of the environment variable with its key. Unset: no key is sent.",
    "models": "Names, or patterns with `*`, `?` and `[...]`.",
    "aliases": "Public name of a model = the provider's own name for it.",
    "hosted_tools": "Types of tools that the provider runs itself. "
    "A `responses` provider gets types unknown to us anyway; `mcp` only when it stands here.",
    "reasoning_field": "`chat` alone: the field of assistant messages in which it takes back what "
    "it thought in the same turn; `none` when it refuses such a field.",
    "headers": "Further headers of every request to it.",
    "connect_timeout_seconds": "For opening a connection.",
    "first_byte_timeout_seconds": "Until the head of the answer. "
    "An answer that is not streamed has its head at the end: raise it for long ones.",
    "idle_timeout_seconds": "Between two reads of an answer.",
    "total_timeout_seconds": "For one whole request.",
    "retries": "Tries after the first, while nothing was streamed to the client. "
    "Between them 0.2 to 5 s, or up to 20 s when the provider says `retry-after`; "
    "when it says more, it is not asked again.",
    "max_connections": "Most connections per worker.",
    "max_concurrency": "Most requests that one worker has under way at it. Unset: no limit.",
    "concurrency_wait_seconds": "How long a request waits for one of these to end. "
    "Then the next provider is asked, or the answer is 503.",
    "breaker_failures": "Failures in a row after which it is not asked for a while. 0: never.",
    "breaker_failure_rate": "Share of failures in the window that does the same.",
    "breaker_min_calls": "With fewer calls in the window their share says nothing.",
    "breaker_window_seconds": "The window.",
    "breaker_open_seconds": "How long it is not asked then.",
    "breaker_probes": "Requests that may try at once after that; as many good ones close it.",
    "service_tier": "Tier to ask for when a request names none.",
    "service_tiers": "Tier of a request = the provider's own name for it. A `chat` provider "
    "refuses tiers that are not here, `auto` and `default` apart.",
    "models_without_tools": "Names or patterns of models that can't call tools.",
    "on_unsupported_tools": "What becomes of tools where no provider of the model has any: "
    "`drop`: left out with a warning, unless `tool_choice` demands one. `refuse`: 400.",
    "background": "`responses` alone: it works on background responses by itself. They are asked "
    "for with `store`, once, and followed, also by the next worker when one dies.",
    "background_seconds": "How long such a response may take; then it is cancelled there and "
    "fails.",
}
MCP_SERVER: Words = {
    "label": "Name that requests use as `server_label`.",
    "transport": "`stdio` starts a child process; `streamable_http` and `sse` go over HTTP.",
    "command": "Program of a stdio server.",
    "args": "Its arguments.",
    "env": "Its environment; of the broker's own it gets only PATH, HOME, USER, SHELL, TERM "
    "and LOGNAME.",
    "url": "Address of an HTTP server.",
    "headers": "Headers of every request to it, such as an authorization.",
    "allowed_tools": "Tools that may be called. Unset: all.",
    "connect_timeout_seconds": "For connecting and the first exchange.",
    "call_timeout_seconds": "For one call.",
    "health_seconds": "Pause between questions for its tools, which also show that it lives.",
    "max_concurrency": "Most calls at once.",
    "max_waiting": "Most calls that wait; further ones fail as `unavailable`.",
}
_PATTERN = "patterns know `*`, `?` and `[...]`; case does not matter."
MODEL_PRICES: Words = {
    "match": f"Name of the model; {_PATTERN}",
    "provider": "Name of the provider, as the providers file has it; a pattern, too.",
    "service_tier": "Service tier; a request without one counts as `default`.",
    "input_per_million_usd": "For input tokens.",
    "output_per_million_usd": "For output tokens.",
    "cached_input_per_million_usd": "For cached input tokens. Unset: as input tokens.",
    "cache_write_per_million_usd": "For input tokens that are written to a cache. "
    "Unset: as input tokens.",
    "reasoning_per_million_usd": "For reasoning tokens. Unset: they are output tokens.",
    "per_request_usd": "For each response, beside its tokens.",
}
TOOL_PRICES: Words = {
    "match": f"Name of the tool, such as `web_search` or `<server label>/<tool>`; {_PATTERN}",
    "provider": "Who runs it: a provider's name, or `mcp_broker`.",
    "model": "Name of the model, where the price depends on it.",
    "per_call_usd": "For one call.",
}
