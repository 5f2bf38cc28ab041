// SPDX-License-Identifier: Apache-2.0
/* The clients: they ask what the plan says, and hold each reply against the truth.
 *
 * They take the place of listen/: datagrams are accepted in batches and dropped when the worker is
 * full; those of TCP clients wait for room, and some clients leave before their reply. Everything
 * happens in the loop's turn, from the readiness of one descriptor, the bell.
 *
 * What is broken is told by sim_fail: a reply to another question, a second one, one that is too
 * late, one that may not be, or none. */
#include <stdio.h>
#include <string.h>

#include "query/resolve.h"
#include "sim.h"

/* From the end of an outage on, until each query is answered again. */
#define RECOVERY_NS MILLISECONDS(1000)

/* From an error that is passed on until the cache has forgotten it. */
#define ERROR_KEPT_NS MILLISECONDS(6000)

#define HELD_SLACK_NS MILLISECONDS(100)
#define GREEDY_PERMILLE UINT64_C(300) /* of the questions, at least */
#define MARKED_PERMILLE UINT64_C(20)  /* the same */

/* RFC 8767 5: who waits for so long gets a stale answer; for so long after a failure nobody asks.
 */
#define SLOW_NS MILLISECONDS(1800)
#define RECHECK_NS MILLISECONDS(30000)

enum {
    MESSAGE_MAX = 320,
    ATTEMPTS_MAX = 3,            /* at one upstream for one lookup (RFC 9520 3.1) */
    QUERY_MARGIN_PERCENT = 5,    /* query.c keeps it for the reply's way */
    TRANSIT_MAX_MS = 3000,       /* of an answer on its way here */
    STALE_TTL_MAX_S = 30,        /* RFC 8767 4 */
    STALE_SURE_S = 60,           /* max-stale from which on the checks below are meant to hold */
    STALE_MARGIN_S = 40,         /* whole seconds are lost when asking fails again and again */
    HONEST_ADDRESS = 0x0a000001, /* of all whom nothing is wrong with: 10.0.0.1 */
    GREEDY_ADDRESS = 0x0a010001,
    FORGED_ADDRESS = 0x0a020001, /* and many others */
    FORGED_STEP = 131,           /* two in a network */
    MARKED_ADDRESS = 0x0a030001, /* in half of the runs; in the others the honest one */
    REPEATED_MAX = 8,            /* queries of a lookup that one is looked for among */
};

/* MARKED: for a name that some upstreams do not take. */
enum asker { ASKER_HONEST, ASKER_GREEDY, ASKER_MARKED, ASKER_FORGED, ASKER_COUNT };

enum ask_state {
    ASK_PLANNED,
    ASK_ARRIVED,
    ASK_STARVED,
    ASK_WAITING,
    ASK_REPLIED,
    ASK_LEFT,    /* the client has gone */
    ASK_IGNORED, /* it deserved no reply */
};

struct asked {
    enum ask_state state;
    enum asker asker;
    enum mark mark;
    uint32_t address;
    bool is_datagram;
    bool is_hostile;
    bool is_leaving;
    bool is_repeating;
    bool has_edns;
    bool dnssec_ok;
    uint16_t udp_size;
    uint16_t type;
    size_t length;
    size_t question_length; /* name, type and class, behind the header */
    uint8_t message[MESSAGE_MAX];
    uint64_t begun_ns;
    struct query *query; /* while it waits */
    struct subject *subject;
};

/* One question of the plan, with all that makes another lookup of it but RD. */
struct subject {
    uint32_t hash;
    uint32_t begun;                    /* queries */
    uint32_t asked[SIM_UPSTREAMS_MAX]; /* requests that came there */
    uint64_t failed_ns;                /* when asking was last seen to fail, or to be slow */
    uint64_t usable_ns;                /* until then the cache has an answer, fresh or stale */
    uint32_t refreshed_at_ms;          /* the answer that was last asked for anew ahead of time */
    uint64_t spent_turn[2];            /* when a query without RD, or with it, had the last reply
                                          that the turn's budget allowed */
    uint64_t onset_ns; /* when an upstream that had answered well until then gave it an error */
    struct {
        uint32_t count;
        uint64_t first_ns;
        uint64_t last_ns;
        size_t upstream; /* of the last one */
        bool is_proof;   /* one that came later ended what had carried nothing else */
    } ends;              /* of connections, for it */
    bool is_refreshed;
};

static struct {
    struct resolver *resolver;
    struct loop_source bell;
    struct starved room;
    struct asked asks[SIM_QUERIES_MAX];
    size_t count;
    struct subject subjects[SIM_QUERIES_MAX];
    size_t subject_count;
    uint16_t arrived[SIM_QUERIES_MAX]; /* in this order, and not yet begun */
    size_t arrived_count;
    size_t leaving_count;
    size_t repeating_count;
    const struct asked *repeating;               /* now */
    uint32_t marks[MARK_COUNT][SIM_SECONDS_MAX]; /* planned */
    uint64_t begun;
    uint64_t replies;
    uint64_t full;        /* replies, with TC=1 for want of a place */
    uint64_t gave_way;    /* queries */
    uint64_t gave_way_ns; /* when one last did */
    uint64_t held_back;   /* messages of streams that were begun too early */
    uint64_t left;
    uint64_t stale;     /* replies */
    uint64_t limited;   /* replies, with TC=1 for want of room for the client */
    uint64_t failed;    /* lookups, at the end of the last turn */
    uint64_t failed_ns; /* when there was last one */
    uint64_t refreshes;
    uint64_t network_changed_ns;
    uint64_t convicted; /* lookups */
} clients;

struct figures figures;

static size_t number_of(const struct asked *ask)
{
    return (size_t)(ask - clients.asks);
}

/* --- Replies --- */

struct reply_view {
    uint16_t flags;
    unsigned rcode;
    unsigned answers;
    unsigned authorities;
    bool has_opt;
    bool is_explained; /* by an extended error (RFC 8914) */
    uint16_t error;    /* its code */
    const uint8_t *error_text;
    size_t error_text_length;
    uint32_t values[3];      /* hash, TTL at the upstream, time there */
    uint32_t ttl_s;          /* the largest */
    unsigned optionals;      /* records in additional */
    uint32_t optional_ttl_s; /* of them all; the last one's */
};

/* The first extended error. */
static void read_options(struct reply_view *view, const uint8_t *options, size_t length)
{
    struct reader reader = reader_over(options, length);
    while (reader_left(&reader) > 0 && !reader.failed && !view->is_explained) {
        view->is_explained = read_u16(&reader) == OPTION_EXTENDED_ERROR;
        const uint16_t size = read_u16(&reader);
        const uint8_t *value = read_bytes(&reader, size);
        if (!view->is_explained || !value || size < 2)
            continue;
        view->error = load_u16(value);
        view->error_text = value + 2;
        view->error_text_length = size - 2u;
    }
}

enum section { SECTION_ANSWER, SECTION_AUTHORITY, SECTION_ADDITIONAL };

/* Takes one record; the owner is a pointer to the question, or the root. */
static void read_record(struct reader *reader, struct reply_view *view, unsigned index,
                        enum section section)
{
    const uint8_t *owner = read_bytes(reader, 1);
    if (owner && *owner != 0)
        (void)read_bytes(reader, 1);
    const uint16_t type = read_u16(reader);
    (void)read_u16(reader);
    uint32_t ttl_s = (uint32_t)read_u16(reader) << 16;
    ttl_s |= read_u16(reader);
    const size_t length = read_u16(reader);
    const uint8_t *data = read_bytes(reader, length);
    if (!data)
        return;
    if (type == TYPE_OPT) {
        view->has_opt = true;
        read_options(view, data, length);
        return;
    }
    if (section == SECTION_ADDITIONAL) {
        view->optionals++;
        view->optional_ttl_s = ttl_s;
        return;
    }
    if (ttl_s > view->ttl_s)
        view->ttl_s = ttl_s;
    if (section == SECTION_AUTHORITY && type == TYPE_SOA && length == 24)
        for (unsigned i = 0; i < 3; i++)
            view->values[i] = load_u32(data + 4 + (size_t)i * 4);
    if (section == SECTION_ANSWER && index < 3 && length == 4)
        view->values[index] = load_u32(data);
}

static struct reply_view view_reply(const struct asked *ask, const uint8_t *reply, size_t length)
{
    struct reply_view view = {0};
    struct reader reader = reader_over(reply, length);
    (void)read_u16(&reader);
    view.flags = read_u16(&reader);
    (void)read_u16(&reader);
    view.answers = read_u16(&reader);
    view.authorities = read_u16(&reader);
    const unsigned additionals = read_u16(&reader);
    (void)read_bytes(&reader, ask->question_length);
    for (unsigned i = 0; i < view.answers; i++)
        read_record(&reader, &view, i, SECTION_ANSWER);
    for (unsigned i = 0; i < view.authorities; i++)
        read_record(&reader, &view, i, SECTION_AUTHORITY);
    for (unsigned i = 0; i < additionals; i++)
        read_record(&reader, &view, i, SECTION_ADDITIONAL);
    if (reader.failed || reader_left(&reader) > 0)
        sim_fail("a reply of %zu octets is malformed", length);
    view.rcode = view.flags & DNS_RCODE_MASK;
    return view;
}

static size_t reply_limit(const struct asked *ask)
{
    if (!ask->is_datagram)
        return DNS_MESSAGE_MAX;
    const size_t theirs = ask->has_edns && ask->udp_size > 512 ? ask->udp_size : 512;
    const size_t ours = plan.config.snapshot.limits.udp_reply_size;
    return theirs < ours ? theirs : ours;
}

static void check_header(const struct asked *ask, const uint8_t *reply, size_t length)
{
    const uint16_t copied = DNS_FLAG_RD | DNS_FLAG_CD;
    if (length < DNS_HEADER_SIZE + ask->question_length || length > reply_limit(ask))
        sim_fail("a reply of %zu octets", length);
    if (load_u16(reply) != load_u16(ask->message))
        sim_fail("a reply with another ID than the query's");
    if (memcmp(reply + DNS_HEADER_SIZE, ask->message + DNS_HEADER_SIZE, ask->question_length) != 0)
        sim_fail("a reply to another question, or in another spelling (H10)");
    const uint16_t flags = load_u16(reply + 2);
    if (!(flags & DNS_FLAG_QR) || (flags & copied) != (load_u16(ask->message + 2) & copied))
        sim_fail("a reply with the flags %04x", flags);
}

static uint32_t age_in_ms(const struct reply_view *view)
{
    return (uint32_t)(net_now() / NANOSECONDS_PER_MILLISECOND) - view->values[2];
}

/* No record may be shown past its time. */
static void check_age(const struct reply_view *view, const struct truth *truth)
{
    if (view->values[1] != truth->ttl_s || view->ttl_s > truth->ttl_s)
        sim_fail("a TTL of %u s, %u s at the upstream", view->ttl_s, truth->ttl_s);
    if (view->ttl_s == 0 && truth->ttl_s > 0)
        sim_fail("a fresh answer with a TTL of 0 (H14)");
    if (has_fault(FAULT_CLOCK_JUMP))
        return;
    if (view->ttl_s * 1000 + age_in_ms(view) > truth->ttl_s * 1000 + TRANSIT_MAX_MS)
        sim_fail("an answer of TTL %u s is shown with %u s at the age of %u ms (H3)", truth->ttl_s,
                 view->ttl_s, age_in_ms(view));
}

static bool is_too_long(const struct asked *ask, const struct truth *truth, unsigned optionals)
{
    const size_t body = truth->kind == TRUTH_POSITIVE ? 16 * (3 + (size_t)truth->filler_count) : 36;
    return DNS_HEADER_SIZE + ask->question_length + body + 16 * (size_t)optionals +
               (ask->has_edns ? 11 : 0) >
           reply_limit(ask);
}

/* Optional records end sooner than the answer, and are cut when they do not fit, without TC. */
static void check_optional(const struct asked *ask, const struct reply_view *view,
                           const struct truth *truth)
{
    if (view->optionals > truth->optional_count || view->optional_ttl_s > truth->optional_ttl_s)
        sim_fail("%u optional records, with a TTL of %u s", view->optionals, view->optional_ttl_s);
    if (view->optionals > 0 && view->optional_ttl_s == 0 && truth->optional_ttl_s > 0)
        sim_fail("an optional record is shown past its time (H14)");
    if (has_fault(FAULT_CLOCK_JUMP))
        return;
    const uint32_t ttl_ms = truth->optional_ttl_s * 1000;
    if (view->optionals > 0 && age_in_ms(view) > ttl_ms + TRANSIT_MAX_MS)
        sim_fail("an optional record is shown at the age of %u ms (H14)", age_in_ms(view));
    if (view->optionals < truth->optional_count && age_in_ms(view) < ttl_ms &&
        !is_too_long(ask, truth, truth->optional_count))
        sim_fail("%u optional records, though all fit (A19)", view->optionals);
}

/* RFC 8767: a stale answer is past its time, but not for longer than max-stale, and says so. */
static void check_stale_age(const struct asked *ask, const struct reply_view *view,
                            const struct truth *truth)
{
    const uint64_t stale_max_ms = plan.config.snapshot.cache.stale_max_s * UINT64_C(1000);
    const uint64_t ttl_ms = truth->ttl_s * UINT64_C(1000);
    const uint16_t error =
        view->rcode == RCODE_NXDOMAIN ? EDE_STALE_NXDOMAIN_ANSWER : EDE_STALE_ANSWER;
    if (!plan.has_cache || stale_max_ms == 0)
        sim_fail("a stale answer though there are none");
    if (view->values[1] != truth->ttl_s || view->ttl_s == 0 || view->ttl_s > STALE_TTL_MAX_S)
        sim_fail("a stale answer with a TTL of %u s", view->ttl_s);
    if (age_in_ms(view) < ttl_ms)
        sim_fail("a stale answer of TTL %u s at the age of %u ms", truth->ttl_s, age_in_ms(view));
    if (!has_fault(FAULT_CLOCK_JUMP) && age_in_ms(view) > ttl_ms + stale_max_ms + TRANSIT_MAX_MS)
        sim_fail("a stale answer is %u ms old", age_in_ms(view));
    if (ask->has_edns && view->error != error)
        sim_fail("a stale answer with the extended error %u", view->error);
}

static uint64_t slow_ns(void)
{
    const uint64_t query_ns = plan.config.snapshot.timeouts.query_ns;
    const uint64_t half_ns = (query_ns - query_ns * QUERY_MARGIN_PERCENT / 100) / 2;
    return half_ns < SLOW_NS ? half_ns : SLOW_NS;
}

static bool a_lookup_has_just_failed(void)
{
    return metric_get(&clients.resolver->metrics->lookups_failed) != clients.failed;
}

/* Not before asking has failed, or been slow: now for a query that waits, or a turn before when
 * that was too busy to reach it, and a moment ago for one that comes. Those without clients fail
 * unseen, and their failures are taken for this question's. */
static void check_stale_reason(const struct asked *ask)
{
    struct subject *subject = ask->subject;
    const uint64_t now = net_now();
    if (ask->state == ASK_WAITING && (a_lookup_has_just_failed() || clients.gave_way_ns == now ||
                                      now - ask->begun_ns >= slow_ns())) {
        subject->failed_ns = now;
        return;
    }
    uint64_t failed_ns = a_lookup_has_just_failed() ? now : clients.failed_ns;
    if (failed_ns < subject->failed_ns)
        failed_ns = subject->failed_ns;
    uint64_t since_ns = now - RECHECK_NS;
    if (ask->state == ASK_WAITING)
        since_ns = has_fault(FAULT_BUSY) ? ask->begun_ns : now;
    if (failed_ns == 0 || failed_ns < since_ns)
        sim_fail("a stale answer after %llu ms, though asking has not failed (RFC 8767 5)",
                 (unsigned long long)((now - ask->begun_ns) / NANOSECONDS_PER_MILLISECOND));
}

/* A hit may ask anew for the answer that it gives, once, in the last tenth of its time. */
static void check_refresh(const struct asked *ask, const struct reply_view *view,
                          const struct truth *truth)
{
    const uint64_t refreshes = metric_get(&clients.resolver->metrics->refreshes_started);
    struct subject *subject = ask->subject;
    if (refreshes == clients.refreshes)
        return;
    clients.refreshes = refreshes;
    if (ask->state != ASK_ARRIVED || plan.config.snapshot.cache.refresh != TOGGLE_ON)
        sim_fail("an answer is refreshed that was no hit");
    if (subject->is_refreshed && subject->refreshed_at_ms == view->values[2])
        sim_fail("an answer is refreshed a second time");
    if (age_in_ms(view) < truth->ttl_s * 900 && !has_fault(FAULT_CLOCK_JUMP))
        sim_fail("an answer is refreshed at the age of %u ms", age_in_ms(view));
    subject->is_refreshed = true;
    subject->refreshed_at_ms = view->values[2];
}

/* What was answered well to a question that may be kept can be had from then on. */
static void note_usable(const struct asked *ask, const struct reply_view *view,
                        const struct truth *truth)
{
    const uint64_t for_s = truth->ttl_s + (uint64_t)plan.config.snapshot.cache.stale_max_s;
    const uint64_t at_ms = net_now() / NANOSECONDS_PER_MILLISECOND - age_in_ms(view);
    if (!(load_u16(ask->message + 2) & DNS_FLAG_RD) || truth->ttl_s == 0 ||
        plan.config.snapshot.cache.stale_max_s < STALE_SURE_S || !plan.has_cache ||
        has_fault(FAULT_SMALL_CACHE))
        return;
    ask->subject->usable_ns = MILLISECONDS(at_ms + (for_s - STALE_MARGIN_S) * 1000);
}

/* What is being replied. */
static bool is_stale(void)
{
    return metric_get(&clients.resolver->metrics->replies_stale) != clients.stale;
}

static void check_truth(const struct asked *ask, const struct reply_view *view,
                        const struct truth *truth)
{
    const bool is_positive = truth->kind == TRUTH_POSITIVE;
    const unsigned rcode = truth->kind == TRUTH_NXDOMAIN ? RCODE_NXDOMAIN : RCODE_NOERROR;
    const unsigned answers = is_positive ? 3 + truth->filler_count : 0;
    if (view->values[0] != truth->hash)
        sim_fail("an answer to another question");
    if (view->rcode != rcode || view->answers != answers || view->authorities != !is_positive)
        sim_fail("an answer with RCODE %u and %u+%u records", view->rcode, view->answers,
                 view->authorities);
    if (is_stale()) {
        check_stale_age(ask, view, truth);
        if (view->optionals > 0)
            sim_fail("optional records in a stale answer");
    } else {
        check_age(view, truth);
        check_optional(ask, view, truth);
        check_refresh(ask, view, truth);
        note_usable(ask, view, truth);
    }
}

#define BIT(name) (UINT64_C(1) << FAULT_##name)

/* By none of these, whichever of a line come together, is an innocent question lost, though they
 * are at all upstreams; errors are never at all. */
static const uint64_t costless_faults[] = {
    BIT(GREEDY) | BIT(FORGED),
    BIT(CLOSES_ON_A_NAME) | BIT(CLOSES_ON_A_SUFFIX) | BIT(CLOSES_EACH_NTH) | BIT(ANSWERS_IN_ORDER) |
        BIT(RUNT_FRAMES),
    BIT(ERRORS_FOR_ALL),
    BIT(ACCEPTS_AND_CLOSES),
    BIT(RESTARTS),
};

/* Whether anything is wrong that may cost this query its answer. */
static bool may_fail(const struct asked *ask)
{
    if (ask->asker != ASKER_HONEST)
        return true;
    for (size_t i = 0; i < sizeof(costless_faults) / sizeof(costless_faults[0]); i++)
        if (has_only_harmless_faults_but(costless_faults[i]))
            return false;
    /* A healthy upstream that was asked for nothing but silence is trusted less than a bad one. */
    if (plan.healthy != SIZE_MAX)
        return plan.faults & (BIT(GREEDY) | BIT(FORGED));
    if (has_only_harmless_faults_but(BIT(OUTAGE)))
        return upstreams_were_dead_since(ask->begun_ns - RECOVERY_NS);
    return true;
}

static bool has_words_of(const struct reply_view *view, enum failure failure)
{
    const char *text = failure_text(failure);
    return view->error_text &&
           memmem(view->error_text, view->error_text_length, text, strlen(text)) != NULL;
}

/* Where all answer in order a question may be behind a slow one three times, until its deadline:
 * main.c bounds their share (FAULTS K8). A client without EDNS is not told. */
static bool is_held_up(const struct reply_view *view)
{
    return plan.faults & BIT(ANSWERS_IN_ORDER) &&
           (!view->error_text || has_words_of(view, FAILURE_REQUEST_TIMEOUT));
}

/* Where connections end at random a question may be there twice, alone; nowhere else is one taken
 * for what ends them. True when this one was. */
static bool check_verdict(const struct reply_view *view)
{
    const bool is_convicted = has_words_of(view, FAILURE_CONVICTED);
    figures.convicted += is_convicted;
    if (is_convicted && !has_fault(FAULT_CLOSE) && !has_fault(FAULT_RESET) &&
        !sim_options.counts_failures)
        sim_fail("an innocent question is convicted");
    return is_convicted;
}

/* One error among good answers is taken for the question's: two upstreams that begin to err fail
 * the first ones (FAULTS F19). */
static bool is_of_onset(const struct asked *ask)
{
    return ask->subject->onset_ns > 0 && net_now() - ask->subject->onset_ns < ERROR_KEPT_NS;
}

/* FAULTS K1: convicted is who has ended two connections, the last one alone and a while after the
 * first, when others have had answers there since. What is kept of an earlier verdict is seen by
 * nobody's being convicted now. */
static void check_evidence(const struct asked *ask)
{
    const uint64_t convicted = metric_get(&clients.resolver->metrics->lookups_convicted);
    const bool is_new = convicted != clients.convicted;
    const struct subject *subject = ask->subject;
    clients.convicted = convicted;
    const bool is_recursive = load_u16(ask->message + 2) & DNS_FLAG_RD; /* it is the one counted */
    if (!is_new || !is_recursive || !upstreams_end_only_for_names())
        return;
    if (!subject->ends.is_proof)
        sim_fail("a question is convicted for %u ends of connections", subject->ends.count);
    if (net_now() < subject->ends.last_ns + SECOND_LOOK_NS)
        sim_fail("a verdict does not wait for the answers to others");
    if (upstream_answered_ns(subject->ends.upstream) <= subject->ends.last_ns)
        sim_fail("a question is convicted, though nobody else was answered");
}

/* Counts it, and fails when it has failed though nobody may lose an answer. */
static void check_innocent(const struct asked *ask, const struct reply_view *view)
{
    const bool is_failure = view->rcode != RCODE_NOERROR && view->rcode != RCODE_NXDOMAIN;
    if (ask->asker != ASKER_HONEST)
        return;
    figures.innocent++;
    if (check_verdict(view) || may_fail(ask))
        return;
    /* It may be a verdict, of which a client without EDNS is not told. */
    if (is_failure && !view->error_text && (has_fault(FAULT_CLOSE) || has_fault(FAULT_RESET)))
        return;
    /* Each change of the network has cost one of its three sends (RFC 9520 3.1). */
    if (has_words_of(view, FAILURE_NETWORK_CHANGED))
        return;
    if (!has_only_harmless_faults_but(0) && ask->begun_ns < clients.network_changed_ns)
        return; /* and the others may have cost the rest */
    figures.promised++;
    figures.failed += is_failure;
    if (is_failure && !is_of_onset(ask) && !is_held_up(view) && !sim_options.counts_failures)
        sim_fail("RCODE %u though a good answer could be had", view->rcode);
}

static struct truth truth_of_ask(const struct asked *ask)
{
    return truth_of(ask->message + DNS_HEADER_SIZE, ask->question_length - DNS_QUESTION_TAIL,
                    ask->type, ask->dnssec_ok, load_u16(ask->message + 2) & DNS_FLAG_CD);
}

/* What is being replied. */
static bool is_limited(void)
{
    return metric_get(&clients.resolver->metrics->replies_wait_limited) != clients.limited;
}

static bool is_full(void)
{
    return metric_get(&clients.resolver->metrics->replies_full) != clients.full;
}

/* One may give way and others have their replies with it. */
static bool gives_way(void)
{
    const uint64_t gave_way = metric_get(&clients.resolver->metrics->queries_gave_way);
    const bool is_first = gave_way != clients.gave_way;
    clients.gave_way = gave_way;
    if (is_first)
        clients.gave_way_ns = net_now();
    return is_first;
}

static void check_sent_to_tcp(const struct asked *ask, const struct reply_view *view)
{
    if (!ask->is_datagram || view->rcode != RCODE_NOERROR || !(view->flags & DNS_FLAG_TC))
        sim_fail("a query is not sent to TCP as it should");
}

/* Nobody could give way to it. */
static void check_full(const struct asked *ask, const struct reply_view *view)
{
    const struct resolver *resolver = clients.resolver;
    if (resolver->waiting_count != plan.config.limits.queries ||
        clients_has_held(resolver->clients) || ask->state != ASK_ARRIVED)
        sim_fail("a query finds no place beside %zu others", resolver->waiting_count);
    check_sent_to_tcp(ask, view);
}

/* How many of its /24 wait, for that long at least. */
static size_t count_waiting_of_network(uint32_t address, uint64_t age_ns)
{
    size_t count = 0;
    for (size_t i = 0; i < clients.count; i++)
        count += clients.asks[i].state == ASK_WAITING &&
                 clients.asks[i].address >> 8 == address >> 8 &&
                 net_now() - clients.asks[i].begun_ns >= age_ns;
    return count;
}

/* Of the network that holds most; who has just begun to is not looked at, and of many networks two
 * may be counted as one. */
static void check_gives_way_first(const struct asked *ask)
{
    const uint64_t long_ns = clients.resolver->young_queries.duration_ns;
    const size_t networks = has_fault(FAULT_FORGED) ? 2 : 1;
    const size_t most = networks * count_waiting_of_network(ask->address, long_ns);
    for (size_t i = 0; i < clients.count; i++) {
        const struct asked *other = &clients.asks[i];
        if (other->state == ASK_WAITING &&
            count_waiting_of_network(other->address, long_ns + HELD_SLACK_NS) > most)
            sim_fail("a query gives way, though another network holds more (K5)");
    }
}

/* FAULTS K5: none that has not waited for long, and only while places are short. */
static void check_gave_way(const struct asked *ask, const struct reply_view *view)
{
    const uint64_t age_ns = net_now() - ask->begun_ns;
    if (ask->state != ASK_WAITING || age_ns < clients.resolver->young_queries.duration_ns)
        sim_fail("a query gives way after %.3f ms", (double)age_ns / 1e6);
    if (clients.resolver->waiting_count + 1 != plan.config.limits.queries)
        sim_fail("a query gives way though there are places");
    if (net_last_jump() == 0)
        check_gives_way_first(ask);
    if (ask->is_datagram)
        check_sent_to_tcp(ask, view);
    else if (view->rcode != RCODE_SERVFAIL || (view->has_opt && !view->is_explained))
        sim_fail("RCODE %u for a query that gave way", view->rcode);
}

/* Of those that may be counted as one: of many addresses any two, and once in 4,096 runs the honest
 * and the greedy one. */
static size_t count_waiting_datagrams(uint32_t address)
{
    size_t count = 0;
    for (size_t i = 0; i < clients.count; i++)
        count += clients.asks[i].state == ASK_WAITING && clients.asks[i].is_datagram &&
                 (clients.asks[i].address == address || has_fault(FAULT_GREEDY));
    return count;
}

/* FAULTS I5 */
static void check_limited(const struct asked *ask, const struct reply_view *view)
{
    const uint32_t limit = plan.config.snapshot.limits.udp_queries_per_address;
    const size_t waiting = count_waiting_datagrams(ask->address);
    if (limit == 0 || (waiting < limit - limit / 2 && !has_fault(FAULT_FORGED)))
        sim_fail("a query is sent to TCP while %zu wait", waiting);
    if (ask->state != ASK_ARRIVED)
        sim_fail("a query that waits is sent to TCP");
    check_sent_to_tcp(ask, view);
}

static void check_reply(const struct asked *ask, const uint8_t *reply, size_t length)
{
    const struct truth truth = truth_of_ask(ask);
    check_header(ask, reply, length);
    const struct reply_view view = view_reply(ask, reply, length);
    sim_tell("reply to %zu (%08x): RCODE %u, %u records %.*s", number_of(ask), truth.hash,
             view.rcode, view.answers, (int)view.error_text_length,
             view.error_text ? (const char *)view.error_text : "");
    if (view.has_opt != ask->has_edns)
        sim_fail("a reply %s OPT", view.has_opt ? "with" : "without");
    const bool is_failure = view.rcode != RCODE_NOERROR && view.rcode != RCODE_NXDOMAIN;
    if ((is_failure || view.flags & DNS_FLAG_TC) && view.answers + view.authorities > 0)
        sim_fail("records in a reply that fails");
    const bool has_given_way = gives_way();
    if (has_words_of(&view, FAILURE_CONVICTED))
        check_evidence(ask);
    if (is_stale())
        check_stale_reason(ask);
    if (is_limited()) {
        check_limited(ask, &view);
    } else if (is_full()) {
        check_full(ask, &view);
    } else if (has_given_way && (is_failure || view.flags & DNS_FLAG_TC)) {
        check_gave_way(ask, &view);
    } else if (view.flags & DNS_FLAG_TC) {
        if (!is_too_long(ask, &truth, 0) && !may_fail(ask))
            sim_fail("TC=1 for no reason");
    } else if (is_failure) {
        if (net_now() < ask->subject->usable_ns && load_u16(ask->message + 2) & DNS_FLAG_RD)
            sim_fail("RCODE %u though a stale answer is at hand (RFC 8767)", view.rcode);
        if (view.has_opt && !view.is_explained && !has_fault(FAULT_ERROR_RCODE))
            sim_fail("RCODE %u without an extended error", view.rcode);
    } else {
        check_truth(ask, &view, &truth);
    }
    if (!has_given_way && !(view.flags & DNS_FLAG_TC))
        check_innocent(ask, &view);
}

/* FAULTS K6: the answer that many wait for goes to no more of them than a turn may do, unless there
 * is no memory to keep it. What comes for another reason comes to each at its own time. */
static void check_budget(const struct asked *ask)
{
    const bool is_answered = ask->state == ASK_WAITING && net_now() - ask->begun_ns < slow_ns();
    const bool is_recursive = load_u16(ask->message + 2) & DNS_FLAG_RD;
    uint64_t *spent_turn = &ask->subject->spent_turn[is_recursive];
    const bool gave_way = clients.gave_way_ns == net_now();
    if (!is_answered || gave_way || ask->is_hostile || has_fault(FAULT_ALLOCATION))
        return;
    if (*spent_turn == net_turns())
        sim_fail("a turn goes on with an answer past its budget (K6)");
    if (loop_is_spent(clients.resolver->loop))
        *spent_turn = net_turns();
}

static void note_told(void)
{
    clients.stale = metric_get(&clients.resolver->metrics->replies_stale);
    (void)gives_way();
    clients.full = metric_get(&clients.resolver->metrics->replies_full);
    clients.limited = metric_get(&clients.resolver->metrics->replies_wait_limited);
    clients.refreshes = metric_get(&clients.resolver->metrics->refreshes_started);
}

/* The same once more, at once: the cache knows by now what the first is about to be told. */
static void note_repeated_reply(void)
{
    note_told();
    clients.begun++;
    clients.replies++;
}

static void take_reply(struct query *query, const uint8_t *reply, size_t length)
{
    struct asked *ask = query->origin.listener;
    if (clients.repeating == ask && ask->query != query) {
        note_repeated_reply();
        return;
    }
    if (ask->state != ASK_ARRIVED && ask->state != ASK_WAITING)
        sim_fail("a reply to a query in state %d: a second one, or to nobody", (int)ask->state);
    if (ask->state == ASK_WAITING && ask->query != query)
        sim_fail("a reply to another query");
    const uint64_t age_ns = net_now() - ask->begun_ns;
    if (age_ns > plan.config.snapshot.timeouts.query_ns && net_last_jump() <= ask->begun_ns)
        sim_fail("a reply after %.3f ms", (double)age_ns / 1e6);
    const bool is_displaced =
        metric_get(&clients.resolver->metrics->queries_gave_way) != clients.gave_way;
    /* Nobody knows what a hostile client has asked, and what has failed for it. */
    if (ask->is_hostile && is_stale())
        clients.failed_ns = net_now();
    if (!ask->is_hostile)
        check_reply(ask, reply, length);
    else if (length < 2 || load_u16(reply) != load_u16(ask->message))
        sim_fail("a reply with another ID than the hostile query's");
    note_told();
    if (fault_happens(FAULT_BUSY))
        clients.resolver->loop->budget = 0;
    if (!is_displaced)
        check_budget(ask);
    ask->state = ASK_REPLIED;
    ask->query = NULL;
    clients.replies++;
}

static void on_stream_reply(struct query *query, const uint8_t *reply, size_t length)
{
    take_reply(query, reply, length);
    if (fault_happens(FAULT_LATE_READER))
        readers_hold(number_of(query->origin.listener), length, NULL);
}

static void on_reply_around(struct query *query, const uint8_t *reply, size_t length,
                            size_t body_at, struct body *body)
{
    static uint8_t whole[DNS_MESSAGE_MAX];
    struct writer writer = writer_over(whole, sizeof(whole));
    write_bytes(&writer, reply, body_at);
    write_bytes(&writer, body->bytes, body->length);
    write_bytes(&writer, reply + body_at, length - body_at);
    take_reply(query, whole, writer_length(&writer));
    if (fault_happens(FAULT_LATE_READER))
        readers_hold(number_of(query->origin.listener), length, body);
}

static const struct transport transports[] = {
    {.is_datagram = false, .send = on_stream_reply, .send_around = on_reply_around},
    {.is_datagram = true, .send = take_reply},
};

/* --- Asking --- */

static struct origin origin_of(struct asked *ask)
{
    struct origin origin = {.transport = &transports[ask->is_datagram], .listener = ask};
    origin.client.v4 =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(ask->address)};
    return origin;
}

static struct origin begin(struct asked *ask)
{
    ask->begun_ns = net_now();
    ask->subject->begun++;
    clients.begun++;
    return origin_of(ask);
}

static void leave_later(void *subject, const uint8_t *bytes, size_t length)
{
    struct asked *ask = subject;
    (void)bytes;
    (void)length;
    if (ask->state != ASK_WAITING || ask->is_leaving)
        return;
    ask->is_leaving = true;
    clients.leaving_count++;
}

static void repeat_later(void *subject, const uint8_t *bytes, size_t length)
{
    struct asked *ask = subject;
    (void)bytes;
    (void)length;
    ask->is_repeating = true;
    clients.repeating_count++;
}

/* After query_begin: it waits, has had its reply, or never will. */
static void note_begun(struct asked *ask, enum status status, struct query *query)
{
    if (status != STATUS_OK)
        sim_fail("a query is dropped");
    if (query) {
        ask->state = ASK_WAITING;
        ask->query = query;
        if (!ask->is_datagram && fault_happens(FAULT_LEAVE))
            net_schedule(random_below(MILLISECONDS(3000)), leave_later, ask, NULL, 0);
        if (ask->is_datagram && !ask->is_hostile && fault_happens(FAULT_REPEAT))
            net_schedule(random_below(MILLISECONDS(3000)), repeat_later, ask, NULL, 0);
    } else if (ask->state != ASK_REPLIED) {
        if (!ask->is_hostile)
            sim_fail("a good query gets no reply");
        ask->state = ASK_IGNORED;
    }
}

static void begin_stream(struct asked *ask)
{
    struct resolver *resolver = clients.resolver;
    struct query *query = NULL;
    const struct origin origin = begin(ask);
    ask->state = ASK_ARRIVED;
    const enum status status = query_begin(resolver, &origin, ask->message, ask->length, &query);
    if (status == STATUS_FULL) {
        ask->state = ASK_STARVED;
        clients.held_back++;
        clients.begun--;
        ask->subject->begun--;
        resolver_wait_for_space(resolver, &clients.room);
        return;
    }
    note_begun(ask, status, query);
}

/* As udp.c does it: the first half for each, then the second for each. */
static void begin_datagrams(struct asked *const batch[], size_t count)
{
    struct query *queries[QUERIES_IN_HAND_MAX];
    for (size_t i = 0; i < count; i++) {
        const struct origin origin = begin(batch[i]);
        queries[i] = query_accept(clients.resolver, &origin, batch[i]->message, batch[i]->length);
        if (!queries[i])
            note_begun(batch[i], STATUS_OK, NULL);
    }
    for (size_t i = 0; i < count; i++) {
        struct query *waiting = NULL;
        if (!queries[i])
            continue;
        const enum status status = query_resolve(clients.resolver, queries[i], &waiting);
        note_begun(batch[i], status, waiting);
    }
}

static void begin_arrived(void)
{
    struct asked *batch[QUERIES_IN_HAND_MAX];
    size_t count = 0;
    for (size_t i = 0; i < clients.arrived_count; i++) {
        struct asked *ask = &clients.asks[clients.arrived[i]];
        if (ask->is_datagram)
            batch[count++] = ask;
        else
            begin_stream(ask);
        if (count == QUERIES_IN_HAND_MAX || i + 1 == clients.arrived_count) {
            begin_datagrams(batch, count);
            count = 0;
        }
    }
    clients.arrived_count = 0;
}

static void leave(struct asked *ask)
{
    ask->is_leaving = false;
    clients.leaving_count--;
    if (ask->state != ASK_WAITING)
        return;
    sim_tell("client of %zu leaves", number_of(ask));
    query_drop(clients.resolver, ask->query);
    ask->state = ASK_LEFT;
    ask->query = NULL;
    clients.left++;
}

static size_t count_waiting_of_subject(const struct subject *subject)
{
    size_t count = 0;
    for (size_t i = 0; i < clients.count; i++)
        count += clients.asks[i].state == ASK_WAITING && clients.asks[i].subject == subject;
    return count;
}

/* FAULTS K5: it has a place already. Not where the first waits for an answer that there is, nor
 * where so many wait for one that it is not looked for. */
static void repeat(struct asked *ask)
{
    struct resolver *resolver = clients.resolver;
    struct query *query = NULL;
    ask->is_repeating = false;
    clients.repeating_count--;
    if (ask->state != ASK_WAITING)
        return;
    const bool is_found =
        resolver->ended_count == 0 && count_waiting_of_subject(ask->subject) <= REPEATED_MAX;
    const size_t waiting = resolver->waiting_count;
    const struct origin origin = origin_of(ask);
    sim_tell("client of %zu asks once more", number_of(ask));
    clients.repeating = ask;
    if (query_begin(resolver, &origin, ask->message, ask->length, &query) != STATUS_OK)
        sim_fail("a query that is asked once more is dropped");
    clients.repeating = NULL;
    if (is_found && (query || resolver->waiting_count != waiting))
        sim_fail("a query that is asked once more has another place (K5)");
    ask->subject->begun += query != NULL;
    if (query)
        query_drop(resolver, query);
}

static bool is_ringing(void)
{
    return clients.arrived_count > 0 || clients.leaving_count > 0 || clients.repeating_count > 0;
}

static void on_bell(struct loop_source *source, uint32_t events)
{
    (void)source;
    (void)events;
    for (size_t i = 0; i < clients.count && clients.leaving_count > 0; i++)
        if (clients.asks[i].is_leaving)
            leave(&clients.asks[i]);
    for (size_t i = 0; i < clients.count && clients.repeating_count > 0; i++)
        if (clients.asks[i].is_repeating)
            repeat(&clients.asks[i]);
    begin_arrived();
}

static void on_space(struct starved *room)
{
    (void)room;
    for (size_t i = 0; i < clients.count; i++)
        if (clients.asks[i].state == ASK_STARVED)
            begin_stream(&clients.asks[i]);
}

static void arrive(void *subject, const uint8_t *bytes, size_t length)
{
    struct asked *ask = subject;
    (void)bytes;
    (void)length;
    ask->state = ASK_ARRIVED;
    clients.arrived[clients.arrived_count++] = (uint16_t)(ask - clients.asks);
}

/* --- What the plan asks --- */

static void write_label(struct writer *writer, const char *label)
{
    write_u8(writer, (uint8_t)strlen(label));
    write_bytes(writer, label, strlen(label));
}

static void write_silent_name(struct writer *writer, uint32_t number)
{
    char label[DNS_LABEL_MAX + 1];
    (void)snprintf(label, sizeof(label), SIM_SILENT_LABEL "%u", number);
    write_label(writer, label);
    write_u8(writer, 0);
}

static void write_marked_name(struct writer *writer, enum mark mark, uint32_t number)
{
    const bool is_below = mark == MARK_CLOSES_BELOW;
    char label[DNS_LABEL_MAX + 1];
    (void)snprintf(label, sizeof(label), "%s%u", is_below ? "name" : mark_kinds[mark].label,
                   number);
    write_label(writer, label);
    if (is_below)
        write_label(writer, mark_kinds[mark].label);
    write_u8(writer, 0);
}

/* One in ten is as long as a name may be. */
static void write_name(struct writer *writer, uint32_t number)
{
    char label[DNS_LABEL_MAX + 1];
    const bool is_long = number % 10 == 9;
    for (size_t i = 0; is_long && i < 3; i++) {
        write_u8(writer, DNS_LABEL_MAX);
        memset(write_room(writer, DNS_LABEL_MAX), 'x', DNS_LABEL_MAX);
    }
    const int length = snprintf(label, sizeof(label), is_long ? "%061u" : "name%u", number);
    for (int i = 0; i < length; i++)
        if (label[i] >= 'a' && plan_below(2))
            label[i] = (char)(label[i] - 'a' + 'A');
    write_u8(writer, (uint8_t)length);
    write_bytes(writer, label, (size_t)length);
    write_u8(writer, 0);
}

static void write_query(struct asked *ask)
{
    static const uint16_t types[] = {TYPE_A, TYPE_A, TYPE_TXT, 65280};
    static const uint16_t sizes[] = {100, 512, 1232, 4096};
    struct writer writer = writer_over(ask->message, sizeof(ask->message));
    ask->has_edns = plan_below(4) > 0;
    ask->dnssec_ok = ask->has_edns && plan_below(4) == 0;
    ask->udp_size = sizes[plan_below(4)];
    ask->type = types[plan_below(4)];
    write_u16(&writer, (uint16_t)plan_below(65536));
    write_u16(&writer,
              (uint16_t)((plan_below(20) ? DNS_FLAG_RD : 0) | (plan_below(8) ? 0 : DNS_FLAG_CD) |
                         (plan_below(4) ? 0 : DNS_FLAG_AD)));
    write_u32(&writer, 1 << 16);
    write_u32(&writer, ask->has_edns);
    const uint32_t number = (uint32_t)plan_below(plan.names);
    if (ask->asker == ASKER_HONEST)
        write_name(&writer, number);
    else if (ask->asker == ASKER_MARKED)
        write_marked_name(&writer, ask->mark, number);
    else
        write_silent_name(&writer, number);
    write_u16(&writer, ask->type);
    write_u16(&writer, CLASS_IN);
    ask->question_length = writer_length(&writer) - DNS_HEADER_SIZE;
    if (ask->has_edns) {
        write_u8(&writer, 0);
        write_u16(&writer, TYPE_OPT);
        write_u16(&writer, ask->udp_size);
        write_u32(&writer, ask->dnssec_ok ? DNS_EDNS_FLAG_DO : 0);
        write_u16(&writer, 4);
        write_u16(&writer, OPTION_KEEPALIVE);
        write_u16(&writer, 0);
    }
    ask->length = writer_length(&writer);
}

static struct subject *find_subject(uint32_t hash)
{
    size_t i = 0;
    while (i < clients.subject_count && clients.subjects[i].hash != hash)
        i++;
    if (i == clients.subject_count)
        clients.subjects[clients.subject_count++].hash = hash;
    return &clients.subjects[i];
}

/* Cuts it, or writes over some of its octets. */
static void spoil(struct asked *ask)
{
    fault_counts[FAULT_HOSTILE_CLIENT]++;
    ask->is_hostile = true;
    if (random_below(3) == 0) {
        ask->length = random_below(ask->length);
        return;
    }
    for (size_t i = random_below(4) + 1; i > 0; i--)
        ask->message[2 + random_below(ask->length - 2)] = (uint8_t)random_below(256);
}

static bool plan_is_of(enum fault fault)
{
    const bool is_of = plan_below(1000) < GREEDY_PERMILLE + plan.permille[fault];
    fault_counts[fault] += is_of && has_fault(fault);
    return is_of && has_fault(fault);
}

static void plan_mark(struct asked *ask, uint64_t at_ns, uint32_t marked_address)
{
    const uint64_t second = at_ns / NANOSECONDS_PER_SECOND;
    for (size_t i = MARK_NONE + 1; i < MARK_COUNT; i++) {
        const enum fault fault = mark_kinds[i].fault;
        if (!has_fault(fault) || plan_below(1000) >= MARKED_PERMILLE + plan.permille[fault] ||
            clients.marks[i][second] == marks_max((enum mark)i))
            continue;
        clients.marks[i][second]++;
        ask->asker = ASKER_MARKED;
        ask->mark = (enum mark)i;
        ask->address = marked_address;
    }
}

static void plan_asker(struct asked *ask, uint32_t number)
{
    ask->address = HONEST_ADDRESS;
    if (plan_is_of(FAULT_GREEDY)) {
        ask->asker = ASKER_GREEDY;
        ask->address = GREEDY_ADDRESS;
    }
    if (plan_is_of(FAULT_FORGED)) {
        ask->asker = ASKER_FORGED;
        ask->address = FORGED_ADDRESS + number * FORGED_STEP;
    }
}

/* Half of the runs ask in bursts. */
static void plan_asks(void)
{
    const bool in_bursts = plan_below(2);
    const uint32_t marked_address = sim_options.seed % 2 ? MARKED_ADDRESS : HONEST_ADDRESS;
    uint64_t at_ns = 0;
    for (uint32_t i = 0; i < plan.queries; i++) {
        struct asked *ask = &clients.asks[i];
        const bool is_with_last = in_bursts && i > 0 && plan_below(10) > 0;
        const uint64_t draw = plan_below(plan.duration_ns);
        if (!is_with_last)
            at_ns = draw;
        plan_asker(ask, i);
        plan_mark(ask, at_ns, marked_address);
        ask->is_datagram = plan_below(2) || ask->asker == ASKER_FORGED;
        write_query(ask);
        ask->subject = find_subject(truth_of_ask(ask).hash);
        const bool is_spoilt = plan_below(1000) < plan.permille[FAULT_HOSTILE_CLIENT];
        if (is_spoilt && has_fault(FAULT_HOSTILE_CLIENT))
            spoil(ask);
        if (at_ns <= MILLISECONDS(sim_options.duration_max_ms))
            net_schedule(at_ns, arrive, ask, NULL, 0);
        else
            ask->state = ASK_IGNORED;
    }
    clients.count = plan.queries;
}

void sim_clients_open(struct resolver *resolver)
{
    memset(&clients, 0, sizeof(clients));
    clients.resolver = resolver;
    clients.bell = (struct loop_source){.fd = -1, .on_ready = on_bell};
    clients.room.on_space = on_space;
    list_init(&clients.room.link);
    if (loop_add(resolver->loop, &clients.bell, net_open_bell(is_ringing), 1) != STATUS_OK)
        sim_fail("no bell");
    readers_open(resolver);
    plan_asks();
}

void sim_clients_close(void)
{
    loop_remove(clients.resolver->loop, &clients.bell);
    readers_close();
}

bool clients_are_done(void)
{
    for (size_t i = 0; i < clients.count; i++)
        if (clients.asks[i].state < ASK_REPLIED)
            return false;
    return true;
}

/* --- Invariants --- */

void clients_note_end(size_t upstream, uint32_t hash, bool is_fresh)
{
    for (size_t i = 0; i < clients.subject_count; i++) {
        struct subject *subject = &clients.subjects[i];
        if (subject->hash != hash)
            continue;
        if (subject->ends.count++ == 0)
            subject->ends.first_ns = net_now();
        subject->ends.last_ns = net_now();
        subject->ends.upstream = upstream;
        subject->ends.is_proof |= is_fresh && net_now() >= subject->ends.first_ns + SECOND_LOOK_NS;
    }
}

void clients_note_network_change(void)
{
    clients.network_changed_ns = net_now();
}

void clients_note_upstream(size_t upstream)
{
    for (size_t i = 0; i < clients.subject_count; i++)
        clients.subjects[i].asked[upstream] = 0;
}

void clients_note_onset(uint32_t hash)
{
    for (size_t i = 0; i < clients.subject_count; i++)
        if (clients.subjects[i].hash == hash)
            clients.subjects[i].onset_ns = net_now();
}

/* A query begins at most one lookup, and one that outlives queries may begin anew once for each. */
void clients_note_request(size_t upstream, uint32_t hash)
{
    if (has_fault(FAULT_HOSTILE_CLIENT)) /* it may have asked anything */
        return;
    size_t i = 0;
    while (i < clients.subject_count && clients.subjects[i].hash != hash)
        i++;
    if (i == clients.subject_count)
        sim_fail("upstream %zu is asked what nobody wants to know", upstream);
    struct subject *subject = &clients.subjects[i];
    const uint32_t lookups = subject->begun > 1 ? subject->begun * 2 : 1;
    const uint32_t sends = ++subject->asked[upstream];
    if (lookups == 1 && sends > figures.sends)
        figures.sends = sends;
    if (sends > lookups * ATTEMPTS_MAX)
        sim_fail("upstream %zu is asked %u times for %u queries (RFC 9520 3.1)", upstream, sends,
                 subject->begun);
}

/* Lookups that have failed in this turn, whoever waited for them. */
static void note_failed_lookups(void)
{
    if (!a_lookup_has_just_failed())
        return;
    clients.failed = metric_get(&clients.resolver->metrics->lookups_failed);
    clients.failed_ns = net_now();
}

void clients_check(void)
{
    note_failed_lookups();
    const uint64_t query_ns = plan.config.snapshot.timeouts.query_ns;
    const uint64_t patience_ns = query_ns - query_ns * QUERY_MARGIN_PERCENT / 100;
    size_t waiting = 0;
    size_t datagrams[ASKER_COUNT] = {0};
    for (size_t i = 0; i < clients.count; i++) {
        const struct asked *ask = &clients.asks[i];
        if (ask->state != ASK_WAITING)
            continue;
        waiting++;
        datagrams[ask->asker] += ask->is_datagram;
        if (net_now() - ask->begun_ns >= patience_ns)
            sim_fail("query %zu has no reply at its deadline", i);
    }
    const uint32_t limit = plan.config.snapshot.limits.udp_queries_per_address;
    for (size_t asker = 0; limit > 0 && asker < ASKER_FORGED; asker++)
        if (datagrams[asker] > limit)
            sim_fail("%zu datagrams wait, and %u may (I5)", datagrams[asker], limit);
    if (waiting != clients.resolver->waiting_count)
        sim_fail("%zu queries wait, the resolver counts %zu", waiting,
                 clients.resolver->waiting_count);
    readers_check();
}

void clients_check_counters(void)
{
    const struct metrics *metrics = clients.resolver->metrics;
    const uint64_t replies =
        metric_get(&metrics->replies_noerror) + metric_get(&metrics->replies_formerr) +
        metric_get(&metrics->replies_servfail) + metric_get(&metrics->replies_nxdomain) +
        metric_get(&metrics->replies_notimp) + metric_get(&metrics->replies_refused) +
        metric_get(&metrics->replies_other);
    const uint64_t ignored =
        metric_get(&metrics->dropped_malformed) + metric_get(&metrics->dropped_response);
    const uint64_t lookups = metric_get(&metrics->lookups_started) -
                             metric_get(&metrics->refreshes_started) +
                             metric_get(&metrics->lookups_joined);
    if (replies != clients.replies)
        sim_fail("%llu replies are counted and %llu sent", (unsigned long long)replies,
                 (unsigned long long)clients.replies);
    if (clients.begun != replies + ignored + clients.left + clients.resolver->waiting_count)
        sim_fail("%llu queries began, and their ends do not add up",
                 (unsigned long long)clients.begun);
    const uint64_t full = metric_get(&metrics->replies_full);
    if (clients.resolver->cache && lookups + full + clients.held_back + clients.limited +
                                           metric_get(&metrics->queries_repeated) !=
                                       metric_get(&metrics->cache_misses))
        sim_fail("%llu lookups for %llu misses", (unsigned long long)lookups,
                 (unsigned long long)metric_get(&metrics->cache_misses));
}
