// SPDX-License-Identifier: Apache-2.0
/* The cache: keys, times to live, failures, the bound on memory, and what eviction keeps. */
#include "test.h"

#include <stdlib.h>
#include <unistd.h>

#include "cache/cache.h"
#include "cache/shard.h"
#include "cache_fixture.h"
#include "packet.h"

enum { TTL_MAX_S = 86400, NEGATIVE_MAX_S = 900 };

static const uint64_t start_ns = UINT64_C(5000123456789);
static uint8_t found_body[DNS_MESSAGE_MAX];
static struct fixture_answer stored;

static struct cache *open_with(uint64_t size_bytes, struct cache_limits limits)
{
    struct cache *cache = NULL;
    assert_int_equal(cache_open(size_bytes, &limits, &cache), STATUS_OK);
    return cache;
}

static struct cache *open_size(uint64_t size_bytes)
{
    return open_with(size_bytes, (struct cache_limits){.ttl_max_s = TTL_MAX_S,
                                                       .negative_ttl_max_s = NEGATIVE_MAX_S});
}

static uint64_t after_s(uint64_t seconds)
{
    return start_ns + seconds * fixture_second_ns;
}

/* Stores an A answer of one record at `now`. */
static void store_at(struct cache *cache, const struct question *question, uint32_t ttl_s,
                     uint64_t now)
{
    fixture_fill(&stored, question, 1, FIXTURE_RECORD, 1, ttl_s);
    cache_store(cache, question, cache_hash(cache, question), &stored.answer, now);
}

static void store_kind(struct cache *cache, const struct question *question, enum answer_kind kind,
                       uint32_t ttl_s, uint64_t now)
{
    fixture_fill(&stored, question, 1, FIXTURE_RECORD, 1, ttl_s);
    stored.answer.kind = kind;
    store_u16(stored.body + FIXTURE_TYPE_OFFSET, TYPE_SOA);
    cache_store(cache, question, cache_hash(cache, question), &stored.answer, now);
}

static bool is_found(struct cache *cache, const struct question *question, uint64_t now)
{
    struct answer hit;
    return cache_find(cache, question, cache_hash(cache, question), now, found_body, &hit) ==
           STATUS_OK;
}

/* The TTL that a hit shows; the test fails without a hit. */
static uint32_t ttl_at(struct cache *cache, const struct question *question, uint64_t now)
{
    struct answer hit = {.ttl_count = 1};
    assert_int_equal(
        cache_find(cache, question, cache_hash(cache, question), now, found_body, &hit), STATUS_OK);
    assert_int_equal(hit.ttl_count, 0);
    assert_null(hit.ttl_offsets);
    return load_u32(hit.body + FIXTURE_TTL_OFFSET);
}

static uint64_t entries_in(struct cache *cache)
{
    uint64_t bytes = 0;
    uint64_t entries = 0;
    cache_usage(cache, &bytes, &entries);
    return entries;
}

static uint64_t bytes_in(struct cache *cache)
{
    uint64_t bytes = 0;
    uint64_t entries = 0;
    cache_usage(cache, &bytes, &entries);
    return bytes;
}

/* ---- Opening ---- */

static void size_below_the_minimum_is_invalid(void **state)
{
    (void)state;
    struct cache *cache = NULL;
    const struct cache_limits limits = {.ttl_max_s = 1};
    assert_int_equal(cache_open(CACHE_SIZE_MIN - 1, &limits, &cache), STATUS_INVALID);
    assert_null(cache);
    cache_close(cache);
}

static void refused_memory_is_a_system_error(void **state)
{
    (void)state;
    struct cache *cache = NULL;
    const uint64_t sizes[] = {UINT64_MAX, (uint64_t)INT64_MAX - 65536};
    for (size_t i = 0; i < 2; i++) {
        const struct cache_limits limits = {.ttl_max_s = 1};
        assert_int_equal(cache_open(sizes[i], &limits, &cache), STATUS_SYSTEM);
        assert_null(cache);
    }
}

static void every_size_keeps_answers(void **state)
{
    (void)state;
    for (uint64_t size = CACHE_SIZE_MIN; size <= 512 << 20; size = size * 3 / 2 + 1) {
        struct cache *cache = open_size(size);
        for (uint32_t i = 0; i < 50; i++) {
            const struct question question = fixture_question(i);
            store_at(cache, &question, 60, start_ns);
            assert_true(is_found(cache, &question, start_ns));
        }
        assert_int_equal(entries_in(cache), 50);
        cache_close(cache);
    }
}

static void many_shards_share_the_load(void **state)
{
    (void)state;
    struct cache *cache = open_size(16 << 20);
    for (uint32_t i = 0; i < 50000; i++) {
        const struct question question = fixture_question(i);
        store_at(cache, &question, 60, start_ns);
    }
    assert_int_equal(entries_in(cache), 50000);
    for (uint32_t i = 0; i < 50000; i++) {
        const struct question question = fixture_question(i);
        assert_true(is_found(cache, &question, start_ns));
    }
    assert_true(bytes_in(cache) <= 50000 * 128);
    cache_close(cache);
}

/* ---- What a hit is ---- */

static void H7_hit_is_the_answer_that_was_stored(void **state)
{
    (void)state;
    static const uint8_t extended_errors[] = {0, 3, 0, 2, 'h', 'i'};
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    const struct question question = fixture_question(7);
    fixture_fill(&stored, &question, 9, 77, 2, 300);
    stored.answer.flags = DNS_FLAG_AA | DNS_FLAG_RA | DNS_FLAG_AD;
    stored.answer.rcode = 0xabc;
    stored.answer.authority_count = 3;
    stored.answer.additional_count = 4;
    stored.answer.extended_errors = extended_errors;
    stored.answer.extended_errors_length = sizeof(extended_errors);
    cache_store(cache, &question, cache_hash(cache, &question), &stored.answer, start_ns);

    struct answer hit;
    assert_int_equal(
        cache_find(cache, &question, cache_hash(cache, &question), start_ns, found_body, &hit),
        STATUS_OK);
    assert_int_equal(hit.kind, ANSWER_POSITIVE);
    assert_int_equal(hit.flags, DNS_FLAG_RA | DNS_FLAG_AD);
    assert_int_equal(hit.rcode, 0xabc);
    assert_int_equal(hit.answer_count, 2);
    assert_int_equal(hit.authority_count, 3);
    assert_int_equal(hit.additional_count, 4);
    assert_int_equal(hit.ttl_s, 300);
    assert_ptr_equal(hit.body, found_body);
    assert_int_equal(hit.body_length, 77);
    assert_memory_equal(hit.body, stored.body, 77);
    assert_int_equal(hit.extended_errors_length, sizeof(extended_errors));
    assert_memory_equal(hit.extended_errors, extended_errors, sizeof(extended_errors));
    cache_close(cache);
}

static void H14_RFC1035_hit_is_no_authority(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    static const enum answer_kind kinds[] = {ANSWER_POSITIVE, ANSWER_NEGATIVE, ANSWER_FAILURE};
    for (uint32_t i = 0; i < 3; i++) {
        const struct question question = fixture_question(i);
        fixture_fill(&stored, &question, 1, FIXTURE_RECORD, 1, 300);
        stored.answer.kind = kinds[i];
        stored.answer.flags = DNS_FLAG_AA | DNS_FLAG_RA;
        cache_store(cache, &question, cache_hash(cache, &question), &stored.answer, start_ns);
        struct answer hit;
        assert_int_equal(
            cache_find(cache, &question, cache_hash(cache, &question), start_ns, found_body, &hit),
            STATUS_OK);
        assert_int_equal(hit.flags, DNS_FLAG_RA);
    }
    cache_close(cache);
}

static void H9_what_belongs_to_one_hop_is_not_kept(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    const struct question question = fixture_question(7);
    fixture_fill(&stored, &question, 1, FIXTURE_RECORD, 1, 300);
    stored.answer.has_keepalive = true;
    stored.answer.keepalive_100ms = 33;
    stored.answer.has_padding = true;
    cache_store(cache, &question, cache_hash(cache, &question), &stored.answer, start_ns);
    struct answer hit;
    assert_int_equal(
        cache_find(cache, &question, cache_hash(cache, &question), start_ns, found_body, &hit),
        STATUS_OK);
    assert_false(hit.has_keepalive);
    assert_int_equal(hit.keepalive_100ms, 0);
    assert_false(hit.has_padding);
    cache_close(cache);
}

static void answer_without_records_is_kept(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    const struct question question = fixture_question(7);
    const struct answer failure = {.kind = ANSWER_FAILURE, .rcode = RCODE_SERVFAIL, .ttl_s = 1};
    cache_store(cache, &question, cache_hash(cache, &question), &failure, start_ns);
    struct answer hit;
    assert_int_equal(
        cache_find(cache, &question, cache_hash(cache, &question), start_ns, found_body, &hit),
        STATUS_OK);
    assert_int_equal(hit.rcode, RCODE_SERVFAIL);
    assert_int_equal(hit.body_length, 0);
    assert_int_equal(hit.extended_errors_length, 0);
    cache_close(cache);
}

static void miss_leaves_the_output_alone(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    const struct question question = fixture_question(7);
    struct answer hit = {.rcode = 77};
    assert_int_equal(
        cache_find(cache, &question, cache_hash(cache, &question), start_ns, found_body, &hit),
        STATUS_NOT_FOUND);
    assert_int_equal(hit.rcode, 77);
    cache_close(cache);
}

static void another_answer_of_another_size_replaces_the_first(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    const struct question question = fixture_question(7);
    for (uint8_t version = 0; version < 200; version++) {
        fixture_fill(&stored, &question, version, (uint16_t)(16 + version % 5 * 40), 1, 60);
        cache_store(cache, &question, cache_hash(cache, &question), &stored.answer, start_ns);
        struct answer hit;
        assert_int_equal(
            cache_find(cache, &question, cache_hash(cache, &question), start_ns, found_body, &hit),
            STATUS_OK);
        assert_int_equal(hit.body[0], version);
        assert_true(fixture_is_intact(&hit, &question));
        assert_int_equal(entries_in(cache), 1);
    }
    cache_close(cache);
}

/* ---- H1: keys ---- */

/* Number `i` of all that differ from the base question in exactly one part of the key. */
static struct question variant(size_t i)
{
    struct question question = fixture_question(1);
    if (i == 1)
        question.type = TYPE_AAAA;
    if (i == 2)
        question.class = CLASS_CH;
    if (i == 3)
        question.dnssec_ok = true;
    if (i == 4)
        question.checking_disabled = true;
    if (i == 5)
        question.name[3] = '9';
    if (i == 6) /* a name that ends where the other goes on */
        memmove(question.name, question.name + 9, question.name_length -= 9);
    if (i == 7)
        question.type = TYPE_A << 8;
    return question;
}

enum { VARIANTS = 8 };

static void H1_key_differs_in_each_of_its_parts(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    for (size_t i = 0; i < VARIANTS; i++) {
        const struct question question = variant(i);
        assert_false(is_found(cache, &question, start_ns));
        fixture_fill(&stored, &question, (uint8_t)i, FIXTURE_RECORD, 1, 60);
        cache_store(cache, &question, cache_hash(cache, &question), &stored.answer, start_ns);
    }
    for (size_t i = 0; i < VARIANTS; i++) {
        const struct question question = variant(i);
        struct answer hit;
        assert_int_equal(
            cache_find(cache, &question, cache_hash(cache, &question), start_ns, found_body, &hit),
            STATUS_OK);
        assert_int_equal(hit.body[0], i);
    }
    cache_close(cache);
}

static void H1_questions_of_the_same_hash_are_told_apart(void **state)
{
    (void)state;
    const struct cache_limits limits = {.ttl_max_s = 60};
    struct cache *cache = NULL;
    assert_int_equal(cache_open_with_hash_mask(1 << 20, &limits, 0xf, &cache), STATUS_OK);
    for (uint32_t i = 0; i < 1000; i += 2) {
        const struct question question = fixture_question(i);
        fixture_fill(&stored, &question, (uint8_t)i, FIXTURE_RECORD, 1, 60);
        cache_store(cache, &question, cache_hash(cache, &question), &stored.answer, start_ns);
    }
    for (uint32_t i = 0; i < 1000; i++) {
        const struct question question = fixture_question(i);
        struct answer hit;
        const enum status status =
            cache_find(cache, &question, cache_hash(cache, &question), start_ns, found_body, &hit);
        assert_int_equal(status, i % 2 == 0 ? STATUS_OK : STATUS_NOT_FOUND);
        assert_true(status != STATUS_OK || fixture_is_intact(&hit, &question));
        assert_true(status != STATUS_OK || hit.body[0] == (uint8_t)i);
    }
    cache_close(cache);
}

static void H1_variants_of_the_same_hash_are_told_apart(void **state)
{
    (void)state;
    const struct cache_limits limits = {.ttl_max_s = 60};
    struct cache *cache = NULL;
    assert_int_equal(cache_open_with_hash_mask(CACHE_SIZE_MIN, &limits, 0, &cache), STATUS_OK);
    for (size_t i = 0; i < VARIANTS; i++) {
        const struct question question = variant(i);
        assert_false(is_found(cache, &question, start_ns));
        store_at(cache, &question, 60, start_ns);
        assert_true(is_found(cache, &question, start_ns));
    }
    assert_int_equal(entries_in(cache), VARIANTS);
    cache_close(cache);
}

static void I9_two_caches_do_not_hash_alike(void **state)
{
    (void)state;
    /* Which shard a name goes to, and so which names a full cache loses, depends on the key. */
    uint64_t lost[2] = {0};
    for (size_t i = 0; i < 2; i++) {
        struct cache *cache = open_size(16 << 20); /* two shards */
        for (uint32_t k = 0; k < 200000; k++) {
            const struct question question = fixture_question(k);
            store_at(cache, &question, 60, start_ns);
        }
        for (uint32_t k = 0; k < 200000; k++) {
            const struct question question = fixture_question(k);
            lost[i] = lost[i] * 31 + is_found(cache, &question, start_ns);
        }
        cache_close(cache);
    }
    assert_int_not_equal(lost[0], lost[1]);
}

/* ---- H3: TTLs ---- */

static void H3_ttl_0_is_not_kept(void **state)
{
    (void)state;
    struct cache *cache =
        open_with(CACHE_SIZE_MIN, (struct cache_limits){.ttl_min_s = 60, .ttl_max_s = 600});
    const struct question question = fixture_question(1);
    store_at(cache, &question, 0, start_ns);
    assert_false(is_found(cache, &question, start_ns));
    cache_close(cache);
}

static void H3_ttl_with_the_top_bit_is_0(void **state)
{
    (void)state;
    struct cache *cache =
        open_with(CACHE_SIZE_MIN, (struct cache_limits){.ttl_min_s = 60, .ttl_max_s = 600});
    const struct question question = fixture_question(1);
    store_at(cache, &question, 0x80000000, start_ns);
    assert_false(is_found(cache, &question, start_ns));
    store_at(cache, &question, UINT32_MAX, start_ns);
    assert_false(is_found(cache, &question, start_ns));

    /* A record of such a TTL beside one that is kept. */
    fixture_fill(&stored, &question, 1, 2 * FIXTURE_RECORD, 2, 300);
    store_u32(stored.body + stored.ttl_offsets[1], 0x80000001);
    cache_store(cache, &question, cache_hash(cache, &question), &stored.answer, start_ns);
    assert_int_equal(ttl_at(cache, &question, start_ns), 300);
    assert_int_equal(load_u32(found_body + stored.ttl_offsets[1]), 0);
    cache_close(cache);
}

static void H3_ttl_of_2_to_the_31_minus_1_is_cut_to_the_maximum(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    store_at(cache, &question, INT32_MAX, start_ns);
    assert_int_equal(ttl_at(cache, &question, start_ns), TTL_MAX_S);
    assert_true(is_found(cache, &question, after_s(TTL_MAX_S) - 1));
    assert_false(is_found(cache, &question, after_s(TTL_MAX_S)));
    cache_close(cache);
}

static void H3_largest_ttl_without_a_maximum_does_not_wrap(void **state)
{
    (void)state;
    struct cache *cache = open_with(CACHE_SIZE_MIN, (struct cache_limits){.ttl_max_s = UINT32_MAX});
    const struct question question = fixture_question(1);
    store_at(cache, &question, INT32_MAX, start_ns);
    assert_int_equal(ttl_at(cache, &question, after_s(100)), INT32_MAX - 100);
    assert_int_equal(ttl_at(cache, &question, after_s(INT32_MAX - 1)), 1);
    assert_false(is_found(cache, &question, after_s(INT32_MAX)));
    cache_close(cache);
}

static void H3_minimum_raises_what_the_client_sees(void **state)
{
    (void)state;
    struct cache *cache =
        open_with(CACHE_SIZE_MIN, (struct cache_limits){.ttl_min_s = 60, .ttl_max_s = 600});
    const struct question question = fixture_question(1);
    store_at(cache, &question, 5, start_ns);
    assert_int_equal(ttl_at(cache, &question, start_ns), 60);
    assert_int_equal(ttl_at(cache, &question, after_s(59)), 1);
    assert_false(is_found(cache, &question, after_s(60)));
    cache_close(cache);
}

static void H3_maximum_wins_over_the_minimum(void **state)
{
    (void)state;
    struct cache *cache =
        open_with(CACHE_SIZE_MIN, (struct cache_limits){.ttl_min_s = 600, .ttl_max_s = 60});
    const struct question question = fixture_question(1);
    store_at(cache, &question, 5, start_ns);
    assert_int_equal(ttl_at(cache, &question, start_ns), 60);
    cache_close(cache);
}

static void H3_each_ttl_ages_and_none_underflows(void **state)
{
    (void)state;
    static const uint32_t before[] = {100, 300, 7, 0};
    static const uint32_t after_8_s[] = {92, 292, 0, 0};
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    fixture_fill(&stored, &question, 1, 4 * FIXTURE_RECORD, 4, 100);
    for (size_t i = 0; i < 4; i++)
        store_u32(stored.body + stored.ttl_offsets[i], before[i]);
    cache_store(cache, &question, cache_hash(cache, &question), &stored.answer, start_ns);
    assert_true(is_found(cache, &question, after_s(8)));
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(load_u32(found_body + stored.ttl_offsets[i]), after_8_s[i]);
    cache_close(cache);
}

static void H3_H14_ttl_shown_is_the_time_left_rounded_up(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    store_at(cache, &question, 10, start_ns);
    assert_int_equal(ttl_at(cache, &question, start_ns), 10);
    assert_int_equal(ttl_at(cache, &question, after_s(1) - 1), 10);
    assert_int_equal(ttl_at(cache, &question, after_s(1)), 9);
    assert_int_equal(ttl_at(cache, &question, after_s(2) - 1), 9);
    assert_int_equal(ttl_at(cache, &question, after_s(9)), 1);
    assert_int_equal(ttl_at(cache, &question, after_s(10) - 1), 1);
    assert_false(is_found(cache, &question, after_s(10)));
    assert_false(is_found(cache, &question, after_s(1000000)));
    cache_close(cache);
}

/* ---- H14: each record has its own time ---- */

static struct packet packet;
static struct answer_scratch scratch;

static void begin_message(const struct question *question, unsigned rcode, unsigned answers,
                          unsigned authorities, unsigned additionals)
{
    put_header(&packet, DNS_FLAG_QR | DNS_FLAG_AA | rcode, 1, answers, authorities, additionals);
    put_bytes(&packet, question->name, question->name_length);
    put_u16(&packet, question->type);
    put_u16(&packet, question->class);
}

/* A record of the question's name; that of another label when there is one. */
static void put_owned(const char *label, unsigned type, uint32_t ttl_s)
{
    put_labels(&packet, label);
    put_pointer(&packet, QUESTION_POINTER);
    const size_t data = packet_begin_record(&packet, type, ttl_s);
    if (type == TYPE_SOA) {
        put_zeros(&packet, 2 + 4 * 4);
        put_u32(&packet, 200);
    } else if (type == TYPE_CNAME) {
        put_name(&packet, "elsewhere");
    } else {
        put_u32(&packet, 0xc0000201);
    }
    packet_end_record(&packet, data);
}

static void store_message(struct cache *cache, const struct question *question)
{
    struct answer answer;
    assert_int_equal(message_check_answer(packet.bytes, packet.length, question, &scratch, &answer),
                     STATUS_OK);
    cache_store(cache, question, cache_hash(cache, question), &answer, start_ns);
}

/* What a hit shows, checked like an answer; the TTLs in the order of the records. */
static void assert_ttls(struct cache *cache, const struct question *question, uint64_t now,
                        const uint32_t *ttls, size_t count)
{
    struct answer hit;
    struct answer checked;
    assert_int_equal(
        cache_find(cache, question, cache_hash(cache, question), now, found_body, &hit), STATUS_OK);
    begin_message(question, hit.rcode, hit.answer_count, hit.authority_count, hit.additional_count);
    put_bytes(&packet, hit.body, hit.body_length);
    assert_int_equal(
        message_check_answer(packet.bytes, packet.length, question, &scratch, &checked), STATUS_OK);
    assert_int_equal(checked.body_length, hit.body_length);
    assert_int_equal(checked.ttl_count, count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(load_u32(checked.body + checked.ttl_offsets[i]), ttls[i]);
}

static void H14_optional_records_end_for_themselves(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    begin_message(&question, RCODE_NOERROR, 1, 2, 5);
    put_owned("", TYPE_A, 300);
    put_owned("a", 65280, 250);
    put_owned("b", 65280, 100000); /* over the maximum */
    put_owned("c", TYPE_A, 200);
    put_owned("d", TYPE_A, 100); /* an RRset of two, */
    put_owned("d", TYPE_A, 20);  /* of which this one ends first */
    put_owned("e", TYPE_A, 280);
    put_owned("f", TYPE_A, 280);
    store_message(cache, &question);
    const uint32_t whole[] = {300, 250, TTL_MAX_S, 200, 100, 20, 280, 280};
    assert_ttls(cache, &question, after_s(1) - 1, whole, 8);
    const uint32_t after_1[] = {299, 249, TTL_MAX_S - 1, 199, 99, 19, 279, 279};
    assert_ttls(cache, &question, after_s(1), after_1, 8);
    const uint32_t last[] = {281, 231, TTL_MAX_S - 19, 181, 81, 1, 261, 261};
    assert_ttls(cache, &question, after_s(20) - 1, last, 8);
    const uint32_t cut[] = {280, 230, TTL_MAX_S - 20, 180};
    assert_ttls(cache, &question, after_s(20), cut, 4);
    const uint32_t after_249[] = {51, 1, TTL_MAX_S - 249};
    assert_ttls(cache, &question, after_s(250) - 1, after_249, 3);
    assert_ttls(cache, &question, after_s(250), (uint32_t[]){50}, 1);
    assert_ttls(cache, &question, after_s(300) - 1, (uint32_t[]){1}, 1);
    assert_false(is_found(cache, &question, after_s(300)));
    cache_close(cache);
}

static void H14_optional_record_of_ttl_0_is_not_kept(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    begin_message(&question, RCODE_NOERROR, 1, 0, 1);
    put_owned("", TYPE_A, 300);
    put_owned("a", TYPE_A, 0);
    store_message(cache, &question);
    assert_ttls(cache, &question, start_ns, (uint32_t[]){300}, 1);
    cache_close(cache);
}

static void H14_RFC2308_negative_answer_shows_the_time_of_its_soa(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    begin_message(&question, RCODE_NXDOMAIN, 1, 2, 1);
    put_owned("", TYPE_CNAME, 2000);
    put_owned("", TYPE_SOA, 3600); /* its MINIMUM is 200 */
    put_owned("a", 65280, 150);
    put_owned("b", TYPE_A, 10);
    store_message(cache, &question);
    assert_ttls(cache, &question, start_ns, (uint32_t[]){2000, 200, 150, 10}, 4);
    assert_ttls(cache, &question, after_s(10), (uint32_t[]){1990, 190, 140}, 3);
    assert_ttls(cache, &question, after_s(150), (uint32_t[]){1850, 50}, 2);
    assert_false(is_found(cache, &question, after_s(200)));
    cache_close(cache);
}

static void H3_clock_of_another_worker_may_be_behind(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    store_at(cache, &question, 10, start_ns);
    assert_int_equal(ttl_at(cache, &question, start_ns - 1), 10);
    assert_int_equal(ttl_at(cache, &question, 0), 10);
    cache_close(cache);
}

static void RFC2181_truncated_answer_is_not_kept(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    fixture_fill(&stored, &question, 1, FIXTURE_RECORD, 1, 300);
    stored.answer.flags |= DNS_FLAG_TC;
    cache_store(cache, &question, cache_hash(cache, &question), &stored.answer, start_ns);
    assert_false(is_found(cache, &question, start_ns));
    cache_close(cache);
}

static void answer_to_a_question_without_RD_is_not_kept(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    struct question question = fixture_question(1);
    question.recursion_desired = false;
    store_at(cache, &question, 300, start_ns);
    question.recursion_desired = true;
    assert_false(is_found(cache, &question, start_ns));
    cache_close(cache);
}

/* ---- H4 and H5: negative answers and failures ---- */

static void H4_negative_ttl_is_cut_and_never_raised(void **state)
{
    (void)state;
    struct cache *cache = open_with(
        CACHE_SIZE_MIN,
        (struct cache_limits){.ttl_min_s = 60, .ttl_max_s = 1000, .negative_ttl_max_s = 900});
    const struct question question = fixture_question(1);
    store_kind(cache, &question, ANSWER_NEGATIVE, 3600, start_ns);
    assert_int_equal(ttl_at(cache, &question, start_ns), 900);
    assert_false(is_found(cache, &question, after_s(900)));
    store_kind(cache, &question, ANSWER_NEGATIVE, 5, start_ns);
    assert_int_equal(ttl_at(cache, &question, start_ns), 5);
    assert_false(is_found(cache, &question, after_s(5)));
    cache_close(cache);
}

static void H4_maximum_holds_for_negative_answers(void **state)
{
    (void)state;
    struct cache *cache = open_with(
        CACHE_SIZE_MIN, (struct cache_limits){.ttl_max_s = 100, .negative_ttl_max_s = 900});
    const struct question question = fixture_question(1);
    store_kind(cache, &question, ANSWER_NEGATIVE, 3600, start_ns);
    assert_int_equal(ttl_at(cache, &question, start_ns), 100);
    cache_close(cache);
}

static void H4_negative_maximum_of_0_keeps_none(void **state)
{
    (void)state;
    struct cache *cache = open_with(CACHE_SIZE_MIN, (struct cache_limits){.ttl_max_s = 100});
    const struct question question = fixture_question(1);
    store_kind(cache, &question, ANSWER_NEGATIVE, 3600, start_ns);
    assert_false(is_found(cache, &question, start_ns));
    cache_close(cache);
}

static enum answer_kind kind_at(struct cache *cache, const struct question *question, uint64_t now)
{
    struct answer hit;
    assert_int_equal(
        cache_find(cache, question, cache_hash(cache, question), now, found_body, &hit), STATUS_OK);
    return hit.kind;
}

static void H5_failure_never_replaces_a_fresh_answer(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    static const enum answer_kind kinds[] = {ANSWER_POSITIVE, ANSWER_NEGATIVE};
    for (uint32_t i = 0; i < 2; i++) {
        const struct question question = fixture_question(i);
        store_kind(cache, &question, kinds[i], 10, start_ns);
        store_kind(cache, &question, ANSWER_FAILURE, 5, after_s(10) - 1);
        assert_int_equal(kind_at(cache, &question, after_s(10) - 1), kinds[i]);
        store_kind(cache, &question, ANSWER_FAILURE, 5, after_s(10));
        assert_int_equal(kind_at(cache, &question, after_s(10)), ANSWER_FAILURE);
    }
    cache_close(cache);
}

static void H5_answer_replaces_a_failure(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    store_kind(cache, &question, ANSWER_FAILURE, 5, start_ns);
    store_kind(cache, &question, ANSWER_POSITIVE, 10, start_ns);
    assert_int_equal(kind_at(cache, &question, start_ns), ANSWER_POSITIVE);
    cache_close(cache);
}

static void RFC9520_failures_in_a_row_are_kept_twice_as_long_up_to_4_s(void **state)
{
    (void)state;
    static const uint64_t kept_s[] = {1, 2, 4, 4, 4};
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    uint64_t now = start_ns;
    for (size_t i = 0; i < sizeof(kept_s) / sizeof(kept_s[0]); i++) {
        store_kind(cache, &question, ANSWER_FAILURE, 1, now);
        now += kept_s[i] * fixture_second_ns;
        assert_true(is_found(cache, &question, now - 1));
        assert_false(is_found(cache, &question, now));
    }
    /* A good answer ends the row. */
    store_kind(cache, &question, ANSWER_POSITIVE, 1, now);
    now += fixture_second_ns;
    store_kind(cache, &question, ANSWER_FAILURE, 1, now);
    assert_false(is_found(cache, &question, now + fixture_second_ns));
    cache_close(cache);
}

static void RFC9520_failures_of_one_moment_count_as_one(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    store_kind(cache, &question, ANSWER_FAILURE, 3, start_ns);
    store_kind(cache, &question, ANSWER_FAILURE, 3, start_ns + 1);
    assert_true(is_found(cache, &question, after_s(3)));
    assert_false(is_found(cache, &question, after_s(3) + 1));
    cache_close(cache);
}

static void RFC9520_no_failure_is_kept_longer_than_4_s(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    store_kind(cache, &question, ANSWER_FAILURE, 3600, start_ns);
    assert_false(is_found(cache, &question, after_s(4)));
    cache_close(cache);
}

/* A client asks every half second, and the upstream is asked whenever the cache has nothing.
 * Returns how long after `well_ns` the client has a good answer. */
static uint64_t time_to_recover_ns(struct cache *cache, enum rcode rcode, uint64_t well_ns)
{
    const struct question question = fixture_question(1);
    const uint64_t hash = cache_hash(cache, &question);
    const struct answer failure = {.kind = ANSWER_FAILURE, .rcode = (uint16_t)rcode, .ttl_s = 1};
    uint64_t now = start_ns;
    while (is_found(cache, &question, now) || now < well_ns) {
        if (!is_found(cache, &question, now))
            cache_store(cache, &question, hash, &failure, now);
        now += fixture_second_ns / 2;
    }
    return now - well_ns;
}

static void K10_H5_upstream_that_is_well_again_is_noticed_within_5_s(void **state)
{
    (void)state;
    static const uint32_t failing_s[] = {1, 2, 3, 7, 20, 34, 300, 3600};
    static const enum rcode rcodes[] = {RCODE_SERVFAIL, RCODE_REFUSED, RCODE_NOTIMP, RCODE_FORMERR};
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < sizeof(failing_s) / sizeof(failing_s[0]); j++) {
            struct cache *cache = open_size(CACHE_SIZE_MIN);
            const uint64_t well_ns = after_s(failing_s[j]) + 1;
            assert_true(time_to_recover_ns(cache, rcodes[i], well_ns) < 5 * fixture_second_ns);
            cache_close(cache);
        }
}

static void RFC9520_failure_is_remembered_past_its_time_though_others_are_stored(void **state)
{
    (void)state;
    struct cache *cache = open_size(1 << 20);
    const struct question question = fixture_question(1);
    store_kind(cache, &question, ANSWER_FAILURE, 2, start_ns);
    for (uint32_t i = 2; i < 300; i++) {
        const struct question other = fixture_question(i);
        store_at(cache, &other, 60, after_s(31));
    }
    store_kind(cache, &question, ANSWER_FAILURE, 2, after_s(31));
    assert_true(is_found(cache, &question, after_s(35) - 1));
    cache_close(cache);
}

/* ---- H12: memory ---- */

static void largest_message_fits_a_cache_of_1_MiB(void **state)
{
    (void)state;
    struct cache *cache = open_size(1 << 20);
    for (uint32_t i = 0; i < 100; i++) {
        const struct question question = fixture_question(i);
        fixture_fill(&stored, &question, 5, DNS_MESSAGE_MAX - 40, 1, 60);
        cache_store(cache, &question, cache_hash(cache, &question), &stored.answer, start_ns);
        struct answer hit;
        assert_int_equal(
            cache_find(cache, &question, cache_hash(cache, &question), start_ns, found_body, &hit),
            STATUS_OK);
        assert_true(fixture_is_intact(&hit, &question));
        assert_true(bytes_in(cache) <= 1 << 20);
    }
    cache_close(cache);
}

static void extended_errors_go_when_the_message_would_be_too_large(void **state)
{
    (void)state;
    static const uint8_t extended_errors[64] = {0, 3, 0, 60};
    struct cache *cache = open_size(4 << 20);
    const struct question question = fixture_question(1);
    fixture_fill(&stored, &question, 5, DNS_MESSAGE_MAX - 40, 1, 60);
    stored.answer.extended_errors = extended_errors;
    stored.answer.extended_errors_length = sizeof(extended_errors);
    cache_store(cache, &question, cache_hash(cache, &question), &stored.answer, start_ns);
    struct answer hit;
    assert_int_equal(
        cache_find(cache, &question, cache_hash(cache, &question), start_ns, found_body, &hit),
        STATUS_OK);
    assert_int_equal(hit.body_length, DNS_MESSAGE_MAX - 40);
    assert_int_equal(hit.extended_errors_length, 0);
    cache_close(cache);
}

static void answer_too_large_for_the_cache_only_ends_the_older_one(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    const struct question other = fixture_question(2);
    store_at(cache, &question, 60, start_ns);
    store_at(cache, &other, 60, start_ns);
    fixture_fill(&stored, &question, 5, 60000, 1, 60);
    cache_store(cache, &question, cache_hash(cache, &question), &stored.answer, start_ns);
    assert_false(is_found(cache, &question, start_ns));
    assert_true(is_found(cache, &other, start_ns));
    assert_int_equal(entries_in(cache), 1);
    cache_close(cache);
}

#ifdef __SANITIZE_THREAD__
/* ThreadSanitizer's shadow of the cache is resident too: there is nothing to be measured. */
static uint64_t resident_bytes(void)
{
    return 0;
}
#else
static uint64_t resident_bytes(void)
{
    unsigned long long total = 0;
    unsigned long long resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%llu %llu", &total, &resident), 2);
    fclose(file);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}
#endif

static void churn(struct cache *cache, uint32_t from, uint32_t count, uint64_t bound)
{
    for (uint32_t i = from; i < from + count; i++) {
        const struct question question = fixture_question(i);
        fixture_fill(&stored, &question, 1, (uint16_t)(16 + i % 97), 1, 60);
        cache_store(cache, &question, cache_hash(cache, &question), &stored.answer,
                    start_ns + i * UINT64_C(1000));
        if (i % 512 == 0)
            assert_true(bytes_in(cache) <= bound);
    }
}

static void H12_memory_is_bounded_under_churn(void **state)
{
    (void)state;
    const uint64_t size = 3 << 20;
    const uint64_t before = resident_bytes();
    struct cache *cache = open_size(size);
    churn(cache, 0, 200000, size);
    const uint64_t filled = resident_bytes();
    churn(cache, 200000, 1000000, size);
    const uint64_t slack = 512 << 10; /* of this program: its stack, its libraries' pages */
    assert_true(filled <= before + size + slack);
    assert_true(resident_bytes() <= filled + slack);
    assert_true(entries_in(cache) > 15000);
    cache_close(cache);
}

/* The index is a sixteenth of the cache, touched as entries come. */
static void H12_memory_of_a_cache_far_from_full_is_entries_and_index(void **state)
{
    (void)state;
    const uint64_t size = 64 << 20;
    struct cache *cache = open_size(size);
    const uint64_t before = bytes_in(cache);
    const uint64_t resident = resident_bytes();
    for (uint32_t i = 0; i < 100000; i++) {
        const struct question question = fixture_question(i);
        store_at(cache, &question, 60, start_ns);
    }
    assert_true(bytes_in(cache) - before <= 100000 * 100);
    assert_true(resident_bytes() - resident <= size / 16 + 100000 * 100);
    cache_close(cache);
}

static void H12_scan_does_not_displace_what_is_popular(void **state)
{
    (void)state;
    enum { HOT = 200, SCANNED_EACH = 3, ROUNDS = 300 };
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    uint32_t hits = 0;
    uint32_t scanned = HOT;
    for (uint32_t i = 0; i < HOT * ROUNDS; i++) {
        const struct question hot = fixture_question(i % HOT);
        if (is_found(cache, &hot, start_ns))
            hits++;
        else
            store_at(cache, &hot, 3600, start_ns);
        for (uint32_t k = 0; k < SCANNED_EACH; k++) {
            const struct question once = fixture_question(scanned++);
            store_at(cache, &once, 3600, start_ns);
        }
    }
    /* Between two uses of a name 600 others and 200 popular ones come by, more than fit: LRU would
     * never hit. */
    assert_true(entries_in(cache) < 750);
    assert_true(hits > HOT * ROUNDS * 9 / 10);
    cache_close(cache);
}

static void H12_expired_entries_go_though_one_name_is_always_hit(void **state)
{
    (void)state;
    struct cache *cache = open_size(2 << 20);
    const struct question hot = fixture_question(0);
    store_at(cache, &hot, 3600, start_ns);
    for (uint32_t i = 1; i <= 5000; i++) {
        const struct question question = fixture_question(i);
        store_at(cache, &question, 1, start_ns);
    }
    assert_int_equal(entries_in(cache), 5001);
    for (uint32_t i = 0; i < 10000; i++) {
        const struct question again = fixture_question(10000 + i % 50);
        store_at(cache, &again, 1, after_s(2));
        assert_true(is_found(cache, &hot, after_s(2)));
    }
    assert_int_equal(entries_in(cache), 51);
    cache_close(cache);
}

static void H12_room_of_expired_entries_is_used_again(void **state)
{
    (void)state;
    enum { FILL = 30000, FITS = 18000 };
    struct cache *cache = open_size(2 << 20);
    const struct question hot = fixture_question(0);
    store_at(cache, &hot, 86400, start_ns);
    for (uint32_t i = 1; i < FILL; i++) {
        const struct question question = fixture_question(i);
        store_at(cache, &question, 60, start_ns);
        assert_true(is_found(cache, &hot, start_ns));
    }
    const uint64_t full = entries_in(cache);
    assert_true(full > FITS);
    /* Names that are never asked for again find the room that the expired ones gave up. */
    for (uint32_t i = FILL; i < 4 * FILL; i++) {
        const struct question question = fixture_question(i);
        store_at(cache, &question, 60, after_s(100));
        assert_true(is_found(cache, &hot, after_s(100)));
    }
    uint64_t fresh = 0;
    for (uint32_t i = FILL; i < 4 * FILL; i++) {
        const struct question question = fixture_question(i);
        fresh += is_found(cache, &question, after_s(100));
    }
    assert_true(fresh > FITS * 9 / 10);
    assert_true(entries_in(cache) <= full + full / 10);
    cache_close(cache);
}

static void popularity_outlives_a_refresh_of_another_size(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    const struct question popular = fixture_question(0);
    churn(cache, 1, 3000, CACHE_SIZE_MIN);
    store_at(cache, &popular, 3600, start_ns);
    assert_true(is_found(cache, &popular, start_ns));
    fixture_fill(&stored, &popular, 2, 3 * FIXTURE_RECORD, 1, 3600);
    cache_store(cache, &popular, cache_hash(cache, &popular), &stored.answer, start_ns);
    churn(cache, 3001, 500, CACHE_SIZE_MIN);
    assert_true(is_found(cache, &popular, start_ns));
    cache_close(cache);
}

static void second_chance_is_bounded_when_all_is_popular(void **state)
{
    (void)state;
    struct cache *cache = open_size(1 << 20);
    for (uint32_t i = 0; i < 40000; i++) {
        const struct question question = fixture_question(i);
        store_at(cache, &question, 3600, start_ns);
        for (size_t k = 0; k < 4; k++)
            assert_true(is_found(cache, &question, start_ns));
    }
    assert_true(entries_in(cache) > 8000);
    assert_true(bytes_in(cache) <= 1 << 20);
    cache_close(cache);
}

/* ---- H6: stale answers (RFC 8767) ---- */

enum { STALE_MAX_S = 1000 };

static struct cache *open_stale(uint64_t size_bytes)
{
    return open_with(size_bytes, (struct cache_limits){.ttl_max_s = TTL_MAX_S,
                                                       .negative_ttl_max_s = NEGATIVE_MAX_S,
                                                       .stale_max_s = STALE_MAX_S,
                                                       .refresh = TOGGLE_ON});
}

/* Tells the cache that asking failed at `now`: by way of the upstreams, which is never kept. */
static void fail_at(struct cache *cache, const struct question *question, uint64_t now)
{
    store_kind(cache, question, ANSWER_TIMEOUT, 0, now);
}

/* What a find gives: its age, or -1 for nothing. */
static int age_at(struct cache *cache, const struct question *question, uint64_t now)
{
    struct answer hit;
    const enum status status =
        cache_find(cache, question, cache_hash(cache, question), now, found_body, &hit);
    return status == STATUS_OK ? (int)hit.age : -1;
}

static void J1_limits_follow(void **state)
{
    (void)state;
    struct cache *cache = open_stale(CACHE_SIZE_MIN);
    const struct question old = fixture_question(1);
    const struct question young = fixture_question(2);
    store_at(cache, &old, 10, start_ns);
    const struct cache_limits limits = {.ttl_max_s = 5, .refresh = TOGGLE_OFF};
    cache_set_limits(cache, &limits);
    store_at(cache, &young, 10, start_ns);
    assert_int_equal(age_at(cache, &young, after_s(5) - 1), ANSWER_FRESH);
    assert_int_equal(age_at(cache, &young, after_s(5)), -1);
    assert_int_equal(age_at(cache, &old, after_s(9)), ANSWER_FRESH); /* what is kept is kept, */
    assert_int_equal(age_at(cache, &old, after_s(10) - 1), ANSWER_FRESH); /* is not refreshed, */
    fail_at(cache, &old, after_s(11));
    assert_int_equal(age_at(cache, &old, after_s(11)), -1); /* and never given past its time */
    cache_close(cache);
}

static void H6_RFC8767_stale_answer_is_given_only_after_a_failure_and_for_30_s(void **state)
{
    (void)state;
    struct cache *cache = open_stale(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    store_at(cache, &question, 10, start_ns);
    assert_int_equal(age_at(cache, &question, after_s(10) - 1), ANSWER_FRESH);
    assert_int_equal(age_at(cache, &question, after_s(10)), -1);
    fail_at(cache, &question, after_s(12));
    assert_int_equal(age_at(cache, &question, after_s(12)), ANSWER_STALE);
    assert_int_equal(age_at(cache, &question, after_s(42) - 1), ANSWER_STALE);
    assert_int_equal(age_at(cache, &question, after_s(42)), -1);
    fail_at(cache, &question, after_s(50));
    assert_int_equal(age_at(cache, &question, after_s(50)), ANSWER_STALE);
    store_at(cache, &question, 10, after_s(55));
    assert_int_equal(age_at(cache, &question, after_s(55)), ANSWER_FRESH);
    assert_int_equal(age_at(cache, &question, after_s(65)), -1);
    cache_close(cache);
}

static void H6_RFC8767_stale_answer_is_the_one_stored_with_ttls_of_30_s(void **state)
{
    (void)state;
    struct cache *cache = open_stale(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    fixture_fill(&stored, &question, 7, 3 * FIXTURE_RECORD, 3, 5);
    store_u32(stored.body + stored.ttl_offsets[1], 4000);
    stored.answer.flags = DNS_FLAG_RA | DNS_FLAG_AD;
    stored.answer.kind = ANSWER_NEGATIVE;
    stored.answer.rcode = RCODE_NXDOMAIN;
    cache_store(cache, &question, cache_hash(cache, &question), &stored.answer, start_ns);
    fail_at(cache, &question, after_s(6));
    struct answer hit;
    assert_int_equal(
        cache_find(cache, &question, cache_hash(cache, &question), after_s(7), found_body, &hit),
        STATUS_OK);
    assert_int_equal(hit.age, ANSWER_STALE);
    assert_int_equal(hit.kind, ANSWER_NEGATIVE);
    assert_int_equal(hit.flags, DNS_FLAG_RA | DNS_FLAG_AD);
    assert_int_equal(hit.rcode, RCODE_NXDOMAIN);
    assert_int_equal(hit.ttl_s, STALE_TTL_S);
    assert_int_equal(hit.ttl_count, 0);
    assert_int_equal(hit.body_length, 3 * FIXTURE_RECORD);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(load_u32(hit.body + i * FIXTURE_RECORD + FIXTURE_TTL_OFFSET), STALE_TTL_S);
    cache_close(cache);
}

static void H6_H14_stale_answer_is_no_more_than_what_is_needed(void **state)
{
    (void)state;
    struct cache *cache = open_stale(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    begin_message(&question, RCODE_NOERROR, 1, 1, 1);
    put_owned("", TYPE_A, 10);
    put_owned("a", 65280, 5000);
    put_owned("b", TYPE_A, 5);
    store_message(cache, &question);
    fail_at(cache, &question, after_s(11));
    assert_ttls(cache, &question, after_s(11), (uint32_t[]){STALE_TTL_S}, 1);
    cache_close(cache);
}

static void H6_each_variant_of_the_key_is_stale_for_itself(void **state)
{
    (void)state;
    struct cache *cache = open_stale(CACHE_SIZE_MIN);
    for (size_t i = 0; i < VARIANTS; i++) {
        const struct question question = variant(i);
        store_at(cache, &question, 10, start_ns);
    }
    const struct question failed = variant(3); /* the one with DO */
    fail_at(cache, &failed, after_s(20));
    for (size_t i = 0; i < VARIANTS; i++) {
        const struct question question = variant(i);
        assert_int_equal(age_at(cache, &question, after_s(20)), i == 3 ? ANSWER_STALE : -1);
    }
    cache_close(cache);
}

static void H6_no_answer_is_used_beyond_the_maximum(void **state)
{
    (void)state;
    struct cache *cache = open_stale(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    const uint64_t end_s = 10 + STALE_MAX_S;
    /* Failures that come again and again do not move the end. */
    store_at(cache, &question, 10, start_ns);
    for (uint64_t at_s = 10; at_s < end_s - 1; at_s += 7) {
        fail_at(cache, &question, after_s(at_s));
        assert_int_equal(age_at(cache, &question, after_s(at_s)), ANSWER_STALE);
        assert_true(load_u32(found_body + FIXTURE_TTL_OFFSET) <= end_s - at_s);
    }
    fail_at(cache, &question, after_s(end_s - 1));
    assert_int_equal(age_at(cache, &question, after_s(end_s) - 1), ANSWER_STALE);
    assert_int_equal(load_u32(found_body + FIXTURE_TTL_OFFSET), 1);
    assert_int_equal(age_at(cache, &question, after_s(end_s)), -1);
    fail_at(cache, &question, after_s(end_s));
    assert_int_equal(age_at(cache, &question, after_s(end_s)), -1);

    store_at(cache, &question, 10, start_ns);
    fail_at(cache, &question, after_s(end_s) - 1); /* less than a second is left */
    assert_int_equal(age_at(cache, &question, after_s(end_s) - 1), -1);
    store_at(cache, &question, 10, start_ns);
    fail_at(cache, &question, after_s(end_s));
    assert_int_equal(age_at(cache, &question, after_s(end_s)), -1);
    cache_close(cache);
}

static void H6_maximum_of_0_keeps_nothing_past_its_time(void **state)
{
    (void)state;
    struct cache *cache = open_size(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    store_at(cache, &question, 10, start_ns);
    fail_at(cache, &question, after_s(10));
    assert_int_equal(age_at(cache, &question, after_s(10)), -1);
    fail_at(cache, &question, after_s(10) - 1);
    assert_int_equal(age_at(cache, &question, after_s(10)), -1);
    cache_close(cache);
}

static void H5_failure_never_replaces_a_stale_answer(void **state)
{
    (void)state;
    static const enum answer_kind kinds[] = {ANSWER_POSITIVE, ANSWER_NEGATIVE};
    static const enum answer_kind failures[] = {ANSWER_FAILURE, ANSWER_TIMEOUT};
    struct cache *cache = open_stale(CACHE_SIZE_MIN);
    for (uint32_t i = 0; i < 4; i++) {
        const struct question question = fixture_question(i);
        store_kind(cache, &question, kinds[i % 2], 10, start_ns);
        store_kind(cache, &question, failures[i / 2], 5, after_s(20));
        assert_int_equal(kind_at(cache, &question, after_s(20)), kinds[i % 2]);
        assert_int_equal(age_at(cache, &question, after_s(20)), ANSWER_STALE);
        store_kind(cache, &question, failures[i / 2], 5, after_s(10 + STALE_MAX_S));
        assert_int_equal(kind_at(cache, &question, after_s(10 + STALE_MAX_S)), failures[i / 2]);
    }
    cache_close(cache);
}

static void H5_failure_of_the_way_is_not_kept(void **state)
{
    (void)state;
    struct cache *cache = open_stale(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    fail_at(cache, &question, start_ns);
    assert_int_equal(entries_in(cache), 0);
    store_kind(cache, &question, ANSWER_FAILURE, 5, start_ns);
    fail_at(cache, &question, start_ns);
    assert_int_equal(kind_at(cache, &question, after_s(3)), ANSWER_FAILURE);
    cache_close(cache);
}

static void H5_failures_are_not_used_past_their_time(void **state)
{
    (void)state;
    struct cache *cache = open_stale(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    store_kind(cache, &question, ANSWER_FAILURE, 4, start_ns);
    fail_at(cache, &question, after_s(4));
    assert_int_equal(age_at(cache, &question, after_s(4)), -1);
    cache_close(cache);
}

static void H6_truncated_answer_is_a_failure(void **state)
{
    (void)state;
    struct cache *cache = open_stale(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    store_at(cache, &question, 10, start_ns);
    fixture_fill(&stored, &question, 1, FIXTURE_RECORD, 1, 0);
    stored.answer.flags |= DNS_FLAG_TC;
    cache_store(cache, &question, cache_hash(cache, &question), &stored.answer, after_s(11));
    assert_int_equal(age_at(cache, &question, after_s(11)), ANSWER_STALE);
    cache_close(cache);
}

static void H6_good_answer_that_may_not_be_kept_ends_the_older_one(void **state)
{
    (void)state;
    struct cache *cache = open_stale(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    store_at(cache, &question, 10, start_ns);
    store_at(cache, &question, 0, after_s(20));
    fail_at(cache, &question, after_s(21));
    assert_int_equal(age_at(cache, &question, after_s(21)), -1);
    assert_int_equal(entries_in(cache), 0);
    cache_close(cache);
}

static void H6_failure_of_a_question_without_RD_says_nothing(void **state)
{
    (void)state;
    struct cache *cache = open_stale(CACHE_SIZE_MIN);
    struct question question = fixture_question(1);
    store_at(cache, &question, 10, start_ns);
    question.recursion_desired = false;
    fail_at(cache, &question, after_s(11));
    assert_int_equal(age_at(cache, &question, after_s(11)), -1);
    cache_close(cache);
}

static void RFC9520_timeouts_in_a_row_are_not_kept_longer(void **state)
{
    (void)state;
    struct cache *cache = open_stale(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    for (uint64_t i = 0; i < 5; i++) {
        store_kind(cache, &question, ANSWER_TIMEOUT, 1, after_s(i));
        assert_false(is_found(cache, &question, after_s(i + 1)));
    }
    cache_close(cache);
}

static void H12_stale_answers_go_before_fresh_ones(void **state)
{
    (void)state;
    enum { FILL = 30000, FITS = 18000 };
    struct cache *cache =
        open_with(2 << 20, (struct cache_limits){.ttl_max_s = TTL_MAX_S, .stale_max_s = TTL_MAX_S});
    const struct question hot = fixture_question(0);
    store_at(cache, &hot, 86400, start_ns);
    for (uint32_t i = 1; i < FILL; i++) {
        const struct question question = fixture_question(i);
        store_at(cache, &question, 60, start_ns);
        assert_true(is_found(cache, &hot, start_ns));
    }
    const uint64_t full = entries_in(cache);
    assert_true(full > FITS);
    for (uint32_t i = FILL; i < 4 * FILL; i++) {
        const struct question question = fixture_question(i);
        store_at(cache, &question, 60, after_s(100));
        assert_true(is_found(cache, &hot, after_s(100)));
    }
    uint64_t fresh = 0;
    for (uint32_t i = FILL; i < 4 * FILL; i++) {
        const struct question question = fixture_question(i);
        fresh += is_found(cache, &question, after_s(100));
    }
    assert_true(fresh > FITS * 9 / 10);
    assert_true(bytes_in(cache) <= 2 << 20);
    cache_close(cache);
}

static void H12_stale_answers_stay_while_there_is_room(void **state)
{
    (void)state;
    struct cache *cache = open_stale(2 << 20);
    for (uint32_t i = 0; i < 10000; i++) {
        const struct question question = fixture_question(i);
        store_at(cache, &question, 1, start_ns);
    }
    for (uint32_t i = 0; i < 40000; i++) {
        const struct question again = fixture_question(20000 + i % 50);
        store_at(cache, &again, 1, after_s(500));
    }
    assert_int_equal(entries_in(cache), 10050);
    for (uint32_t i = 0; i < 40000; i++) { /* and no longer than they may be used */
        const struct question again = fixture_question(20000 + i % 50);
        store_at(cache, &again, 1, after_s(1 + STALE_MAX_S));
    }
    assert_int_equal(entries_in(cache), 50);
    cache_close(cache);
}

static void H12_rechecked_answers_leave_at_their_end(void **state)
{
    (void)state;
    struct cache *cache = open_stale(2 << 20);
    for (uint32_t i = 0; i < 1000; i++) {
        const struct question question = fixture_question(i);
        store_at(cache, &question, 10, start_ns);
        fail_at(cache, &question, after_s(500));
    }
    for (uint32_t i = 0; i < 8000; i++) {
        const struct question again = fixture_question(20000 + i % 50);
        store_at(cache, &again, 1, after_s(9 + STALE_MAX_S));
    }
    assert_int_equal(entries_in(cache), 1050);
    for (uint32_t i = 0; i < 8000; i++) {
        const struct question again = fixture_question(20000 + i % 50);
        store_at(cache, &again, 1, after_s(10 + STALE_MAX_S));
    }
    assert_int_equal(entries_in(cache), 50);
    cache_close(cache);
}

/* ---- Refresh ahead ---- */

/* Stores for `ttl_s`, hits `visits` times at once, and gives the age of one more hit. */
static int age_after_visits(struct cache *cache, const struct question *question, uint32_t ttl_s,
                            uint32_t visits, uint64_t at_ns)
{
    store_at(cache, question, ttl_s, start_ns);
    for (uint32_t i = 0; i < visits; i++)
        assert_int_equal(age_at(cache, question, start_ns), ANSWER_FRESH);
    return age_at(cache, question, start_ns + at_ns);
}

static void H6_popular_answer_is_to_be_refreshed_once_in_its_last_tenth(void **state)
{
    (void)state;
    struct cache *cache = open_stale(CACHE_SIZE_MIN);
    const struct question question = fixture_question(1);
    assert_int_equal(age_after_visits(cache, &question, 100, 3, 90 * fixture_second_ns - 1),
                     ANSWER_FRESH);
    assert_int_equal(age_at(cache, &question, after_s(90)), ANSWER_AGEING);
    for (uint64_t at_s = 90; at_s < 100; at_s++) {
        assert_int_equal(age_at(cache, &question, after_s(at_s)), ANSWER_FRESH);
        /* That asking failed is no reason to ask again. */
        fail_at(cache, &question, after_s(at_s));
    }
    assert_int_equal(age_at(cache, &question, after_s(100)), -1);
    /* The next answer is another one. */
    store_at(cache, &question, 100, after_s(100));
    assert_int_equal(age_at(cache, &question, after_s(199)), ANSWER_AGEING);
    assert_int_equal(age_at(cache, &question, after_s(199)), ANSWER_FRESH);
    cache_close(cache);
}

static void H6_answer_asked_for_once_is_not_to_be_refreshed(void **state)
{
    (void)state;
    struct cache *cache = open_stale(CACHE_SIZE_MIN);
    const struct question once = fixture_question(1);
    const struct question twice = fixture_question(2);
    assert_int_equal(age_after_visits(cache, &once, 100, 0, 95 * fixture_second_ns), ANSWER_FRESH);
    assert_int_equal(age_after_visits(cache, &twice, 100, 1, 95 * fixture_second_ns),
                     ANSWER_AGEING);
    cache_close(cache);
}

static void H6_short_answers_failures_and_questions_without_RD_are_not_refreshed(void **state)
{
    (void)state;
    struct cache *cache = open_stale(CACHE_SIZE_MIN);
    struct question question = fixture_question(1);
    assert_int_equal(age_after_visits(cache, &question, 4, 3, 3900 * UINT64_C(1000000)),
                     ANSWER_FRESH);
    assert_int_equal(age_after_visits(cache, &question, 5, 3, 4900 * UINT64_C(1000000)),
                     ANSWER_AGEING);
    const struct question failed = fixture_question(2);
    store_kind(cache, &failed, ANSWER_FAILURE, 4, start_ns);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(age_at(cache, &failed, after_s(4) - 1), ANSWER_FRESH);
    question = fixture_question(3);
    store_at(cache, &question, 100, start_ns);
    question.recursion_desired = false;
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(age_at(cache, &question, after_s(95)), ANSWER_FRESH);
    question.recursion_desired = true;
    assert_int_equal(age_at(cache, &question, after_s(95)), ANSWER_AGEING);
    cache_close(cache);
}

static void H6_refresh_can_be_off(void **state)
{
    (void)state;
    struct cache *cache = open_with(
        CACHE_SIZE_MIN, (struct cache_limits){.ttl_max_s = TTL_MAX_S, .stale_max_s = STALE_MAX_S});
    const struct question question = fixture_question(1);
    assert_int_equal(age_after_visits(cache, &question, 100, 3, 95 * fixture_second_ns),
                     ANSWER_FRESH);
    assert_int_equal(age_at(cache, &question, after_s(95)), ANSWER_FRESH);
    cache_close(cache);
}

/* ---- H13: against a naive model ---- */

enum { MODEL_NAMES = 3000, MODEL_STALE_MAX_S = 45 };

struct model_entry {
    bool is_stored;
    uint8_t version;
    uint16_t length;
    uint32_t ttl_s;
    uint64_t stored_ns;
    uint64_t end_ns;    /* of its use as a stale answer */
    uint64_t failed_ns; /* the last failure past its time; 0: none */
    bool is_failed;     /* a failure may be kept */
};

struct model {
    struct cache *cache;
    uint64_t size_bytes;
    uint64_t random;
    uint64_t now;
    uint32_t hits;
    uint32_t stale_hits;
    bool has_room; /* nothing is ever evicted */
    struct model_entry entries[MODEL_NAMES];
};

static bool model_is_fresh(const struct model *model, const struct model_entry *entry)
{
    return entry->is_stored && model->now - entry->stored_ns < entry->ttl_s * fixture_second_ns;
}

static bool model_is_usable(const struct model *model, const struct model_entry *entry)
{
    return entry->is_stored && model->now < entry->end_ns;
}

static bool model_is_stale(const struct model *model, const struct model_entry *entry)
{
    return model_is_usable(model, entry) && !model_is_fresh(model, entry) &&
           entry->failed_ns != 0 &&
           model->now - entry->failed_ns < FAILURE_RECHECK_S * fixture_second_ns;
}

static void model_check_stale(struct model *model, const struct model_entry *entry,
                              const struct answer *hit)
{
    const uint64_t left_s = (entry->end_ns - model->now - 1) / fixture_second_ns + 1;
    const uint32_t ttl_s = left_s > STALE_TTL_S ? STALE_TTL_S : (uint32_t)left_s;
    model->stale_hits++;
    assert_true(model_is_stale(model, entry));
    assert_int_equal(hit->ttl_s, ttl_s);
    assert_int_equal(load_u32(hit->body + FIXTURE_TTL_OFFSET), ttl_s);
}

static void model_check_fresh(const struct model *model, const struct model_entry *entry,
                              const struct answer *hit)
{
    const uint64_t age_s = (model->now - entry->stored_ns) / fixture_second_ns;
    assert_true(model_is_fresh(model, entry));
    assert_int_equal(hit->ttl_s, entry->ttl_s - age_s);
    assert_int_equal(load_u32(hit->body + FIXTURE_TTL_OFFSET), entry->ttl_s - age_s);
}

/* What the cache gives must be the last that was stored, fresh, or stale and lately failed. */
static void model_find(struct model *model, uint32_t name, bool must_be_found)
{
    const struct question question = fixture_question(name);
    const struct model_entry *entry = &model->entries[name];
    struct answer hit;
    if (cache_find(model->cache, &question, cache_hash(model->cache, &question), model->now,
                   found_body, &hit) != STATUS_OK) {
        assert_false(must_be_found);
        assert_false(model->has_room &&
                     (model_is_fresh(model, entry) || model_is_stale(model, entry)));
        return;
    }
    if (hit.kind == ANSWER_FAILURE) {
        assert_false(must_be_found || (model->has_room && model_is_usable(model, entry)));
        return;
    }
    model->hits++;
    assert_int_equal(hit.body_length, entry->length);
    assert_int_equal(hit.body[0], entry->version);
    assert_true(fixture_is_intact(&hit, &question));
    if (hit.age == ANSWER_STALE)
        model_check_stale(model, entry, &hit);
    else
        model_check_fresh(model, entry, &hit);
}

/* Half of the failures are of the way, which is not kept. */
static void model_fail(struct model *model, uint32_t name)
{
    const struct question question = fixture_question(name);
    struct model_entry *entry = &model->entries[name];
    const struct answer failure = {.kind = ANSWER_FAILURE,
                                   .rcode = RCODE_SERVFAIL,
                                   .ttl_s = fixture_random(&model->random) % 2};
    cache_store(model->cache, &question, cache_hash(model->cache, &question), &failure, model->now);
    entry->is_failed = true;
    if (!model_is_usable(model, entry) || model_is_fresh(model, entry) ||
        entry->end_ns - model->now < fixture_second_ns)
        return;
    /* Whole seconds are left. */
    entry->end_ns -= (entry->end_ns - model->now) % fixture_second_ns;
    entry->failed_ns = model->now;
}

static void model_store(struct model *model, uint32_t name, uint16_t length_max)
{
    const struct question question = fixture_question(name);
    const uint64_t random = fixture_random(&model->random);
    struct model_entry *entry = &model->entries[name];
    const uint16_t ttls = (uint16_t)(1 + random % 3);
    *entry = (struct model_entry){
        .is_stored = true,
        .version = (uint8_t)(random >> 8),
        .length = (uint16_t)(ttls * FIXTURE_RECORD + (random >> 16) % length_max),
        .ttl_s = 1 + (uint32_t)(random >> 32) % 8,
        .stored_ns = model->now,
    };
    entry->end_ns = model->now + (entry->ttl_s + MODEL_STALE_MAX_S) * fixture_second_ns;
    fixture_fill(&stored, &question, entry->version, entry->length, ttls, entry->ttl_s);
    cache_store(model->cache, &question, cache_hash(model->cache, &question), &stored.answer,
                model->now);
    model_find(model, name, true);
}

static void model_count(const struct model *model)
{
    uint64_t bytes = 0;
    uint64_t entries = 0;
    uint64_t stored_count = 0;
    for (size_t i = 0; i < MODEL_NAMES; i++)
        stored_count += model->entries[i].is_stored || model->entries[i].is_failed;
    cache_usage(model->cache, &bytes, &entries);
    assert_true(bytes <= model->size_bytes);
    assert_true(entries <= stored_count);
}

static void model_step(struct model *model, uint16_t length_max)
{
    const uint64_t random = fixture_random(&model->random);
    const uint32_t names = random >> 40 & 1 ? MODEL_NAMES : MODEL_NAMES / 10;
    const uint32_t name = (uint32_t)(random % names);
    model->now += (random >> 20) % 2000000;
    switch ((random >> 41) % 6) {
    case 0:
    case 1:
        model_store(model, name, length_max);
        break;
    case 2:
        model_fail(model, name);
        break;
    default:
        model_find(model, name, false);
    }
}

/* `steps` random steps; half of the names asked for are a tenth of all names. */
static struct model *model_run(uint64_t size_bytes, uint64_t seed, uint32_t steps,
                               uint16_t length_max, bool has_room)
{
    struct model *model = calloc(1, sizeof(*model));
    assert_non_null(model);
    *model = (struct model){
        .cache = open_with(size_bytes, (struct cache_limits){.ttl_max_s = TTL_MAX_S,
                                                             .stale_max_s = MODEL_STALE_MAX_S,
                                                             .refresh = TOGGLE_ON}),
        .size_bytes = size_bytes,
        .random = seed,
        .now = start_ns,
        .has_room = has_room};
    for (uint32_t i = 0; i < steps; i++) {
        model_step(model, length_max);
        if (i % 1000 == 0)
            model_count(model);
    }
    cache_close(model->cache);
    return model;
}

static void assert_model(struct model *model, uint32_t hits, uint32_t stale_hits)
{
    assert_true(model->hits > hits);
    assert_true(model->stale_hits >= stale_hits);
    free(model);
}

static void H13_model_with_small_answers(void **state)
{
    (void)state;
    assert_model(model_run(CACHE_SIZE_MIN, 0x1234567, 300000, 60, false), 80000, 1);
}

static void H13_model_with_answers_of_all_sizes(void **state)
{
    (void)state;
    assert_model(model_run(CACHE_SIZE_MIN, 0x7654321, 100000, 4000, false), 30000, 0);
    assert_model(model_run(1 << 20, 0xabcdef, 20000, 60000, false), 6000, 0);
}

static void H13_H6_model_with_room_for_all(void **state)
{
    (void)state;
    assert_model(model_run(4 << 20, 0x55aa55aa, 400000, 200, true), 100000, 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(size_below_the_minimum_is_invalid),
        cmocka_unit_test(refused_memory_is_a_system_error),
        cmocka_unit_test(every_size_keeps_answers),
        cmocka_unit_test(many_shards_share_the_load),
        cmocka_unit_test(H7_hit_is_the_answer_that_was_stored),
        cmocka_unit_test(H14_RFC1035_hit_is_no_authority),
        cmocka_unit_test(H9_what_belongs_to_one_hop_is_not_kept),
        cmocka_unit_test(answer_without_records_is_kept),
        cmocka_unit_test(miss_leaves_the_output_alone),
        cmocka_unit_test(another_answer_of_another_size_replaces_the_first),
        cmocka_unit_test(H1_key_differs_in_each_of_its_parts),
        cmocka_unit_test(H1_questions_of_the_same_hash_are_told_apart),
        cmocka_unit_test(H1_variants_of_the_same_hash_are_told_apart),
        cmocka_unit_test(I9_two_caches_do_not_hash_alike),
        cmocka_unit_test(H3_ttl_0_is_not_kept),
        cmocka_unit_test(H3_ttl_with_the_top_bit_is_0),
        cmocka_unit_test(H3_ttl_of_2_to_the_31_minus_1_is_cut_to_the_maximum),
        cmocka_unit_test(H3_largest_ttl_without_a_maximum_does_not_wrap),
        cmocka_unit_test(H3_minimum_raises_what_the_client_sees),
        cmocka_unit_test(H3_maximum_wins_over_the_minimum),
        cmocka_unit_test(H3_each_ttl_ages_and_none_underflows),
        cmocka_unit_test(H3_H14_ttl_shown_is_the_time_left_rounded_up),
        cmocka_unit_test(H14_optional_records_end_for_themselves),
        cmocka_unit_test(H14_optional_record_of_ttl_0_is_not_kept),
        cmocka_unit_test(H14_RFC2308_negative_answer_shows_the_time_of_its_soa),
        cmocka_unit_test(H3_clock_of_another_worker_may_be_behind),
        cmocka_unit_test(RFC2181_truncated_answer_is_not_kept),
        cmocka_unit_test(answer_to_a_question_without_RD_is_not_kept),
        cmocka_unit_test(H4_negative_ttl_is_cut_and_never_raised),
        cmocka_unit_test(H4_maximum_holds_for_negative_answers),
        cmocka_unit_test(H4_negative_maximum_of_0_keeps_none),
        cmocka_unit_test(H5_failure_never_replaces_a_fresh_answer),
        cmocka_unit_test(H5_answer_replaces_a_failure),
        cmocka_unit_test(RFC9520_failures_in_a_row_are_kept_twice_as_long_up_to_4_s),
        cmocka_unit_test(RFC9520_failures_of_one_moment_count_as_one),
        cmocka_unit_test(RFC9520_no_failure_is_kept_longer_than_4_s),
        cmocka_unit_test(K10_H5_upstream_that_is_well_again_is_noticed_within_5_s),
        cmocka_unit_test(RFC9520_failure_is_remembered_past_its_time_though_others_are_stored),
        cmocka_unit_test(largest_message_fits_a_cache_of_1_MiB),
        cmocka_unit_test(extended_errors_go_when_the_message_would_be_too_large),
        cmocka_unit_test(answer_too_large_for_the_cache_only_ends_the_older_one),
        cmocka_unit_test(H12_memory_is_bounded_under_churn),
        cmocka_unit_test(H12_memory_of_a_cache_far_from_full_is_entries_and_index),
        cmocka_unit_test(H12_scan_does_not_displace_what_is_popular),
        cmocka_unit_test(H12_expired_entries_go_though_one_name_is_always_hit),
        cmocka_unit_test(H12_room_of_expired_entries_is_used_again),
        cmocka_unit_test(popularity_outlives_a_refresh_of_another_size),
        cmocka_unit_test(second_chance_is_bounded_when_all_is_popular),
        cmocka_unit_test(J1_limits_follow),
        cmocka_unit_test(H6_RFC8767_stale_answer_is_given_only_after_a_failure_and_for_30_s),
        cmocka_unit_test(H6_RFC8767_stale_answer_is_the_one_stored_with_ttls_of_30_s),
        cmocka_unit_test(H6_H14_stale_answer_is_no_more_than_what_is_needed),
        cmocka_unit_test(H6_each_variant_of_the_key_is_stale_for_itself),
        cmocka_unit_test(H6_no_answer_is_used_beyond_the_maximum),
        cmocka_unit_test(H6_maximum_of_0_keeps_nothing_past_its_time),
        cmocka_unit_test(H5_failure_never_replaces_a_stale_answer),
        cmocka_unit_test(H5_failure_of_the_way_is_not_kept),
        cmocka_unit_test(H5_failures_are_not_used_past_their_time),
        cmocka_unit_test(H6_truncated_answer_is_a_failure),
        cmocka_unit_test(H6_good_answer_that_may_not_be_kept_ends_the_older_one),
        cmocka_unit_test(H6_failure_of_a_question_without_RD_says_nothing),
        cmocka_unit_test(RFC9520_timeouts_in_a_row_are_not_kept_longer),
        cmocka_unit_test(H12_stale_answers_go_before_fresh_ones),
        cmocka_unit_test(H12_stale_answers_stay_while_there_is_room),
        cmocka_unit_test(H12_rechecked_answers_leave_at_their_end),
        cmocka_unit_test(H6_popular_answer_is_to_be_refreshed_once_in_its_last_tenth),
        cmocka_unit_test(H6_answer_asked_for_once_is_not_to_be_refreshed),
        cmocka_unit_test(H6_short_answers_failures_and_questions_without_RD_are_not_refreshed),
        cmocka_unit_test(H6_refresh_can_be_off),
        cmocka_unit_test(H13_model_with_small_answers),
        cmocka_unit_test(H13_model_with_answers_of_all_sizes),
        cmocka_unit_test(H13_H6_model_with_room_for_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
