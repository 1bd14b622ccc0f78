"""A checkpoint on the Hugging Face Hub: hf://owner/name[@revision]/file, fetched by huggingface_hub into its own cache.

Owns what such an address means and what is said where it cannot be fetched. The library is optional and is imported
here alone. It sends no telemetry from here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.progress import Progress

_ADDRESS = re.compile(r"hf://(?P<repository>[^/@]+/[^/@]+)(?:@(?P<revision>[^/@]+))?/(?P<file>.+)")
INSTALL = "pip install huggingface_hub"


def is_on_hub(checkpoint: str | None) -> bool:
    """Whether it is to be fetched from there."""
    return checkpoint is not None and checkpoint.startswith("hf://")


def fetched_from_hub(checkpoint: str, progress: Progress) -> Path:
    """The file on this machine, in the cache that all programs of the Hub share. A cached one costs no transfer.

    A revision is a branch, a tag or a commit; without one it is the newest commit of the main branch. The commit is
    said, for another day's newest may hold other weights.

    raises  ConfigError with what to do
    """
    parts = _ADDRESS.fullmatch(checkpoint)
    if parts is None:
        raise ConfigError(
            f"model.checkpoint={checkpoint} is to be hf://owner/name/file or hf://owner/name@revision/file"
        )
    progress.say(f"fetching {checkpoint}, unless it is in the cache of the Hub")
    path = _fetch(checkpoint, parts["repository"], parts["revision"], parts["file"])
    commit = path.parts[path.parts.index("snapshots") + 1]
    if parts["revision"] != commit:
        progress.say(f"{checkpoint} is commit {commit}; hf://{parts['repository']}@{commit}/{parts['file']} keeps it")
    return path


def _fetch(checkpoint: str, repository: str, revision: str | None, file: str) -> Path:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when the library is imported
    try:
        from huggingface_hub import (
            errors,
            hf_hub_download,  # pyright: ignore[reportUnknownVariableType]
        )
    except ImportError as error:
        raise ConfigError(f"model.checkpoint={checkpoint} needs a package that is not installed: {INSTALL}") from error
    try:
        return Path(hf_hub_download(repository, file, revision=revision, endpoint=os.environ.get("HF_ENDPOINT")))
    except errors.HFValidationError as error:
        raise ConfigError(f"model.checkpoint={checkpoint}: {error}") from error
    except errors.GatedRepoError as error:
        raise ConfigError(
            f"model.checkpoint={checkpoint}: its owner asks for consent to a licence; give it at "
            f"https://huggingface.co/{repository}, and set HF_TOKEN to a token of that account"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ConfigError(
            f"model.checkpoint={checkpoint}: there is no repository {repository}, or it is private and HF_TOKEN is no "
            "token of an account that may read it"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ConfigError(f"model.checkpoint={checkpoint}: {repository} has no revision {revision}") from error
    except errors.RemoteEntryNotFoundError as error:
        raise ConfigError(f"model.checkpoint={checkpoint}: {repository} has no file {file} there") from error
    except (errors.HfHubHTTPError, OSError) as error:
        raise ConfigError(
            f"model.checkpoint={checkpoint} cannot be fetched now: {_first_line(error)}; where there is no network, "
            "fetch it on another machine and set model.checkpoint to the file"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
