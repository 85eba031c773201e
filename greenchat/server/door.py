"""Who may enter under which name: proofs of who somebody is, who owns what, and how often one may try."""

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from greenchat.errors import Code, Refused, SecurityError
from greenchat.net import network
from greenchat.protocol.limits import FAILURE_SECONDS, FAILURES, MAX_FAILING
from greenchat.protocol.records import Hello, Proof
from greenchat.security.proof import certificate_of, is_proof, new_nonce
from greenchat.security.tls import fingerprint
from greenchat.server.certificate import Certificate
from greenchat.server.registry import Registry

__all__ = ["Claim", "Door"]


_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Claim:
    """What a client says of itself, and what it has to sign to prove it."""

    hello: Hello
    certificate: bytes
    nonce: str = field(default_factory=new_nonce)

    @property
    def owner(self) -> str:
        """What the client is known by."""
        return fingerprint(self.certificate)


class Door:
    """The door of a server that shows *certificate*, and lets in what its *registry* says."""

    def __init__(self, certificate: Certificate, registry: Registry, *, members_only: bool) -> None:
        self._certificate = certificate
        self._registry = registry
        self._members_only = members_only
        self._failing: OrderedDict[str, deque[float]] = OrderedDict()
        """When attempts from a network have failed, those that failed last at the end."""

    def claim(self, hello: Hello) -> Claim:
        """What the client of *hello* has to prove. Raises `ProtocolError` if it shows no certificate."""
        return Claim(hello, certificate_of(hello.certificate))

    def admit(self, claim: Claim, proof: Proof, host: str) -> None:
        """Let the client from *host* in, whose *proof* this is. Raises `Refused`."""
        with self._patience(network(host)):
            hello, server = claim.hello, self._certificate.der
            if not is_proof(proof.signature, claim.certificate, claim.nonce, server, hello.name):
                raise Refused(Code.BAD_PROOF)
            self._enter(hello.name, claim.owner, host, hello.invite)

    def admit_guest(self, name: str, host: str) -> None:
        """Let somebody in who proves nothing. Raises `Refused`."""
        with self._patience(network(host)):
            self._enter(name, None, host, "")

    def _enter(self, name: str, owner: str | None, host: str, invite: str) -> None:
        where = network(host) or host
        try:
            self._registry.enter(name, owner, where, invite=invite, members_only=self._members_only)
        except SecurityError as error:  # which is for whoever runs the server, not for a peer
            _log.error("%s", error)
            raise Refused(Code.FAILED) from None

    @contextmanager
    def _patience(self, where: str) -> Iterator[None]:
        """Counts an attempt that is refused. Who has failed too often is not heard; this machine always is."""
        failed, now = self._failing.get(where, deque()), time.monotonic()
        while failed and failed[0] < now - FAILURE_SECONDS:
            failed.popleft()
        if len(failed) >= FAILURES:
            raise Refused(Code.TOO_MANY_FAILURES)
        try:
            yield
        except Refused:
            if where:
                self._note(where, failed, now)
            raise

    def _note(self, where: str, failed: deque[float], now: float) -> None:
        failed.append(now)
        self._failing[where] = failed
        self._failing.move_to_end(where)
        if len(self._failing) > MAX_FAILING:
            self._failing.popitem(last=False)
