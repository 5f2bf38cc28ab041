# SPDX-License-Identifier: Apache-2.0
"""G: what the answers of an upstream may be made of, and what becomes of them."""

import struct
import time

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest

from support import zone
from support.proxy import extended_errors, make_query
from support.upstream import Query, first
from support.waiting import eventually

FAILURES = "dnsproxy_upstream_failures_total"
POINTER_TO_QUESTION = b"\xc0\x0c"


def record(rdata, rdtype=1, name=POINTER_TO_QUESTION, length=None, ttl=300):
    length = len(rdata) if length is None else length
    return name + struct.pack("!HHIH", rdtype, 1, ttl, length) + rdata


def question_part(query):
    """The question of a query, as on the wire."""
    end = 12
    while query.raw[end]:
        end += 1 + query.raw[end]
    return query.raw[12:end + 5]


def message(query, *records, counts=None, flags=0x8180):
    """An answer made by hand: these records in the answer section, unless `counts` says (answer,
    authority, additional)."""
    counts = counts or (len(records), 0, 0)
    header = struct.pack("!HHHHHH", query.id, flags, 1, *counts)
    return header + question_part(query) + b"".join(records)


def here(query):
    """The offset of the first record."""
    return 12 + len(question_part(query))


ADDRESS = record(b"\x06\x06\x06\x06")
MALFORMED = {
    "truncated-record": lambda q: message(q, ADDRESS[:-1]),
    "truncated-record-header": lambda q: message(q, ADDRESS[:7]),
    "truncated-owner": lambda q: message(q, b"\x09short"),
    "truncated-question": lambda q: message(q)[:-3],
    "rdlength-past-the-end": lambda q: message(q, record(b"\6\6\6\6", length=5)),
    "rdlength-65535": lambda q: message(q, record(b"\6\6\6\6", length=65535)),
    "rdlength-of-address-is-3": lambda q: message(q, record(b"\6\6\6")),
    "answer-count-too-large": lambda q: message(q, ADDRESS, counts=(2, 0, 0)),
    "authority-count-too-large": lambda q: message(q, ADDRESS, counts=(1, 1, 0)),
    "additional-count-too-large": lambda q: message(q, ADDRESS, counts=(1, 0, 65535)),
    "all-counts-65535": lambda q: message(q, ADDRESS, counts=(65535, 65535, 65535)),
    "owner-points-to-itself": lambda q: message(
        q, record(b"\6\6\6\6", name=struct.pack("!H", 0xc000 | here(q)))),
    "owner-points-forward": lambda q: message(
        q, record(b"\6\6\6\6", name=struct.pack("!H", 0xc000 | here(q) + 30)), b"\0" * 40),
    "owner-points-past-the-end": lambda q: message(q, record(b"\6\6\6\6", name=b"\xff\xff")),
    "owner-points-into-the-header": lambda q: message(q, record(b"\6\6\6\6", name=b"\xc0\x00")),
    "owner-with-reserved-label": lambda q: message(q, record(b"\6\6\6\6", name=b"\x80abc\0")),
    "rdata-name-points-to-itself": lambda q: message(
        q, record(struct.pack("!H", 0xc000 | here(q) + 12), rdtype=5)),
    "rdata-name-points-forward": lambda q: message(
        q, record(struct.pack("!H", 0xc000 | here(q) + 14), rdtype=5), ADDRESS),
    "rdata-name-points-past-the-end": lambda q: message(q, record(b"\xff\xfe", rdtype=5)),
    "rdata-name-crosses-its-end": lambda q: message(q, record(b"\x05abc", rdtype=5), ADDRESS),
    "rdata-name-ends-early": lambda q: message(q, record(b"\1a\0\0\0", rdtype=5)),
    "name-longer-than-255": lambda q: message(
        q, record(b"\6\6\6\6", name=(b"\x3f" + b"a" * 63) * 4 + b"\0")),
    "two-opts": lambda q: message(q, ADDRESS, *[b"\0\0\x29\x04\xd0\0\0\0\0\0\0"] * 2,
                                  counts=(1, 0, 2)),
    "opt-option-past-its-end": lambda q: message(
        q, ADDRESS, b"\0\0\x29\x04\xd0\0\0\0\0\0\x06\0\x0f\0\x09ab", counts=(1, 0, 1)),
    "not-a-response": lambda q: message(q, ADDRESS, flags=0x0180),
    "another-opcode": lambda q: message(q, ADDRESS, flags=0xa180),
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_G1_malformed_answer_is_asked_again_and_never_passed_on(shared_upstream, shared_proxy,
                                                              fault):
    name = f"once-{fault}.test"
    before = shared_proxy.metric(FAILURES, cause="malformed_answer")
    shared_upstream.on_query = first(1, lambda query: query.reply(MALFORMED[fault](query)))
    try:
        reply = shared_proxy.query(name)
    finally:
        shared_upstream.on_query = Query.answer
    assert reply.rcode() == dns.rcode.NOERROR
    assert [one.address for one in reply.answer[0]] == [zone.address(name)]
    assert shared_upstream.names().count(name + ".") == 2
    assert shared_proxy.metric(FAILURES, cause="malformed_answer") == before + 1


@pytest.mark.parametrize("fault", MALFORMED)
def test_G1_malformed_answers_alone_give_servfail_and_are_not_cached(shared_upstream,
                                                                   shared_proxy, fault):
    name = f"always-{fault}.test"
    shared_upstream.on_query = lambda query: query.reply(MALFORMED[fault](query))
    try:
        reply = shared_proxy.query(name, tcp=True)
    finally:
        shared_upstream.on_query = Query.answer
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert reply.answer == [] and reply.question[0].name == dns.name.from_text(name)
    (_, text), = extended_errors(reply)
    assert shared_upstream.label in text and "malformed answer" in text
    assert shared_upstream.names().count(name + ".") == 2


def test_G1_malformed_answer_is_remembered_as_a_failure_for_a_second_only(upstream, proxy):
    """RFC 9520 3.2 wants the failure kept for a second at least; nothing else may be."""
    upstream.on_query = lambda query: query.reply(MALFORMED["truncated-record"](query))
    assert proxy.query("kept.test").rcode() == dns.rcode.SERVFAIL
    upstream.on_query = Query.answer
    good = eventually(lambda: (reply := proxy.query("kept.test")).rcode() == 0 and reply,
                      timeout=3)
    assert [one.address for one in good.answer[0]] == [zone.address("kept.test")]


def test_G1_malformed_answer_goes_to_another_upstream(start_upstream, start_proxy):
    bad, good = start_upstream(), start_upstream()
    bad.on_query = lambda query: query.reply(MALFORMED["truncated-record"](query))
    proxy = start_proxy(bad, good, config={"strategy": "ordered"})
    reply = proxy.query("elsewhere.test")
    assert reply.answer[0][0].address == zone.address("elsewhere.test")
    assert len(bad.queries) == 1 and len(good.queries) == 1


# G2: compression

def bomb_of_long_names(query):
    """4,000 records whose owner is one long name: 64 KB that unpack to a megabyte."""
    labels = b"\x01a" * 110
    first_record = record(b"\1\1\1\1", name=labels + POINTER_TO_QUESTION)
    pointer = struct.pack("!H", 0xc000 | here(query))
    rest = [record(struct.pack("!I", number), name=pointer) for number in range(4000)]
    return message(query, first_record, *rest)


def bomb_of_pointers(query):
    """A name that takes hundreds of jumps, named by thousands of records."""
    start = here(query) + 12
    jumps = [struct.pack("!H", 0xc000 | start + 2 * number) for number in range(300)]
    rdata = POINTER_TO_QUESTION + b"".join(jumps)
    last = struct.pack("!H", 0xc000 | start + 2 * 300)
    rest = [record(last, rdtype=5) for _ in range(4000)]
    return message(query, record(rdata, rdtype=65280), *rest)


@pytest.mark.parametrize("bomb", [bomb_of_long_names, bomb_of_pointers])
def test_G2_compression_bomb_costs_little_and_does_not_grow(shared_upstream, shared_proxy, bomb):
    sent = []

    def hook(query):
        sent.append(bomb(query))
        query.reply(sent[-1])
    shared_upstream.on_query = hook
    try:
        started = time.monotonic()
        with shared_proxy.tcp() as client:
            client.send(make_query(f"{bomb.__name__}.test", edns=False))
            raw = client.receive_raw()
        assert time.monotonic() - started < 1.0
    finally:
        shared_upstream.on_query = Query.answer
    assert len(raw) <= len(sent[0])
    # Passed on octet by octet, or refused as malformed: nothing in between.
    assert raw[12:] == sent[0][12:] or raw[3] & 15 == dns.rcode.SERVFAIL


# G3: messages that are full

def full_message(query, size, opt=b""):
    """`size` octets: one record of a private type fills the message."""
    counts = (1, 0, 1) if opt else (1, 0, 0)
    room = size - len(message(query)) - 12 - len(opt)
    return message(query, record(b"x" * room, rdtype=65280), opt, counts=counts)


@pytest.mark.parametrize("size", [65535, 65534, 65525, 65524, 65523, 65500])
def test_G3_full_answer_never_grows_past_65535(shared_upstream, shared_proxy, size):
    shared_upstream.on_query = lambda query: query.reply(full_message(query, size))
    try:
        with shared_proxy.tcp() as client:
            client.send(make_query(f"full-{size}.test"))
            raw = client.receive_raw()
    finally:
        shared_upstream.on_query = Query.answer
    reply = dns.message.from_wire(raw)
    assert len(raw) <= 65535 and reply.edns == 0
    if size + 11 <= 65535:
        assert len(reply.answer) == 1 and not reply.flags & dns.flags.TC
    else:
        assert reply.answer == [] and reply.flags & dns.flags.TC


def test_G3_optional_parts_go_before_records(shared_upstream, shared_proxy):
    text = b"e" * 300
    option = struct.pack("!HHH", 15, len(text) + 2, 18) + text
    opt = b"\0\0\x29\x04\xd0\0\0\0\0" + struct.pack("!H", len(option)) + option
    # Full with the upstream's own extended error; ours may not be dropped for it.
    shared_upstream.on_query = lambda query: query.reply(full_message(query, 65535, opt))
    try:
        keepalive = dns.edns.GenericOption(11, b"")
        reply = shared_proxy.query("optional.test", tcp=True, options=[keepalive])
    finally:
        shared_upstream.on_query = Query.answer
    assert len(reply.answer) == 1 and not reply.flags & dns.flags.TC


# G7: records of the message that nobody asked for

TSIG = bytes.fromhex("0000fa00ff00000000" "0011" "00" "000000000000" "0102" "0000" "0000" "0000" "0000")
SIG_0 = b"\0" + struct.pack("!HHIH", 24, 255, 0, 19) + bytes(19)


@pytest.mark.parametrize("left_out", [TSIG, SIG_0], ids=["tsig", "sig0"])
@pytest.mark.parametrize("edns", [False, True])
def test_G7_RFC8945_tsig_that_nobody_asked_for_is_left_out(upstream, proxy, left_out, edns):
    option = struct.pack("!HHH", 15, 6, 22) + b"late"
    opt = b"\0\0\x29\x04\xd0\0\0\0\0" + struct.pack("!H", len(option)) + option
    upstream.on_query = lambda query: query.reply(
        message(query, ADDRESS, left_out, opt, counts=(1, 0, 2)))
    for _ in range(2):
        reply = proxy.query("signed.test", edns=edns)
        assert reply.answer[0][0].address == "6.6.6.6"
        assert reply.additional == [] and not reply.had_tsig
        assert extended_errors(reply) == ([(22, "late")] if edns else [])
    assert len(upstream.queries) == 1


def test_G7_RFC8945_tsig_in_another_section_is_malformed(shared_upstream, shared_proxy):
    shared_upstream.on_query = lambda query: query.reply(message(query, ADDRESS, TSIG))
    try:
        assert shared_proxy.query("tsig-in-answer.test").rcode() == dns.rcode.SERVFAIL
    finally:
        shared_upstream.on_query = Query.answer


# G4: answers without a question

RCODES = [dns.rcode.NOERROR, dns.rcode.FORMERR, dns.rcode.NXDOMAIN, dns.rcode.REFUSED]


@pytest.mark.parametrize("rcode", RCODES, ids=[dns.rcode.to_text(code) for code in RCODES])
def test_G4_header_alone_is_a_failure(shared_upstream, shared_proxy, rcode):
    name = f"header-{dns.rcode.to_text(rcode)}.test".lower()
    shared_upstream.on_query = lambda query: query.reply(
        struct.pack("!HHHHHH", query.id, 0x8180 | rcode, 0, 0, 0, 0))
    try:
        reply = shared_proxy.query(name)
    finally:
        shared_upstream.on_query = Query.answer
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert reply.question[0].name == dns.name.from_text(name)
    assert len(extended_errors(reply)) == 1
    assert shared_upstream.names().count(name + ".") == 2


# G6: upstreams that dislike EDNS

EDNS_REFUSALS = {"FORMERR": 1, "NOTIMP": 4, "BADVERS": 16, "BADCOOKIE": 23}


@pytest.mark.parametrize("rcode", EDNS_REFUSALS)
def test_G6_refusal_of_edns_is_bounded_and_disables_nothing(shared_upstream, shared_proxy, rcode):
    def refuse(query):
        answer = query.make_answer()
        answer.answer.clear()
        answer.set_rcode(EDNS_REFUSALS[rcode])
        query.reply(answer)
    name = f"dislike-{rcode}.test".lower()
    shared_upstream.on_query = refuse
    try:
        reply = shared_proxy.query(name)
    finally:
        shared_upstream.on_query = Query.answer
    assert reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
    assert reply.answer == []
    assert shared_upstream.names().count(name + ".") <= 2
    other = "like-" + name
    assert shared_proxy.query(other).answer[0][0].address == zone.address(other)
    last = shared_upstream.queries[-1]
    assert last.message.edns == 0 and len(last.raw) % 128 == 0


# G7: records that nobody asked for

def test_G7_unrelated_records_are_kept_under_the_question_alone(shared_upstream, shared_proxy):
    victims = {"answer": "victim-answer.test.", "authority": "victim-authority.test.",
               "additional": "victim-additional.test."}

    def poison(query):
        answer = query.make_answer()
        for section, victim in victims.items():
            getattr(answer, section).append(
                dns.rrset.from_text(victim, 3600, "IN", "A", "6.6.6.6"))
        query.reply(answer)
    shared_upstream.on_query = poison
    try:
        assert shared_proxy.query("poison.test").rcode() == dns.rcode.NOERROR
    finally:
        shared_upstream.on_query = Query.answer
    for victim in victims.values():
        reply = shared_proxy.query(victim)
        assert [one.address for one in reply.answer[0]] == [zone.address(victim)]
        assert shared_upstream.names().count(victim) == 1


# G8: truncated answers

def truncate(query):
    answer = query.make_answer()
    answer.flags |= dns.flags.TC
    answer.answer.clear()
    query.reply(answer)


def test_G8_truncated_answer_is_asked_elsewhere(start_upstream, start_proxy):
    one, two = start_upstream(), start_upstream()
    one.on_query = truncate
    proxy = start_proxy(one, two, config={"strategy": "ordered"})
    reply = proxy.query("short.test", tcp=True)
    assert reply.answer[0][0].address == zone.address("short.test")
    assert not reply.flags & dns.flags.TC
    assert len(one.queries) == 1 and len(two.queries) == 1


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_G8_truncated_answer_of_all_is_passed_with_tc_and_not_cached(start_upstream, start_proxy,
                                                                    tcp):
    one, two = start_upstream(), start_upstream()
    one.on_query = two.on_query = truncate
    proxy = start_proxy(one, two, config={"strategy": "ordered"})
    reply = proxy.query("short.test", tcp=tcp)
    assert reply.rcode() == dns.rcode.NOERROR
    assert reply.flags & dns.flags.TC and reply.answer == []
    one.on_query = Query.answer
    reply = proxy.query("short.test", tcp=tcp)
    assert reply.answer[0][0].address == zone.address("short.test")
    assert not reply.flags & dns.flags.TC


# G9: whatever DNS may carry

def many_records(query):
    return message(query, *[record(struct.pack("!I", number << 8)) for number in range(4000)])


def every_type(query):
    records = [record(bytes([number % 256]) * 5, rdtype=65100 + number) for number in range(300)]
    return message(query, *records)


def empty_rdata(query):
    return message(query, record(b"", rdtype=65280), record(b"", rdtype=10))


def long_text(query):
    rdata = b"".join(b"\xff" + b"t" * 255 for _ in range(254))
    return message(query, record(rdata, rdtype=16))


def service_binding(query):
    return message(query, record(b"\0\1\0\0\1\0\3\2h2\0\3\0\2\1\xbb", rdtype=65))


def binary_labels(query):
    return message(query, ADDRESS, record(b"\6\6\6\6", name=b"\x04\x00\xff.\\\x01\x00\xc0\x0c"),
                   record(b"\1\1\1\1", name=b"\x03\x01\x02\x03\x00"))


def all_sections(query):
    return message(query, *[record(struct.pack("!I", number)) for number in range(6)],
                   counts=(1, 2, 3))


@pytest.mark.parametrize("make, rdtype", [
    (many_records, "A"), (every_type, "TYPE65280"), (empty_rdata, "TYPE65280"), (long_text, "TXT"),
    (service_binding, "HTTPS"), (binary_labels, "A"), (all_sections, "A")])
def test_G9_answers_pass_octet_by_octet_and_from_the_cache_too(shared_upstream, shared_proxy,
                                                             make, rdtype):
    sent = []

    def hook(query):
        sent.append(make(query))
        query.reply(sent[-1])
    shared_upstream.on_query = hook
    query = make_query(f"{make.__name__}.test".replace("_", "-"), rdtype, edns=False)
    try:
        with shared_proxy.tcp() as client:
            client.send(query)
            fresh = client.receive_raw()
            client.send(query)
            cached = client.receive_raw()
    finally:
        shared_upstream.on_query = Query.answer
    assert len(sent) == 1
    assert fresh[4:] == sent[0][4:]
    # The TTLs may have aged by a second, and nothing else.
    aged = sent[0].replace(struct.pack("!I", 300), struct.pack("!I", 299))
    assert cached[4:] in (sent[0][4:], aged[4:])


@pytest.mark.parametrize("rdtype", ["TYPE65280", "HTTPS", "SVCB", "CAA", "TLSA", "NAPTR", "DNSKEY",
                                    "TYPE1", "SPF", "TYPE32768", "TYPE62347"])
def test_G9_any_type_is_asked_for_as_it_is(shared_upstream, shared_proxy, rdtype):
    name = f"type-{rdtype}.test".lower()
    shared_upstream.on_query = lambda query: query.reply(
        message(query, record(b"\1\2\3\4", rdtype=65280)))
    query = make_query(name, rdtype, edns=False)
    try:
        reply = shared_proxy.ask(query)
    finally:
        shared_upstream.on_query = Query.answer
    assert reply.question == query.question
    assert shared_upstream.queries[-1].question.rdtype == query.question[0].rdtype


# Extended errors of the upstream (RFC 8914)

@pytest.mark.parametrize("rcode", ["", "nx.", "servfail."])
def test_RFC8914_extended_error_of_the_upstream_is_passed_on(shared_upstream, shared_proxy, rcode):
    reply = shared_proxy.query(f"ede-18.{rcode}told.test")
    assert (18, "from upstream") in extended_errors(reply)
    plain = shared_proxy.query(f"ede-18.{rcode}plain.test", edns=False)
    assert plain.edns == -1
    assert shared_upstream.names().count(f"ede-18.{rcode}told.test.") >= 1


def answer_with_opt(options, *records, rcode=dns.rcode.NOERROR):
    """A hook that answers with these records and an OPT of these options, on the wire."""
    opt = b"\0\0\x29\x04\xd0\0\0\0\0" + struct.pack("!H", len(options)) + options
    return lambda query: query.reply(message(query, *records, opt, flags=0x8180 | rcode,
                                             counts=(len(records), 0, 1)))


def option(code, data):
    return struct.pack("!HH", code, len(data)) + data


@pytest.mark.parametrize("code, data", [
    (11, b"x"), (11, b"xyz"), (11, b"four"), (15, b""), (15, b"x"), (10, b"short"), (3, b""),
    (8, b"x"), (65001, b"x" * 300)])
def test_RFC6891_option_of_an_illegal_length_costs_no_answer(shared_upstream, shared_proxy, code,
                                                             data):
    name = f"option-{code}-{len(data)}.test"
    failures = shared_proxy.metric(FAILURES, cause="malformed_answer")
    shared_upstream.on_query = answer_with_opt(option(code, data), ADDRESS)
    try:
        for _ in range(2):
            reply = shared_proxy.query(name)
            assert [one.address for one in reply.answer[0]] == ["6.6.6.6"]
            assert reply.options == ()
    finally:
        shared_upstream.on_query = Query.answer
    assert shared_upstream.names().count(name + ".") == 1
    assert shared_proxy.metric(FAILURES, cause="malformed_answer") == failures


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("label, rcode, ours", [
    ("servfail", dns.rcode.SERVFAIL, "upstream answered SERVFAIL"),
    ("refused", dns.rcode.REFUSED, "upstream answered REFUSED"),
    ("notimp", dns.rcode.NOTIMP, "upstream answered with an error")])
def test_RFC8914_error_that_is_passed_on_says_which_upstream_said_so(
        shared_upstream, shared_proxy, tcp, label, rcode, ours):
    name = f"ede-18.{label}.whose-{tcp}.test"
    for is_cached in (False, True):
        reply = shared_proxy.query(name, tcp=tcp)
        assert reply.rcode() == rcode
        marks = [(13, "")] if is_cached and rcode == dns.rcode.SERVFAIL else []
        assert extended_errors(reply) == marks + [(18, "from upstream"),
                                                  (0, f"{shared_upstream.label}: {ours}")]


LONG_TEXT = "\u00e4\u20ac\U0001f600" * 78  # 702 octets


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.NOERROR], ids=["error", "good"])
@pytest.mark.parametrize("texts", [
    [LONG_TEXT.encode()], [b"x" + LONG_TEXT.encode()], [b"x" * 3000] * 20, [b"\xff\xfe"],
    [b"cut \xe2\x82"], [b"\xff\xfe", b"good"]],
    ids=["long", "long-odd", "many", "not-utf-8", "half-a-character", "second-is-good"])
def test_RFC8914_text_is_cut_or_dropped_and_the_code_survives(shared_upstream, shared_proxy, request,
                                                              rcode, texts):
    name = f"{request.node.callspec.id.lower()}.texts.test"
    options = b"".join(option(15, struct.pack("!H", 22 + number) + text)
                       for number, text in enumerate(texts))
    shared_upstream.on_query = answer_with_opt(options, rcode=rcode)
    try:
        replies = [shared_proxy.query(name) for _ in range(2)]
    finally:
        shared_upstream.on_query = Query.answer
    for reply in replies:
        assert reply.rcode() == rcode and not reply.flags & dns.flags.TC
        told = [(code, text) for code, text in extended_errors(reply) if code not in (0, 13)]
        assert [code for code, _ in told] == list(range(22, 22 + len(texts)))
        for (_, text), sent in zip(told, texts):
            try:
                assert sent.decode().startswith(text)
                assert len(text) == len(sent.decode()) or len(texts) > 1 or len(text) > 50
            except UnicodeDecodeError:
                assert text == ""
        assert sum(len(text.encode()) for _, text in told) <= 512
