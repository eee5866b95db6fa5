"""Weights as files: found on this machine, or fetched when asked. Nothing here loads torch."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from geoovseg.errors import GeoOVSegError, WeightsMissingError, first_line
from geoovseg.models.cards import ModelCard
from geoovseg.models.download import Progress, download, file_sha256
from geoovseg.network import is_offline

_OFFLINE = (
    "For a machine without network: `geoovseg models fetch NAME --bundle DIR` on another one, carry DIR over and use "
    "--model-dir DIR; or give a file, as in --model ARCH@FILE or --upsample jbu_one@FILE."
)
OPTIONS = {"clip": "model", "upsampler": "upsample", "vfm": "vfm"}
"""The option that names weights of a kind."""


def cache_dir() -> Path:
    """Where small computed things are kept: $GEOOVSEG_CACHE, else the user's cache folder."""
    if "GEOOVSEG_CACHE" in os.environ:
        return Path(os.environ["GEOOVSEG_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geoovseg"


def local_weights(card: ModelCard) -> Path | None:
    """The file of a model's weights on this machine, or None; nothing is downloaded."""
    if card.path is not None:
        folder = card.arch == "diffusion"
        return card.path if (card.path.is_dir() if folder else card.path.is_file()) else None
    if given := _in_model_dir(card):
        return given
    if card.url is not None:
        kept = _kept(card.url)
        return kept if kept.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(str(card.repo), file) for file in card.files)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def _in_model_dir(card: ModelCard) -> Path | None:
    """The file in $GEOOVSEG_MODEL_DIR, as `bundle` lays it there."""
    root = os.environ.get("GEOOVSEG_MODEL_DIR")
    names = [*card.files, *([card.url.rpartition("/")[2]] if card.url else [])]
    found = (Path(root) / safe_name(card.name) / name for name in names) if root else ()
    return next((path for path in found if path.is_file()), None)


def find_weights(card: ModelCard) -> Path:
    """The file of a model's weights on this machine. Raises WeightsMissingError with the way to get them."""
    found = local_weights(card)
    if found is not None:
        return found
    if card.path is not None:
        raise WeightsMissingError(f"no weights at {card.path}, given by --{OPTIONS[card.kind]} {card.name}")
    size = f"{card.megabytes} MB, " if card.megabytes else ""
    raise WeightsMissingError(
        f"the weights of {card.name} are not on this machine ({size}licence: {card.licence}). Fetch them once with\n"
        f"  geoovseg models fetch {card.name}\n{_OFFLINE}"
    )


def fetch_weights(card: ModelCard, progress: Progress | None = None) -> Path:
    """Download a model's weights, into the Hugging Face cache or our own; returns the file.

    Both go on where an earlier try broke off.

    Raises GeoOVSegError when the hub cannot be reached or has no such file.
    """
    if card.path is not None:
        return find_weights(card)
    if is_offline():
        raise GeoOVSegError(f"{card.name} cannot be fetched: GEOOVSEG_OFFLINE is set, or --offline. {_OFFLINE}")
    if card.url is not None:
        return download(card.url, _kept(card.url), sha256=card.sha256, progress=progress)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for file in card.files:
        try:
            for other in card.also:
                hf_hub_download(str(card.repo), other)
            return Path(hf_hub_download(str(card.repo), file))
        except LocalEntryNotFoundError as error:
            raise GeoOVSegError(
                f"cannot reach the model hub for {card.repo}/{file}; behind a proxy set HTTPS_PROXY. {_OFFLINE}"
            ) from error
        except EntryNotFoundError:
            continue
        except OSError as error:
            raise GeoOVSegError(f"cannot download {card.repo}/{file}: {first_line(error)}") from error
    raise GeoOVSegError(f"{card.repo} has none of {', '.join(card.files)}")


def _kept(url: str) -> Path:
    """Where a file from elsewhere than the hub is kept."""
    return cache_dir() / "weights" / url.rpartition("/")[2]


def bundle(card: ModelCard, folder: Path) -> list[Path]:
    """Copy a model's weights, which are on this machine, to a folder for `--model-dir` on another one."""
    found = find_weights(card)
    copied: list[Path] = []
    for name, source in _parts(card, found):
        target = folder / safe_name(card.name) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        shutil.copyfile(source, part)
        part.replace(target)
        copied.append(target)
    return copied


def _parts(card: ModelCard, found: Path) -> list[tuple[str, Path]]:
    """All files of a model by their names in a folder of it: the weights, and what belongs to them."""
    main = next((name for name in card.files if found.as_posix().endswith(name)), found.name)
    root = Path(found.as_posix().removesuffix(main))
    return [(main, found), *((name, root / name) for name in card.also)]


def verify(card: ModelCard) -> tuple[str, bool | None]:
    """The digest of a model's weights on this machine, and whether it is the known one; None if none is known."""
    found = file_sha256(find_weights(card))
    return found, None if card.sha256 is None else found == card.sha256


def safe_name(name: str) -> str:
    """A model's name as that of a folder."""
    return name.replace("/", "--")
