"""What becomes of the agent's TLS, put together from the configuration."""

import ssl
from dataclasses import dataclass

from taskgrant.errors import Refused
from taskgrant.identity import trust_files
from taskgrant.identity.leaves import LeafContexts
from taskgrant.identity.pod_ca import PodCa
from taskgrant.model.catalogue import Catalogue
from taskgrant.model.codes import Code
from taskgrant.model.egress import EgressHosts, Mode
from taskgrant.model.time import Clock
from taskgrant.proxy.splicing import Splicer
from taskgrant.wire.config import ListenConfig
from taskgrant.wire.dispatching import Speaker
from taskgrant.wire.intercept import Interceptor
from taskgrant.wire.opaque import Opaque, Unread
from taskgrant.wire.opening import Opening
from taskgrant.wire.tunnel import Admit


@dataclass(frozen=True, slots=True)
class Interception:
    """For the listeners: who speaks what, and what CONNECT may name."""

    admit: Admit
    speakers: dict[Opening, Speaker]
    unread: Unread


def intercepting(
    listen: ListenConfig, catalogue: Catalogue, hosts: EgressHosts, splicer: Splicer, clock: Clock
) -> Interception:
    """Opens the pod's CA and writes the agent's trust, where configured. Raises ``errors.ConfigurationError``."""
    contexts = None
    if listen.ca_dir is not None:
        ca = PodCa.open(listen.ca_dir, clock)
        contexts = LeafContexts(ca, clock)
        if listen.trust_dir is not None:
            trust_files.write(listen.trust_dir, ca.certificate)

    def known(scheme: str, host: str, port: int) -> bool:
        return (catalogue.dialled(scheme, host, port) or hosts.dialled(scheme, host, port)) is not None

    def context(host: str, port: int) -> ssl.SSLContext:
        if not known("https", host, port):
            raise Refused(Code.UNKNOWN_SERVER, "this address is not in the sidecar's catalogue")
        if contexts is None:
            raise Refused(Code.UNSUPPORTED, "TLS is not intercepted here; dial the tool by plain http")
        return contexts.of(host)

    def admit(host: str, port: int) -> None:
        spliced = hosts.dialled("https", host, port)
        if hosts.opaque(host, port) is not None or (spliced is not None and spliced.mode is Mode.SPLICE):
            return
        if not known("http", host, port):
            context(host, port)

    interceptor = Interceptor(context, listen.head_timeout, hosts, splicer.splice)
    return Interception(admit, {Opening.TLS: interceptor.speak}, Opaque(hosts, splicer.splice).take)
