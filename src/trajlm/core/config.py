"""Strict configuration: frozen dataclasses from plain mappings, YAML files and recipes.

Unknown keys, wrong types and duplicate YAML keys are errors that name the key and the nearest
known one. A recipe is a delta with a name; one file, `recipes.yaml`, holds all of an algorithm's.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from trajlm.core.errors import UsageError, suggestion

T = TypeVar("T")
MAX_FILE_BYTES = 1_000_000


def from_mapping(cls: type[T], mapping: Mapping[str, Any], *, where: str = "") -> T:
    """Build the dataclass `cls`. Raises `UsageError` naming the key (`where` is its prefix)."""
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in mapping:
        if key not in fields:
            raise UsageError(
                f"unknown configuration key {where + str(key)!r}{suggestion(str(key), fields)}"
            )
    values = {k: convert(v, hints[k], where=where + k) for k, v in mapping.items()}
    missing = [
        where + name
        for name, field in fields.items()
        if name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UsageError(f"configuration key {missing[0]!r} is required")
    try:
        return cls(**values)
    except UsageError as error:
        raise UsageError(f"{where}{error}") from None


def convert(value: Any, hint: Any, *, where: str) -> Any:
    """`value` as the type `hint`: int, float, bool, str, Literal, tuple, X | None, dataclass."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _first_of(value, [a for a in arguments if a is not type(None)], where=where)
    if origin is Literal:
        if value not in arguments:
            near = suggestion(str(value), map(str, arguments))
            raise UsageError(f"{where}: {value!r} is not one of {list(arguments)}{near}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UsageError(f"{where}: expected a list, found {value!r}")
        return tuple(convert(v, arguments[0], where=f"{where}[{i}]") for i, v in enumerate(value))
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise UsageError(f"{where}: expected a mapping, found {value!r}")
        return from_mapping(hint, value, where=f"{where}.")  # type: ignore[arg-type]
    return _scalar(value, hint, where=where)


def _first_of(value: Any, hints: list[Any], *, where: str) -> Any:
    """`value` as the first of the types that takes it; the last one's error where none does."""
    for hint in hints[:-1]:
        try:
            return convert(value, hint, where=where)
        except UsageError:
            continue
    return convert(value, hints[-1], where=where)


def _scalar(value: Any, hint: Any, *, where: str) -> Any:
    if hint is Any:
        return value
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        # YAML reads 1e-4 (no dot) as a string.
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isnan(number):
            return number
    elif hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    elif hint is Path and isinstance(value, str | Path):
        return Path(value)
    elif hint in (bool, str) and isinstance(value, hint):
        return value
    raise UsageError(f"{where}: expected {getattr(hint, '__name__', hint)}, found {value!r}")


def overridden(config: T, overrides: Mapping[str, Any], *, name: str) -> T:
    """`config` (a dataclass) with some of its fields replaced. Raises `UsageError` for others."""
    known = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    for key in overrides:
        if key not in known:
            raise UsageError(
                f"{name}: unknown option {key!r}{suggestion(key, known) or f'; known: {known}'}"
            )
    return dataclasses.replace(config, **overrides)  # type: ignore[type-var]


def to_mapping(config: Any) -> Any:
    """Plain data (dict, list, scalar) of a dataclass: what `from_mapping` reads back."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_mapping(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, tuple | list):
        return [to_mapping(item) for item in config]
    return str(config) if isinstance(config, Path) else config


def merge(base: Mapping[str, Any], delta: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `delta` laid over it, mapping by mapping."""
    merged = dict(base)
    for key, value in delta.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader, which also refuses a key written twice."""


def _mapping_without_duplicates(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise UsageError(f"key {key!r} is written twice, line {node.start_mark.line + 1}")
    return dict(loader.construct_pairs(node, deep=True))


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's mapping. Raises `UsageError` where it is missing, too large or no mapping."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UsageError(f"{path}: larger than {MAX_FILE_BYTES} bytes, no configuration")
        loaded = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)  # noqa: S506 (safe)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    if not isinstance(loaded, dict):
        raise UsageError(f"{path}: expected a mapping at the top")
    return loaded


def recipe(path: Path, name: str) -> dict[str, Any]:
    """The recipe `name` of a `recipes.yaml`, laid over what it `extends`, down to `defaults`."""
    recipes = read_yaml(path)
    chain: list[Mapping[str, Any]] = []
    while name:
        if name not in recipes or len(chain) > len(recipes):
            known = [n for n in recipes if n != "defaults"]
            near = suggestion(name, known) or f"; known: {', '.join(known)}"
            raise UsageError(f"unknown recipe {name!r}{near}")
        chain.append(recipes[name] or {})
        name = str(chain[-1].get("extends", "" if name == "defaults" else "defaults"))
    merged: dict[str, Any] = {}
    for delta in reversed(chain):
        merged = merge(merged, {k: v for k, v in delta.items() if k != "extends"})
    return merged
