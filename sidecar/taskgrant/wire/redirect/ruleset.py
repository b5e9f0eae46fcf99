"""The nftables ruleset, as text: what a network namespace's packets may do when an agent lives in it. Pure.

One table of the family ``inet`` (IPv4 and IPv6 alike), replaced as a whole, so that applying it twice is applying it
once, and that there is no moment without it. Everything is told by the uid of the sending socket:

* the sidecar's may go anywhere;
* the agent's (everybody else's) TCP is redirected to the sidecar, wherever it was for, and its name look-ups too;
* nothing else leaves, and nothing comes in that the sidecar did not ask for.

What the agent dials at this machine's own addresses (the sidecar's listeners, OPA, another process) is not redirected
but refused, unless its port is named. A packet is taken for redirected by its connection (``ct status dnat``): in this
hook it still has the interface that it would have left by.

A connection's state alone lets nobody out: by sending from the port of a finished exchange of the sidecar (a name
look-up, say) the agent would become part of it. So whoever has a socket is judged by the socket's uid, packet by
packet, and only packets without one (a closed socket's last ones) by their connection's mark, which the sidecar's own
first packet set.

A socket that is bound to a device (SO_BINDTODEVICE takes no privilege) sends by it even what was redirected to this
machine. So what is about to leave is looked at once more after routing, where its interface is known.

A connection that somebody elsewhere has opened to an inbound port is marked by its first packet, and what answers on
it leaves by that mark. An answer is never a bare SYN: who dials from an inbound port, even to somebody who has just
been connected with it, begins a connection of its own, which is redirected like any other.
"""

from taskgrant.wire.redirect.config import RedirectConfig

FAMILY = "inet"
TABLE = "taskgrant"
#: Marks connections that the sidecar has opened. Nobody without CAP_NET_ADMIN can set it.
_OURS = "0x7467"
#: The same for those that somebody elsewhere has opened to an inbound port.
_INBOUND = "0x7468"
_ANSWERS = (
    f"    ct mark {_INBOUND} ct direction reply ct state established tcp flags & (syn | ack) != syn accept",
)
_NEIGHBOURS = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"


def ruleset(config: RedirectConfig, port: int) -> str:
    """For ``nft -f -``: one transaction. ``port`` is the transparent listener's."""
    sidecar, dns = config.uid, config.dns_port
    inbound = _named(config.inbound_ports)
    # nft 1.0.6 wants each closing brace on a line of its own.
    return "\n".join(
        [
            f"table {FAMILY} {TABLE}",
            f"delete table {FAMILY} {TABLE}",
            f"table {FAMILY} {TABLE} {{",
            "  chain divert {",
            "    type nat hook output priority -100; policy accept;",
            f"    meta skuid {sidecar} accept",
            f"    meta l4proto {{ tcp, udp }} th dport 53 redirect to :{dns}",
            "    fib daddr type local accept",
            f"    meta l4proto tcp redirect to :{port}",
            "  }",
            "  chain leave {",
            "    type filter hook output priority 0; policy drop;",
            f"    meta skuid {sidecar} ct direction original ct mark set {_OURS} accept",
            f"    meta skuid {sidecar} accept",
            f"    ct status dnat fib daddr type local tcp dport {{ {port}, {dns} }} accept",
            f"    ct status dnat fib daddr type local udp dport {dns} accept",
            *_local(config.local_ports),
            '    oifname "lo" ct direction reply ct state established,related accept',
            *(_ANSWERS if inbound else ()),
            f"    meta skuid != {sidecar} goto refuse",
            f"    ct mark {_OURS} accept",
            f"    {_NEIGHBOURS}",
            "  }",
            "  chain refuse {",
            "    meta l4proto tcp reject with tcp reset",
            "    reject",
            "  }",
            "  chain depart {",
            "    type filter hook postrouting priority 0; policy accept;",
            '    oifname "lo" accept',
            "    fib daddr type local drop",
            *(_ANSWERS if inbound else ()),
            f"    meta skuid != {sidecar} drop",
            "  }",
            "  chain arrive {",
            "    type filter hook input priority 0; policy drop;",
            '    iifname "lo" accept',
            f"    ct mark {_OURS} ct state established,related accept",
            *(_arrivals(inbound) if inbound else ()),
            f"    {_NEIGHBOURS}",
            "  }",
            "}",
            "",
        ]
    )


def removal() -> str:
    """Takes the table away, also when it is not there."""
    return f"table {FAMILY} {TABLE}\ndelete table {FAMILY} {TABLE}\n"


def _local(ports: tuple[int, ...]) -> list[str]:
    return [f"    fib daddr type local tcp dport {{ {named} }} accept"] if (named := _named(ports)) else []


def _arrivals(ports: str) -> list[str]:
    """A connection begins with a SYN; what has not begun so is not picked up in its midst."""
    begins = "ct state new tcp flags & (fin | syn | rst | ack) == syn"
    return [
        f"    tcp dport {{ {ports} }} {begins} ct mark set {_INBOUND} accept",
        f"    ct mark {_INBOUND} ct state established,related accept",
    ]


def _named(ports: tuple[int, ...]) -> str:
    return ", ".join(str(port) for port in sorted(set(ports)))
