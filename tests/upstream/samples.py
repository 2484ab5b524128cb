"""Deterministic sample data: instances of JSON schemas and small real PNG images."""

import base64
import hashlib
import random
import struct
import zlib
from typing import Any

from tests.upstream.answers import Json

_MAX_DEPTH = 8


def instance(schema: Json, *, seed: str = "text") -> Any:
    """Make the simplest value that the schema accepts; strings without other rules are `seed`.

    Knows what structured outputs allow: types, enum, const, anyOf, $ref, required and the
    usual bounds. Recursive schemas end at a fixed depth with null.
    """
    return _instance(schema, schema, seed, 0)


def _instance(schema: Json, root: Json, seed: str, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return None
    if "$ref" in schema:
        return _instance(_resolve(schema["$ref"], root), root, seed, depth + 1)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return _instance(schema[key][0], root, seed, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    return _typed(schema, root, seed, depth)


def _typed(schema: Json, root: Json, seed: str, depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            properties: Json = schema.get("properties", {})
            return {
                name: _instance(inner, root, seed, depth + 1) for name, inner in properties.items()
            }
        case "array":
            inner = schema.get("items", {})
            count = max(1, schema.get("minItems", 1))
            return [_instance(inner, root, seed, depth + 1) for _ in range(count)]
        case "integer":
            return int(schema.get("minimum", 1))
        case "number":
            return float(schema.get("minimum", 1.5))
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return seed.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]


def _resolve(reference: str, root: Json) -> Json:
    found: Any = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        found = found[step] if step else found
    return dict(found)


def png(seed: str, *, side: int = 16, noisy: bool = False) -> bytes:
    """A real RGB image of `side` squared pixels: the same bytes for the same arguments.

    A noisy image does not compress, so its size is about three bytes a pixel.
    """
    digest = hashlib.sha256(seed.encode()).digest()
    if noisy:
        stream = random.Random(digest)
        rows = b"".join(b"\0" + stream.randbytes(3 * side) for _ in range(side))
    else:
        rows = (b"\0" + digest[:3] * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", zlib.compress(rows)),
            _chunk(b"IEND", b""),
        )
    )


def png_b64(seed: str, *, side: int = 16, noisy: bool = False) -> str:
    """The same image as base64 text."""
    return base64.b64encode(png(seed, side=side, noisy=noisy)).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
