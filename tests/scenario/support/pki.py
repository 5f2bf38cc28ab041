# SPDX-License-Identifier: Apache-2.0
"""Certificates made at test time: one good, and one for each way of being bad.

`Pki(directory)` writes PEM files into `directory` and gives a `Certificate` by its name:

    pki.ca                 path of the trusted authority, for --tls-ca
    pki["good"]            DNS:upstream.test, IP:127.0.0.1, IP:::1
    pki["name-only"]       DNS:upstream.test       pki["ip-only"]  IP:127.0.0.1, no DNS name
    pki["other"]           a second good one: DNS:other.test, IP:127.0.0.1
    pki["wrong-name"]      DNS:wrong.test
    pki["wrong-ip"]        IP:127.0.0.9
    pki["expired"]         pki["not-yet-valid"]    pki["self-signed"]   pki["unknown-ca"]
    pki["common-name"]     CN=upstream.test and no subjectAltName
    pki["wildcard"]        DNS:*.upstream.test, good for dns.upstream.test
    pki["wildcard-top"]    DNS:*.test              pki["wildcard-all"]  DNS:*
    pki["wildcard-part"]   DNS:u*.upstream.test
    pki["both"]            DNS:upstream.test, DNS:other.test, IP:127.0.0.1
    pki["client-only"]     extended key usage clientAuth
    pki["long-chain"]      good, with 60 KB of needless certificates behind it
    pki["endless-chain"]   good, with 150 KB of them: more than OpenSSL reads

They are made when first asked for.
"""

import base64
import datetime
import hashlib
import ipaddress
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAME = "upstream.test"

_DAY = datetime.timedelta(days=1)
_RECIPES = {
    "good": {"names": [NAME, "127.0.0.1", "::1"]},
    "name-only": {"names": [NAME]},
    "ip-only": {"names": ["127.0.0.1"], "common_name": "no name"},
    "other": {"names": ["other.test", "127.0.0.1"], "common_name": "other.test"},
    "wrong-name": {"names": ["wrong.test"], "common_name": "wrong.test"},
    "wrong-ip": {"names": ["127.0.0.9"], "common_name": "wrong address"},
    "expired": {"names": [NAME, "127.0.0.1"], "days": (-30, -1)},
    "not-yet-valid": {"names": [NAME, "127.0.0.1"], "days": (1, 30)},
    "self-signed": {"names": [NAME, "127.0.0.1"], "issuer": "self"},
    "unknown-ca": {"names": [NAME, "127.0.0.1"], "issuer": "unknown"},
    "common-name": {"names": []},
    "wildcard": {"names": ["*.upstream.test"], "common_name": "wildcard"},
    "wildcard-top": {"names": ["*.test"], "common_name": "wildcard"},
    "wildcard-all": {"names": ["*"], "common_name": "wildcard"},
    "wildcard-part": {"names": ["u*.upstream.test"], "common_name": "wildcard"},
    "both": {"names": [NAME, "other.test", "127.0.0.1"]},
    "client-only": {"names": [NAME], "usage": ExtendedKeyUsageOID.CLIENT_AUTH},
    "long-chain": {"names": [NAME, "127.0.0.1"], "padding_size": 60_000},
    "endless-chain": {"names": [NAME, "127.0.0.1"], "padding_size": 150_000},
}


class Certificate:
    """`path` is a PEM file with the key and the chain; `pin` is the SHA-256 of its public key."""

    def __init__(self, path, public_key):
        self.path = path
        self.spki_sha256 = hashlib.sha256(public_key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)).digest()
        self.pin = base64.b64encode(self.spki_sha256).decode()


class _Authority:
    def __init__(self, common_name):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = _subject(common_name)
        builder = _builder(self.subject, self.subject, self.key.public_key(), (-60, 60))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        self.certificate = builder.sign(self.key, hashes.SHA256())


def _subject(common_name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject, issuer, public_key, days):
    now = datetime.datetime.now(datetime.timezone.utc)
    return (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
            .public_key(public_key).serial_number(x509.random_serial_number())
            .not_valid_before(now + days[0] * _DAY).not_valid_after(now + days[1] * _DAY))


def _general_name(text):
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


class Pki:
    def __init__(self, directory):
        self.directory = str(directory)
        self._trusted = _Authority("Scenario Test CA")
        self._unknown = _Authority("Unknown CA")
        self._made = {}
        self.ca = self._write("ca.pem", _pem(self._trusted.certificate))
        self.unknown_ca = self._write("unknown-ca.pem", _pem(self._unknown.certificate))

    def __getitem__(self, name):
        if name not in self._made:
            self._made[name] = self._make(name, **_RECIPES[name])
        return self._made[name]

    def _make(self, file_name, names, common_name=NAME, days=(-30, 30), issuer="trusted",
              usage=ExtendedKeyUsageOID.SERVER_AUTH, padding_size=0):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(common_name)
        authority = {"trusted": self._trusted, "unknown": self._unknown}.get(issuer)
        builder = _builder(subject, authority.subject if authority else subject,
                           key.public_key(), days)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
        if names:
            alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
            builder = builder.add_extension(alternatives, False)
        certificate = builder.sign(authority.key if authority else key, hashes.SHA256())
        chain = [certificate, *self._needless(padding_size)]
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                    serialization.NoEncryption())
        path = self._write(file_name + ".pem", private + b"".join(map(_pem, chain)))
        return Certificate(path, key.public_key())

    def _needless(self, size):
        """Certificates of 10 KB that lead nowhere, `size` bytes together."""
        for index in range(size // 10_000):
            key = ec.generate_private_key(ec.SECP256R1())
            names = [x509.DNSName(f"{index}-{number}." + "a" * 50 + ".test")
                     for number in range(155)]
            subject = _subject(f"needless {index}")
            builder = _builder(subject, subject, key.public_key(), (-1, 1))
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
            yield builder.sign(key, hashes.SHA256())

    def _write(self, name, content):
        path = os.path.join(self.directory, name)
        with open(path, "wb") as file:
            file.write(content)
        return path
