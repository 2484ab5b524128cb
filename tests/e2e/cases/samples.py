"""Instances of the openai package's models, made from their types alone."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

Json = dict[str, Any]
_TEXT = "sample"
_DEPTH = 6


def variants(union: object) -> list[type[BaseModel]]:
    """The models of a discriminated union, as the package spells them."""
    [first, *_] = get_args(union)
    return list(get_args(first)) or list(get_args(union))


def type_of(model: type[BaseModel]) -> str:
    """The value of a model's field `type`."""
    return str(get_args(model.model_fields["type"].annotation)[0])


def sample(model: type[BaseModel], *, full: bool) -> Json:
    """An object that the model accepts: with all of its fields, or with the required ones only."""
    return _object(model, full=full, depth=0)


def _object(model: type[BaseModel], *, full: bool, depth: int) -> Json:
    made: Json = {}
    for name, field in model.model_fields.items():
        if field.is_required() or (full and depth < _DEPTH):
            annotation = _without_none(field.annotation) if full else field.annotation
            made[field.alias or name] = _value(annotation, full=full, depth=depth + 1)
    return made


def _without_none(annotation: object) -> object:
    if get_origin(annotation) in (Union, types.UnionType):
        return next(inner for inner in get_args(annotation) if inner is not type(None))
    return annotation


def _value(annotation: Any, *, full: bool, depth: int) -> Any:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _value(inner[0], full=full, depth=depth)
    if origin in (Union, types.UnionType):
        wanted = next((kind for kind in inner if kind is not type(None)), inner[0])
        return None if type(None) in inner and not full else _value(wanted, full=full, depth=depth)
    if origin is Literal:
        return inner[0]
    if origin is list:
        return [_value(inner[0], full=full, depth=depth)] if depth < _DEPTH else []
    if origin is dict:
        return {"key": _value(inner[1], full=full, depth=depth)}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _object(annotation, full=full, depth=depth)
    plain: dict[object, object] = {bool: True, int: 1, float: 1.5, str: _TEXT, object: _TEXT}
    return plain[annotation]
