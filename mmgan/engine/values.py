"""Values of options: read from YAML, checked against their types, and turned into the objects they describe."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import jsonargparse
import torch
import yaml

MODE = "mmgan"
"""The parser's name for `load`."""
MOST_DIGITS = 300
"""A whole number with this many digits or more is treated as too large for a float."""
LARGEST = torch.finfo(torch.float32).max
"""The largest value of an option: networks and optimisers compute in single precision."""
SHOWN = 60
"""The number of characters of a value that a message shows."""
WORDS = {int: "whole number", float: "number", str: "text", Path: "path", bool: "true or false"}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML in which keys are unique, numbers are decimal (010 is ten, 1e-3 a number), and dates are text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, form) for tag, form in known if tag.rpartition(":")[2] in ("bool", "null", "merge")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping; raises ConstructorError for a key that occurs twice or is not a string."""
        seen = set()
        for key, _ in node.value:
            if not key.tag.endswith((":str", ":merge")):
                problem = f"{key.value if key.id == 'scalar' else f'a {key.id}'} is not the name of an option"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if key.value in seen:
                problem = f"{key.value} occurs twice; remove one of them"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        made: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return made

    def construct_int(self, node: yaml.ScalarNode) -> float:
        """A decimal number; infinity, which no option accepts, if it has too many digits."""
        digits = node.value.replace("_", "")
        return int(digits) if len(digits) < MOST_DIGITS else math.inf


_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9][0-9_]*$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"([-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)


def from_yaml(text: str) -> Any:
    """The value of a YAML text; raises YAMLError, in one line, if it is not valid."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise yaml.YAMLError(f"{error.problem}{line}") from error
    except (RecursionError, ValueError) as error:
        raise yaml.YAMLError("nested too deeply" if isinstance(error, RecursionError) else str(error)) from error


jsonargparse.set_loader(MODE, from_yaml, exceptions=(yaml.YAMLError,))


def kinds(base: type) -> Iterator[type]:
    """The concrete subclasses of `base` that have been imported."""
    one: type
    for one in base.__subclasses__():
        if not inspect.isabstract(one):
            yield one
        yield from kinds(one)


def types_of(thing: Any) -> dict[str, Any]:
    """The types of a class's options or a function's parameters, by name; empty if they cannot be resolved."""
    try:
        plain = isinstance(thing, type) and not is_dataclass(thing)
        return get_type_hints(vars(thing).get("__init__", thing) if plain else thing)
    except NameError:
        return {}


def members(hint: Any) -> tuple[Any, ...]:
    """The types that a value of type `hint` may have."""
    return get_args(hint) if isinstance(hint, UnionType) or get_origin(hint) is Union else (hint,)


def type_of(thing: Any, option: str) -> Any:
    """The type of an option, by its dotted name within a class or function; None if there is no such option."""
    name, _, rest = option.partition(".")
    hint = types_of(thing).get(name)
    if not rest:
        return hint
    found = (type_of(kind, rest) for one in members(hint) if isinstance(one, type) for kind in (one, *kinds(one)))
    return next((one for one in found if one is not None), None)


def words(hint: Any) -> str:
    """A description of the values of type `hint`."""
    if len(members(hint)) > 1:
        return " or ".join(words(one) for one in members(hint))
    if hint is NoneType:
        return "null"
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) is tuple:
        return f"a list of {len(get_args(hint))} {WORDS.get(get_args(hint)[0], 'value')}s"
    if get_args(hint):
        of = get_args(hint)[-1]
        one = words(of) if get_origin(of) is Literal else f"{WORDS.get(of, 'value')}s"
        return f"a {'mapping to' if issubclass(get_origin(hint), dict) else 'list of'} {one}"
    if inspect.isabstract(hint):
        return f"{', '.join(one.__name__ for one in kinds(hint))}, or your own class as module.Class"
    name = WORDS.get(hint, "mapping of options to values")
    return name if hint in (bool, str) else f"a {name}"


def shown(value: Any) -> str:
    """A value as a message shows it."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else " ".join(str(value).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def fits(hint: Any, value: Any) -> bool:
    """Whether a parsed value is of type `hint`, if that is a plain type; `made` checks sections of options."""
    origin, of = get_origin(hint), get_args(hint)
    if len(members(hint)) > 1:
        return any(fits(one, value) for one in of)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in of)
    if hint in (None, NoneType):
        return value is None
    if value is None or isinstance(value, bool):
        return hint is Any or (hint is bool and value is not None)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(fits(of[-1], part) for part in value.values())
    if isinstance(origin, type) and issubclass(origin, Sequence):
        if not isinstance(value, list | tuple) or (origin is tuple and ... not in of and len(of) != len(value)):
            return False
        return all(fits(one, part) for one, part in zip(_parts(of, value), value, strict=True))
    plain = {int: int, float: int | float, str: str, bool: bool, Path: str | Path}
    return isinstance(value, plain[hint]) if hint in plain else True


def _parts(of: tuple[Any, ...], value: Sequence[Any]) -> tuple[Any, ...]:
    """The type of every part of `value`, a list or tuple of types `of`."""
    return of if len(of) == len(value) and ... not in of else (of or (Any,))[:1] * len(value)


def made(hint: Any, value: Any, option: str) -> Any:
    """Build the object of type `hint` that parsed values describe.

    Raises ValueError, naming `option`, for values of another type, numbers that are not finite in single precision, and
    values that a class rejects.
    """
    if not fits(hint, value):
        advice = ": a key without a value in a YAML file is null; give it a value or remove the line"
        raise ValueError(f"{option} must be {words(hint)}, not {shown(value)}{advice if value is None else ''}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) <= LARGEST:
            bound = "finite" if not math.isfinite(value) else f"at most {LARGEST:.2g}"
            raise ValueError(f"{option} must be {bound}, not {shown(value)}")
        return float(value) if float in members(hint) else value
    if isinstance(value, list | tuple):
        kind = next((tuple for one in members(hint) if get_origin(one) is tuple), type(value))
        of = next((get_args(one) for one in members(hint) if get_args(one)), ())
        return kind(made(one, part, option) for one, part in zip(_parts(of, value), value, strict=True))
    if isinstance(value, Mapping):
        return {key: made(Any, part, f"{option}.{key}") for key, part in value.items()}
    if not isinstance(value, jsonargparse.Namespace):
        return Path(value).expanduser() if Path in members(hint) and value is not None else value
    if "class_path" in value:
        module, _, name = value.class_path.rpartition(".")
        one = getattr(import_module(module), name)  # already imported by the parser, if allowed
        given = value.get("init_args")  # None if the class has no options
        options = {**(vars(given) if given else {}), **(value.get("dict_kwargs") or {})}
    else:
        one, options = next(one for one in members(hint) if is_dataclass(one)), vars(value)
    try:
        return one(**arguments(one, options, option))
    except (ValueError, TypeError, ArithmeticError) as error:
        text, (parent, _, last) = str(error), option.rpartition(".")
        if text.startswith(f"{last}.") and parent:  # the class knows only the last word of its section
            text = f"{parent}.{text}"
        raise ValueError(text if option in text else f"{option}: {text}") from error


def arguments(thing: Any, values: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """The arguments of a class or function, built from parsed values by `made`."""
    hints, prefix = types_of(thing), f"{section}." if section else ""
    return {name: made(hints.get(name, Any), value, prefix + name) for name, value in values.items()}
