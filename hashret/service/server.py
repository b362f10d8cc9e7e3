"""`hashret serve`: the service in a process of its own."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..engines import is_engine
from ..errors import HashretError
from ..files import StrPath
from ..opening import find_model
from ..places import find_index
from ..progress import is_quiet, takes_quiet

if TYPE_CHECKING:
    from fastapi import FastAPI

_BACKLOG = 128


@takes_quiet
def serve(
    index: StrPath | None = None,
    model: StrPath | None = None,
    *,
    values: StrPath | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "auto",
    max_upload: int = 20,
    max_pixels: int = 50,
    batch: int = 32,
    show_paths: bool = False,
    allow_hosts: Iterable[str] = (),
) -> None:
    """Serve an index until Ctrl-C.

    Args:
        index: folder of an index, or a collection in an engine; None for the one that `hashret.places.find_index`
            finds. A newer one in its place is served as soon as it is
            there.
        model: checkpoint of the encoder. None takes the one of `hashret.opening.find_model`; where there is none, only
            indexed photographs can be searched by.
        values: see `hashret.Searcher`.
        host: address to listen at.
        port: port to listen at; 0 takes a free one.
        device: "auto", "cpu" or "cuda".
        max_upload: most megabytes of an upload.
        max_pixels: most megapixels of an upload.
        batch: most photographs encoded together.
        show_paths: tell visitors whole paths, and not those from the folder of photographs on.
        allow_hosts: names that the service answers to beside numeric addresses, ``localhost``, ``host`` and, where it
            listens to other machines, the names of this one; "*" for any name, which lets pages of others in.

    Raises:
        HashretError: there is nothing to serve, the port is taken, one of ``allow_hosts`` is no name, or the extra
            ``serve`` is not installed.
    """
    try:
        import uvicorn

        from .app import create_app
        from .connections import settings
    except ImportError as error:
        raise HashretError(f"serving needs {error.name}", hint="pip install 'hashret[serve]'") from None
    index = find_index(index)
    default = Path(find_model(None, None if is_engine(index) else index))
    if model is None and default.is_file():
        model = default
    hosts = [host, *map(_as_sent, allow_hosts), *([] if _is_loopback(host) else _own_names())]
    app = create_app(
        index, model, device, values=values, hosts=hosts, max_upload=max_upload * 2**20, max_pixels=max_pixels * 10**6,
        batch=batch, show_paths=show_paths,
    )  # fmt: skip
    with contextlib.closing(_listen(host, port)) as listening:
        if not is_quiet():
            _greet(app, host, listening.getsockname()[1], model)
        server = uvicorn.Server(settings(app))
        with contextlib.suppress(KeyboardInterrupt):  # raised again by uvicorn once all requests are answered
            server.run(sockets=[listening])
    if not is_quiet():
        print("stopped")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except (OSError, UnicodeError, OverflowError) as error:
        reason = "that is no name of a machine" if isinstance(error, UnicodeError) else str(error)
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        hint = "name others with --host and --port"
        raise HashretError(f"cannot listen at {host}:{port}: {reason}", hint=hint) from None
    return listening


def _greet(app: FastAPI, host: str, port: int, model: StrPath | None) -> None:
    index = app.state.service.live.current.index
    print(
        f"{len(index):,} photographs at http://{f'[{host}]' if ':' in host else host}:{port}; Ctrl-C ends it",
        flush=True,
    )
    if model is None:
        print("note: no encoder is there, so nothing can be uploaded; name the encoder with --model", flush=True)
    if not _is_loopback(host):
        print("note: whoever reaches this machine can search, and see every indexed photograph", flush=True)


def _as_sent(name: str) -> str:
    """Return a host name as browsers send it, letters beyond ASCII in the form ``xn--``.

    Raises:
        HashretError: it is none, or has more about it, so that no request would ever be to it.
    """
    try:
        sent = name.encode("idna").decode("ascii")
    except UnicodeError:
        sent = ""
    if name != "*" and not re.fullmatch(r"[\w.-]+", sent):
        hint = "name it without https:// and without a port, as photos.example; numeric addresses need not be named"
        raise HashretError(f"{name!r} is no name of a machine", hint=hint)
    return sent


def _own_names() -> set[str]:
    """Return the names of this machine, as itself and its network know it; ``.local`` is that of multicast DNS."""
    name = socket.gethostname()
    return {name, f"{name.partition('.')[0]}.local", socket.getfqdn(name)} - {""}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
