"""Weights as files: found on this machine, or fetched when asked. Nothing here loads torch."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from geoovseg.errors import GeoOVSegError, OutputError, WeightsMissingError, first_line
from geoovseg.files import private_folder, whole
from geoovseg.models.cards import ModelCard
from geoovseg.models.download import Progress, check, download, file_sha256, unpack
from geoovseg.network import is_offline, model_dir

_OFFLINE = (
    "For a machine without network: `geoovseg models fetch NAME --bundle DIR` on another one, carry DIR over and use "
    "--model-dir DIR; or give a file, as in --model ARCH@FILE or --upsample jbu_one@FILE."
)
OPTIONS = {"clip": "model", "sam": "sam", "upsampler": "upsample", "vfm": "vfm"}
"""The option that names weights of a kind."""


def cache_dir() -> Path:
    """Where small computed things are kept: $GEOOVSEG_CACHE, else the user's cache folder.

    A user without a home, as in some containers, has a folder in the one for passing files.
    """
    if "GEOOVSEG_CACHE" in os.environ:
        return Path(os.environ["GEOOVSEG_CACHE"])
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geoovseg"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"geoovseg-{os.getuid()}"


def local_weights(card: ModelCard) -> Path | None:
    """The file of a model's weights on this machine, or None; nothing is downloaded."""
    if card.path is not None:
        main = card.path / card.files[0] if card.arch == "diffusion" else card.path
        return card.path if main.is_file() else None
    if given := _in_model_dir(card):
        return given
    if card.url is not None:
        kept = _kept(card)
        return kept if kept.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(str(card.repo), file) for file in card.files)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def _in_model_dir(card: ModelCard) -> Path | None:
    """The file in the user's folder of weights, as `bundle` lays it there."""
    root = model_dir()
    names = [_kept_name(card)] if card.url else card.files
    found = (root / safe_name(card.name) / name for name in names) if root else ()
    return next((path for path in found if path.is_file()), None)


def find_weights(card: ModelCard) -> Path:
    """The file of a model's weights on this machine. Raises WeightsMissingError with the way to get them."""
    check_weights([card])
    found = local_weights(card)
    assert found is not None  # they were looked for
    return found


def check_weights(cards: Iterable[ModelCard]) -> None:
    """Refuse weights that are not on this machine, all at once. Raises WeightsMissingError with the way to get them."""
    missing = [card for card in dict.fromkeys(cards) if local_weights(card) is None]
    for card in missing:
        if card.path is not None:
            raise WeightsMissingError(f"no weights at {card.path}, given by --{OPTIONS[card.kind]} {card.name}")
    if missing:
        raise WeightsMissingError(
            f"the weights of {' and of '.join(map(_sized, missing))} are not on this machine. Fetch them once with "
            f"`geoovseg models fetch {' '.join(card.name for card in missing)}`. {_OFFLINE}"
        )


def _sized(card: ModelCard) -> str:
    size = f"{card.megabytes} MB, " if card.megabytes else ""
    return f"{card.name} ({size}licence: {card.licence})"


def fetch_weights(card: ModelCard, progress: Progress | None = None) -> Path:
    """Download a model's weights, into the Hugging Face cache or our own; returns the file.

    Both go on where an earlier try broke off. Of a ZIP only the checkpoint is kept.

    Raises GeoOVSegError when the hub cannot be reached, has no such file, or wants its terms accepted first.
    """
    if card.path is not None:
        return find_weights(card)
    if is_offline():
        raise GeoOVSegError(f"{card.name} cannot be fetched: GEOOVSEG_OFFLINE is set, or --offline. {_OFFLINE}")
    return _from_hub(card) if card.url is None else _from_url(card, card.url, progress)


def _from_url(card: ModelCard, url: str, progress: Progress | None) -> Path:
    kept = _kept(card)
    with suppress(OSError):  # which the download tells
        private_folder(cache_dir())
    if card.member is None:
        return download(url, kept, sha256=card.sha256, progress=progress)
    archive = kept.with_name(url.rpartition("/")[2])
    if not archive.is_file():  # it is there where an earlier try found no room to unpack it
        download(url, archive, progress=progress)
    unpack(archive, card.member, kept)
    archive.unlink(missing_ok=True)
    check(kept, card.sha256, url)
    return kept


def _from_hub(card: ModelCard) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, LocalEntryNotFoundError

    if HF_HUB_CACHE.startswith("~"):
        raise GeoOVSegError("this user has no home folder to keep weights in: set HF_HOME to a folder, or HOME")
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
        except GatedRepoError as error:
            raise _gated(card) from error
        except OSError as error:
            raise GeoOVSegError(f"cannot download {card.repo}/{file}: {first_line(error)}") from error
    raise GeoOVSegError(f"{card.repo} has none of {', '.join(card.files)}")


def _gated(card: ModelCard) -> GeoOVSegError:
    from huggingface_hub.constants import ENDPOINT

    return GeoOVSegError(
        f"{card.repo} is gated: its licence ({card.licence}) must be accepted before a download. Accept it at "
        f"{ENDPOINT}/{card.repo}, log in with `hf auth login` (or HF_TOKEN), and use the same command again. {_OFFLINE}"
    )


def _kept(card: ModelCard) -> Path:
    """Where a file from elsewhere than the hub is kept."""
    return cache_dir() / "weights" / _kept_name(card)


def _kept_name(card: ModelCard) -> str:
    """As at its address; what comes out of a ZIP is called like that, since all of them hold the same name."""
    name = str(card.url).rpartition("/")[2]
    return name if card.member is None else Path(name).stem + Path(card.member).suffix


def _main(card: ModelCard, path: Path) -> Path:
    """The file of the weights themselves, where a model is a folder of several."""
    return path / card.files[0] if path.is_dir() else path


def bundle(card: ModelCard, folder: Path) -> list[Path]:
    """Copy a model's weights, which are on this machine, to a folder for `--model-dir` on another one.

    Raises OutputError where they cannot be written.
    """
    found = _main(card, find_weights(card))
    return [_copied(source, folder / safe_name(card.name) / name) for name, source in _parts(card, found)]


def _copied(source: Path, target: Path) -> Path:
    """A copy that is there only when it is whole."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole(target) as part:
            shutil.copyfile(source, part)
    except OSError as error:
        raise OutputError(f"cannot copy {source.name} to {target}: {first_line(error)}") from error
    return target


def _parts(card: ModelCard, found: Path) -> list[tuple[str, Path]]:
    """All files of a model by their names in a folder of it: the weights, and what belongs to them."""
    main = next((name for name in card.files if found.as_posix().endswith(name)), found.name)
    root = Path(found.as_posix().removesuffix(main))
    return [(main, found), *((name, root / name) for name in card.also)]


def verify(card: ModelCard) -> tuple[str, bool | None]:
    """The digest of a model's weights on this machine, and whether it is the known one; None if none is known."""
    found = file_sha256(_main(card, find_weights(card)))
    return found, None if card.sha256 is None else found == card.sha256


def safe_name(name: str) -> str:
    """A model's name as that of a folder."""
    return name.replace("/", "--")
