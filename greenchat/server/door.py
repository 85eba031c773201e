"""Who may enter under which name: proofs of who somebody is, who owns what, and how often one may try."""

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from greenchat.addresses import network
from greenchat.errors import Code, Refused, SecurityError
from greenchat.protocol.limits import FAILURE_SECONDS, FAILURES, MAX_FAILING
from greenchat.protocol.records import Hello, Proof
from greenchat.security.keys import check_installed
from greenchat.security.proof import certificate_of, is_proof, new_nonce
from greenchat.security.tls import fingerprint
from greenchat.server.registry import Registry

__all__ = ["Claim", "Door"]

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Claim:
    """What a client says of itself, and what it has to sign to prove it."""

    hello: Hello
    certificate: bytes
    server: bytes
    """The server's certificate, in DER, that the client has been shown."""
    name: str
    """The name as the client spells it."""
    nonce: str = field(default_factory=new_nonce)

    @property
    def owner(self) -> str:
        """What the client is known by."""
        return fingerprint(self.certificate)


class Door:
    """The door of a server, which lets in what its *registry* says.

    Where names are *shared* with other servers, the backplane decides whose they are, and nobody else: a second truth
    here would keep owners out whom the others let in. Raises `SecurityError` if proofs cannot be checked here.
    """

    def __init__(self, registry: Registry, *, members_only: bool, shared: bool = False) -> None:
        check_installed()
        self._registry = registry
        self._shared = shared
        self._members_only = members_only
        self._failing: OrderedDict[str, deque[float]] = OrderedDict()
        """When attempts from a network have failed, those that failed last at the end."""

    def claim(self, hello: Hello, server: bytes, name: str) -> Claim:
        """Return what the client of *hello* has to prove, which was shown the certificate *server*.

        It signs *name* as it spells it. Raises `ProtocolError` if it shows no certificate of its own.
        """
        return Claim(hello, certificate_of(hello.certificate), server, name)

    def admit(self, claim: Claim, proof: Proof, host: str) -> None:
        """Let the client from *host* in, whose *proof* this is. Raises `Refused`.

        The owner of a name is heard however often others have failed from there.
        """
        hello = claim.hello
        proven = is_proof(proof.signature, claim.certificate, claim.nonce, claim.server, claim.name)
        if proven and self._ask(self._registry.owns, hello.name, claim.owner):
            self._enter(hello.name, claim.owner, host, hello.invite)
            return
        with self._patience(network(host)):
            if not proven:
                raise Refused(Code.BAD_PROOF)
            self._enter(hello.name, claim.owner, host, hello.invite)

    def admit_guest(self, name: str, host: str) -> None:
        """Let somebody in who proves nothing. Raises `Refused`."""
        with self._patience(network(host)):
            self._enter(name, None, host, "")

    def _enter(self, name: str, owner: str | None, host: str, invite: str) -> None:
        where, members_only = network(host) or host, self._members_only
        if self._shared:
            self._ask(self._registry.check, owner, where, invite=invite, members_only=members_only)
        else:
            self._ask(self._registry.enter, name, owner, where, invite=invite, members_only=members_only)

    def record(self, claim: Claim) -> None:
        """Record that the backplane has let the client of *claim* have its name. Raises `Refused`."""
        if self._shared:
            name, invite = claim.hello.name, claim.hello.invite
            self._ask(self._registry.record, name, claim.owner, invite=invite, members_only=self._members_only)

    def _ask(self, ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return ask(*args, **kwargs)
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
        if where:
            self._note(where, failed, now)  # as if it had failed already: many may be tried at once
        try:
            yield
        except Refused as refused:
            if refused.code is not Code.FAILED:  # which is our own fault
                raise
            self._forgive(where, failed, now)
            raise
        self._forgive(where, failed, now)

    def _forgive(self, where: str, failed: deque[float], now: float) -> None:
        if now in failed:
            failed.remove(now)
        if not failed and self._failing.get(where) is failed:
            del self._failing[where]

    def _note(self, where: str, failed: deque[float], now: float) -> None:
        failed.append(now)
        self._failing[where] = failed
        self._failing.move_to_end(where)
        if len(self._failing) > MAX_FAILING:
            self._failing.popitem(last=False)
