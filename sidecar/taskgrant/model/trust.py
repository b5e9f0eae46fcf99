"""What an agent must be told so that it trusts the sidecar's CA: the files of the trust directory, and the variables
that name them.

Most programs replace their trust by what a variable names, so ``bundle.pem`` has the system's roots too; Node adds to
its own, so ``ca.pem`` has the one CA; Java reads a key store.
"""

from pathlib import PurePath
from typing import Final

BUNDLE: Final = "bundle.pem"
CA: Final = "ca.pem"
JAVA: Final = "truststore.p12"
#: Guards nothing: everything in the file is public. Java ignores a trust store's certificates without one.
JAVA_PASSWORD: Final = "changeit"  # noqa: S105

_REPLACING: Final = (
    "SSL_CERT_FILE",  # OpenSSL, Go, Python's ssl
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
)


def trust_environment(directory: PurePath | str) -> dict[str, str]:
    """``directory`` as the agent sees it. JAVA_TOOL_OPTIONS is set as a whole: what it said before is not kept."""
    at = PurePath(directory)
    java = {"trustStore": str(at / JAVA), "trustStoreType": "PKCS12", "trustStorePassword": JAVA_PASSWORD}
    return {
        **dict.fromkeys(_REPLACING, str(at / BUNDLE)),
        "NODE_EXTRA_CA_CERTS": str(at / CA),
        "JAVA_TOOL_OPTIONS": " ".join(f"-Djavax.net.ssl.{name}={value}" for name, value in java.items()),
    }
