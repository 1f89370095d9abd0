"""Files for pages: the lobby that comes with the package at /app/, and a game's own folder at /.

What is asked for is taken apart before anything is looked at, and what is found must lie inside of the folder, links followed.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from hashlib import blake2b
from pathlib import Path
from urllib.parse import unquote_to_bytes

import attrs

import psyne_mesh
from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.signaling.front_door import Page, Request
from psyne_mesh.signaling.manifest import code_of

FILE_BYTES_MAX = 2**25  # Pyodide's largest has 9 MB; what is larger is no part of a page that opens in seconds
TARGET_CHARS_MAX = 1024
PARTS_MAX = 16
KEPT_FILES_MAX, KEPT_BYTES_MAX = 256, 2**26  # in memory; the one asked for longest ago is read anew
APP = "/app/"
_TYPES = {
    "css": "text/css; charset=utf-8", "gif": "image/gif", "html": "text/html; charset=utf-8", "ico": "image/x-icon",
    "jpeg": "image/jpeg", "jpg": "image/jpeg", "js": "text/javascript; charset=utf-8", "json": "application/json",
    "map": "application/json", "md": "text/plain; charset=utf-8", "mjs": "text/javascript; charset=utf-8",
    "mp3": "audio/mpeg", "ogg": "audio/ogg", "otf": "font/otf", "png": "image/png", "py": "text/x-python; charset=utf-8",
    "svg": "image/svg+xml", "ttf": "font/ttf", "txt": "text/plain; charset=utf-8", "wasm": "application/wasm",
    "wav": "audio/wav", "webmanifest": "application/manifest+json", "webp": "image/webp", "woff2": "font/woff2",
    "zip": "application/zip",
}  # fmt: skip
_AUTHORITY = re.compile(r"[A-Za-z0-9.\-]+(:\d{1,5})?|\[[0-9A-Fa-f:]+\](:\d{1,5})?")
# No script but files of ours, nothing from other hosts. WebAssembly is for Python in the page; a worker made of text is for the
# tick of the member, as hidden pages have no timers; styles may stand in elements, which run nothing.
_POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "worker-src 'self' blob:; connect-src {}; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@attrs.frozen
class _File:
    body: bytes
    tag: str
    version: tuple[int, int]  # when it was written, and its size


class Site:
    """1. `page(request)` for each request that nobody else has an answer to; None where there is no such file."""

    def __init__(self, web: Path | None = None, app: Path | None = None) -> None:
        """web: a game's folder, with an index.html. app: in place of the package's own."""
        if web is not None and not (web / "index.html").is_file():
            raise InvalidConfig(f"{web} is no folder of a page: there is no index.html in it")
        self._web = None if web is None else web.resolve()
        self._app = (app or Path(psyne_mesh.__file__ or "").parent / "web").resolve()
        self._kept: OrderedDict[Path, _File] = OrderedDict()
        self._kept_bytes = 0

    def page(self, request: Request) -> Page | None:
        try:
            parts = parts_untrusted(request.target)
        except ProtocolError:
            return None
        if parts[:1] == ("r",) and len(parts) == 2:
            return self._invite(parts[1])
        if parts[:1] == ("app",):
            return self._file(self._app, parts[1:], request)
        if self._web is None:
            return _moved(APP) if not parts else None
        return self._file(self._web, parts, request)

    def _invite(self, text: str) -> Page | None:
        """/r/K7QM-3FHT: to the page, which enters the room of that code."""
        try:
            code = code_of(text)
        except InvalidConfig:
            return None
        return _moved(f"{'/' if self._web is not None else APP}?code={code}", 302)

    def _file(self, root: Path, parts: tuple[str, ...], request: Request) -> Page | None:
        path = root.joinpath(*parts)
        try:
            path = path.resolve(strict=True)
            if not path.is_relative_to(root):
                return None  # a link that leads out
            if path.is_dir():
                if not request.target.partition("?")[0].endswith("/"):
                    return _moved(f"/{'/'.join(parts if root is self._web else ('app', *parts))}/")
                path = (path / "index.html").resolve(strict=True)
            elif parts and request.target.partition("?")[0].endswith("/"):
                return None
            if not path.is_relative_to(root) or not path.is_file():
                return None
            file = self._read(path)
        except (OSError, RuntimeError, ValueError):  # gone, a loop of links, not ours to read, no name of a file
            return None
        if file is None:
            return Page(413, f"a file of a page has at most {FILE_BYTES_MAX} bytes\n".encode(), "text/plain")
        headers = (("ETag", file.tag), *_security(request))
        if request.if_none_match is not None and file.tag in request.if_none_match:
            return Page(304, b"", _type_of(path), headers, cache="no-cache")
        return Page(200, file.body, _type_of(path), headers, cache="no-cache")

    def _read(self, path: Path) -> _File | None:
        """None: too large."""
        state = path.stat()
        version = state.st_mtime_ns, state.st_size
        kept = self._kept.get(path)
        if kept is not None and kept.version == version:
            self._kept.move_to_end(path)
            return kept
        if state.st_size > FILE_BYTES_MAX:
            return None
        with path.open("rb") as opened:
            body = opened.read(FILE_BYTES_MAX + 1)
        if len(body) > FILE_BYTES_MAX:
            return None
        file = _File(body, f'"{blake2b(body, digest_size=12).hexdigest()}"', version)
        self._forget(path)
        self._kept[path] = file
        self._kept_bytes += len(body)
        while len(self._kept) > 1 and (self._kept_bytes > KEPT_BYTES_MAX or len(self._kept) > KEPT_FILES_MAX):
            self._forget(next(iter(self._kept)))
        return file

    def _forget(self, path: Path) -> None:
        if (gone := self._kept.pop(path, None)) is not None:
            self._kept_bytes -= len(gone.body)


def parts_untrusted(target: str) -> tuple[str, ...]:
    """The names in the path of a request, or `ProtocolError` for what names no file of a page: `..`, hidden files, names of
    another system."""
    if len(target) > TARGET_CHARS_MAX or not target.startswith("/"):
        raise ProtocolError("not the path of a page")
    path = target.partition("?")[0].partition("#")[0]
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise ProtocolError("the path of a page is UTF-8") from error
    parts = tuple(part for part in decoded.split("/") if part)
    if len(parts) > PARTS_MAX:
        raise ProtocolError("too deep a path")
    for part in parts:
        if part.startswith(".") or not part.isprintable() or set(part) & set('\\:*?"<>|'):
            raise ProtocolError("a path that names no file of a page")
    return parts


def _security(request: Request) -> tuple[tuple[str, str], ...]:
    """connect-src: where the page came from, by name too, as not every browser takes 'self' for WebSockets."""
    sources = ["'self'"]
    if request.host is not None and _AUTHORITY.fullmatch(request.host):
        sources += [f"ws://{request.host}", f"wss://{request.host}"]
    return (
        ("Content-Security-Policy", _POLICY.format(" ".join(sources))),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
    )


def _type_of(path: Path) -> str:
    return _TYPES.get(path.suffix[1:].lower(), "application/octet-stream")


def _moved(where: str, status: int = 308) -> Page:
    return Page(status, b"", "text/plain", (("Location", where),))
