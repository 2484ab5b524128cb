"""Builders of the items of hosted tools: what the provider runs on its own side."""

import base64
from collections.abc import Callable

import orjson

from tests.upstream import samples
from tests.upstream.answers import Json, chunks, pieces
from tests.upstream.turn import OpenItem, Turn

_SERVER = "scripted"
_MCP_TOOL: Json = {
    "name": "echo",
    "description": "Echoes back the input.",
    "input_schema": {"type": "object", "properties": {"message": {"type": "string"}}},
    "annotations": {"readOnlyHint": True},
}
_PARTIAL_IMAGES = 2
_BIG_IMAGE_SIDE = 640
_CODE = "print(6 * 7)"
_STDOUT = "scripted\n"


def web_search(turn: Turn, query: str) -> None:
    """A search with a source."""
    action = {"type": "search", "query": query, "queries": [query]}
    item = turn.add("ws", {"type": "web_search_call", "status": "in_progress", "action": action})
    item.steps("web_search_call", "in_progress", "searching", "completed")
    sources = [{"type": "url", "url": "https://example.com/fox"}]
    item.done(status="completed", action={**action, "sources": sources})


def file_search(turn: Turn, query: str) -> None:
    """A search in a vector store with one result."""
    state: Json = {
        "type": "file_search_call",
        "status": "in_progress",
        "queries": [],
        "results": None,
    }
    item = turn.add("fs", state)
    item.steps("file_search_call", "in_progress", "searching", "completed")
    result = {
        "file_id": "file-1",
        "filename": "fox.txt",
        "score": 0.9,
        "text": "The fox is quick.",
        "attributes": {"page": 1.0},
    }
    item.done(status="completed", queries=[query], results=[result])


def code_interpreter(turn: Turn, seed: str) -> None:
    """A run of Python with logs and an image as outputs."""
    state: Json = {
        "type": "code_interpreter_call",
        "status": "in_progress",
        "code": "",
        "container_id": "cntr_scripted",
        "outputs": None,
    }
    item = turn.add("ci", state)
    item.steps("code_interpreter_call", "in_progress")
    for delta in chunks(_CODE):
        item.event("response.code_interpreter_call_code.delta", delta=delta)
    item.event("response.code_interpreter_call_code.done", code=_CODE)
    item.steps("code_interpreter_call", "interpreting", "completed")
    image = {"type": "image", "url": f"data:image/png;base64,{samples.png_b64(seed)}"}
    outputs = [{"type": "logs", "logs": "42\n"}, image]
    item.done(status="completed", code=_CODE, outputs=outputs)


def image(turn: Turn, prompt: str) -> None:
    """A small real PNG, its bytes derived from the prompt, after partial images."""
    _image(turn, prompt, samples.png_b64(prompt))


def image_big(turn: Turn, prompt: str) -> None:
    """A PNG of about 1.2 MB that does not compress."""
    _image(turn, prompt, samples.png_b64(prompt, side=_BIG_IMAGE_SIDE, noisy=True))


def image_failed(turn: Turn, prompt: str) -> None:
    """An image that the moderation refused."""
    item = _open_image(turn)
    error = {"type": "image_generation_user_error", "message": f"Refused: {prompt}", "code": None}
    item.done(status="failed", error=error)


def _open_image(turn: Turn) -> OpenItem:
    state = {"type": "image_generation_call", "status": "in_progress", "result": None}
    item = turn.add("ig", state)
    item.steps("image_generation_call", "in_progress", "generating")
    return item


def _image(turn: Turn, prompt: str, result: str) -> None:
    item = _open_image(turn)
    settings = {"size": "1024x1024", "quality": "high", "background": "opaque"}
    settings["output_format"] = "png"
    for number in range(_PARTIAL_IMAGES):
        item.event(
            "response.image_generation_call.partial_image",
            partial_image_index=number,
            partial_image_b64=samples.png_b64(f"{prompt} {number}", side=4),
            **settings,
        )
    item.steps("image_generation_call", "completed")
    item.done(status="completed", result=result, revised_prompt=prompt, **settings)


def mcp(turn: Turn, argument: str) -> None:
    """A list of tools and a call that worked."""
    _mcp_list(turn)
    item, arguments = _open_mcp_call(turn, argument)
    item.steps("mcp_call", "completed")
    item.done(status="completed", arguments=arguments, output=f"Echo: {argument}")


def mcp_failed(turn: Turn, argument: str) -> None:
    """A list of tools and a call that failed in the tool."""
    _mcp_list(turn)
    item, arguments = _open_mcp_call(turn, argument)
    item.steps("mcp_call", "failed")
    content = [{"type": "text", "text": f"Cannot echo: {argument}"}]
    error = {"type": "mcp_tool_execution_error", "content": content}
    item.done(status="failed", arguments=arguments, error=error)


def mcp_list_failed(turn: Turn, _: str) -> None:
    """A server that could not be asked for its tools."""
    item = _open_mcp_list(turn)
    item.steps("mcp_list_tools", "failed")
    item.done(error="Error retrieving tool list from MCP server: 'scripted'.")


def mcp_approval(turn: Turn, argument: str) -> None:
    """A list of tools and a request to approve a call."""
    _mcp_list(turn)
    request = {
        "type": "mcp_approval_request",
        "server_label": _SERVER,
        "name": "echo",
        "arguments": _mcp_arguments(argument),
    }
    turn.add("mcpr", request).done()


def _open_mcp_list(turn: Turn) -> OpenItem:
    item = turn.add("mcpl", {"type": "mcp_list_tools", "server_label": _SERVER, "tools": []})
    item.steps("mcp_list_tools", "in_progress")
    return item


def _mcp_list(turn: Turn) -> None:
    item = _open_mcp_list(turn)
    item.steps("mcp_list_tools", "completed")
    item.done(tools=[_MCP_TOOL])


def _mcp_arguments(argument: str) -> str:
    return orjson.dumps({"message": argument}).decode()


def _open_mcp_call(turn: Turn, argument: str) -> tuple[OpenItem, str]:
    state = {
        "type": "mcp_call",
        "status": "in_progress",
        "server_label": _SERVER,
        "name": "echo",
        "arguments": "",
        "output": None,
        "error": None,
        "approval_request_id": None,
    }
    item = turn.add("mcp", state)
    item.steps("mcp_call", "in_progress")
    arguments = _mcp_arguments(argument)
    for delta in chunks(arguments):
        item.event("response.mcp_call_arguments.delta", delta=delta)
    item.event("response.mcp_call_arguments.done", arguments=arguments)
    return item, arguments


def audio(turn: Turn, transcript: str) -> None:
    """Sound with its transcript; these events belong to no item."""
    for chunk in chunks(transcript * 2):
        turn.emit("response.audio.delta", delta=base64.b64encode(chunk.encode()).decode())
    for word in pieces(transcript):
        turn.emit("response.audio.transcript.delta", delta=word)
    turn.emit("response.audio.transcript.done")
    turn.emit("response.audio.done")


def shell(turn: Turn, argument: str) -> None:
    """A shell command and its output, as two items."""
    command = f"echo {argument or 'scripted'}"
    call_id = turn.call_id()
    state: Json = {"type": "shell_call", "status": "in_progress", "call_id": call_id}
    item = turn.add("sh", state | {"action": {"commands": []}, "environment": None})
    place = {"output_index": item.index, "command_index": 0}
    turn.emit("response.shell_call_command.added", command="", **place)
    for delta in chunks(command):
        turn.emit("response.shell_call_command.delta", delta=delta, **place)
    turn.emit("response.shell_call_command.done", command=command, **place)
    item.done(status="completed", action={"commands": [command]})

    state = {"type": "shell_call_output", "status": "in_progress", "call_id": call_id}
    printed = turn.add("sho", state | {"output": []})
    family = "response.shell_call_output_content"
    printed.event(f"{family}.delta", command_index=0, delta={"stdout": _STDOUT})
    output = [{"stdout": _STDOUT, "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]
    printed.event(f"{family}.done", command_index=0, output=output)
    printed.done(status="completed", output=output)


def compaction(turn: Turn, _: str) -> None:
    """A compaction of the conversation so far."""
    item = turn.add("cmp", {"type": "compaction", "encrypted_content": ""})
    item.event("response.compaction.compacting")
    item.done(encrypted_content="gAAAAAB-compacted")


BUILDERS: dict[str, Callable[[Turn, str], None]] = {
    "web_search": web_search,
    "file_search": file_search,
    "code_interpreter": code_interpreter,
    "image": image,
    "image_big": image_big,
    "image_failed": image_failed,
    "mcp": mcp,
    "mcp_failed": mcp_failed,
    "mcp_list_failed": mcp_list_failed,
    "mcp_approval": mcp_approval,
    "audio": audio,
    "shell": shell,
    "compaction": compaction,
}
