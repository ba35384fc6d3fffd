"""Download a folder from the Hugging Face Hub, or upload one.

huggingface_hub finds the token (HF_TOKEN, or `hf auth login`); nothing here asks for it, keeps it or prints it. Error
messages are our own, because those of the client may quote what it sent. Its import takes time, and most commands do
without it.
"""

from __future__ import annotations

from pathlib import Path

from mmgan.engine.checkpoint import PUSHED, PUSHED_WEIGHTS
from mmgan.errors import UserError

ANSWERS = {
    401: "the Hub has no such repository, or does not know you: log in with `hf auth login`, or set HF_TOKEN",
    403: "the Hub does not allow it: log in with `hf auth login`, or set HF_TOKEN, with a token that has the right",
    404: "the Hub has no such repository or revision that you may see",
}
"""What the HTTP status of an answer means, where the user can do something about it."""


def is_name(text: str) -> bool:
    """Whether `text` can be the name of a repository, `user/name`."""
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # noqa: PLC0415

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return "/" in text


def fetch(repo: str, revision: str | None) -> Path:
    """The folder, in huggingface_hub's cache, with what `mmgan.push` uploaded to the repository `repo`.

    Without a connection, it is the one in the cache. Raises UserError if there is none.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    wanted = ["config.yaml", PUSHED, *sorted(PUSHED_WEIGHTS), "scores.json"]
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=wanted))
    except Exception as error:  # the type depends on the version of huggingface_hub
        raise UserError(f"there is no folder {repo}, and it cannot be downloaded: {_said(error)}") from None


def send(folder: Path, repo: str, private: bool) -> str:
    """Upload the files in `folder` to the repository `repo`, created if it does not exist; returns its address.

    Raises UserError if that fails, or if the repository should be `private` but is already public.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415

    hub = HfApi()
    try:
        address = str(hub.create_repo(repo, private=private, exist_ok=True))
        if private and not hub.model_info(repo).private:
            raise UserError(
                f"{repo} is already public, so nothing was uploaded; make it private or choose another name"
            )
        hub.upload_folder(
            repo_id=repo, folder_path=folder, commit_message="Push by mmgan", delete_patterns=["scores.json"]
        )
    except UserError:
        raise
    except Exception as error:  # the type depends on the version of huggingface_hub
        raise UserError(f"cannot push to {repo}: {_said(error)}") from None
    return address


def _said(error: Exception) -> str:
    """What went wrong, in words."""
    for one in (error, error.__cause__):
        status = getattr(getattr(one, "response", None), "status_code", None)
        if status is not None:
            return ANSWERS.get(status, f"the Hub answers with HTTP status {status}; try again later")
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}; correct that and try again"
    return "the Hub cannot be reached, and huggingface_hub's cache does not have it"
