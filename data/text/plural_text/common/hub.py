"""Models and tokenizers by their name on the Hugging Face Hub.

Owns: which folder of the Hub's local cache a name stands for; the C++ side has the same rules in
trainer/files/hub_cache.h. Does not own: downloading (`hf download` does it, once). Thread rule: free of
state.
"""

from __future__ import annotations

import os
from pathlib import Path

from plural_text.common.errors import MissingInput


def hub_cache() -> Path:
    """The Hub's local cache.

    An empty variable is one that is not set, as in C++; huggingface_hub takes it for the current folder.
    """
    for variable, below in (
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser() / below
    return Path("~/.cache/huggingface/hub").expanduser()


def hub_folder(given: Path, option: str, what: str) -> Path:
    """What `given` means: itself where it is there, else the snapshot of ORG/NAME or ORG/NAME@REVISION.

    A repository's own folder of the cache stands for the snapshot of its revision main. `option` and `what`
    ("folder or tokenizer file") are for messages. Errors: MissingInput with the command that downloads.
    """
    if given.exists():
        if not (given / "snapshots").is_dir():
            return given
        return _snapshot(given.name, given.parent, "main") or given
    # Imported here: most commands are given a folder.
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    name, at, revision = str(given).partition("@")
    try:
        validate_repo_id(name if revision or not at else "")
    except HFValidationError:
        raise MissingInput(
            f"{option} '{given}': is no {what}, nor a name of the Hugging Face Hub such as ORG/NAME"
        ) from None
    folder = "models--" + name.replace("/", "--")
    cache = hub_cache()
    found = _snapshot(folder, cache, revision or "main")
    if found is not None:
        return found
    download = f"hf download {name}" + (f" --revision {revision}" if at else "")
    raise MissingInput(
        f"{option} '{given}': no such {what}, and no model of that name in the Hub cache '{cache}'; "
        f"download it once: {download}"
    )


def _snapshot(folder: str, cache: Path, revision: str) -> Path | None:
    """The snapshot of a repository's folder of the cache, as huggingface_hub finds it without a network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    name = folder.removeprefix("models--").replace("--", "/", 1)
    try:
        return Path(snapshot_download(name, revision=revision, cache_dir=cache, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None
