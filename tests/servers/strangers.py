"""Hosts of strangers on loopback, each as rude as its script, and certificates for them."""

import contextlib
import datetime as dt
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.safe_http import Guard

HERE = "127.0.0.2"
"""Where strangers live unless told otherwise: not where anything of ours listens."""
LIMIT = 50_000
"""Most bytes that `guard` fetches."""


class Names:
    """A resolver that answers in turn, the last answer for ever, and counts."""

    def __init__(self, *in_turn: list[str]) -> None:
        self._in_turn, self.asked = list(in_turn), list[str]()

    def __call__(self, host: str, _port: int) -> Sequence[str]:
        self.asked.append(host)
        return self._in_turn.pop(0) if len(self._in_turn) > 1 else self._in_turn[0]


def guard(
    *,
    resolver: Callable[[str, int], Sequence[str]] | None = None,
    allow: Sequence[str] = (HERE,),
    timeout: float = 5,
    ca_file: Path | None = None,
) -> Guard:
    """Give a guard for which `HERE` is a place like any other."""
    return Guard(
        purpose="fetch",
        allow=allow,
        timeout=timedelta(seconds=timeout),
        max_bytes=LIMIT,
        resolver=resolver or Names([HERE]),
        ca_file=str(ca_file) if ca_file else None,
    )


class Stranger:
    """A running host: what it was asked, and how its connections went."""

    def __init__(self, address: str, port: int, leaving: threading.Event) -> None:
        self.address, self.port = address, port
        self.url = f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
        self.leaving = leaving
        self.requests: list[bytes] = []
        """Each request whole, head and body."""
        self.here = threading.local()
        """Its `request` is the one that the script of this thread answers."""
        self.connections = 0
        self.hung_up = threading.Semaphore(0)
        """Released once for every connection that the other side closed."""
        self.server_name: str | None = None

    def drip(self, line: socket.socket, piece: bytes, *, every: float = 0.02) -> None:
        """Send a piece now and then, until the other side has enough or the test is over."""
        while not self.leaving.wait(every):
            line.sendall(piece)

    @property
    def head(self) -> list[str]:
        """The lines of the last request's head."""
        return self.requests[-1].partition(b"\r\n\r\n")[0].decode().split("\r\n")


Script = Callable[[Stranger, socket.socket], None]
"""What a host does on a connection after each request."""


def silence(_: Stranger, line: socket.socket) -> None:
    """Answer nothing, until the other side hangs up."""
    _wait_for_the_end(line)


def says(*pieces: bytes) -> Script:
    """Answer every request with these bytes, then hang up."""

    def answer(_: Stranger, line: socket.socket) -> None:
        line.sendall(b"".join(pieces))

    return answer


def answers(body: bytes = b"", *headers: str, status: str = "200 OK") -> Script:
    """Answer every request with a body of announced length, then hang up."""
    return says(head(*headers, f"Content-Length: {len(body)}", status=status), body)


def head(*headers: str, status: str = "200 OK") -> bytes:
    """Give an answer's head."""
    return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *headers, "")).encode("latin-1")


def chunked(host: Stranger, line: socket.socket) -> None:
    """Send an endless body in chunks."""
    line.sendall(head("Transfer-Encoding: chunked"))
    while not host.leaving.is_set():
        line.sendall(b"1000\r\n" + b"\0" * 4096 + b"\r\n")


def dripping(*first: bytes, piece: bytes = b"x") -> Script:
    """Send these bytes, and then a piece now and then until the other side has enough."""

    def answer(host: Stranger, line: socket.socket) -> None:
        line.sendall(b"".join(first))
        host.drip(line, piece)

    return answer


def redirect(to: str, status: str = "302 Found") -> Script:
    """Redirect, with PORT in the address standing for the host's own."""

    def answer(host: Stranger, line: socket.socket) -> None:
        location = to.replace("PORT", str(host.port)).encode().decode("latin-1")
        line.sendall(head(f"Location: {location}", "Content-Length: 0", "Connection: close", status=status))

    return answer


def by_path(**scripts: Script) -> Script:
    """Answer /name by the script of that name."""

    def answer(host: Stranger, line: socket.socket) -> None:
        name = host.here.request.split()[1].decode().strip("/").partition("?")[0]
        scripts[name](host, line)

    return answer


@contextlib.contextmanager
def stranger(
    script: Script,
    *,
    address: str = HERE,
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    keeps_alive: bool = False,
    reads_bodies: bool = True,
    greeting: bytes = b"",
) -> Iterator[Stranger]:
    """Give a host that runs the script after each request, and ends with the test.

    Args:
        port: 0 takes any.
        keeps_alive: whether it waits for another request after the script, or hangs up.
        reads_bodies: whether it reads what follows a request's head.
        greeting: what it says before it is asked.
    """
    leaving = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            made.connections += 1
            with contextlib.suppress(OSError):
                self.talk()
            made.hung_up.release()

        def talk(self) -> None:
            line = self.request if tls is None else tls.wrap_socket(self.request, server_side=True)
            with line:
                line.sendall(greeting)
                while request := _request(line, with_body=reads_bodies):
                    made.requests.append(request)
                    made.here.request = request
                    script(made, line)
                    if not keeps_alive:
                        line.shutdown(socket.SHUT_WR)
                        _wait_for_the_end(line)
                        return

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        request_queue_size = 64

        def handle_error(self, request: object, client_address: object) -> None:
            """Nobody listens: what goes wrong here is the script's intention."""

    with Server((address, port), Handler) as server:
        made = Stranger(address, server.server_address[1], leaving)
        if tls is not None:
            tls.sni_callback = lambda _line, name, _context: setattr(made, "server_name", name)
            made.url = f"https://{address}:{made.port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            leaving.set()
            server.shutdown()
            thread.join()


def _request(line: socket.socket, *, with_body: bool) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        if not (piece := line.recv(65536)):
            return b""
        received += piece
    top, _, body = received.partition(b"\r\n\r\n")
    length = next(
        (int(it.partition(b":")[2]) for it in top.split(b"\r\n") if it.lower().startswith(b"content-length")),
        0,
    )
    while with_body and len(body) < length and (piece := line.recv(65536)):
        body += piece
    return top + b"\r\n\r\n" + body


def _wait_for_the_end(line: socket.socket) -> None:
    while line.recv(65536):
        continue


def ended(host: Stranger) -> bool:
    """Whether a connection was closed at our end, now or soon."""
    return host.hung_up.acquire(timeout=2)


class Authority:
    """A certificate authority of one test run, and hosts' certificates by it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / "authority.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def host(self, name: str, *, expired: bool = False) -> ssl.SSLContext:
        """Give the TLS side of a host whose certificate is for this name alone."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, expired=expired)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        file = self._folder / "host.pem"
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, expired: bool = False
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        day = timedelta(days=1)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 3 * day)
            .not_valid_after(now - day if expired else now + day)
        )
