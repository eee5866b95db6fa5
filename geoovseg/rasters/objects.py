"""Objects on stores (S3, Google, Azure), through obstore: put whole, read, looked for. Credentials are where they are.

obstore tries again by itself when a store is busy or a connection breaks.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from geoovseg.errors import GeoOVSegError, OutputError, SceneError, UsageError, first_line
from geoovseg.files import StrPath, is_object
from geoovseg.network import is_offline


def store_of(url: str) -> tuple[Any, str]:
    """A store, and the name of an object in it. Raises UsageError without obstore, GeoOVSegError when offline."""
    if is_offline():
        raise GeoOVSegError(f"{url} is on another machine, and --offline or GEOOVSEG_OFFLINE forbids to ask for it")
    try:
        from obstore.store import from_url
    except ImportError as error:
        raise UsageError(
            f"{url}: object stores need another package: pip install 'geoovseg[cloud]' ({error})"
        ) from error
    scheme, _, rest = url.partition("://")
    bucket, _, name = rest.partition("/")
    try:
        return from_url(f"{scheme}://{bucket}"), name
    except Exception as error:  # obstore's, of many kinds
        raise UsageError(f"{url} is no place on an object store: {first_line(error)}") from error


def told(url: str) -> list[Any] | None:
    """ETag and size of an object; none where there is none, or none can be asked for."""
    store, name = store_of(url)
    import obstore

    try:
        found = obstore.head(store, name)
    except FileNotFoundError:
        return None
    except Exception as error:  # obstore's, of many kinds
        raise SceneError(f"{url} cannot be asked for: {_why(error)}") from error
    return [found["e_tag"], found["size"]]


def read(url: str) -> bytes:
    """An object. Raises FileNotFoundError where there is none, SceneError where it cannot be read."""
    store, name = store_of(url)
    import obstore

    try:
        return bytes(obstore.get(store, name).bytes())
    except FileNotFoundError:
        raise
    except Exception as error:  # obstore's, of many kinds
        raise SceneError(f"{url} cannot be read: {_why(error)}") from error


def put_all(files: Iterable[tuple[Path, str]]) -> None:
    """Put files at their addresses, one after the other; where one fails, those put before it are taken away again.

    Raises OutputError.
    """
    done: list[str] = []
    for file, url in files:
        store, name = store_of(url)
        import obstore

        try:
            with file.open("rb") as content:
                obstore.put(store, name, content)
        except Exception as error:  # obstore's, of many kinds
            for other in done:
                with suppress(Exception):
                    there, known = store_of(other)
                    obstore.delete(there, known)
            raise OutputError(f"cannot put {url}: {_why(error)}; what was made is kept in {file.parent}") from error
        done.append(url)


def tree(folder: Path, url: str, last: str) -> list[tuple[Path, str]]:
    """All files in a folder with addresses below one, that of a certain name at last."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    found.sort(key=lambda path: path == folder / last)
    return [(path, f"{url}/{path.relative_to(folder).as_posix()}") for path in found]


def below(url: str) -> Any:
    """What lies below an address, as a store of its own."""
    store_of(url)  # which says what is wrong
    from obstore.store import from_url

    return from_url(url)


def parted(url: str) -> tuple[str, str]:
    """The folder of an address and the name in it."""
    folder, name = posixpath.split(url)
    return folder, name


def _why(error: Exception) -> str:
    """What a store says, without its pages of XML."""
    return first_line(error).partition("\n")[0][:300]


def refuse(option: str, value: StrPath | None) -> None:
    """Refuse an address on a store where only files here can be. Raises UsageError."""
    if value is not None and is_object(value):
        raise UsageError(f"{option} {value}: only a file or folder on this machine can be given here")
