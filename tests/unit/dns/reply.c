// SPDX-License-Identifier: Apache-2.0
/* Replies: what comes from the client, what from the answer, and what goes when room is short. */
#include "test.h"

#include "dns/reply.h"
#include "packet.h"

static struct packet packet;
static struct query_message query;
static enum rcode rcode;
static struct answer answer;
static struct answer_scratch scratch;
static struct packet upstream; /* `answer` points into it */
static uint8_t *out;
static size_t length;
static bool truncated;

enum { NO_EDNS = 0 };

/* A query for the A of "wWw.Example"; with an OPT when `udp_size` is not NO_EDNS. */
static void ask(unsigned flags, unsigned udp_size, uint32_t edns_flags, bool keepalive)
{
    put_header(&packet, flags, 1, 0, 0, udp_size != NO_EDNS);
    put_question(&packet, "wWw.Example", TYPE_A);
    if (udp_size != NO_EDNS) {
        put_opt(&packet, udp_size, edns_flags, keepalive ? 4 : 0);
        if (keepalive)
            put_option(&packet, OPTION_KEEPALIVE, "", 0);
    }
    assert_int_equal(parse_exact(&packet, &query, &rcode), QUERY_ACCEPT);
}

/* Writes the reply in memory of exactly the room that was promised. */
static void reply_to_query(const struct reply *reply)
{
    free(out);
    const size_t room = reply->limit < 512 ? 512 : reply->limit;
    out = malloc(room);
    assert_non_null(out);
    memset(out, 0xa5, room);
    truncated = false;
    length = reply_write(&query, reply, out, &truncated);
    assert_true(length <= room);
}

static void answer_checked(void)
{
    assert_int_equal(
        message_check_answer(upstream.bytes, upstream.length, &query.question, &scratch, &answer),
        STATUS_OK);
}

/* An answer of one TXT record whose body has `body_length` octets, with extended errors when
 * `errors` says so: a first of 10 octets, a second of 60. */
static void answer_of(unsigned flags, size_t body_length, bool errors)
{
    const size_t text_length = body_length - 12;
    put_header(&upstream, DNS_FLAG_QR | flags, 1, 1, 0, errors);
    put_question(&upstream, "www.example", TYPE_A);
    put_pointer(&upstream, QUESTION_POINTER);
    put_record(&upstream, TYPE_TXT, 60, text_length);
    put_zeros(&upstream, text_length);
    if (errors) {
        put_opt(&upstream, 1232, 0, 70);
        put_option(&upstream, OPTION_EXTENDED_ERROR, "\0\1first", 6);
        uint8_t second[56] = {0, 2};
        put_option(&upstream, OPTION_EXTENDED_ERROR, second, sizeof second);
    }
    answer_checked();
}

static unsigned flags_of_reply(void)
{
    return load_u16(out + 2);
}

enum { QUESTION_END = DNS_HEADER_SIZE + 13 + DNS_QUESTION_TAIL };

static void H10_RFC4343_reply_has_the_spelling_of_the_client(void **state)
{
    (void)state;
    ask(DNS_FLAG_RD, NO_EDNS, 0, false);
    answer_of(DNS_FLAG_AA, 100, false);
    reply_to_query(&(struct reply){.answer = &answer, .limit = 512});
    assert_int_equal(length, QUESTION_END + 100);
    assert_false(truncated);
    assert_int_equal(load_u16(out), PACKET_ID);
    assert_int_equal(flags_of_reply(), DNS_FLAG_QR | DNS_FLAG_AA | DNS_FLAG_RD | DNS_FLAG_RA);
    assert_memory_equal(out + 4, "\0\1\0\1\0\0\0\0", 8);
    assert_memory_equal(out + 12, packet.bytes + 12, 17);
    assert_memory_equal(out + QUESTION_END, answer.body, 100);
}

static void RFC1035_error_of_our_own_has_no_records(void **state)
{
    (void)state;
    ask(DNS_FLAG_RD | DNS_FLAG_CD | DNS_FLAG_AD, NO_EDNS, 0, false);
    reply_to_query(&(struct reply){.rcode = RCODE_SERVFAIL, .limit = 512});
    assert_int_equal(length, QUESTION_END);
    assert_int_equal(flags_of_reply(),
                     DNS_FLAG_QR | DNS_FLAG_RD | DNS_FLAG_RA | DNS_FLAG_CD | RCODE_SERVFAIL);
    assert_memory_equal(out + 4, "\0\1\0\0\0\0\0\0", 8);
}

static void A6_reply_to_a_header_is_a_header(void **state)
{
    (void)state;
    put_header(&packet, DNS_FLAG_RD, 2, 0, 0, 0);
    assert_int_equal(parse_exact(&packet, &query, &rcode), QUERY_REJECT);
    reply_to_query(&(struct reply){.rcode = rcode, .limit = 512});
    assert_int_equal(length, DNS_HEADER_SIZE);
    assert_int_equal(flags_of_reply(), DNS_FLAG_QR | DNS_FLAG_RD | DNS_FLAG_RA | RCODE_FORMERR);
    assert_memory_equal(out + 4, "\0\0\0\0\0\0\0\0", 8);
}

static void A7_notimp_echoes_the_opcode(void **state)
{
    (void)state;
    for (unsigned opcode = 1; opcode <= 15; opcode++) {
        put_header(&packet, opcode << DNS_OPCODE_SHIFT | DNS_FLAG_AA | DNS_FLAG_Z, 1, 0, 0, 0);
        assert_int_equal(parse_exact(&packet, &query, &rcode), QUERY_REJECT);
        reply_to_query(&(struct reply){.rcode = rcode, .limit = 512});
        assert_int_equal(flags_of_reply(),
                         DNS_FLAG_QR | opcode << DNS_OPCODE_SHIFT | DNS_FLAG_RA | RCODE_NOTIMP);
    }
}

static void A10_badvers_is_an_extended_rcode_with_version_0(void **state)
{
    (void)state;
    put_header(&packet, DNS_FLAG_RD, 1, 0, 0, 1);
    put_question(&packet, "www.example", TYPE_A);
    put_opt(&packet, 4096, 3 << 16 | DNS_EDNS_FLAG_DO, 0);
    assert_int_equal(parse_exact(&packet, &query, &rcode), QUERY_REJECT);
    reply_to_query(&(struct reply){.rcode = rcode, .limit = 512});
    assert_int_equal(flags_of_reply() & DNS_RCODE_MASK, 0);
    assert_memory_equal(out + QUESTION_END, "\0\0\51\4\xd0\1\0\x80\0\0\0", DNS_OPT_FIXED);
    assert_int_equal(length, QUESTION_END + DNS_OPT_FIXED);
}

static void RFC3225_RFC6891_opt_only_to_a_client_that_sent_one(void **state)
{
    (void)state;
    for (unsigned dnssec = 0; dnssec <= 1; dnssec++) {
        ask(DNS_FLAG_RD, 4096, dnssec ? 0xffff : 0x7fff, false);
        answer_of(0, 100, false);
        reply_to_query(&(struct reply){.answer = &answer, .limit = 512});
        assert_int_equal(length, QUESTION_END + 100 + DNS_OPT_FIXED);
        assert_int_equal(load_u16(out + 10), 1);
        const uint8_t *opt = out + QUESTION_END + 100;
        assert_memory_equal(opt,
                            dnssec ? "\0\0\51\4\xd0\0\0\x80\0\0\0" : "\0\0\51\4\xd0\0\0\0\0\0\0",
                            DNS_OPT_FIXED);
    }
}

static void H7_RFC6840_ad_only_to_a_client_that_asked(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        const bool ad_asked = i & 1;
        const bool dnssec_ok = i & 2;
        const bool ad_given = i & 4;
        ask(ad_asked ? DNS_FLAG_AD : 0, 1232, dnssec_ok ? DNS_EDNS_FLAG_DO : 0, false);
        answer_of(ad_given ? DNS_FLAG_AD : 0, 100, false);
        reply_to_query(&(struct reply){.answer = &answer, .limit = 512});
        assert_int_equal((flags_of_reply() & DNS_FLAG_AD) != 0,
                         ad_given && (ad_asked || dnssec_ok));
    }
}

static void RFC6891_extended_rcode_without_edns_is_servfail(void **state)
{
    (void)state;
    ask(0, NO_EDNS, 0, false);
    reply_to_query(&(struct reply){.rcode = RCODE_BADCOOKIE, .limit = 512});
    assert_int_equal(flags_of_reply() & DNS_RCODE_MASK, RCODE_SERVFAIL);
    answer_of(0, 100, false);
    answer.rcode = 0xab3;
    reply_to_query(&(struct reply){.answer = &answer, .limit = 512});
    assert_int_equal(flags_of_reply() & DNS_RCODE_MASK, RCODE_SERVFAIL);

    answer.rcode = 15; /* the highest that needs no EDNS */
    reply_to_query(&(struct reply){.answer = &answer, .limit = 512});
    assert_int_equal(flags_of_reply() & DNS_RCODE_MASK, 15);

    answer.rcode = 0xab3;
    ask(0, 1232, 0, false);
    reply_to_query(&(struct reply){.answer = &answer, .limit = 512});
    assert_int_equal(flags_of_reply() & DNS_RCODE_MASK, 3);
    assert_int_equal(out[QUESTION_END + 100 + 5], 0xab);
}

static void G6_rcodes_of_the_upstream_hop_are_servfail(void **state)
{
    (void)state;
    ask(0, 1232, 0, false);
    answer_of(0, 100, false);
    const uint16_t rcodes[] = {RCODE_BADVERS, RCODE_BADCOOKIE};
    for (size_t i = 0; i < 2; i++) {
        answer.rcode = rcodes[i];
        reply_to_query(&(struct reply){.answer = &answer, .limit = 512});
        assert_int_equal(flags_of_reply() & DNS_RCODE_MASK, RCODE_SERVFAIL);
        assert_int_equal(out[QUESTION_END + 100 + 5], 0);
    }
}

static void G8_tc_of_the_upstream_is_passed_on(void **state)
{
    (void)state;
    ask(0, NO_EDNS, 0, false);
    answer_of(DNS_FLAG_TC, 100, false);
    reply_to_query(&(struct reply){.answer = &answer, .limit = 512});
    assert_true(flags_of_reply() & DNS_FLAG_TC);
    assert_false(truncated); /* not by us */
    assert_int_equal(length, QUESTION_END + 100);
}

static void H3_RFC2181_ttl_with_the_top_bit_is_shown_as_0(void **state)
{
    (void)state;
    const uint32_t ttls[] = {0x7fffffff, 0x80000000, 0xffffffff};
    ask(0, NO_EDNS, 0, false);
    put_header(&upstream, DNS_FLAG_QR, 1, 3, 0, 0);
    put_question(&upstream, "www.example", TYPE_A);
    for (size_t i = 0; i < 3; i++) {
        put_pointer(&upstream, QUESTION_POINTER);
        put_record(&upstream, TYPE_A, ttls[i], 4);
        put_u32(&upstream, 0xffffffff);
    }
    answer_checked();
    reply_to_query(&(struct reply){.answer = &answer, .limit = 512});
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(load_u32(out + QUESTION_END + 16 * i + 6), i == 0 ? ttls[0] : 0);
    answer.ttl_offsets = NULL; /* as the cache gives it */
    answer.ttl_count = 0;
    reply_to_query(&(struct reply){.answer = &answer, .limit = 512});
    assert_memory_equal(out + QUESTION_END, answer.body, answer.body_length);
}

static void RFC7828_keepalive_when_asked_for_and_given(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        const bool asked = i & 1;
        const bool given = i & 2;
        ask(0, 1232, 0, asked);
        reply_to_query(
            &(struct reply){.limit = 65535, .has_keepalive = given, .keepalive_100ms = 300});
        const size_t options = asked && given ? 6 : 0;
        assert_int_equal(length, QUESTION_END + DNS_OPT_FIXED + options);
        assert_int_equal(load_u16(out + QUESTION_END + 9), options);
        if (options)
            assert_memory_equal(out + QUESTION_END + DNS_OPT_FIXED, "\0\13\0\2\1\54", 6);
    }
}

static void RFC8914_own_error_comes_before_those_of_the_answer(void **state)
{
    (void)state;
    ask(0, 1232, 0, true);
    answer_of(0, 100, true);
    const struct extended_error error = {EDE_NETWORK_ERROR, "gone"};
    reply_to_query(
        &(struct reply){.answer = &answer, .error = &error, .limit = 1232, .has_keepalive = true});
    const uint8_t *options = out + QUESTION_END + 100 + DNS_OPT_FIXED;
    assert_memory_equal(options, "\0\13\0\2\0\0", 6);
    assert_memory_equal(options + 6, "\0\17\0\6\0\27gone", 10);
    assert_memory_equal(options + 16, answer.extended_errors, 70);
    assert_int_equal(load_u16(options - 2), 86);
    assert_int_equal(length, QUESTION_END + 100 + DNS_OPT_FIXED + 86);

    ask(0, NO_EDNS, 0, false); /* nowhere to put them */
    reply_to_query(&(struct reply){.answer = &answer, .error = &error, .limit = 1232});
    assert_int_equal(length, QUESTION_END + 100);
}

static void RFC8914_text_may_be_missing_and_is_cut_at_200_octets(void **state)
{
    (void)state;
    ask(0, 1232, 0, false);
    struct extended_error error = {EDE_PROHIBITED, NULL};
    reply_to_query(&(struct reply){.rcode = RCODE_REFUSED, .error = &error, .limit = 512});
    assert_memory_equal(out + QUESTION_END + 9, "\0\6\0\17\0\2\0\22", 8);

    char text[400];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    error.text = text;
    reply_to_query(&(struct reply){.rcode = RCODE_REFUSED, .error = &error, .limit = 512});
    assert_int_equal(length, QUESTION_END + DNS_OPT_FIXED + 6 + 200);
    text[200] = '\0';
    reply_to_query(&(struct reply){.rcode = RCODE_REFUSED, .error = &error, .limit = 512});
    assert_int_equal(length, QUESTION_END + DNS_OPT_FIXED + 6 + 200);
}

static void A14_RFC9715_too_big_is_tc_with_question_and_opt_only(void **state)
{
    (void)state;
    const size_t limits[] = {512, 1232, 4096};
    for (size_t i = 0; i < 3; i++) {
        for (unsigned edns = 0; edns <= 1; edns++) {
            const size_t opt = edns ? DNS_OPT_FIXED : 0;
            ask(DNS_FLAG_RD, edns ? 4096 : NO_EDNS, DNS_EDNS_FLAG_DO, true);
            answer_of(DNS_FLAG_AD, limits[i] - QUESTION_END - opt, true);
            reply_to_query(&(struct reply){.answer = &answer, .limit = limits[i]});
            assert_int_equal(length, limits[i]);
            assert_false(truncated);
            assert_false(flags_of_reply() & DNS_FLAG_TC);

            answer_of(DNS_FLAG_AD, limits[i] - QUESTION_END - opt + 1, true);
            reply_to_query(&(struct reply){.answer = &answer, .limit = limits[i]});
            assert_int_equal(length, QUESTION_END + opt);
            assert_true(truncated);
            assert_true(flags_of_reply() & DNS_FLAG_TC);
            assert_int_equal(load_u32(out + 4), 1 << 16);
            assert_int_equal(load_u32(out + 8), edns);
        }
    }
}

static void put_address(const char *owner)
{
    put_name(&upstream, owner);
    put_record(&upstream, TYPE_AAAA, 60, 16);
    put_zeros(&upstream, 16);
}

/* An A in an answer section of `octets`; what follows is the test's. */
static void put_needed(size_t octets, unsigned authorities, unsigned additionals)
{
    const bool has_filler = octets > 16;
    put_header(&upstream, DNS_FLAG_QR, 1, 1 + has_filler, authorities, additionals);
    put_question(&upstream, "www.example", TYPE_A);
    put_pointer(&upstream, QUESTION_POINTER);
    put_record(&upstream, TYPE_A, 60, 4);
    put_u32(&upstream, 0);
    if (has_filler) {
        put_pointer(&upstream, QUESTION_POINTER);
        put_record(&upstream, TYPE_TXT, 60, octets - 28);
        put_zeros(&upstream, octets - 28);
    }
}

/* Behind the needed part `count` records, half of them in authority. */
enum { NEEDED = 16, OPTIONAL = 39 };

static void answer_with_optional(unsigned count)
{
    char owner[] = "ns00.server";
    put_needed(NEEDED, count / 2, count - count / 2);
    for (unsigned i = 0; i < count; i++) {
        owner[2] = (char)('0' + i / 10);
        owner[3] = (char)('0' + i % 10);
        put_address(owner);
    }
    answer_checked();
    assert_int_equal(answer.body_length, NEEDED + count * OPTIONAL);
}

/* The reply is one that our own check takes, with so many optional records. */
static void assert_cut(unsigned authorities, unsigned additionals)
{
    struct answer again;
    const size_t opt = query.has_edns ? DNS_OPT_FIXED : 0;
    const unsigned count = authorities + additionals;
    assert_false(truncated);
    assert_false(flags_of_reply() & DNS_FLAG_TC);
    assert_int_equal(length, QUESTION_END + NEEDED + count * OPTIONAL + opt);
    assert_int_equal(load_u16(out + 6), 1);
    assert_int_equal(load_u16(out + 8), authorities);
    assert_int_equal(load_u16(out + 10), additionals + query.has_edns);
    assert_int_equal(message_check_answer(out, length, &query.question, &scratch, &again),
                     STATUS_OK);
    assert_memory_equal(out + QUESTION_END, upstream.bytes + QUESTION_END,
                        NEEDED + count * OPTIONAL);
}

static void A19_RFC2181_optional_records_are_cut_to_every_limit_without_tc(void **state)
{
    (void)state;
    for (unsigned edns = 0; edns <= 1; edns++) {
        for (size_t limit = 512; limit <= 2000; limit++) {
            ask(DNS_FLAG_RD, edns ? 4096 : NO_EDNS, 0, false);
            answer_with_optional(40);
            reply_to_query(&(struct reply){.answer = &answer, .limit = limit});
            const size_t room = limit - QUESTION_END - NEEDED - (edns ? DNS_OPT_FIXED : 0);
            const unsigned count = room / OPTIONAL < 40 ? (unsigned)(room / OPTIONAL) : 40;
            assert_cut(count < 20 ? count : 20, count < 20 ? 0 : count - 20);
            assert_int_equal(answer.additional_count, 20); /* the answer stays what it was */
        }
    }
}

static void A19_A14_needed_records_that_do_not_fit_are_tc(void **state)
{
    (void)state;
    for (unsigned extra = 0; extra <= 1; extra++) {
        ask(DNS_FLAG_RD, NO_EDNS, 0, false);
        put_needed(512 - QUESTION_END + extra, 0, 1);
        put_address("ns.server");
        answer_checked();
        reply_to_query(&(struct reply){.answer = &answer, .limit = 512});
        assert_int_equal(truncated, extra);
        assert_int_equal((flags_of_reply() & DNS_FLAG_TC) != 0, extra);
        assert_int_equal(length, extra ? QUESTION_END : 512);
    }
}

static void A19_options_have_the_room_that_a_cut_leaves(void **state)
{
    (void)state;
    ask(DNS_FLAG_RD, 1232, 0, true);
    answer_with_optional(40);
    reply_to_query(&(struct reply){.answer = &answer, .limit = 1232, .has_keepalive = true});
    const size_t records =
        NEEDED + (1232 - QUESTION_END - NEEDED - DNS_OPT_FIXED) / OPTIONAL * OPTIONAL;
    assert_int_equal(length, QUESTION_END + records + DNS_OPT_FIXED + 6);
    assert_int_equal(out[QUESTION_END + records + 2], TYPE_OPT);
}

/* FAULTS G3: the OPT of a client does not fit behind an answer that fills a message. */
static void A19_G3_optional_records_make_room_for_the_opt(void **state)
{
    (void)state;
    ask(0, 1232, 0, false);
    put_needed(65000, 0, 1);
    const size_t needed = upstream.length;
    put_pointer(&upstream, QUESTION_POINTER);
    put_record(&upstream, TYPE_TXT, 60, DNS_MESSAGE_MAX - needed - 12);
    put_zeros(&upstream, DNS_MESSAGE_MAX - needed - 12);
    answer_checked();
    reply_to_query(&(struct reply){.answer = &answer, .limit = DNS_MESSAGE_MAX});
    assert_false(truncated);
    assert_int_equal(length, needed + DNS_OPT_FIXED);
    assert_int_equal(load_u16(out + 10), 1);
}

static void G3_RFC8914_optional_parts_go_before_records_and_texts_before_codes(void **state)
{
    (void)state;
    const struct extended_error error = {EDE_OTHER, "12345678901234"};
    enum { KEEPALIVE = 6, CODE = 6, OWN = 20, FIRST = 10, SECOND = 60 };
    /* What is written with `room` octets left for options: in order, those that fit, of the
     * extended errors at least the code and the first one's text as far as the second's code
     * leaves room. */
    for (size_t room = 0; room <= 100; room++) {
        ask(0, 1232, 0, true);
        answer_of(0, 1232 - QUESTION_END - DNS_OPT_FIXED - room, true);
        reply_to_query(&(struct reply){
            .answer = &answer, .error = &error, .limit = 1232, .has_keepalive = true});
        assert_false(truncated);
        const size_t sizes[] = {KEEPALIVE, OWN, FIRST, SECOND};
        const size_t least[] = {KEEPALIVE, CODE, CODE, CODE};
        const size_t behind[] = {0, 0, CODE, 0};
        size_t expected = 0;
        for (size_t i = 0; i < 4; i++) {
            const size_t left = room - expected;
            const size_t bound = left > behind[i] + least[i] ? left - behind[i] : least[i];
            if (left >= least[i])
                expected += sizes[i] < bound ? sizes[i] : bound;
        }
        assert_int_equal(length, 1232 - room + expected);
        assert_int_equal(load_u16(out + 1232 - room - 2), expected);
        assert_memory_equal(out + QUESTION_END, answer.body, answer.body_length);
    }
}

static void G3_reply_never_grows_past_65535(void **state)
{
    (void)state;
    ask(0, 1232, 0, true);
    const struct extended_error error = {EDE_OTHER, "text"};
    for (size_t total = 65500; total <= DNS_MESSAGE_MAX + 11; total++) {
        answer_of(0, total - QUESTION_END - DNS_OPT_FIXED, false);
        reply_to_query(&(struct reply){
            .answer = &answer, .error = &error, .limit = DNS_MESSAGE_MAX, .has_keepalive = true});
        assert_int_equal(truncated, total > DNS_MESSAGE_MAX);
        assert_true(length <= DNS_MESSAGE_MAX);
        assert_true(truncated || length >= total);
    }
}

static void K6_reply_around_its_body_is_the_whole_one_without_it(void **state)
{
    (void)state;
    const struct extended_error error = {EDE_OTHER, "text"};
    const size_t longest = DNS_MESSAGE_MAX - QUESTION_END - DNS_OPT_FIXED;
    const size_t lengths[] = {12, 20000, longest - 12, longest};
    static uint8_t around[DNS_MESSAGE_MAX];
    ask(0, 1232, 0, true);
    const size_t at = reply_body_at(&query);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct reply reply = {
            .answer = &answer, .error = &error, .limit = DNS_MESSAGE_MAX, .has_keepalive = true};
        struct answer without;
        answer_of(0, lengths[i], false);
        assert_false(reply_fits_around(&query, &answer)); /* its TTLs are as they came */
        answer.ttl_count = 0;
        assert_true(reply_fits_around(&query, &answer));
        reply_to_query(&reply);
        reply_leave_out_body(&reply, &without);
        const size_t around_length = reply_write(&query, &reply, around, &truncated);
        assert_int_equal(around_length + answer.body_length, length);
        assert_memory_equal(around, out, at);
        assert_memory_equal(out + at, answer.body, answer.body_length);
        assert_memory_equal(around + at, out + at + answer.body_length, around_length - at);
    }
    answer.body_length++;
    assert_false(reply_fits_around(&query, &answer));
    ask(0, NO_EDNS, 0, false);
    assert_true(reply_fits_around(&query, &answer));
}

static void G9_additional_records_are_counted_with_the_opt(void **state)
{
    (void)state;
    ask(0, 1232, 0, false);
    put_header(&upstream, DNS_FLAG_QR, 1, 0, 2, 3);
    put_question(&upstream, "www.example", TYPE_A);
    for (unsigned i = 0; i < 4; i++) {
        put_pointer(&upstream, QUESTION_POINTER);
        put_record(&upstream, 65280 + i, 60, 0);
    }
    put_opt(&upstream, 512, 0, 0);
    answer_checked();
    reply_to_query(&(struct reply){.answer = &answer, .limit = 512});
    assert_memory_equal(out + 4, "\0\1\0\0\0\2\0\3", 8);
    assert_int_equal(length, QUESTION_END + 48 + DNS_OPT_FIXED);
}

static void H9_nothing_of_the_hop_to_the_upstream_is_passed_on(void **state)
{
    (void)state;
    ask(0, 1232, 0, true);
    put_header(&upstream, DNS_FLAG_QR, 1, 0, 0, 1);
    store_u16(upstream.bytes, 0xbeef);
    put_question(&upstream, "www.example", TYPE_A);
    put_opt(&upstream, 512, DNS_EDNS_FLAG_DO, 5 * 12);
    const unsigned options[] = {OPTION_NSID, OPTION_CLIENT_SUBNET, OPTION_COOKIE, OPTION_PADDING,
                                65001};
    for (size_t i = 0; i < 5; i++)
        put_option(&upstream, options[i], "01234567", 8);
    answer_checked();
    reply_to_query(&(struct reply){.answer = &answer, .limit = 512});
    assert_int_equal(load_u16(out), PACKET_ID);
    assert_int_equal(length, QUESTION_END + DNS_OPT_FIXED);
    assert_memory_equal(out + QUESTION_END, "\0\0\51\4\xd0\0\0\0\0\0\0", DNS_OPT_FIXED);
}

static void A17_RFC8482_minimal_answer_to_any_is_one_hinfo(void **state)
{
    (void)state;
    const char *names[] = {"", "www.example"};
    for (size_t i = 0; i < 2; i++) {
        put_header(&packet, DNS_FLAG_RD, 1, 0, 0, 0);
        put_question(&packet, names[i], TYPE_ANY);
        assert_int_equal(parse_exact(&packet, &query, &rcode), QUERY_ACCEPT);
        reply_to_query(&(struct reply){.answer = reply_minimal_any(), .limit = 512});
        assert_int_equal(length, packet.length + 21);
        static const uint8_t hinfo[] = "\xc0\x0c\0\15\0\1\0\0\16\20\0\11\7RFC8482";
        assert_memory_equal(out + packet.length, hinfo, sizeof hinfo);
        /* It is an answer that our own check takes, and says what it is. */
        assert_int_equal(message_check_answer(out, length, &query.question, &scratch, &answer),
                         STATUS_OK);
        assert_int_equal(answer.kind, reply_minimal_any()->kind);
        assert_int_equal(answer.ttl_s, reply_minimal_any()->ttl_s);
        assert_int_equal(answer.ttl_count, 1);
        assert_int_equal(answer.ttl_offsets[0], reply_minimal_any()->ttl_offsets[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(H10_RFC4343_reply_has_the_spelling_of_the_client),
        cmocka_unit_test(RFC1035_error_of_our_own_has_no_records),
        cmocka_unit_test(A6_reply_to_a_header_is_a_header),
        cmocka_unit_test(A7_notimp_echoes_the_opcode),
        cmocka_unit_test(A10_badvers_is_an_extended_rcode_with_version_0),
        cmocka_unit_test(RFC3225_RFC6891_opt_only_to_a_client_that_sent_one),
        cmocka_unit_test(H7_RFC6840_ad_only_to_a_client_that_asked),
        cmocka_unit_test(RFC6891_extended_rcode_without_edns_is_servfail),
        cmocka_unit_test(G6_rcodes_of_the_upstream_hop_are_servfail),
        cmocka_unit_test(G8_tc_of_the_upstream_is_passed_on),
        cmocka_unit_test(H3_RFC2181_ttl_with_the_top_bit_is_shown_as_0),
        cmocka_unit_test(RFC7828_keepalive_when_asked_for_and_given),
        cmocka_unit_test(RFC8914_own_error_comes_before_those_of_the_answer),
        cmocka_unit_test(RFC8914_text_may_be_missing_and_is_cut_at_200_octets),
        cmocka_unit_test(A14_RFC9715_too_big_is_tc_with_question_and_opt_only),
        cmocka_unit_test(A19_RFC2181_optional_records_are_cut_to_every_limit_without_tc),
        cmocka_unit_test(A19_A14_needed_records_that_do_not_fit_are_tc),
        cmocka_unit_test(A19_options_have_the_room_that_a_cut_leaves),
        cmocka_unit_test(A19_G3_optional_records_make_room_for_the_opt),
        cmocka_unit_test(G3_RFC8914_optional_parts_go_before_records_and_texts_before_codes),
        cmocka_unit_test(G3_reply_never_grows_past_65535),
        cmocka_unit_test(K6_reply_around_its_body_is_the_whole_one_without_it),
        cmocka_unit_test(G9_additional_records_are_counted_with_the_opt),
        cmocka_unit_test(H9_nothing_of_the_hop_to_the_upstream_is_passed_on),
        cmocka_unit_test(A17_RFC8482_minimal_answer_to_any_is_one_hinfo),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(out);
    return failed;
}
