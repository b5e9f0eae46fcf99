"""The files by which an agent trusts the pod's CA, read by what will read them."""

import os
import ssl
import tempfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import pkcs12

from taskgrant.errors import ConfigurationError
from taskgrant.identity import trust_files
from taskgrant.identity.pod_ca import PodCa
from taskgrant.model import trust


@pytest.fixture
def ca(clock):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield PodCa.open(Path(directory), clock).certificate


@pytest.fixture
def roots(clock):
    """Somebody else's root."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield PodCa.open(Path(directory), clock).certificate


def test_what_is_written(tmp_path, ca, roots):
    umask = os.umask(0o077)
    try:
        trust_files.write(tmp_path / "trust", ca, roots.rstrip(b"\n"))
    finally:
        os.umask(umask)
    assert (tmp_path / "trust" / trust.CA).read_bytes() == ca
    bundle = tmp_path / "trust" / trust.BUNDLE
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(bundle)
    assert len(context.get_ca_certs()) == 2
    store = pkcs12.load_pkcs12((tmp_path / "trust" / trust.JAVA).read_bytes(), trust.JAVA_PASSWORD.encode())
    assert len(store.additional_certs) == 2
    assert sorted(path.name for path in (tmp_path / "trust").iterdir()) == [
        trust.BUNDLE,
        trust.CA,
        trust.JAVA,
    ]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "trust").iterdir()} == {0o644}


def test_without_roots_there_is_the_pod_alone(tmp_path, ca):
    trust_files.write(tmp_path, ca, b"")
    assert (tmp_path / trust.BUNDLE).read_bytes() == ca


def test_a_root_that_cannot_be_read_is_left_out_of_the_key_store_only(tmp_path, ca, roots):
    broken = roots.replace(b"\nMI", b"\nNI", 1)
    trust_files.write(tmp_path, ca, broken)
    assert broken in (tmp_path / trust.BUNDLE).read_bytes()
    store = pkcs12.load_pkcs12((tmp_path / trust.JAVA).read_bytes(), trust.JAVA_PASSWORD.encode())
    assert len(store.additional_certs) == 1


def test_files_are_replaced_and_links_are_not_followed(tmp_path, ca, roots):
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / trust.CA).symlink_to(victim)
    trust_files.write(tmp_path, ca, roots)
    trust_files.write(tmp_path, ca, roots)
    assert victim.read_text() == "untouched"
    assert (tmp_path / trust.CA).read_bytes() == ca


def test_a_place_that_cannot_be_written_is_a_fault(tmp_path, ca):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        trust_files.write(tmp_path / "file" / "trust", ca)


def test_the_environment_names_the_files():
    environment = trust.trust_environment("/trust")
    assert environment["SSL_CERT_FILE"] == environment["GIT_SSL_CAINFO"] == "/trust/bundle.pem"
    assert environment["NODE_EXTRA_CA_CERTS"] == "/trust/ca.pem"
    assert "-Djavax.net.ssl.trustStore=/trust/truststore.p12" in environment["JAVA_TOOL_OPTIONS"].split()
