"""The command line: typed dataclasses, YAML files and options in one; errors in one line."""

from __future__ import annotations

import errno
import inspect
import os
import re
import signal
import sys
import warnings
from argparse import ArgumentError, HelpFormatter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, Generic, TypeVar, get_args, get_type_hints

import jsonargparse
import yaml
from torch import distributed

from mmgan import modules
from mmgan.engine import files
from mmgan.errors import UserError

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
C = TypeVar("C")


@dataclass(frozen=True)
class Arguments(Generic[C]):
    """A parsed command line."""

    config: C
    output: Path


class _Parser(jsonargparse.ArgumentParser):
    """Lists the options of sections that name a class, or may be null, in `--help` like those of any other."""

    sections: Mapping[str, list[type]] = MappingProxyType({})

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        """The help, with those options at its end."""
        text = super().format_help(formatter).rstrip()
        for name, classes in self.sections.items():
            for one in classes:
                parser = jsonargparse.ArgumentParser(add_help=False, usage=jsonargparse.SUPPRESS)
                parser.add_class_arguments(one, name)
                chosen = f"\n\nwith --{name} {one.__name__}:" if inspect.isabstract(one.__base__) else ""
                text += f"{chosen}\n\n{parser.format_help().strip() or 'no options of its own'}"
        return text + "\n"


def _sections(config: type) -> dict[str, list[type]]:
    """The classes of every section of `config` whose type is a kind of class, or that may be null."""
    found: dict[str, list[type]] = {}
    for name, one, alone in _typed(config):
        if inspect.isabstract(one):
            found[name] = list(_kinds(one))
        elif is_dataclass(one) and not alone:
            found[name] = [one]
    return found


def _naming(thing: Any) -> set[str]:
    """The last words of the options of a configuration, or of a function, whose values name code."""
    found = {"name", "class_path"}
    for name, one, _ in _typed(thing):
        if inspect.isabstract(one):
            found |= {name}.union(*(_naming(kind) for kind in _kinds(one)))
        elif is_dataclass(one):
            found |= _naming(one)
    return found


def _typed(thing: Any) -> Iterator[tuple[str, type, bool]]:
    """Fields of a class, or parameters of a function: name, each class that a value may be of, whether that is all."""
    for name, hint in get_type_hints(thing).items():
        for one in get_args(hint) if isinstance(hint, UnionType) else [hint]:
            if isinstance(one, type):
                yield name, one, not isinstance(hint, UnionType)


def _kinds(base: type) -> Iterator[type]:
    """The classes below `base` that can be made, as far as they are imported."""
    one: type
    for one in base.__subclasses__():
        if not inspect.isabstract(one):
            yield one
        yield from _kinds(one)


def parse(
    config: type[C], description: str, args: Sequence[str] | None = None, named: Sequence[str] | None = None
) -> Arguments[C]:
    """Read `--config` files, merged from left to right, and the options over them into a `config`.

    Code that is not ours is imported where the user's command line `named` (None: `args`) names it, never because a
    file does. Raises UserError for whatever does not fit.
    """
    args = sys.argv[1:] if args is None else args
    parser = _Parser(description=description.partition("\n\n")[0] or None, exit_on_error=False)
    parser.sections = _sections(config)
    parser.add_argument("--config", action="config", help="YAML file; several are merged from left to right")
    parser.add_argument("--output", type=str, required=True, help="folder of the run; the same command resumes it")
    parser.add_class_arguments(config)
    with _mistakes_in_one_line(" (--help lists every option)", parser.sections):
        modules.trust(modules.path_of(kind) for kinds in parser.sections.values() for kind in kinds)
        modules.trust(modules.names_on(args if named is None else named, _naming(config)))
        values = parser.parse_args(args)
        made = parser.instantiate(values)
        return Arguments(_made(config, made), Path(values.output))


def config_of(config: type[C], values: C | Mapping[str, Any] | str | Path, trust: bool = False) -> C:
    """A `config` from values of its type, a dictionary of them, or a YAML file.

    With `trust`, code that is not ours may be named by it. Raises UserError for whatever does not fit.
    """
    if isinstance(values, config):
        if trust:
            modules.trust(modules.names_in(asdict(values)))  # type: ignore[call-overload]
        return values
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(config)
    with _mistakes_in_one_line(sections=_sections(config)):
        if isinstance(values, str | Path):
            values = files.read_yaml(Path(values))
        if not isinstance(values, Mapping):
            raise UserError(f"a configuration is a mapping of options to values, not {type(values).__name__}")
        if trust:
            modules.trust(modules.names_in(dict(values)))
        return _made(config, parser.instantiate(parser.parse_object(dict(values))))


def _made(config: type[C], made: jsonargparse.Namespace) -> C:
    return config(**{field.name: made[field.name] for field in fields(config)})  # type: ignore[arg-type]


def to_yaml(config: Any) -> str:
    """A configuration as YAML that reads back as it is, every key with its meaning as a comment.

    Raises UserError for one made of objects that a parser would not take, or of a class that no run could find again.
    """
    with _mistakes_in_one_line(sections=_sections(type(config))):
        classes = list(modules.classes_in(config))
        for name in classes:
            if "<locals>" in name:
                raise UserError(f"{name} is defined inside a function, where no run can find it again; move it out")
        modules.trust(classes)
        given, parser = (jsonargparse.ArgumentParser(exit_on_error=False) for _ in range(2))
        parser.add_class_arguments(type(config))
        options = {"skip_unset": False, "skip_validation": True}
        try:
            given.add_class_arguments(type(config), default=config)
            values = given.get_defaults()
            plain, commented = parser.dump(values, **options), parser.dump(values, with_comments=True, **options)
        except (AttributeError, yaml.YAMLError) as error:
            raise UserError(f"{type(config).__name__} holds a value that cannot be written down ({error})") from error
        parser.parse_object(yaml.safe_load(plain))
    commented = re.sub(r"default: \{'class_path': '[\w.]*?(\w+)'.*\}(?=[,)])", r"default: \1", commented)
    commented = re.sub(r", known subclasses: [\w., ]+(?=\))", "", commented)
    # The writer of comments leaves a string like "no" without quotes; then better without comments.
    return commented if yaml.safe_load(commented) == yaml.safe_load(plain) else plain


def call(*functions: Callable[..., Any], args: Sequence[str] | None = None, folders: str | None = None) -> None:
    """Call a function with what the command line says; its docstring is the help. Raises UserError like `parse`.

    Of several functions the first argument names one. `folders` is a parameter that takes one or more of them.
    """
    parsers = {}
    for function in functions:
        parsers[function.__name__] = _Parser(description=(function.__doc__ or "").splitlines()[0], exit_on_error=False)
        skip: set[str | int] = {folders} if folders else set()
        if folders:
            parsers[function.__name__].add_argument(folders, nargs="+", type=Path, help="folders")
        parsers[function.__name__].add_function_arguments(function, as_group=False, as_positional=True, skip=skip)
    parser = parsers[functions[0].__name__]
    if len(functions) > 1:
        parser = _Parser(exit_on_error=False)
        commands = parser.add_subcommands(dest="command")
        for name, one in parsers.items():
            commands.add_subcommand(name, one, help=one.description)
    with _mistakes_in_one_line(" (--help lists every option)"):
        options = set().union(*(_naming(function) for function in functions))
        modules.trust(modules.names_on(sys.argv[1:] if args is None else args, options))
        values = parser.instantiate(parser.parse_args(args)).as_dict()
    name = values.pop("command", functions[0].__name__)
    chosen = next(function for function in functions if function.__name__ == name)
    chosen(**(values.get(name, {}) if len(functions) > 1 else values))


@contextmanager
def _mistakes_in_one_line(
    advice: str = "", sections: Mapping[str, list[type]] = MappingProxyType({})
) -> Iterator[None]:
    try:
        yield
    except (ArgumentError, ValueError, TypeError) as error:
        text = _one_line(str(error))
        if unknown := re.fullmatch(r"(\S+): there is no class (\S+)", text):
            known = ", ".join(one.__name__ for one in sections.get(unknown[1], []))
            text += f"; {f'take {known} or ' if known else ''}one of your own as module.Class"
        raise UserError(f"{text}{advice}") from error


def _one_line(message: str) -> str:
    """The part of a parser's message that says what is wrong, without its listing of alternatives tried."""
    if denied := re.search(r"Importing '([\w.]+)' is not allowed", message):
        advice = "a file may not choose code: name it on the command line, or trust the file (--trust true, trust=True)"
        return f"{denied[1]} is not part of mmgan, and {advice}"
    noise = ("Does not validate", "Subtypes:", "Errors:", "Given value", "- Expected a <class 'NoneType'>")
    lines = [line.strip() for line in message.splitlines() if not line.strip().startswith(noise)]
    lines = [line for line in lines if "Problem with given class_path" not in line]
    text = " ".join(line.removeprefix("- ") for line in lines if line)
    keys = re.findall(r"""Parser key "([^"]+)":\s*""", text)
    text = re.sub(r"""Parser key "[^"]+":\s*""", "", text)
    if option := re.search(r"Option '(\S+)' is not accepted", text):
        named = re.search(r"given class_path '[\w.]*?(\w+)'", message)
        return f"{'.'.join([*keys, option[1]])}: {named[1] if named else 'this section'} has no option {option[1]}"
    text = re.sub(r"Expected a <class '(?:[\w.]*\.)?(\w+)'>\. Got value: (.*)", r"expected \1, not \2", text)
    text = re.sub(r"Expected a dot import path string: (\S+)", r"there is no class \1", text)
    return f"{'.'.join(keys)}: {text}" if keys else text


def run(main: Callable[[], Any]) -> None:
    """Call a script's `main`, with one line on stderr for whatever the user can put right, and exit code 2.

    Ctrl-C ends it with 130, and a reader of its output that leaves (`| head`) with 141, as they do other commands.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # scripts let it end them at once while they import
    sys.path.append(str(Path.cwd()))  # modules of the user's own, by name
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        main()
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()  # left to the interpreter's end, its threads now and then abort it
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command resumes what it can", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains of it when it ends
        sys.exit(141)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "make room" if full else "put that right"
        print(f"error: {error.strerror or error}{where}; {advice} and run the same command again", file=sys.stderr)
        sys.exit(2)
