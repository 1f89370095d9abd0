"""Whether a hello was meant for this server: a rogue server must not pass on what a player signed for it. Pure."""

from __future__ import annotations

from ipaddress import ip_address

from psyne_mesh.errors import InvalidConfig

ANY = "*"
_LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost")


def check_public_name(name: str) -> str:
    """A public name as `is_meant` takes it: `host`, with any port, or `host:port`; or `*`. Raises `InvalidConfig`."""
    host, port = split_authority(name)
    if name != ANY and (not host or "/" in name or "@" in name or (port and not port.isdecimal())):
        raise InvalidConfig(f"public name {name!r}: must be host, host:port or *")
    return name if name == ANY else _joined(host, port)


def is_meant(audience: str, public_names: frozenset[str], local: tuple[str, int] | None) -> bool:
    """audience: host:port as the client dialled it. local: the address on which the connection came in, if it has one:
    who dials an IP address of this machine means this machine, and on the same machine "localhost" does, too."""
    if ANY in public_names:
        return True
    host, port = split_authority(audience)
    if {host, _joined(host, port)} & public_names:
        return True
    if local is None or port != str(local[1]):
        return False
    try:
        here = ip_address(local[0].partition("%")[0])
    except ValueError:
        return False
    here = getattr(here, "ipv4_mapped", None) or here
    if here.is_loopback and host in _LOCAL_NAMES:
        return True
    try:
        return ip_address(host.partition("%")[0]) == here
    except ValueError:
        return False


def split_authority(authority: str) -> tuple[str, str]:
    """host in lower case and without brackets, and port as text, "" if there is none."""
    authority = authority.strip().lower()
    if authority.startswith("["):
        host, _, rest = authority[1:].partition("]")
        return host, rest.removeprefix(":")
    if authority.count(":") > 1:
        return authority, ""
    host, _, port = authority.partition(":")
    return host.rstrip("."), port


def _joined(host: str, port: str) -> str:
    return f"{host}:{port}" if port else host
