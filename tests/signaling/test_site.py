"""What the server hands out to browsers: right types, a policy without foreign hosts, and nothing outside of the folder."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

import psyne_mesh
from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.signaling import site as site_module
from psyne_mesh.signaling.front_door import Request
from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.signaling.site import Site, parts_untrusted

from .guests import calm_server, http

APP = Path(psyne_mesh.__file__ or "").parent / "web"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    web = tmp_path / "web"
    (web / "sub").mkdir(parents=True)
    for name, text in (("index.html", "<p>game"), ("game.mjs", "1"), ("sub/index.html", "sub"), ("é x.txt", "e"),
                       (".env", "secret"), ("blob.bin", "b"), ("core.wasm", "w"), ("a.webmanifest", "{}")):  # fmt: skip
        (web / name).write_text(text, encoding="utf-8")
    (tmp_path / "outside.txt").write_text("secret")
    (web / "link.txt").symlink_to(tmp_path / "outside.txt")
    (web / "up").symlink_to(tmp_path)
    (web / "loop").symlink_to(web / "loop")
    return web


def asked(target: str, **more: str) -> Request:
    return Request("GET", target, False, None, host=more.get("host"), if_none_match=more.get("known"))


@pytest.mark.parametrize(
    ("target", "body", "kind"),
    [
        ("/", b"<p>game", "text/html; charset=utf-8"),
        ("/?room=x", b"<p>game", "text/html; charset=utf-8"),
        ("/game.mjs", b"1", "text/javascript; charset=utf-8"),
        ("/sub/", b"sub", "text/html; charset=utf-8"),
        ("/%C3%A9%20x.txt", b"e", "text/plain; charset=utf-8"),
        ("/core.wasm", b"w", "application/wasm"),
        ("/a.webmanifest", b"{}", "application/manifest+json"),
        ("/blob.bin", b"b", "application/octet-stream"),
        ("//game.mjs", b"1", "text/javascript; charset=utf-8"),
    ],
)
def test_files_of_the_folder(folder: Path, target: str, body: bytes, kind: str) -> None:
    page = Site(folder).page(asked(target))
    assert page is not None
    assert (page.status, page.body, page.content_type) == (200, body, kind)


OUTSIDE = [
    "/../outside.txt", "/%2e%2e/outside.txt", "/..%2foutside.txt", "/sub/../../outside.txt", "/%252e%252e/outside.txt",
    "/sub/%2e%2e/%2e%2e/outside.txt", "/..%5coutside.txt", "/link.txt", "/up/outside.txt", "/loop", "/.env", "/%2eenv",
    "/sub/.git/config", "/C:/Windows", "/con:", "/\x00", "/%00", "/game.mjs%00.png", "/game.mjs/", "/nothing",
    "/app/../outside.txt", "/app/%2e%2e/errors.py", "outside.txt", "", "*", "http://host/game.mjs", "/%ff", "/" + "a/" * 40,
    "/" + "a" * 2000, "/%E2%80%AE", "/r/", "/r/short", "/r/K7QM-3FHT/x",
]  # fmt: skip


@pytest.mark.parametrize("target", OUTSIDE)
def test_nothing_else_is_read(folder: Path, target: str) -> None:
    page = Site(folder).page(asked(target))
    assert page is None


def test_a_folder_is_asked_for_with_its_slash(folder: Path) -> None:
    page = Site(folder).page(asked("/sub?x"))
    assert page is not None
    assert (page.status, page.headers) == (308, (("Location", "/sub/"),))


def test_an_invitation_leads_to_the_page(folder: Path) -> None:
    for site, where in ((Site(folder), "/?code=K7QM3FHT"), (Site(), "/app/?code=K7QM3FHT")):
        page = site.page(asked("/r/k7qm-3fht"))
        assert page is not None
        assert (page.status, page.headers) == (302, (("Location", where),))


def test_what_is_known_is_not_sent_again_and_what_changed_is(folder: Path) -> None:
    site = Site(folder)
    first = site.page(asked("/game.mjs"))
    assert first is not None
    tag = dict(first.headers)["ETag"]
    again = site.page(asked("/game.mjs", known=tag))
    assert again is not None
    assert (again.status, again.body, again.cache) == (304, b"", "no-cache")
    (folder / "game.mjs").write_text("22")
    os.utime(folder / "game.mjs", ns=(1, 1))
    changed = site.page(asked("/game.mjs", known=tag))
    assert changed is not None
    assert (changed.status, changed.body) == (200, b"22")


def test_what_is_kept_and_what_is_read_have_limits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_module, "FILE_BYTES_MAX", 100)
    monkeypatch.setattr(site_module, "KEPT_BYTES_MAX", 150)
    monkeypatch.setattr(site_module, "KEPT_FILES_MAX", 3)
    site = Site(folder)
    for number in range(6):
        (folder / f"{number}.txt").write_bytes(bytes(60))
        assert site.page(asked(f"/{number}.txt")) is not None
        assert site._kept_bytes == sum(len(file.body) for file in site._kept.values()) <= 150
    (folder / "large.txt").write_bytes(bytes(101))
    page = site.page(asked("/large.txt"))
    assert page is not None
    assert page.status == 413


def policy(headers: tuple[tuple[str, str], ...]) -> dict[str, list[str]]:
    told = dict(headers)["Content-Security-Policy"]
    return {name: values for name, *values in (part.split() for part in told.split(";"))}


@pytest.mark.parametrize(
    ("host", "sockets"),
    [("play.example:8080", ["ws://play.example:8080", "wss://play.example:8080"]), ("[::1]:80", ["ws://[::1]:80", "wss://[::1]:80"]),
     ("a b; script-src *", []), ("", [])],
)  # fmt: skip
def test_the_policy_lets_no_script_in_but_files_and_no_host_but_this_one(
    folder: Path, host: str, sockets: list[str]
) -> None:
    page = Site(folder).page(asked("/", host=host))
    assert page is not None
    told = policy(page.headers)
    assert told["script-src"] == ["'self'", "'wasm-unsafe-eval'"]
    assert told["default-src"] == ["'self'"]
    assert told["connect-src"] == ["'self'", *sockets]
    assert dict(page.headers)["X-Content-Type-Options"] == "nosniff"


def test_a_folder_without_a_page_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"there is no index\.html in it"):
        Site(tmp_path)


@pytest.mark.parametrize("target", ["/..", "/a/../b", "/.x", "x", "/%ff", "/a\\b"])
def test_the_reader_has_one_error(target: str) -> None:
    with pytest.raises(ProtocolError):
        parts_untrusted(target)


def test_the_lobby_that_comes_with_the_package_is_whole() -> None:
    """It runs under its own policy, from its own folder, and what the worker keeps is there."""
    html = (APP / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|javascript:|<style", html)
    linked = set(re.findall(r'(?:src|href)="([^"#]+)"', html))
    assert not [link for link in linked if "//" in link or link.startswith("/")]
    manifest = json.loads((APP / "manifest.webmanifest").read_text(encoding="utf-8"))
    worker = (APP / "sw.js").read_text(encoding="utf-8")
    kept = set(json.loads(re.search(r"const FILES = (\[.*?\]);", worker)[1]))  # type: ignore[index]
    for name in linked | kept | {icon["src"] for icon in manifest["icons"]}:
        assert (APP / name).exists(), name
    assert linked - {"sw.js"} <= kept | {"./"}
    for path in APP.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://(?!www\.w3\.org)[a-z]", text), f"{path.name} speaks of another host"
        assert not re.search(r"\beval\(|new Function", text)


async def test_over_the_wire(folder: Path) -> None:
    async with calm_server(ServerConfig(web=folder)) as server:
        head, body = await http(server, b"GET / HTTP/1.1\r\nHost: play.example\r\n\r\n")
        assert (head[:12], body) == (b"HTTP/1.1 200", b"<p>game")
        assert b"wss://play.example" in head
        assert b"no-cache" in head
        tag = re.search(rb'ETag: ("[0-9a-f]+")', head)
        assert tag is not None
        head, body = await http(server, b"GET / HTTP/1.1\r\nHost: x\r\nIf-None-Match: " + tag[1] + b"\r\n\r\n")
        assert (head[:12], body) == (b"HTTP/1.1 304", b"")
        head, body = await http(server, b"HEAD /app/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (head[:12], body) == (b"HTTP/1.1 200", b"")
        head, body = await http(server, b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 405")
        head, body = await http(server, b"GET /../outside.txt HTTP/1.1\r\nHost: x\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 404")
        assert b"secret" not in body
