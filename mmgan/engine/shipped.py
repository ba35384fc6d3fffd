"""The configurations shipped with mmgan, by name (gan/digits, for example)."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from mmgan.errors import UserError

_PACKAGE = Path(__file__).parents[1]
FOLDER = next((folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir()), None)
"""Their folder: inside an installed package, next to the package in a checkout; None if missing."""


def configuration(name: str | Path) -> Path:
    """The file called `name`, or mmgan's configuration of that name: gan/digits, or configs/gan/digits.yaml.

    Raises UserError if there is neither.
    """
    file = Path(name).expanduser()
    if file.exists() and not file.is_dir():
        return file
    own = names()
    word = file.as_posix().removeprefix("configs/").removesuffix(".yaml")
    if FOLDER and word in own:
        return FOLDER / f"{word}.yaml"
    folder = [one for one in own if Path(one).parent == Path(word).parent]
    near = folder or get_close_matches(word, own, 3) or ["gan/digits", "cls/digits"]
    raise UserError(
        f"there is no file {name}, and mmgan has no configuration of that name; it has, for example, {', '.join(near)}"
    )


def names() -> list[str]:
    """The names of mmgan's configurations, sorted."""
    found = sorted(FOLDER.rglob("*.yaml")) if FOLDER else []
    return [file.relative_to(FOLDER).with_suffix("").as_posix() for file in found if FOLDER]
