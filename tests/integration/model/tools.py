"""Function tools that the tests offer to the model."""

from openai.types.chat import ChatCompletionFunctionToolParam


def function(
    name: str, description: str, parameters: dict[str, object]
) -> ChatCompletionFunctionToolParam:
    """A function tool as Chat Completions takes it."""
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


ADD = function(
    "add",
    "Add two integers",
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
)
ECHO = function(
    "echo",
    "Echoes back the input message",
    {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]},
)
PAINT = function(
    "paint",
    "Paint a wall",
    {
        "type": "object",
        "properties": {"colour": {"$ref": "#/$defs/colour"}},
        "required": ["colour"],
        "$defs": {"colour": {"enum": ["red", "green"]}},
    },
)
PING = function("ping", "Check that the server is there", {"type": "object"})
