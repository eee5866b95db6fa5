"""Weights as files: found on this machine, or fetched when asked. Nothing here loads torch."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from geoovseg.errors import GeoOVSegError, OutputError, WeightsMissingError, first_line
from geoovseg.files import private_folder, whole
from geoovseg.models.cards import ModelCard
from geoovseg.models.download import Progress, check, download, file_sha256, is_as_known, unpack
from geoovseg.models.hub import etag_of, fetch_file, forget
from geoovseg.models.refusals import GatedError
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
        main = _main(card, card.path)
        return (card.path if card.arch == "diffusion" else main) if main.is_file() else None
    if given := _in_model_dir(card):
        return given
    if card.url is not None:
        kept = _kept(card)
        return kept if kept.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    commits = (card.revision, None) if card.revision else (None,)
    found = (try_to_load_from_cache(str(card.repo), file, revision=c) for c in commits for file in card.files)
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


def fetch_weights(card: ModelCard, progress: Progress | None = None, *, anew: bool = False) -> Path:
    """Download a model's weights, into the Hugging Face cache or our own; returns the file.

    Both go on where an earlier try broke off. Of a ZIP only the checkpoint is kept. With `anew`, what is there is
    removed first.

    Raises GeoOVSegError when the hub cannot be reached, has no such file, or wants its terms accepted first.
    """
    if card.path is not None:
        return find_weights(card)
    if is_offline():
        raise GeoOVSegError(f"{card.name} cannot be fetched: GEOOVSEG_OFFLINE is set, or --offline. {_OFFLINE}")
    if anew and (there := local_weights(card)) is not None and not _in_model_dir(card):
        forget(there)
    return _from_hub(card, progress) if card.url is None else _from_url(card, card.url, progress)


def _from_url(card: ModelCard, url: str, progress: Progress | None) -> Path:
    kept = _kept(card)
    with suppress(OSError):  # which the download tells
        private_folder(cache_dir())
    if card.member is None:
        return download(url, kept, digest=card.digest, progress=progress)
    archive = kept.with_name(url.rpartition("/")[2])
    if not archive.is_file():  # it is there where an earlier try found no room to unpack it
        download(url, archive, progress=progress)
    unpack(archive, card.member, kept)
    archive.unlink(missing_ok=True)
    check(kept, card.digest, url)
    return kept


def _from_hub(card: ModelCard, progress: Progress | None) -> Path:
    """All files of a model that the hub has; returns that of the weights."""
    repo, fetch = str(card.repo), partial(fetch_file, str(card.repo), progress=progress, revision=card.revision)
    try:
        for other in card.also:
            if fetch(other) is None:
                raise GeoOVSegError(f"{repo} has no {other}")
        for other in card.maybe:
            fetch(other)
        found = next(filter(None, map(fetch, card.files)), None)
    except GatedError as error:
        raise GeoOVSegError(
            f"{error}. Its licence ({card.licence}) must be accepted before a download: do that at {error.page}, log "
            f"in with `hf auth login` (or HF_TOKEN), and use the same command again. {_OFFLINE}"
        ) from error
    except OSError as error:
        raise GeoOVSegError(f"cannot keep the weights of {card.name}: {first_line(error)}") from error
    if found is None:
        raise GeoOVSegError(f"{repo} has none of {', '.join(card.files)}")
    return found


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
    there = (name for name in card.maybe if (root / name).is_file())
    return [(main, found), *((name, root / name) for name in (*card.also, *there))]


def verify(card: ModelCard) -> tuple[str, bool | None]:
    """The SHA-256 of a model's weights on this machine, and whether they are as known; None if no digest is known.

    Known are those on cards, and of files of the hub those that the hub gave them.
    """
    path = _main(card, find_weights(card))
    known = card.digest or etag_of(path)
    return file_sha256(path), None if known is None else is_as_known(path, known)


def safe_name(name: str) -> str:
    """A model's name as that of a folder."""
    return name.replace("/", "--")
