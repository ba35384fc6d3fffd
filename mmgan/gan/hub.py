"""Folders fetched from the Hugging Face Hub, and sent to it.

The token is huggingface_hub's affair (HF_TOKEN, or `hf auth login`): it is not asked for, kept or said here. So errors
are told in words of our own, for those of a client may quote what it sent.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # it is documented there

from mmgan.engine.checkpoint import PUSHED, PUSHED_WEIGHTS
from mmgan.errors import UserError

ANSWERS = {
    401: "the Hub has no such repository, or does not know you: log in by `hf auth login`, or set HF_TOKEN",
    403: "the Hub does not allow you that: log in by `hf auth login`, or set HF_TOKEN, with a token that has the right",
    404: "the Hub has no such repository, or no such revision of it, that you may see",
}
"""What the answers that a user can do something about mean, by their HTTP status."""


def is_name(text: str) -> bool:
    """Whether `text` can be the name of a repository, `user/name`."""
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return "/" in text


def fetch(repo: str, revision: str | None) -> Path:
    """The folder of what `mmgan.push` left in the repository `repo`, in huggingface_hub's cache.

    Without a connection it is what the cache has. Raises UserError where it cannot be had.
    """
    wanted = ["config.yaml", PUSHED, *sorted(PUSHED_WEIGHTS), "scores.json"]
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=wanted))
    except Exception as error:  # which errors a connection raises depends on the version of huggingface_hub
        raise UserError(f"there is no folder {repo}, and it cannot be fetched: {_said(error)}") from None


def send(folder: Path, repo: str, private: bool) -> str:
    """Make the files in `folder` those of the repository `repo`, which is made if there is none; returns its address.

    Raises UserError where that fails, or where a repository that was to be `private` is public already.
    """
    hub = HfApi()
    try:
        address = str(hub.create_repo(repo, private=private, exist_ok=True))
        if private and not hub.model_info(repo).private:
            raise UserError(f"{repo} is public already, so nothing was sent; make it private, or choose another name")
        hub.upload_folder(
            repo_id=repo, folder_path=folder, commit_message="Push by mmgan", delete_patterns=["scores.json"]
        )
    except UserError:
        raise
    except Exception as error:  # which errors a connection raises depends on the version of huggingface_hub
        raise UserError(f"cannot push to {repo}: {_said(error)}") from None
    return address


def _said(error: Exception) -> str:
    """What went wrong, in words."""
    for one in (error, error.__cause__):
        status = getattr(getattr(one, "response", None), "status_code", None)
        if status is not None:
            return ANSWERS.get(status, f"the Hub answers with HTTP status {status}; try again later")
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}; put that right and try again"
    return "the Hub cannot be reached, and what huggingface_hub has in its cache does not do instead"
