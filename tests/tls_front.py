"""TLS before a server that speaks none, as a proxy or a load balancer puts it there: real handshakes."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

import trustme

from tests.services import LOOPBACK


class TlsFront:
    """Listens with a certificate for 127.0.0.1, and passes all on to a port of this machine."""

    def __init__(self, authority: trustme.CA, port_behind: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(LOOPBACK).configure_cert(self._context)
        self._behind = port_behind
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """TLS from there, plain to here; ends when either side does, or when there is no handshake."""
        outside, inside = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._context.wrap_bio(outside, inside, server_side=True)
        with client, socket.create_connection((LOOPBACK, self._behind)) as server:
            lock = threading.Lock()  # of `tls`, and of what is sent to the client
            with contextlib.suppress(OSError):
                _shake_hands(tls, client, outside, inside)
                self.connections += 1
                back = threading.Thread(
                    target=_encrypt, args=(tls, server, client, inside, lock), daemon=True
                )
                back.start()
                _decrypt(tls, client, server, outside, lock)
            for side in (client, server):
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)


def _shake_hands(
    tls: ssl.SSLObject, client: socket.socket, outside: ssl.MemoryBIO, inside: ssl.MemoryBIO
) -> None:
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            client.sendall(inside.read())
            received = client.recv(65536)
            if not received:
                raise ConnectionResetError from None
            outside.write(received)
        else:
            client.sendall(inside.read())
            return


def _decrypt(
    tls: ssl.SSLObject,
    client: socket.socket,
    server: socket.socket,
    outside: ssl.MemoryBIO,
    lock: threading.Lock,
) -> None:
    while True:
        with lock:
            plain = _read_all(tls)
        if plain:
            server.sendall(plain)
        received = client.recv(65536)
        if not received:
            return
        with lock:
            outside.write(received)


def _read_all(tls: ssl.SSLObject) -> bytes:
    parts = []
    with contextlib.suppress(ssl.SSLWantReadError):
        while part := tls.read(65536):
            parts.append(part)
    return b"".join(parts)


def _encrypt(
    tls: ssl.SSLObject,
    server: socket.socket,
    client: socket.socket,
    inside: ssl.MemoryBIO,
    lock: threading.Lock,
) -> None:
    with contextlib.suppress(OSError):
        while plain := server.recv(65536):
            with lock:
                tls.write(plain)
                client.sendall(inside.read())
        client.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def tls_front(authority: trustme.CA, port_behind: int) -> Iterator[TlsFront]:
    """Open for the length of the block."""
    front = TlsFront(authority, port_behind)
    try:
        yield front
    finally:
        front.close()
