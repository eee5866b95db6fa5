"""Weights as files: found on this machine, or fetched when asked. Nothing here loads torch."""

from __future__ import annotations

import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from geoovseg.errors import GeoOVSegError, WeightsMissingError, first_line
from geoovseg.models.cards import ModelCard

_OFFLINE = (
    "For a machine without network: fetch on another one and copy its cache folders (see `geoovseg doctor`), or give a "
    "file, as in --model ARCH@FILE or --upsample jbu_one@FILE."
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
    if card.url is not None:
        kept = _kept(card.url)
        return kept if kept.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(str(card.repo), file) for file in card.files)
    return next((Path(path) for path in found if isinstance(path, str)), None)


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


def fetch_weights(card: ModelCard) -> Path:
    """Download a model's weights, into the Hugging Face cache or our own; returns the file.

    Raises GeoOVSegError when the hub cannot be reached or has no such file.
    """
    if card.path is not None:
        return find_weights(card)
    if card.url is not None:
        return _download(card.url)
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


def _download(url: str) -> Path:
    """Fetch one file; it appears under its name when it is complete."""
    target = _kept(url)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=60) as source, part.open("wb") as file:
            shutil.copyfileobj(source, file)
        part.replace(target)
    except urllib.error.HTTPError as error:
        raise GeoOVSegError(f"{url} answers {error.code} {error.reason}. {_OFFLINE}") from error
    except (OSError, urllib.error.URLError) as error:
        raise GeoOVSegError(
            f"cannot download {url}: {first_line(error)}; behind a proxy set HTTPS_PROXY. {_OFFLINE}"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return target
