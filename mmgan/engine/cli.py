"""The command line: typed dataclasses, YAML files and options in one; errors in one line."""

from __future__ import annotations

import errno
import sys
import warnings
from argparse import ArgumentError, HelpFormatter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import jsonargparse
import yaml
from torch import distributed

from mmgan.errors import UserError

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
C = TypeVar("C")


@dataclass(frozen=True)
class Arguments(Generic[C]):
    """A parsed command line."""

    config: C
    output: Path
    yaml: str
    """The whole configuration, every key with its meaning as a comment."""


class _Parser(jsonargparse.ArgumentParser):
    """Lists the options of sections that may be null (`mixup`) in `--help` like those of any other."""

    nullable: Mapping[str, type] = MappingProxyType({})

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        """The help, with those options at its end."""
        text = super().format_help(formatter).rstrip()
        for name, section in self.nullable.items():
            parser = jsonargparse.ArgumentParser(add_help=False, usage=jsonargparse.SUPPRESS)
            parser.add_class_arguments(section, name)
            text += f"\n\n{parser.format_help().strip()}"
        return text + "\n"


def parse(
    config: type[C], description: str, nullable: dict[str, type] | None = None, args: Sequence[str] | None = None
) -> Arguments[C]:
    """Read `--config` files, merged from left to right, and the options over them into a `config`.

    `nullable` names the sections that may be null and their types. Raises UserError for whatever does not fit.
    """
    parser = _Parser(description=description.partition("\n\n")[0] or None, exit_on_error=False)
    parser.nullable = nullable or parser.nullable
    parser.add_argument("--config", action="config", help="YAML file; several are merged from left to right")
    parser.add_argument("--output", type=str, required=True, help="folder of the run; the same command resumes it")
    parser.add_class_arguments(config)
    with _mistakes_in_one_line():
        values = parser.parse_args(args)
        made = parser.instantiate(values)
        arguments = {field.name: made[field.name] for field in fields(config)}  # type: ignore[arg-type]
        return Arguments(config(**arguments), Path(values.output), _yaml(parser, values))


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
    with _mistakes_in_one_line():
        values = parser.instantiate(parser.parse_args(args)).as_dict()
    name = values.pop("command", functions[0].__name__)
    chosen = next(function for function in functions if function.__name__ == name)
    chosen(**(values.get(name, {}) if len(functions) > 1 else values))


def load_config(config: type[C], file: Path) -> C:
    """The configuration a run was started with, from its `config.yaml`; raises UserError where it does not fit."""
    return parse(config, "", args=["--config", str(file), "--output", str(file.parent)]).config


def _yaml(parser: jsonargparse.ArgumentParser, values: jsonargparse.Namespace) -> str:
    values = values.clone()
    del values["config"], values["output"]
    options = {"skip_unset": False, "skip_validation": True}
    plain, commented = parser.dump(values, **options), parser.dump(values, with_comments=True, **options)
    # The writer of comments leaves a string like "no" without quotes; then better without comments.
    return commented if yaml.safe_load(commented) == yaml.safe_load(plain) else plain


@contextmanager
def _mistakes_in_one_line() -> Iterator[None]:
    try:
        yield
    except (ArgumentError, ValueError, TypeError) as error:
        raise UserError(f"{_one_line(str(error))} (--help lists every option)") from error


def _one_line(message: str) -> str:
    """The part of a parser's message that says what is wrong, without its listing of alternatives tried."""
    noise = ("Does not validate", "Subtypes:", "Errors:", "Given value", "- Expected a <class 'NoneType'>", "- Problem")
    lines = (line.strip() for line in message.splitlines())
    return " ".join(line.removeprefix("- ") for line in lines if not line.startswith(noise))


def run(main: Callable[[], Any]) -> None:
    """Call a script's `main`; a UserError, or a full disk, becomes one line on stderr and exit code 2."""
    sys.path.append(str(Path.cwd()))  # modules of the user's own, by name
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        main()
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()  # left to the interpreter's end, its threads now and then abort it
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        print(f"error: {error.strerror}; make room and run the same command again", file=sys.stderr)
        sys.exit(2)
