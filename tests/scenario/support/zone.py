# SPDX-License-Identifier: Apache-2.0
"""What an upstream answers by itself: data computed from the name asked.

Labels at the left of a name change the answer, and can be combined (slow-200ms.ttl-5.x.test):

    nx.            NXDOMAIN with an SOA            nodata.        NOERROR without records, with SOA
    nosoa.         negative answers without SOA    servfail. refused. formerr. notimp.
    slow-200ms.    answered after that time        ttl-5.         with that TTL (default 300)
    big-60000.     TXT (whatever is asked) of about that many bytes
    cname.         a CNAME to the rest of the name, and its address
    ad.            with AD=1                       tc.            with TC=1 and no records
    ede-18.        with that extended error and the text "from upstream"
"""

import hashlib
import re

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

TTL = 300
NEGATIVE_TTL = 60

_RCODES = {"nx": dns.rcode.NXDOMAIN, "servfail": dns.rcode.SERVFAIL, "refused": dns.rcode.REFUSED,
           "formerr": dns.rcode.FORMERR, "notimp": dns.rcode.NOTIMP}
_SWITCHES = {"nodata", "nosoa", "cname", "ad", "tc", *_RCODES}
_NUMBERS = re.compile(r"(slow|ttl|big|ede)-(\d+)(ms)?$")


def traits(name):
    """{"slow": 200, "nx": True}: what the labels at the left of the name ask for."""
    found = {}
    for label in name.labels:
        text = label.decode("ascii", "replace").lower()
        numbers = _NUMBERS.match(text)
        if numbers:
            found[numbers[1]] = int(numbers[2])
        elif text in _SWITCHES:
            found[text] = True
        else:
            break
    return found


def delay(message):
    """Seconds that the answer to this query takes."""
    return traits(message.question[0].name).get("slow", 0) / 1000


def _digest(name):
    return hashlib.sha256(name.to_text().lower().encode()).digest()


def address(name):
    """The A record of a name, as text: what a test expects to get."""
    if isinstance(name, str):
        name = dns.name.from_text(name)
    return "10." + ".".join(str(octet) for octet in _digest(name)[:3])


def _rdata_text(name, rdtype):
    digest = _digest(name)
    match rdtype:
        case dns.rdatatype.A:
            return address(name)
        case dns.rdatatype.AAAA:
            groups = digest[:14].hex()
            return "fd00:" + ":".join(groups[at:at + 4] for at in range(0, 28, 4))
        case dns.rdatatype.TXT:
            return f'"{digest.hex()}"'
        case dns.rdatatype.MX:
            return f"10 mail.{name}"
        case dns.rdatatype.NS:
            return f"ns.{name}"
        case dns.rdatatype.PTR | dns.rdatatype.CNAME:
            return f"host-{digest[:4].hex()}.test."
        case dns.rdatatype.HTTPS | dns.rdatatype.SVCB:
            return "1 . alpn=h2"
        case dns.rdatatype.SOA:
            return f"ns.{name} root.{name} 1 2 3 4 {NEGATIVE_TTL}"
    return rf"\# 8 {digest[:8].hex()}"


def rrset(name, rdtype, rdclass=dns.rdataclass.IN, ttl=TTL):
    text = _rdata_text(name, rdtype)
    return dns.rrset.from_rdata(name, ttl, dns.rdata.from_text(rdclass, rdtype, text))


def _big(name, size, ttl):
    """TXT records of 1,000 bytes each."""
    answer = dns.rrset.RRset(name, dns.rdataclass.IN, dns.rdatatype.TXT)
    for number in range(max(1, (size - 100) // 1000)):
        strings = [f"{number:06}" + "x" * 234] + ["y" * 240] * 3 + ["z" * 20]
        quoted = " ".join(f'"{string}"' for string in strings)
        answer.add(dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.TXT, quoted), ttl)
    return answer


def _soa(name, ttl):
    zone = dns.name.Name(name.labels[-2:]) if len(name.labels) > 2 else name
    return rrset(zone, dns.rdatatype.SOA, ttl=ttl)


def _add_records(answer, question, found):
    name, ttl = question.name, found.get("ttl", TTL)
    if "big" in found:
        answer.answer.append(_big(name, found["big"], ttl))
    elif "cname" in found:
        target = dns.name.Name(name.labels[1:])
        answer.answer.append(dns.rrset.from_text(name, ttl, "IN", "CNAME", target.to_text()))
        answer.answer.append(rrset(target, question.rdtype, question.rdclass, ttl))
    else:
        answer.answer.append(rrset(name, question.rdtype, question.rdclass, ttl))


def answer(query):
    """The answer to a parsed query, as a dns.message.Message; EDNS only when the query has it."""
    reply = dns.message.make_response(query, recursion_available=True)
    question = query.question[0]
    found = traits(question.name)
    rcodes = [rcode for label, rcode in _RCODES.items() if label in found]
    if rcodes:
        reply.set_rcode(rcodes[0])
    negative = "nodata" in found or "nx" in found
    if negative and "nosoa" not in found:
        reply.authority.append(_soa(question.name, found.get("ttl", TTL)))
    if "tc" in found:
        reply.flags |= dns.flags.TC
    elif not rcodes and not negative:
        _add_records(reply, question, found)
    if "ad" in found:
        reply.flags |= dns.flags.AD
    if "ede" in found and reply.edns >= 0:
        reply.use_edns(0, reply.ednsflags, 1232,
                       options=[dns.edns.EDEOption(found["ede"], "from upstream")])
    return reply
