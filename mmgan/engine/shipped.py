"""The configurations shipped with mmgan, by name (gan/digits, for example)."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from mmgan.errors import UserError

_PACKAGE = Path(__file__).parents[1]
FOLDER = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"
"""Their folder: inside an installed package, next to the package in a checkout."""


def configuration(name: str | Path) -> Path:
    """The file called `name`, or mmgan's configuration of that name: gan/digits, or configs/gan/digits.yaml.

    Raises UserError if there is neither.
    """
    file = Path(name).expanduser()
    if file.exists() and not file.is_dir():
        return file
    own = names()
    word = file.as_posix().removeprefix("configs/").removesuffix(".yaml")
    if word in own:
        return FOLDER / f"{word}.yaml"
    folder = [one for one in own if Path(one).parent == Path(word).parent]
    near = folder or get_close_matches(word, own, 3) or ["gan/digits", "cls/digits"]
    raise UserError(
        f"there is no file {name}, and mmgan has no configuration of that name; it has, for example, {', '.join(near)}"
    )


def names() -> list[str]:
    """The names of mmgan's configurations, sorted."""
    return sorted(file.relative_to(FOLDER).with_suffix("").as_posix() for file in FOLDER.rglob("*.yaml"))
