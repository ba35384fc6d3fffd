"""The command line: typed dataclasses filled from YAML files and options; errors in one line."""

from __future__ import annotations

import errno
import gc
import inspect
import os
import re
import shlex
import signal
import sys
import threading
import warnings
from argparse import ArgumentError, ArgumentParser, HelpFormatter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, Generic, TypeVar, get_args, get_type_hints

import jsonargparse
import torch
import yaml
from torch import distributed

from mmgan import modules
from mmgan.engine import files
from mmgan.engine.shipped import configuration
from mmgan.engine.values import MODE, MOST_DIGITS, arguments, from_yaml, kinds, shown, type_of, types_of, words
from mmgan.errors import UserError

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
C = TypeVar("C")


@dataclass(frozen=True)
class Arguments(Generic[C]):
    """A parsed command line."""

    config: C
    output: Path


class _Parser(jsonargparse.ArgumentParser):
    """Lists in `--help` the options of every section, including those that name a class or may be null."""

    sections: Mapping[str, list[type]] = MappingProxyType({})

    def __init__(self, *args: Any, **options: Any) -> None:
        own: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False, "parser_mode": MODE}
        super().__init__(*args, **(own | options))

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        """The help, ending with those options."""
        text = super().format_help(formatter).rstrip()
        for name, classes in self.sections.items():
            for one in classes:
                parser = jsonargparse.ArgumentParser(add_help=False, usage=jsonargparse.SUPPRESS)
                parser.add_class_arguments(one, name)
                chosen = f"\n\nwith --{name} {one.__name__}:" if inspect.isabstract(one.__base__) else ""
                text += f"{chosen}\n\n{parser.format_help().strip() or 'no options'}"
        return text + "\n"


def _sections(config: type) -> dict[str, list[type]]:
    """The classes of every section of `config` that names a class or may be null."""
    found: dict[str, list[type]] = {}
    for name, one, alone in _typed(config):
        if inspect.isabstract(one):
            found[name] = list(kinds(one))
        elif is_dataclass(one) and not alone:
            found[name] = [one]
    return found


def _naming(thing: Any) -> set[str]:
    """The options of a configuration, or of a function, whose values name code; the last word of each."""
    found = {"name", "class_path"}
    for name, one, _ in _typed(thing):
        if inspect.isabstract(one):
            found |= {name}.union(*(_naming(kind) for kind in kinds(one)))
        elif is_dataclass(one):
            found |= _naming(one)
    return found


def _typed(thing: Any) -> Iterator[tuple[str, type, bool]]:
    """Fields of a class, or parameters of a function: name, each class a value may have, whether it is the only one."""
    for name, hint in get_type_hints(thing).items():
        for one in get_args(hint) if isinstance(hint, UnionType) else [hint]:
            if isinstance(one, type):
                yield name, one, not isinstance(hint, UnionType)


def _names_on(arguments: Sequence[str], options: Collection[str]) -> Iterator[str]:
    """The names of code on a command line: values of `options` (the last word of each) that are not files."""
    for before, argument in pairwise(["", *arguments]):
        option, _, value = argument.partition("=") if argument.startswith("--") else (before, "", argument)
        word = option.removeprefix("--").rpartition(".")[2]
        if not option.startswith("--") or word not in options or value.endswith((".yaml", ".yml", ".json")):
            continue
        try:
            yield from modules.names_in({word: from_yaml(value)})
        except yaml.YAMLError:  # not a valid value
            continue


def parse(
    config: type[C], description: str, args: Sequence[str] | None = None, named: Sequence[str] | None = None
) -> Arguments[C]:
    """Read `--config` files, merged from left to right, and the options that override them into a `config`.

    Code from outside mmgan is imported only if the user's command line `named` (None: `args`) names it, never because
    a file does. Raises UserError for anything invalid.
    """
    args = sys.argv[1:] if args is None else args
    parser = _Parser(description=description.partition("\n\n")[0] or None)
    parser.sections = _sections(config)
    text = "YAML file, or the name of one shipped with mmgan, such as gan/digits; several are merged from left to right"
    parser.add_argument("--config", action="config", help=text)
    parser.add_argument("--output", type=str, required=True, help="run folder; the same command resumes the run")
    parser.add_class_arguments(config)
    with _mistakes_in_one_line(" (--help lists every option)", config):
        modules.trust(modules.path_of(kind) for kinds in parser.sections.values() for kind in kinds)
        modules.trust(_names_on(args if named is None else named, _naming(config)))
        found, rest = _files(_switched(args, config))
        for file in found:
            _of_this_command(file, config)
        values = parser.parse_args([*(f"--config={file}" for file in found), *rest])
        output = values.pop("output")
        values.pop("config")
        return Arguments(config(**arguments(config, vars(values))), Path(output).expanduser())


def _files(args: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The configuration files on a command line, and the options, which override them."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", action="append", default=[])
    found, rest = parser.parse_known_args(args)
    return [configuration(file) for file in found.config], rest


def _of_this_command(file: Path, config: type) -> None:
    """Raise UserError if a configuration file has several options that `config` lacks."""
    known = get_type_hints(config)
    foreign = [key for key in files.read_yaml(file) if key.partition(".")[0] not in known]
    if len(foreign) > 1:
        raise UserError(
            f"{file} has options that this command lacks ({', '.join(foreign)}); is it for another command?"
        )


def _switched(args: Sequence[str], thing: Any) -> list[str]:
    """`args` with `true` after every Boolean option without a value, and infinity for numbers too large for a float."""
    made = []
    finite = [re.sub(rf"(?<!\w)\d{{{MOST_DIGITS},}}$", ".inf", argument) for argument in args]
    for argument, after in pairwise([*finite, "--"]):
        alone = argument.startswith("--") and after.startswith("--") and type_of(thing, argument[2:]) is bool
        made.append(f"{argument}=true" if alone else argument)
    return made


def config_of(config: type[C], values: C | Mapping[str, Any] | str | Path, trust: bool = False) -> C:
    """A `config` from one of its type, a dictionary, a YAML file, or the name of a shipped one, such as gan/digits.

    With `trust`, it may name code from outside mmgan. Raises UserError for anything invalid.
    """
    if isinstance(values, config):
        if trust:
            modules.trust(modules.names_in(asdict(values)))  # type: ignore[call-overload]
        values = from_yaml(to_yaml(values, comments=False))
    parser = _Parser()
    parser.add_class_arguments(config)
    with _mistakes_in_one_line(thing=config):
        if isinstance(values, str | Path):
            values = files.read_yaml(configuration(values))
        if not isinstance(values, Mapping):
            raise UserError(f"a configuration is a mapping of options to values, not {type(values).__name__}")
        if trust:
            modules.trust(modules.names_in(dict(values)))
        return config(**arguments(config, vars(parser.parse_object(dict(values)))))


def to_yaml(config: Any, comments: bool = True) -> str:
    """A configuration as YAML that reads back unchanged, with a comment explaining every key unless told otherwise.

    Raises UserError for objects that a parser would not accept, or a class that no run could find again.
    """
    with _mistakes_in_one_line(thing=type(config)):
        classes = list(modules.classes_in(config))
        for name in classes:
            if "<locals>" in name:
                raise UserError(f"{name} is defined inside a function, where no run can find it again; move it out")
        modules.trust(classes)
        given, parser = _Parser(), _Parser()
        parser.add_class_arguments(type(config))
        options = {"skip_unset": False, "skip_validation": True}
        try:
            given.add_class_arguments(type(config), default=config)
            values = given.get_defaults()
            plain = parser.dump(values, **options)
            commented = parser.dump(values, with_comments=True, **options) if comments else plain
        except (AttributeError, yaml.YAMLError) as error:
            raise UserError(f"{type(config).__name__} holds a value that YAML cannot represent ({error})") from error
        parser.parse_object(from_yaml(plain))
    if not comments:
        return plain
    commented = re.sub(r"default: \{'class_path': '[\w.]*?(\w+)'.*\}(?=[,)])", r"default: \1", commented)
    commented = re.sub(r", known subclasses: [\w., ]+(?=\))", "", commented)
    # When writing comments, the parser leaves a string such as "no" unquoted; then omit the comments.
    return commented if from_yaml(commented) == from_yaml(plain) else plain


def call(function: Callable[..., Any], args: Sequence[str] | None = None) -> None:
    """Call a function with the command line's arguments; raises UserError like `parse`.

    The function's docstring is its help. A parameter of type list[Path] takes one or more folders.
    """
    function(**arguments_of(function, sys.argv[1:] if args is None else args))


def _parser_of(function: Callable[..., Any], positional: bool) -> _Parser:
    parser = _Parser(description=(function.__doc__ or "").splitlines()[0])
    folders = [name for name, hint in types_of(function).items() if hint == list[Path]]
    for name in folders:
        parser.add_argument(name, nargs="+", type=Path, help="folders")
    parser.add_function_arguments(function, as_group=False, as_positional=positional, skip={*folders})
    return parser


def arguments_of(
    function: Callable[..., Any], args: Sequence[str], positional: bool = True, named: Sequence[str] | None = None
) -> dict[str, Any]:
    """The arguments for a function that a command line gives; if not `positional`, all of them are options.

    Code from outside mmgan is imported only if `named` (None: `args`) names it. Raises UserError like `parse`.
    """
    with _mistakes_in_one_line(" (--help lists every option)", function):
        modules.trust(_names_on(args if named is None else named, _naming(function)))
        return arguments(function, vars(_parser_of(function, positional).parse_args(_switched(args, function))))


@contextmanager
def _mistakes_in_one_line(advice: str = "", thing: Any = None) -> Iterator[None]:
    """Turn every mistake in the options of `thing`, a class or function, into a UserError."""
    try:
        yield
    except (ArgumentError, ValueError, TypeError, ArithmeticError, RecursionError, yaml.YAMLError) as error:
        text = "nested too deeply" if isinstance(error, RecursionError) else _one_line(str(error), thing)
        raise UserError(f"{text}{advice}") from error


def _one_line(message: str, thing: Any) -> str:
    """The part of a parser's message that says what is wrong, without the alternatives it tried."""
    if denied := re.search(r"Importing '([\w.]+)' is not allowed", message):
        advice = "a file may not choose code: name it on the command line, or trust the file (--trust true, trust=True)"
        return f"{denied[1]} is not part of mmgan, and {advice}"
    keys = list(dict.fromkeys(re.findall(r"""Parser key "([^"]+)":""", message)))
    option = ".".join(keys)
    if unknown := re.search(r"Option '(\S+)' is not accepted", message):
        named = re.search(r"given class_path '[\w.]*?(\w+)'", message)
        return f"{'.'.join([*keys, unknown[1]])}: {named[1] if named else 'this section'} has no option {unknown[1]}"
    if missing := re.search(r"given class_path '[\w.]*?(\w+)':\s+the following arguments are required: (.+)", message):
        return f"{option}: {missing[1]} needs {', '.join(f'--{option}.{name}' for name in missing[2].split(', '))}"
    failed = (
        r"Problem with given class_path '([\w.]+)':\s+((?:No module named|cannot import name|module '\S+' has no) .+)"
    )
    if unfound := re.search(failed, message):
        return f"{option}: {unfound[1]} cannot be imported ({unfound[2]})"
    if hint := type_of(thing, option) if option else None:
        if "instantiatable" in message:
            return f"{option} has options but no class; choose one with --{option}: {words(hint)}"
        before = r"(?:Got value:|Import path|Unable to load config|import path string:) ?"
        value = re.search(before + r"(.*?)(?: does not correspond to a subclass.*)?$", message, re.M)
        value = value or re.search(r"Given value: (.*)", message)
        said = shown(value[1].strip("'\"") if value else "that")
        return f"{option} must be {words(hint)}, not {said or 'empty'}"
    text = " ".join(message.split())
    text = re.sub(r"""Parser key "[^"]+":\s*""", "", text)
    return f"{option}: {text}" if option else text


def _of_the_group(error: BaseException) -> bool:
    """Whether an error comes from this run's process group: gloo's errors begin with a place in its code."""
    return isinstance(error, distributed.DistError) or re.match(r"\[\S*/gloo/\S+\] ", str(error)) is not None


def _of_a_thread(error: threading.ExceptHookArgs) -> None:
    """Show the error that ended a thread, unless it is TensorBoard's, which raises it in the main thread too."""
    if not type(error.thread).__module__.startswith("tensorboard"):
        threading.__excepthook__(error)


def typed() -> str:
    """The command that started this process, as typed: python scripts/report.py ..., or mmgan report ..."""
    script, *options = sys.argv
    return " ".join([script if script.startswith("mmgan ") else shlex.join(["python", script]), shlex.join(options)])


def run(main: Callable[[], Any]) -> None:
    """Call a script's `main`; a mistake that the user can fix gives one line on stderr and exit code 2.

    As with other commands, Ctrl-C exits with 130, and a closed output pipe (`| head`) with 141.
    """
    gc.freeze()  # imported objects stay; garbage collections can skip them
    signal.signal(signal.SIGINT, signal.default_int_handler)  # scripts set another handler while they import
    sys.path.append(str(Path.cwd()))  # for the user's modules, by name
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    threading.excepthook = _of_a_thread
    try:
        main()
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()  # otherwise, its threads may abort the interpreter at exit
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; run the same command to resume", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python complains about it on exit
        sys.exit(141)
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and _of_the_group(error):
            how = shown(re.sub(r"^\[\S+\] ", "", text))  # without the place in gloo's code
            advice = "run the same command on every machine to resume from the last checkpoint"
            print(f"error: another process of this run has ended or does not reply ({how}); {advice}", file=sys.stderr)
            sys.exit(2)
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in text:
            raise
        print(f"error: out of memory ({shown(text)}); lower batch sizes, widths or data.resolution", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "free some disk space" if full else "fix that"
        print(f"error: {error.strerror or error}{where}; {advice} and run the same command again", file=sys.stderr)
        sys.exit(2)
