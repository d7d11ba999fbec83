"""A file or folder of a cache on another machine, read through fsspec: ``https://``, ``s3://``, whatever it knows.

Only what a reader needs, in the words of ``pathlib``. Nothing is kept open: fsspec hands out the one connection pool of
this process, so a ``RemoteFile`` may be pickled and survives a fork.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from schemas.errors import DiskError

_SCHEME = re.compile(r"([a-z][a-z0-9+]+):/+", flags=re.IGNORECASE)
_CONNECT_S, _SILENCE_S = 20, 60
"""An HTTP server that does not answer for so long is given up."""
_PAUSES_S = (0.2, 1.0)
"""A request that may succeed the next time is made again after these pauses: a lost connection shall not end a run."""
_UNSATISFIABLE_RANGE, _TOO_MANY_REQUESTS, _SERVER_ERRORS = 416, 429, 500

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class RemoteFile:
    """One place below a URL.

    Attributes:
        url: e.g. ``https://host/caches/base/bev/c.0.0.0.0.0``.
    """

    url: str

    def __truediv__(self, name: str) -> "RemoteFile":
        return RemoteFile(f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """What follows the last slash."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def parent(self) -> "RemoteFile":
        """The folder."""
        return RemoteFile(self.url.rsplit("/", 1)[0])

    @property
    def can_list(self) -> bool:
        """Whether folders can be listed: over HTTP there are none."""
        return not self.url.startswith(("http://", "https://"))

    def read_bytes(self) -> bytes:
        """The whole file.

        Raises:
            FileNotFoundError: there is none.
            DiskError: the host cannot be reached or refuses, or a package for this kind of URL is missing.
        """
        return bytes(_ask(self.url, lambda files: files.cat_file(self.url)))

    def read_range(self, offset: int, count: int) -> bytes:
        """Some bytes of the file, fewer where it ends.

        Raises:
            FileNotFoundError: there is none.
            DiskError: as ``read_bytes``, or the server sends whole files only.
        """
        data = bytes(_ask(self.url, lambda files: _range(files, self.url, offset, count)))
        if len(data) > count:
            raise DiskError(
                f"the server of {self.url} does not honour Range requests: asked for {count} bytes, got {len(data)}. "
                "Frames are read by ranges, so serve the cache with a server that supports them (nginx, Apache, "
                "Caddy, any object store), or copy the folder to a local disk"
            )
        return data

    def size(self) -> int:
        """Bytes in the file.

        Raises:
            FileNotFoundError: there is none.
            DiskError: as ``read_bytes``, or the server does not tell.
        """
        return int(_ask(self.url, lambda files: files.size(self.url)))

    def names(self) -> list[str]:
        """Names of the files in this folder; none when there is no such folder, which object stores cannot tell apart.

        Raises:
            DiskError: as ``read_bytes``.
        """
        try:
            paths = _ask(self.url, _listing(self.url))
        except FileNotFoundError:
            return []
        return [str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths]


def remote_root(path: Path | str) -> RemoteFile | None:
    """The remote folder that ``path`` names; None when it is a local one.

    ``pathlib`` writes ``https://host`` as ``https:/host``; both are understood.
    """
    text = str(path)
    scheme = _SCHEME.match(text)
    if scheme is None or scheme[1].lower() == "file":
        return None
    return RemoteFile(f"{scheme[1].lower()}://{text[scheme.end() :].rstrip('/')}")


def _range(files: Any, url: str, offset: int, count: int) -> bytes:
    try:
        return bytes(files.cat_file(url, start=offset, end=offset + count))
    except Exception as error:
        if getattr(error, "status", None) == _UNSATISFIABLE_RANGE:
            return b""  # the file ends before
        raise


def _listing(url: str) -> Callable[[Any], list[Any]]:
    def fresh(files: Any) -> list[Any]:
        files.invalidate_cache()
        return list(files.ls(url, detail=False))

    return fresh


def _file_system(url: str) -> Any:
    import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415  only remote caches pay

    scheme = url.split(":", 1)[0]
    if scheme not in ("http", "https"):
        return fsspec.filesystem(scheme)
    import aiohttp  # noqa: PLC0415

    patience = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
    return fsspec.filesystem(scheme, client_kwargs={"timeout": patience})


def _ask(url: str, request: Callable[[Any], Answer]) -> Answer:
    """Do something with the file system of ``url``, more than once where trying again may help.

    Errors of whatever library fsspec uses become messages for people; ``FileNotFoundError`` has its own meaning.
    """
    for pause_s in (*_PAUSES_S, None):
        try:
            return request(_file_system(url))
        except FileNotFoundError:
            raise
        except ImportError as error:
            raise DiskError(
                f"reading {url} needs a package that is not installed ({error}); "
                "install the extra: pip install -e '.[s3]' (s3fs for s3://, aiohttp for https://)"
            ) from error
        except Exception as error:
            if pause_s is None or not _may_pass(error):
                reason = str(error) or type(error).__name__
                raise DiskError(
                    f"reading {url} failed: {reason}. Expected a host that can be reached and lets this file be read: "
                    "check the address and your credentials, then run the same command again"
                ) from error
            time.sleep(pause_s)
    raise AssertionError("the last try returns or raises")


def _may_pass(error: Exception) -> bool:
    """Whether trying again may help: a busy host, a lost connection. Told apart without importing aiohttp."""
    status = getattr(error, "status", None)
    if isinstance(status, int) and status != 0:
        return status >= _SERVER_ERRORS or status == _TOO_MANY_REQUESTS
    lost = isinstance(error, OSError) and not isinstance(error, PermissionError)
    return lost or type(error).__module__.startswith("aiohttp")
