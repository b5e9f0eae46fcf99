"""The pod's CA: what it signs, that it outlives a restart, and where its key may not be kept."""

import os
import ssl
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from taskgrant.errors import ConfigurationError
from taskgrant.identity import pod_ca
from taskgrant.identity.contexts import intercepting_context
from taskgrant.identity.leaves import LeafContexts
from taskgrant.identity.pod_ca import PodCa


@pytest.fixture
def memory():
    """A private directory on tmpfs."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


def refusal(directory, clock) -> str:
    with pytest.raises(ConfigurationError) as caught:
        PodCa.open(directory, clock)
    return str(caught.value)


def client(ca: bytes, strict: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca.decode())
    if strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def shake(ours: ssl.SSLObject, theirs: ssl.SSLObject) -> None:
    for _ in range(4):
        for side in (theirs, ours):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue


def handshake(client_context: ssl.SSLContext, name: str | None, server: ssl.SSLContext) -> ssl.SSLObject:
    """Both ends in memory. Raises what either raises."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    shake(server.wrap_bio(to_server, to_client, server_side=True), theirs)
    return theirs


def test_a_leaf_is_for_one_name_and_servers_only(memory, clock):
    ca = PodCa.open(memory / "ca", clock)
    leaf = x509.load_pem_x509_certificate(ca.leaf("mail.example.org").chain)
    extensions = leaf.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["mail.example.org"]
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(hours=24)
    root = x509.load_pem_x509_certificate(ca.certificate)
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(
        True, 0
    )


def test_a_strict_client_takes_a_leaf_and_only_for_its_name(memory, clock):
    ca = PodCa.open(memory, clock)
    server = LeafContexts(ca, clock).of("mail.example.org")
    speaking = client(ca.certificate)
    speaking.set_alpn_protocols(["h2", "http/1.1"])
    theirs = handshake(speaking, "mail.example.org", server)
    assert (theirs.version(), theirs.selected_alpn_protocol()) == ("TLSv1.3", "h2")
    for name in ("other.example.org", None):
        asking = client(ca.certificate)
        asking.check_hostname = False
        with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name|no suitable|callback"):
            handshake(asking, name, server)


def test_no_tls_below_1_2_is_spoken(memory, clock):
    assert (
        LeafContexts(PodCa.open(memory, clock), clock).of("a.example").minimum_version
        == ssl.TLSVersion.TLSv1_2
    )


def test_a_restart_keeps_the_ca_and_makes_leaves_with_another_key(memory, clock):
    first = PodCa.open(memory / "ca", clock)
    second = PodCa.open(memory / "ca", clock)
    assert first.certificate == second.certificate
    assert first.leaf_key.public() != second.leaf_key.public()
    handshake(client(first.certificate), "a.example", LeafContexts(second, clock).of("a.example"))
    assert [path.name for path in (memory / "ca").iterdir()] == ["ca.pem"]
    assert (memory / "ca").stat().st_mode & 0o777 == 0o700
    assert (memory / "ca" / "ca.pem").stat().st_mode & 0o777 == 0o600


def test_each_pod_has_a_ca_of_its_own(memory, clock):
    one, other = PodCa.open(memory / "1", clock), PodCa.open(memory / "2", clock)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(client(one.certificate), "a.example", LeafContexts(other, clock).of("a.example"))


def test_two_that_start_at_once_agree(memory, clock, monkeypatch):
    """The file appears between the look for it and the making of it."""
    made = PodCa.open(memory, clock)
    load, looked = pod_ca._load, []

    def blind_once(directory, now):
        looked.append(directory)
        return None if len(looked) == 1 else load(directory, now)

    monkeypatch.setattr(pod_ca, "_load", blind_once)
    assert PodCa.open(memory, clock).certificate == made.certificate
    assert [path.name for path in memory.iterdir()] == ["ca.pem"]


def test_a_directory_on_a_disk_is_refused(clock):
    # Beside the source: a machine's temporary directory may itself be in memory.
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as directory:
        assert "not in memory" in refusal(Path(directory), clock)
        assert list(Path(directory).iterdir()) == []


@pytest.mark.parametrize(
    ("table", "allowed"),
    [
        ("1 2 {} / /run/ca rw - tmpfs tmpfs rw", True),
        ("1 2 {} / /run/ca rw shared:1 master:2 - ramfs none rw", True),
        ("1 2 {} / /run/ca rw - ext4 /dev/vda rw", False),
        ("1 2 {} /sub /bind rw - tmpfs tmpfs rw\n1 2 {} / / rw - overlay overlay rw", False),
        ("1 2 0:9999 / /run/ca rw - tmpfs tmpfs rw", False),
        ("", False),
    ],
)
def test_what_counts_as_memory(memory, table, allowed):
    device = memory.stat().st_dev
    named = table.replace("{}", f"{os.major(device)}:{os.minor(device)}")
    descriptor = os.open(memory, os.O_RDONLY)
    try:
        assert (pod_ca._objection(descriptor, lambda: named) is None) is allowed
    finally:
        os.close(descriptor)


def test_a_directory_that_others_can_enter_is_refused(memory, clock):
    for mode in (0o710, 0o701, 0o777):
        memory.chmod(mode)
        assert "mode must be 0700" in refusal(memory, clock)
    assert list(memory.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(memory, clock):
    os.chown(memory, 12345, -1)
    assert "another user" in refusal(memory, clock)


def test_links_are_not_followed(memory, clock):
    PodCa.open(memory / "real", clock)
    (memory / "link").symlink_to(memory / "real")
    refusal(memory / "link", clock)
    (memory / "other").mkdir(0o700)
    (memory / "other" / "ca.pem").symlink_to(memory / "real" / "ca.pem")
    refusal(memory / "other", clock)


def test_a_missing_parent_is_a_fault(memory, clock):
    assert "cannot be used" in refusal(memory / "a" / "b", clock)


def test_a_damaged_file_is_refused_and_kept(memory, clock):
    good = memory / "good"
    other = memory / "other"
    PodCa.open(good, clock)
    PodCa.open(other, clock)
    file = good / "ca.pem"
    whole = file.read_bytes()
    marker = b"-----BEGIN CERTIFICATE-----"
    key, certificate = whole.split(marker)
    mixed = key + marker + (other / "ca.pem").read_bytes().split(marker)[1]
    for content in (b"", b"nonsense", key, marker + certificate, whole[:-200], mixed):
        file.write_bytes(content)
        assert "no CA of this pod" in refusal(good, clock)
        assert file.read_bytes() == content
    file.write_bytes(whole)
    file.chmod(0o640)
    assert "this user's alone" in refusal(good, clock)


def test_a_leaf_is_no_ca(memory, clock):
    ca = PodCa.open(memory, clock)
    leaf = ca.leaf("a.example").chain
    (memory / "ca.pem").write_bytes(ca.leaf_key.pem() + leaf)
    assert "no CA of this pod" in refusal(memory, clock)


def test_a_ca_that_is_over_is_refused(memory, clock):
    PodCa.open(memory, clock)
    clock.at += timedelta(days=3650).total_seconds()
    assert "not valid any more" in refusal(memory, clock)


@pytest.mark.parametrize("name", ["", "a" * 64 + ".example", "*"])
def test_a_name_that_openssl_would_not_show_is_no_surprise(memory, clock, name):
    """Whatever is signed is for exactly what was asked; a wildcard is a client's to refuse and never asked for."""
    leaf = x509.load_pem_x509_certificate(PodCa.open(memory, clock).leaf(name).chain)
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each.value) for each in found] == [name]


def test_the_context_checks_the_name_itself(memory, clock):
    """Even when the caller picked the wrong context."""
    ca = PodCa.open(memory, clock)
    wrong = intercepting_context(ca.leaf("a.example").chain, ca.leaf_key, "b.example")
    with pytest.raises(ssl.SSLError):
        handshake(client(ca.certificate), "a.example", wrong)
