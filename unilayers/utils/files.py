"""Files fetched once and kept in a folder of their own, checked by their hash."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tarfile
import zlib
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlparse

from unilayers.errors import DataError, UnilayersError

from .progress import message

VARIABLE = "UNILAYERS_CACHE"
SILENCE = 60  # seconds without a byte after which a server counts as gone
SUFFIXES = {"tar": (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"), "zip": (".zip",)}
FORMATS = {".tar": "tar", ".tar.gz": "gztar", ".tgz": "gztar", ".tar.bz2": "bztar", ".tbz2": "bztar"}
FORMATS |= {".tar.xz": "xztar", ".txz": "xztar", ".zip": "zip"}


def cache_folder(subfolder: str = "") -> Path:
    """Where fetched files are kept: ``$UNILAYERS_CACHE``, else ``unilayers`` in the user's folder of caches."""
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(VARIABLE) or users / "unilayers").expanduser() / subfolder


def get_file(
    fname: str | PathLike[str] | None = None,
    origin: str | None = None,
    untar: bool = False,
    md5_hash: str | None = None,
    file_hash: str | None = None,
    cache_subdir: str = "datasets",
    hash_algorithm: Literal["auto", "md5", "sha256"] = "auto",
    extract: bool = False,
    archive_format: Any = "auto",
    cache_dir: str | PathLike[str] | None = None,
    force_download: bool = False,
) -> str:
    """The path of a file from the network, which is fetched unless it is there already.

    Args:
        fname: What it is called here; the last part of the address if None. With ``extract``, the folder.
        origin: Its address: ``https://...``.
        untar: The older word for ``extract``.
        md5_hash: The older word for ``file_hash``.
        file_hash: What the content must hash to; not checked if None.
        cache_subdir: Folder within the cache.
        hash_algorithm: Of ``file_hash``; "auto" tells it by the length.
        extract: Whether it is an archive (tar or zip) to unpack. Members that would lie outside the folder are refused.
        archive_format: "tar", "zip", a list of these, or "auto" for both; None is no archive.
        cache_dir: The cache; `cache_folder` if None.
        force_download: Whether to fetch it although it is there.

    Returns:
        The path of the file, or with ``extract`` that of the folder with what was in it.

    Raises:
        DataError: if it cannot be fetched, with the place to put it by hand; if its hash is another one; if it is no
            archive.
    """
    if origin is None:
        raise UnilayersError("no address to fetch from", where="get_file(origin=)", expected="https://...")
    folder = (Path(cache_dir).expanduser() if cache_dir is not None else cache_folder()) / cache_subdir
    target = folder / Path(fname or PurePosixPath(urlparse(origin).path).name)
    extract = (extract or untar) and archive_format is not None
    file = target.with_name(f"{target.name}_archive") if extract else target
    wanted = file_hash or md5_hash
    fresh = (
        force_download or not file.exists() or (wanted is not None and _hash(file, wanted, hash_algorithm) != wanted)
    )
    if fresh:
        message(f"Fetching {origin}")
        _fetch(origin, file, wanted, hash_algorithm)
    if extract and (fresh or not target.exists()):
        _unpack(file, target, origin, archive_format)
    return str(target)


def _hash(file: Path, wanted: str, algorithm: str) -> str:
    if algorithm == "auto":
        algorithm = "md5" if len(wanted) == 32 else "sha256"
    with file.open("rb") as content:
        return hashlib.file_digest(content, algorithm).hexdigest()


def _fetch(origin: str, file: Path, wanted: str | None, algorithm: str) -> None:
    """Through a file of another name, so that one cut short is never taken for the whole."""
    from http.client import HTTPException  # here, as few runs fetch something
    from urllib.request import urlopen

    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with urlopen(origin, timeout=SILENCE) as source, temporary.open("xb") as sink:
            shutil.copyfileobj(source, sink)
            size, told = sink.tell(), source.headers.get("Content-Length")
        if told is not None and size != int(told):
            raise OSError(f"{size} of {told} bytes")
        if wanted is not None and (found := _hash(temporary, wanted, algorithm)) != wanted:
            raise DataError("the file has another hash", where=origin, expected=wanted, received=found)
        temporary.replace(file)
    except (OSError, HTTPException) as error:  # urllib's errors are of the first kind
        fix = f"Fetch it by other means and save it as {file}"
        raise DataError("cannot fetch the file", where=origin, received=str(error), fix=fix) from None
    finally:
        temporary.unlink(missing_ok=True)


def _unpack(archive: Path, folder: Path, origin: str, kinds: Any) -> None:
    wanted = ["tar", "zip"] if kinds == "auto" else [kinds] if isinstance(kinds, str) else list(kinds)
    name = PurePosixPath(urlparse(origin).path).name
    known = [FORMATS[s] for kind in wanted for s in SUFFIXES.get(kind, ()) if name.lower().endswith(s)]
    if not known:
        raise DataError("no archive that can be unpacked", where=origin, expected=" or ".join(wanted), received=name)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        # Python's zipfile keeps members inside by itself.
        shutil.unpack_archive(archive, temporary, known[-1], filter=None if known[-1] == "zip" else "data")
        if folder.exists():
            shutil.rmtree(folder)
        temporary.replace(folder)
    except (shutil.ReadError, tarfile.TarError, zlib.error, OSError, EOFError) as error:
        fix = f"Remove {archive} and call again"
        raise DataError("the archive cannot be unpacked", where=origin, received=str(error), fix=fix) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
