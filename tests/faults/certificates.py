"""Certificates of a test's own authority, good and expired, by the openssl program."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

CONFIG = """\
[ca]
default_ca = own
[own]
dir = {folder}
new_certs_dir = {folder}
database = {folder}/index.txt
rand_serial = yes
default_md = sha256
policy = any
email_in_dn = no
unique_subject = no
x509_extensions = server
[any]
commonName = supplied
[server]
basicConstraints = critical,CA:FALSE
subjectAltName = IP:127.0.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
"""
NOT_BEFORE, NOT_AFTER = "20200101000000Z", {True: "20200201000000Z", False: "20991231000000Z"}


@dataclass(frozen=True)
class Authority:
    """Signs certificates for 127.0.0.1; who trusts `certificate` trusts them."""

    folder: Path
    certificate: Path

    def server(self, name: str, *, expired: bool) -> ssl.SSLContext:
        """Make a server's context with a fresh certificate."""
        key, request, signed = (self.folder / f"{name}.{end}" for end in ("key", "csr", "pem"))
        _openssl("req", "-new", *_key(key), "-subj", f"/CN={name}", "-out", str(request), *self._config())
        _openssl(
            "ca", "-batch", "-notext", *self._config(), "-in", str(request), "-out", str(signed),
            "-cert", str(self.certificate), "-keyfile", str(self.folder / "ca.key"),
            "-startdate", NOT_BEFORE, "-enddate", NOT_AFTER[expired],
        )  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(signed, key)
        return context

    def _config(self) -> tuple[str, str]:
        return "-config", str(self.folder / "openssl.cnf")


def make_authority(folder: Path) -> Authority:
    """Make an authority in a folder."""
    (folder / "openssl.cnf").write_text(CONFIG.format(folder=folder))
    (folder / "index.txt").touch()
    certificate = folder / "ca.pem"
    _openssl(
        "req", "-x509", *_key(folder / "ca.key"), "-days", "30", "-subj", "/CN=a test's authority",
        "-config", str(folder / "openssl.cnf"), "-extensions", "authority", "-out", str(certificate),
    )  # fmt: skip
    return Authority(folder, certificate)


def _key(path: Path) -> tuple[str, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(path))


def _openssl(*arguments: str) -> None:
    run = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=30)
    if run.returncode:
        raise RuntimeError(f"openssl {arguments[0]} failed: {run.stderr}")
