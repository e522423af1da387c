"""SAEs on the Hugging Face hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deltalens.errors import InputError

SCHEME = "hf://"
NAME = r"[A-Za-z0-9][\w.-]*"
ADDRESS = re.compile(rf"(?P<repo>{NAME}/{NAME})(/(?P<folder>[^@]+?))?/?(@(?P<revision>[^@]+))?")
CONFIGS = ("cfg.json", "config.json", "config.yaml", "hyperparams.json")


@dataclass(frozen=True)
class Address:
    """A folder or file of a repository, all of it where ``folder`` is empty."""

    repo: str
    folder: str
    revision: str | None


def find(path: str | Path, part: str | None = None) -> Path:
    """``path`` itself if it exists, otherwise where the hub's file or folder of that name now lies.

    Of the hub, ``hf://org/repo/folder@revision`` is the whole address; without ``hf://`` it is
    tried when no local path has the name. Of a repository named without a folder, the files at its
    root are fetched, and the folder ``part``. Raises :class:`InputError` for what is neither here
    nor there, saying what to download by hand when the hub cannot be reached.
    """
    local = Path(path)
    if local.exists():
        return local
    text = local.as_posix() if isinstance(path, Path) else path
    address = _parse(text)
    if address is None:
        raise InputError(f"{path}: no such file or directory")
    found = _download(text, address, part) / address.folder
    if not found.exists():
        raise InputError(
            f"{text}: no such file or directory here, and {address.repo} has no {address.folder} "
            f"at {address.revision or 'its main revision'} (or it is not downloaded yet)"
        )
    return found


def _parse(text: str) -> Address | None:
    """Path() has made one slash of two."""
    match = ADDRESS.fullmatch(re.sub(r"^hf:/{1,2}", "", text))
    if match is None or ".." in text:
        return None
    return Address(match["repo"], match["folder"] or "", match["revision"])


def _download(text: str, address: Address, part: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        root = snapshot_download(
            address.repo,
            revision=address.revision,
            allow_patterns=_wanted(address, part),
            ignore_patterns=None if address.folder or part else "*/*",
        )
    except GatedRepoError:
        reason = "access to it must be requested on its page, and `hf auth login` run"
    except RepositoryNotFoundError:
        reason = "the hub has no such repository, or it is private"
    except RevisionNotFoundError:
        reason = f"it has no revision {address.revision}"
    except LocalEntryNotFoundError:
        reason = f"there is no network, and it is not in the cache; {_by_hand(address)}"
    except Exception as error:  # the hub's client raises whatever its transport met
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        reason = f"{first}; {_by_hand(address)}"
    else:
        return Path(str(root))
    raise InputError(
        f"{text}: no such file or directory here, nor from the Hugging Face hub: {reason}"
    )


def _wanted(address: Address, part: str | None) -> list[str] | None:
    """The folder or file, and the configurations in the folders around it."""
    folder = address.folder
    if not folder and part is None:
        return None
    inside = ["*"] if part is None else [f"{part}/*", "params.safetensors", *_numbered(part)]
    within = [f"{folder}/{name}" if folder else name for name in inside]
    around = [parent.as_posix() for parent in PurePosixPath(folder, "_").parents]
    prefixes = ["" if parent == "." else f"{parent}/" for parent in around]
    itself = [folder] if folder else []
    return [*itself, *within, *(prefix + name for prefix in prefixes for name in CONFIGS)]


def _numbered(part: str) -> list[str]:
    """The names that formats give to the files of a layer."""
    layer = part.partition(":")[0]
    stems = (f"layer_{layer}", f"W_enc_{layer}", f"W_dec_{layer}")
    return [*(f"{stem}.safetensors" for stem in stems), f"layer{layer}.sae.pt"]


def _by_hand(address: Address) -> str:
    include = f" --include '{address.folder}*'" if address.folder else ""
    return (
        f"where there is one, run `hf download {address.repo}{include} --local-dir DIR`, "
        "copy DIR here and give its path"
    )
