# SPDX-License-Identifier: Apache-2.0
"""RandomZone: a zone with every kind of record and name, made of a seed.

The same origin and seed give the same text. Besides names with random record sets there are, as
labels under the origin:

    TYPE-only.         for each type of RECORD_TYPES: records of that type and no other
    host1. host2. ...  addresses, which the records of other types lead to
    alias1. ...        CNAMEs to names with records
    chain1. ...        a chain of CNAMEs, chain9 to chain1 to host1
    nowhere.           a CNAME to a name that does not exist
    abroad.            a CNAME to a name that this server does not know
    circle-a. circle-b. CNAMEs to each other
    moved.             a DNAME to hosts., moved-nowhere. to a name that does not exist
    long-moved.        a DNAME to a name so long that most names below have none
    *.wild.            a wildcard with records, *.wild-alias. one with a CNAME
    a.b.empty.         empty. and b.empty. exist and have no records
    child1. ...        delegated, with addresses of the servers and (odd ones) a DS
    size-N.            TXT records of N octets together
    many-N.            N addresses
"""

import base64
import random
import string

import dns.name
import dns.rdatatype

TTLS = [0, 1, 30, 300, 300, 3600, 3600, 86400, 200000]
SIZES = [100, 300, 400, 450, 500, 1000, 1100, 1150, 1200, 1250, 1400, 4000, 16000, 17000, 33000,
         60000, 64000]
COUNTS = [20, 60, 80, 200, 3900]
SIGNED_COUNTS = COUNTS[:-1]  # ldns-signzone takes quadratic time
HOSTS = 20
RANDOM_OWNERS = 150


def _bytes(rng, low, high):
    return rng.randbytes(rng.randint(low, high))


def _hex(rng, low, high=None):
    return _bytes(rng, low, high or low).hex()


def _base64(rng, low, high):
    return base64.b64encode(_bytes(rng, low, high)).decode()


def _generic(rng, low, high):
    data = _bytes(rng, low, high)
    return rf"\# {len(data)} {data.hex()}"


def _text(rng):
    """A character string, quoted, of any bytes."""
    return '"' + "".join(rf"\{byte:03}" for byte in _bytes(rng, 0, 40)) + '"'


def _word(rng):
    return '"' + "".join(rng.choices(string.ascii_letters + string.digits, k=8)) + '"'


def _host(rng):
    """A name in the zone or out of it."""
    return rng.choice([f"host{rng.randint(1, HOSTS)}", f"Host{rng.randint(1, HOSTS)}", "nobody",
                       "alias1", f"mail{rng.randint(1, 9)}.elsewhere.example."])


def _ipv4(rng):
    return ".".join(str(octet) for octet in rng.randbytes(4))


def _ipv6(rng):
    return "2001:db8:" + ":".join(f"{rng.randrange(65536):x}" for _ in range(6))


def _key(rng, flags):
    return f"{flags} 3 13 {_base64(rng, 64, 64)}"


def _service(rng):
    target, port = _host(rng), rng.randrange(65536)
    return rng.choice([f"0 {target}", f"1 . alpn=h2,h3 port={port}",
                       f"{rng.randint(1, 9)} {target} alpn=h2 ipv4hint={_ipv4(rng)}",
                       f"2 {target} port={port} ipv6hint={_ipv6(rng)}"])


# The RDATA in presentation form; the last ones, which not all programs know by name, are in that of
# RFC 3597, with the names of TYPEn.
RECORD_TYPES = {
    "A": _ipv4,
    "AAAA": _ipv6,
    "MB": _host,
    "MG": _host,
    "MR": _host,
    "WKS": lambda rng: f"{_ipv4(rng)} TCP smtp",
    "PTR": _host,
    "HINFO": lambda rng: f"{_text(rng)} {_text(rng)}",
    "MINFO": lambda rng: f"{_host(rng)} {_host(rng)}",
    "MX": lambda rng: f"{rng.randrange(65536)} {_host(rng)}",
    "TXT": lambda rng: " ".join(_text(rng) for _ in range(rng.randint(1, 4))),
    "RP": lambda rng: f"{_host(rng)} {_host(rng)}",
    "AFSDB": lambda rng: f"{rng.randint(1, 2)} {_host(rng)}",
    "X25": lambda rng: f'"{rng.randrange(10 ** 9, 10 ** 12)}"',
    "ISDN": lambda rng: f'"{rng.randrange(10 ** 9, 10 ** 12)}" "{rng.randrange(1000)}"',
    "RT": lambda rng: f"{rng.randrange(100)} {_host(rng)}",
    "NSAP": lambda rng: "0x" + _hex(rng, 20),
    "KEY": lambda rng: _key(rng, 256),
    "PX": lambda rng: f"{rng.randrange(100)} {_host(rng)} {_host(rng)}",
    "LOC": lambda rng: f"{rng.randrange(90)} {rng.randrange(60)} 23.000 N {rng.randrange(180)} 53"
                       f" 32.000 E {rng.randrange(9000)}.00m 1m 10000m 10m",
    "SRV": lambda rng: f"{rng.randrange(9)} 5 {rng.randrange(65536)} {_host(rng)}",
    "NAPTR": lambda rng: f'{rng.randrange(99)} 20 "u" "E2U+sip" "!^.*$!sip:{rng.random()}@b!" .',
    "KX": lambda rng: f"{rng.randrange(99)} {_host(rng)}",
    "CERT": lambda rng: f"1 {rng.randrange(65536)} 8 {_base64(rng, 10, 200)}",
    "APL": lambda rng: f"1:{rng.randrange(224)}.0.0.0/8 !2:2001:db8::/32",
    "SSHFP": lambda rng: f"4 2 {_hex(rng, 32)}",
    "IPSECKEY": lambda rng: f"10 1 2 {_ipv4(rng)} {_base64(rng, 30, 60)}",
    "DHCID": lambda rng: _base64(rng, 35, 35),
    "TLSA": lambda rng: f"3 1 1 {_hex(rng, 32)}",
    "SMIMEA": lambda rng: f"3 0 0 {_hex(rng, 10, 300)}",
    "CDS": lambda rng: f"{rng.randrange(65536)} 13 2 {_hex(rng, 32)}",
    "CDNSKEY": lambda rng: _key(rng, 257),
    "OPENPGPKEY": lambda rng: _base64(rng, 10, 500),
    "CSYNC": lambda rng: f"{rng.randrange(1000)} 3 A NS AAAA",
    "SVCB": _service,
    "HTTPS": _service,
    "SPF": lambda rng: _text(rng),
    "NID": lambda rng: f"10 {':'.join(_hex(rng, 2) for _ in range(4))}",
    "L32": lambda rng: f"10 {_ipv4(rng)}",
    "L64": lambda rng: f"10 {':'.join(_hex(rng, 2) for _ in range(4))}",
    "LP": lambda rng: f"10 {_host(rng)}",
    "EUI48": lambda rng: "-".join(_hex(rng, 1) for _ in range(6)),
    "EUI64": lambda rng: "-".join(_hex(rng, 1) for _ in range(8)),
    "URI": lambda rng: f"10 {rng.randrange(99)} {_word(rng)}",
    "CAA": lambda rng: f"{rng.choice([0, 128])} issue {_word(rng)}",
    "TYPE63": lambda rng: rf"\# 54 {_hex(rng, 4)}0101{_hex(rng, 48)}",  # ZONEMD
    "TYPE258": lambda rng: rf"\# 9 08{_hex(rng, 8)}",                   # AVC
    "TYPE64000": lambda rng: r"\# 0",
    "TYPE65280": lambda rng: _generic(rng, 1, 100),
    "TYPE65534": lambda rng: _generic(rng, 1, 1000),
}
_COMMON = ["A", "AAAA", "TXT", "MX", "SRV", "CAA", "HTTPS"]
_SINGLE = {"TYPE64000"}  # two would be the same


# RFC 2181 11: a label may have any octets. In a zone file, those whose escapes all programs read.
_ANY_OCTETS = bytes(range(256))
_ZONE_OCTETS = bytes(octet for octet in _ANY_OCTETS
                     if octet in b"." or not 0x21 <= octet <= 0x7e)


def _label(rng, octets):
    length = rng.choice([1, 2, 5, 8, 12, 20, 63])
    if rng.random() < 0.15:
        return bytes(rng.choices(octets, k=min(length, 20)))
    return "".join(rng.choices(string.ascii_letters + string.digits + "-_", k=length)).encode()


class RandomZone:
    """`origin` is a dns.name.Name; `owners` maps each relative name to its types."""

    def __init__(self, origin, seed, *, is_signed=False):
        self.origin = dns.name.from_text(origin)
        self.owners = {}
        self._rng = random.Random(f"{seed} {origin}")
        self._lines = []
        self._add_apex()
        self._add_hosts()
        self._add_each_type()
        self._add_aliases()
        self._add_delegations()
        self._add_sizes(SIGNED_COUNTS if is_signed else COUNTS)
        for _ in range(RANDOM_OWNERS):
            self._add_random_owner()
        self.text = "\n".join(self._lines) + "\n"

    def write(self, path):
        with open(path, "w", encoding="ascii") as file:
            file.write(self.text)
        return str(path)

    def name(self, relative):
        """The absolute name; "" is the origin."""
        labels = dns.name.from_text(relative, None) if isinstance(relative, str) else relative
        return labels.concatenate(self.origin)

    def random_name(self, rng):
        """A name that exists, or is near one that does."""
        owner = rng.choice(list(self.owners))
        match rng.choice(["same"] * 6 + ["below", "wild", "moved", "child", "sibling", "size"]):
            case "below":
                return self._below(rng, owner)
            case "wild":
                return self._below(rng, rng.choice(["wild", "wild-alias"]))
            case "moved":
                return self._below(rng, rng.choice(["moved", "moved-nowhere", "long-moved"]))
            case "child":
                return self._below(rng, f"child{rng.randint(1, 9)}")
            case "sibling":
                return self._below(rng, "")
            case "size":
                return self.name(f"size-{rng.choice(SIZES[:12])}")
        return self.name(owner)

    def random_type(self, rng, name):
        """Mostly one that the name has."""
        existing = self.owners.get(name.relativize(self.origin).to_text())
        kind = rng.random()
        if existing and kind < 0.7:
            return dns.rdatatype.from_text(rng.choice(existing))
        if kind < 0.95:
            return dns.rdatatype.from_text(rng.choice([
                *RECORD_TYPES, "NS", "SOA", "CNAME", "DNAME", "DS", "DNSKEY", "NSEC", "NSEC3PARAM",
                "RRSIG", "ANY"]))
        return rng.choice([rng.randint(56, 248), rng.randint(256, 65534)])

    def _below(self, rng, owner):
        """A name some labels below `owner`, as long as there is room."""
        name = self.name(owner)
        for _ in range(rng.randint(1, 3)):
            try:
                name = dns.name.Name((_label(rng, _ANY_OCTETS), *name.labels))
            except dns.name.NameTooLong:
                break
        return name

    def _add(self, owner, rdtype, *datas, ttl=None):
        ttl = self._rng.choice(TTLS) if ttl is None else ttl
        self.owners.setdefault(owner, []).append(rdtype)
        name = self.name(owner).to_text()
        self._lines.extend(f"{name} {ttl} IN {rdtype} {data}" for data in datas)

    def _add_random(self, owner, rdtype):
        count = 1 if rdtype in _SINGLE else self._rng.choice([1, 1, 2, 3, 5])
        self._add(owner, rdtype, *{RECORD_TYPES[rdtype](self._rng): None for _ in range(count)})

    def _add_apex(self):
        self._lines.append(f"$ORIGIN {self.origin}")
        self._add("@", "SOA", "host1 host.master 1 3600 600 86400 120", ttl=3600)
        self._add("@", "NS", "host1", "host2", "ns.elsewhere.example.", ttl=3600)
        self._add_random("@", "MX")
        self._add_random("@", "CAA")

    def _add_hosts(self):
        for number in range(1, HOSTS + 1):
            self._add_random(f"host{number}", "A")
            self._add_random(f"host{number}.hosts", "A")
            if number % 2:
                self._add_random(f"host{number}", "AAAA")

    def _add_each_type(self):
        for rdtype in RECORD_TYPES:
            self._add_random(f"{rdtype.lower()}-only", rdtype)
        for rdtype in _COMMON:
            self._add_random("*.wild", rdtype)

    def _add_aliases(self):
        for number in range(1, 10):
            target = f"{self._rng.choice(list(RECORD_TYPES)).lower()}-only"
            self._add(f"alias{number}", "CNAME", target)
            self._add(f"chain{number}", "CNAME", f"chain{number - 1}" if number > 1 else "host1")
        self._add("nowhere", "CNAME", "is.not.here")
        self._add("abroad", "CNAME", "www.elsewhere.example.")
        self._add("circle-a", "CNAME", "circle-b")
        self._add("circle-b", "CNAME", "circle-a")
        self._add("*.wild-alias", "CNAME", "host1")
        self._add("moved", "DNAME", "hosts")
        self._add("moved-nowhere", "DNAME", "is.not.here")
        self._add("long-moved", "DNAME", ".".join(["d" * 60] * 3) + f".{'d' * 40}.test.")
        self._add("a.b.empty", "TXT", '"a name below names without records"')

    def _add_delegations(self):
        for number in range(1, 10):
            child = f"child{number}"
            self._add(child, "NS", f"ns.{child}", "ns.elsewhere.example.")
            self._lines.append(f"ns.{child} 300 IN A {_ipv4(self._rng)}")
            if number % 2:
                self._add(child, "DS", f"{number} 13 2 {_hex(self._rng, 32)}")

    def _add_sizes(self, counts):
        for size in SIZES:
            strings = [f'"{number:05}{"x" * 94}"' for number in range(size // 100)]
            # Ten strings to a record.
            self._add(f"size-{size}", "TXT", *(" ".join(strings[first:first + 10])
                                               for first in range(0, len(strings), 10)), ttl=600)
        for count in counts:
            self._add(f"many-{count}", "A",
                      *(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
                        for number in range(count)), ttl=600)

    def _add_random_owner(self):
        labels = [_label(self._rng, _ZONE_OCTETS) for _ in range(self._rng.choice([1, 1, 1, 2, 3]))]
        owner = dns.name.Name(labels).to_text()
        if owner.lower() in (other.lower() for other in self.owners):
            return
        common = self._rng.sample(_COMMON, self._rng.randint(1, 2))
        rare = self._rng.sample(list(RECORD_TYPES), self._rng.randint(0, 4))
        for rdtype in dict.fromkeys(common + rare):
            self._add_random(owner, rdtype)
