"""The configurations that come with mmgan, by name: gan/digits."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from mmgan.errors import UserError

_PACKAGE = Path(__file__).parents[1]
FOLDER = next((folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir()), None)
"""Where they are: beside the modules in an installed package, beside the package in a checkout; None: nowhere."""


def configuration(name: str | Path) -> Path:
    """The file called `name`, or else the configuration of mmgan's: gan/digits, also as configs/gan/digits.yaml.

    Raises UserError where there is neither.
    """
    file = Path(name).expanduser()
    if file.exists() and not file.is_dir():
        return file
    own = names()
    word = file.as_posix().removeprefix("configs/").removesuffix(".yaml")
    if FOLDER and word in own:
        return FOLDER / f"{word}.yaml"
    near = get_close_matches(word, own, 3) or ["gan/digits", "cls/digits"]
    raise UserError(f"there is no file {name}, nor a configuration of mmgan's by that name, such as {', '.join(near)}")


def names() -> list[str]:
    """What mmgan's configurations are called, in order."""
    found = sorted(FOLDER.rglob("*.yaml")) if FOLDER else []
    return [file.relative_to(FOLDER).with_suffix("").as_posix() for file in found if FOLDER]
