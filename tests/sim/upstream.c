// SPDX-License-Identifier: Apache-2.0
/* The scripted upstreams: they accept, greet, check every query they get, and answer with the truth
 * or with what the faults make of it.
 *
 * The truth about a question is a function of the question alone, and its hash is in the records:
 * whoever gets it can tell whether it is an answer to what he asked. What is sent under a wrong ID
 * or question carries POISON instead.
 *
 * Owner: a conversation lives as long as its link, until the run ends. */
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "dns/dns.h"
#include "dns/self_probe.h"
#include "sim.h"

enum {
    OPTIONAL_TYPE = 65300, /* and those after it */
    GREETING_LENGTH = 3,
    IDS_MAX = 1024,
    HUGE_COUNT = 3500, /* records */
    MESSAGE_ROOM = 65535 + 2,
    POISON = 0x0badbad0,
    OUTAGES_MAX = 3,
    NETWORK_CHANGES_MAX = 3,
    FIRST_SOURCE = 0x0a000001,
    RECEIVED_MAX = 2048, /* of a connection, before it is taken up */
    SILENT_LENGTH = sizeof(SIM_SILENT_LABEL) - 1,
};

/* An answer that comes later may be too late; and what is under way when it comes. */
#define SELF_ANSWER_NS MILLISECONDS(200)
#define SELF_LEAVE_NS MILLISECONDS(1500)

#define SLOW_ANSWER_NS MILLISECONDS(2000)
#define ERROR_NS MILLISECONDS(1)
#define GOOD_NS                                                                       \
    MILLISECONDS(20) /* what an answer takes longer beside upstreams that err at once \
                      */

/* How far a connection comes with an upstream that closes all. */
enum stage { STAGE_ACCEPTED, STAGE_GREETED, STAGE_OPEN, STAGE_ASKED, STAGE_COUNT };

struct conversation {
    struct conversation *next;
    struct link *link;
    size_t index;
    bool is_open;   /* the verdict has been sent */
    bool is_silent; /* answers nothing */
    bool is_over;
    bool is_held_up; /* behind a question that is never answered */
    enum stage ends_at;
    unsigned asked; /* by lookups */
    unsigned answers;
    uint64_t last_answer_ns; /* when the last one leaves: in order */
    uint64_t active_ns;
    uint64_t self_told_ns; /* when it answered in time that it is the product itself, 0: never */
    uint8_t received[RECEIVED_MAX];
    size_t length;
    uint16_t ids[IDS_MAX]; /* asked and not answered */
    size_t id_count;
};

/* How an upstream is dead. */
enum outage { OUTAGE_NONE, OUTAGE_KILLED, OUTAGE_VANISHED, OUTAGE_UNROUTED };

static struct conversation *conversations;
static enum outage outages[SIM_UPSTREAMS_MAX];
static bool closes_all[SIM_UPSTREAMS_MAX];
static uint64_t outages_ended_ns[SIM_UPSTREAMS_MAX];
static size_t queries_received[SIM_UPSTREAMS_MAX];
static size_t probes_received[SIM_UPSTREAMS_MAX];
static uint64_t answered_ns[SIM_UPSTREAMS_MAX];
static uint32_t sources[SIM_UPSTREAMS_MAX]; /* our addresses towards them */

/* --- The truth --- */

struct truth truth_of(const uint8_t *name, size_t name_length, uint16_t type, bool dnssec_ok,
                      bool checking_disabled)
{
    static const uint32_t ttls_s[] = {0, 1, 5, 5, 30, 300};
    uint32_t hash = 0x811c9dc5;
    const uint8_t extra[] = {(uint8_t)(type >> 8), (uint8_t)type, dnssec_ok, checking_disabled};
    for (size_t i = 0; i < name_length; i++) {
        const bool is_upper = name[i] >= 'A' && name[i] <= 'Z';
        hash = (hash ^ (is_upper ? name[i] + 32u : name[i])) * 0x01000193;
    }
    for (size_t i = 0; i < sizeof(extra); i++)
        hash = (hash ^ extra[i]) * 0x01000193;
    hash ^= hash >> 15;
    struct truth truth = {.hash = hash, .ttl_s = ttls_s[hash % 6]};
    truth.optional_ttl_s = (truth.ttl_s + 1) / 2;
    if (hash / 512 % 4 == 0)
        truth.optional_count = 70; /* with what is needed more than UDP takes */
    if (name[0] >= SILENT_LENGTH && memcmp(name + 1, SIM_SILENT_LABEL, SILENT_LENGTH) == 0)
        truth.kind = TRUTH_SILENCE;
    else if (hash / 8 % 8 == 0)
        truth.kind = TRUTH_NXDOMAIN;
    else if (hash / 8 % 8 == 1)
        truth.kind = TRUTH_NODATA;
    else if (hash / 8 % 8 == 2)
        truth.filler_count = 90; /* more than UDP takes */
    else if (hash / 8 % 64 == 3 || (has_fault(FAULT_HUGE) && hash / 64 % 4 == 0))
        truth.filler_count = HUGE_COUNT;
    return truth;
}

/* --- Messages --- */

/* Who asks it: a lookup, or the product itself. */
enum asked { ASKED_BY_LOOKUP, ASKED_AS_PROBE, ASKED_WHETHER_SELF };

/* A query as it came. */
struct query_view {
    enum asked kind;
    uint16_t id;
    uint16_t type;
    bool dnssec_ok;
    bool checking_disabled;
    bool recursion_desired;
    const uint8_t *question;
    size_t question_length; /* name, type and class */
};

static struct truth truth_of_query(const struct query_view *query)
{
    return truth_of(query->question, query->question_length - DNS_QUESTION_TAIL, query->type,
                    query->dnssec_ok, query->checking_disabled);
}

static void write_record(struct writer *writer, uint16_t type, uint32_t ttl_s, uint32_t value)
{
    write_u16(writer, 0xc000 | DNS_HEADER_SIZE);
    write_u16(writer, type);
    write_u16(writer, CLASS_IN);
    write_u32(writer, ttl_s);
    write_u16(writer, 4);
    write_u32(writer, value);
}

/* Serial, refresh and retry carry what the three first records of a positive answer do. */
static void write_soa(struct writer *writer, uint32_t ttl_s, uint32_t hash, uint32_t at_ms)
{
    write_u16(writer, 0xc000 | DNS_HEADER_SIZE);
    write_u16(writer, TYPE_SOA);
    write_u16(writer, CLASS_IN);
    write_u32(writer, ttl_s);
    write_u16(writer, 2 + 2 + 20);
    write_u16(writer, 0xc000 | DNS_HEADER_SIZE);
    write_u16(writer, 0xc000 | DNS_HEADER_SIZE);
    write_u32(writer, hash);
    write_u32(writer, ttl_s);
    write_u32(writer, at_ms);
    write_u32(writer, 0);
    write_u32(writer, ttl_s);
}

static void write_opt(struct writer *writer, bool has_keepalive, uint16_t keepalive_100ms)
{
    write_u8(writer, 0);
    write_u16(writer, TYPE_OPT);
    write_u16(writer, 1232);
    write_u32(writer, 0);
    write_u16(writer, has_keepalive ? 6 : 0);
    if (!has_keepalive)
        return;
    write_u16(writer, OPTION_KEEPALIVE);
    write_u16(writer, 2);
    write_u16(writer, keepalive_100ms);
}

static void write_header(struct writer *writer, uint16_t id, unsigned flags, unsigned answers,
                         unsigned authorities, unsigned additionals)
{
    write_u16(writer, id);
    write_u16(writer, (uint16_t)(DNS_FLAG_QR | DNS_FLAG_RD | DNS_FLAG_RA | flags));
    write_u16(writer, 1);
    write_u16(writer, (uint16_t)answers);
    write_u16(writer, (uint16_t)authorities);
    write_u16(writer, (uint16_t)(additionals + 1)); /* and OPT */
}

/* The records of the truth, with `hash` in them, behind the question. It leaves `after_ns` from
 * now, and says so. */
static void write_truth(struct writer *writer, uint16_t id, const struct query_view *query,
                        uint32_t hash, uint64_t after_ns)
{
    const struct truth truth = truth_of_query(query);
    const uint32_t at_ms = (uint32_t)((net_now() + after_ns) / NANOSECONDS_PER_MILLISECOND);
    const bool is_positive = truth.kind == TRUTH_POSITIVE;
    write_header(writer, id, truth.kind == TRUTH_NXDOMAIN ? RCODE_NXDOMAIN : 0,
                 is_positive ? 3 + truth.filler_count : 0, !is_positive, truth.optional_count);
    write_bytes(writer, query->question, query->question_length);
    if (is_positive) {
        write_record(writer, query->type, truth.ttl_s, hash);
        write_record(writer, query->type, truth.ttl_s, truth.ttl_s);
        write_record(writer, query->type, truth.ttl_s, at_ms);
        for (uint32_t i = 0; i < truth.filler_count; i++)
            write_record(writer, query->type, truth.ttl_s, i);
    } else {
        write_soa(writer, truth.ttl_s, hash, at_ms);
    }
    for (uint32_t i = 0; i < truth.optional_count; i++)
        write_record(writer, (uint16_t)(OPTIONAL_TYPE + i), truth.optional_ttl_s, i);
}

/* --- Sending --- */

static bool remove_id(struct conversation *conversation, uint16_t id)
{
    for (size_t i = 0; i < conversation->id_count; i++) {
        if (conversation->ids[i] != id)
            continue;
        conversation->ids[i] = conversation->ids[--conversation->id_count];
        return true;
    }
    return false;
}

static void end_conversation(struct conversation *conversation, bool by_reset)
{
    if (conversation->is_over)
        return;
    conversation->is_over = true;
    if (by_reset)
        link_reset(conversation->link);
    else
        link_end(conversation->link);
}

static void trouble(enum fault fault)
{
    fault_counts[fault]++;
    sim_tell("fault %s", fault_labels[fault]);
}

/* Sends bytes, unless the connection breaks at one of them. */
static void send_bytes(struct conversation *conversation, const uint8_t *bytes, size_t length)
{
    const size_t index = conversation->index;
    const bool closes = fault_happens_at(FAULT_CLOSE, index);
    const bool resets = !closes && fault_happens_at(FAULT_RESET, index);
    const bool stalls = fault_happens_at(FAULT_STALL, index);
    if (closes || resets || stalls)
        length = random_below(length + 1);
    conversation->active_ns = net_now();
    link_send(conversation->link, bytes, length);
    if (closes || resets)
        end_conversation(conversation, resets);
    if (stalls)
        link_stall(conversation->link);
}

static void send_message(void *subject, const uint8_t *bytes, size_t length)
{
    struct conversation *conversation = subject;
    if (!conversation->is_over && outages[conversation->index] == OUTAGE_NONE)
        send_bytes(conversation, bytes, length);
}

/* The same for a message that answers: its ID is free from now on. */
static void send_answer(void *subject, const uint8_t *bytes, size_t length)
{
    struct conversation *conversation = subject;
    if (conversation->is_over || outages[conversation->index] != OUTAGE_NONE)
        return;
    (void)remove_id(conversation, load_u16(bytes + 2));
    send_bytes(conversation, bytes, length);
    if (++conversation->answers == upstream_closes_after(conversation->index)) {
        trouble(FAULT_CLOSES_EACH_NTH);
        end_conversation(conversation, false);
    }
}

static uint8_t frame[MESSAGE_ROOM];

static struct writer begin_frame(void)
{
    return writer_over(frame + 2, sizeof(frame) - 2);
}

/* Sends the frame later. */
static void post_frame(struct conversation *conversation, size_t length, uint64_t after_ns,
                       event_run *how)
{
    store_u16(frame, (uint16_t)length);
    net_schedule(after_ns, how, conversation, frame, length + 2);
}

static uint64_t work_ns(size_t index)
{
    uint64_t work = random_below(MILLISECONDS(2));
    if (fault_happens(FAULT_REORDER))
        work += random_below(MILLISECONDS(50));
    if (fault_happens_at(FAULT_LATE, index))
        work += random_below(MILLISECONDS(6000));
    return work;
}

/* When an answer leaves: in order behind those that were asked for before, with a slow name, at an
 * upstream that answers so. */
static uint64_t answer_after_ns(struct conversation *conversation, const struct query_view *query)
{
    const size_t index = conversation->index;
    uint64_t after_ns = work_ns(index);
    if (has_fault(FAULT_ERRORS_FOR_ALL))
        after_ns += GOOD_NS;
    if (!upstream_has(FAULT_ANSWERS_IN_ORDER, index))
        return after_ns;
    if (mark_of(query->question) == MARK_SLOW)
        after_ns += SLOW_ANSWER_NS;
    if (net_now() + after_ns < conversation->last_answer_ns)
        after_ns = conversation->last_answer_ns - net_now();
    conversation->last_answer_ns = net_now() + after_ns;
    return after_ns;
}

/* Every other slow name is never answered, and nothing behind it on its connection. */
static bool is_held_up(struct conversation *conversation, const struct query_view *query)
{
    if (!upstream_has(FAULT_ANSWERS_IN_ORDER, conversation->index))
        return false;
    if (mark_of(query->question) == MARK_SLOW) {
        trouble(FAULT_ANSWERS_IN_ORDER);
        conversation->is_held_up |= truth_of_query(query).hash & 1;
    }
    return conversation->is_held_up;
}

/* --- Answers --- */

static void post_poison(struct conversation *conversation, uint16_t id,
                        const struct query_view *question)
{
    struct writer writer = begin_frame();
    write_truth(&writer, id, question, POISON, 0);
    write_opt(&writer, false, 0);
    post_frame(conversation, writer_length(&writer), work_ns(conversation->index), send_message);
}

/* An answer to what nobody has asked. */
static void post_stranger(struct conversation *conversation)
{
    static const uint8_t question[] = {8,   's', 't', 'r', 'a',    'n', 'g',
                                       'e', 'r', 0,   0,   TYPE_A, 0,   CLASS_IN};
    const struct query_view stranger = {
        .type = TYPE_A, .question = question, .question_length = sizeof(question)};
    post_poison(conversation, (uint16_t)random_below(65536), &stranger);
}

/* An answer to the question with one octet changed: of its name, type or class. */
static void post_wrong_question(struct conversation *conversation, const struct query_view *query)
{
    uint8_t question[DNS_NAME_MAX + DNS_QUESTION_TAIL];
    struct query_view wrong = *query;
    memcpy(question, query->question, query->question_length);
    question[1 + random_below(query->question_length - 1)] ^= 1;
    wrong.question = question;
    if (question[query->question_length - DNS_QUESTION_TAIL - 1] == 0) /* the name still ends */
        post_poison(conversation, query->id, &wrong);
}

/* What comes besides the answer. */
static void post_strangers(struct conversation *conversation, const struct query_view *query)
{
    const size_t index = conversation->index;
    while (fault_happens_at(FAULT_UNSOLICITED, index))
        post_stranger(conversation);
    if (fault_happens_at(FAULT_WRONG_QUESTION, index))
        post_wrong_question(conversation, query);
    /* The generation is in the high bits, so this names the same slot in another use. */
    if (fault_happens_at(FAULT_WRONG_ID, index))
        post_poison(conversation, query->id ^ 0x8000, query);
}

static void post_empty(struct conversation *conversation, const struct query_view *query,
                       unsigned flags, bool has_question, uint64_t after_ns)
{
    struct writer writer = begin_frame();
    write_header(&writer, query->id, flags, 0, 0, 0);
    if (has_question)
        write_bytes(&writer, query->question, query->question_length);
    else
        store_u16(frame + 2 + 4, 0);
    write_opt(&writer, false, 0);
    post_frame(conversation, writer_length(&writer), after_ns, send_answer);
}

/* The first octets of the answer, in a frame of their own. */
static void post_runt(struct conversation *conversation, const struct query_view *query,
                      uint64_t after_ns)
{
    struct writer writer = begin_frame();
    trouble(FAULT_RUNT_FRAMES);
    write_header(&writer, query->id, 0, 0, 0, 0);
    const size_t length = random_between(1, DNS_HEADER_SIZE - 1);
    post_frame(conversation, length, after_ns, length < 2 ? send_message : send_answer);
}

static void post_truth(struct conversation *conversation, const struct query_view *query,
                       uint64_t after_ns)
{
    const size_t index = conversation->index;
    const struct truth truth = truth_of(query->question, query->question_length - DNS_QUESTION_TAIL,
                                        query->type, query->dnssec_ok, query->checking_disabled);
    struct writer writer = begin_frame();
    write_truth(&writer, query->id, query, truth.hash, after_ns);
    const bool has_keepalive = fault_happens_at(FAULT_KEEPALIVE, index);
    write_opt(&writer, has_keepalive, (uint16_t)(random_below(3) * random_below(10)));
    size_t length = writer_length(&writer);
    if (fault_happens_at(FAULT_MALFORMED, index))
        length = random_below(length);
    post_frame(conversation, length, after_ns, length < 2 ? send_message : send_answer);
    if (fault_happens_at(FAULT_DUPLICATE, index))
        post_frame(conversation, length, after_ns + work_ns(index), send_message);
}

/* The answer that only the product itself could give. */
static void post_self(struct conversation *conversation, const struct query_view *query,
                      uint64_t after_ns)
{
    struct question question = {.type = TYPE_TXT, .class = CLASS_IN};
    struct self_probe_answer self;
    struct writer writer = begin_frame();
    question.name_length = (uint8_t)(query->question_length - DNS_QUESTION_TAIL);
    memcpy(question.name, query->question, question.name_length);
    if (!self_probe_is_ours(world_self_key(), &question))
        sim_fail("a question to ourselves that nobody recognizes");
    self_probe_make_answer(world_self_key(), &question, &self);
    write_header(&writer, query->id, 0, self.answer.answer_count, 0, 0);
    write_bytes(&writer, query->question, query->question_length);
    write_bytes(&writer, self.answer.body, self.answer.body_length);
    write_opt(&writer, false, 0);
    const bool is_in_time = after_ns < SELF_ANSWER_NS && !has_fault(FAULT_DELAY) &&
                            !has_fault(FAULT_ODD_TIMEOUTS) && !has_fault(FAULT_CLOCK_JUMP);
    if (is_in_time)
        conversation->self_told_ns = net_now() + after_ns;
    post_frame(conversation, writer_length(&writer), after_ns, send_answer);
}

static void answer(struct conversation *conversation, const struct query_view *query)
{
    static const unsigned errors[] = {RCODE_SERVFAIL, RCODE_SERVFAIL, RCODE_REFUSED,
                                      RCODE_NOTIMP,   RCODE_FORMERR,  9};
    const size_t index = conversation->index;
    if (conversation->is_silent || truth_of_query(query).kind == TRUTH_SILENCE ||
        is_held_up(conversation, query))
        return;
    post_strangers(conversation, query);
    if (fault_happens_at(FAULT_LOST, index))
        return;
    answered_ns[index] = net_now();
    if (upstream_only_errs(index)) {
        trouble(FAULT_ERRORS_FOR_ALL);
        if (query->kind == ASKED_BY_LOOKUP && upstream_errs_anew(index))
            clients_note_onset(truth_of_query(query).hash);
        post_empty(conversation, query, RCODE_SERVFAIL, true, ERROR_NS);
        return;
    }
    if (query->kind == ASKED_BY_LOOKUP)
        upstream_note_good(index);
    const uint64_t after_ns = answer_after_ns(conversation, query);
    const enum mark mark = mark_of(query->question);
    if (mark == MARK_RUNT && mark_troubles(mark, index))
        post_runt(conversation, query, after_ns);
    else if (fault_happens_at(FAULT_ERROR_RCODE, index))
        post_empty(conversation, query, errors[random_below(6)], true, after_ns);
    else if (fault_happens_at(FAULT_TRUNCATED, index))
        post_empty(conversation, query, DNS_FLAG_TC, true, after_ns);
    else if (fault_happens_at(FAULT_NO_QUESTION, index))
        post_empty(conversation, query, (unsigned)random_below(6), false, after_ns);
    else if (query->kind == ASKED_WHETHER_SELF && fault_happens_at(FAULT_SELF, index))
        post_self(conversation, query, after_ns);
    else
        post_truth(conversation, query, after_ns);
}

/* --- Receiving --- */

static void note_id(struct conversation *conversation, uint16_t id)
{
    for (size_t i = 0; i < conversation->id_count; i++)
        if (conversation->ids[i] == id)
            sim_fail("ID %u is twice in flight on one connection (F10)", id);
    if (conversation->id_count == IDS_MAX)
        sim_fail("more than %d IDs in flight on one connection", IDS_MAX);
    conversation->ids[conversation->id_count++] = id;
}

/* Who has said that it is the product itself is left at once (G11). */
static void check_self(const struct conversation *conversation)
{
    const uint64_t told_ns = conversation->self_told_ns;
    if (told_ns > 0 && net_now() > told_ns + SELF_LEAVE_NS)
        sim_fail("upstream %zu is asked though it is the product itself (G11)",
                 conversation->index);
}

static enum asked kind_of(const struct query_view *query)
{
    const size_t name_length = query->question_length - DNS_QUESTION_TAIL;
    if (name_length == 1 && query->type == TYPE_NS)
        return ASKED_AS_PROBE;
    if (plan.has_self_check && name_length == SELF_PROBE_NAME_LENGTH && query->type == TYPE_TXT)
        return ASKED_WHETHER_SELF;
    return ASKED_BY_LOOKUP;
}

/* At once, whatever else is aboard. */
static bool closes_on(const struct conversation *conversation, const struct query_view *query)
{
    const enum mark mark = mark_of(query->question);
    const bool is_marked = mark == MARK_CLOSES || mark == MARK_CLOSES_BELOW;
    if (conversation->ends_at == STAGE_ASKED)
        return true;
    if (!is_marked || !mark_troubles(mark, conversation->index))
        return false;
    trouble(mark_kinds[mark].fault);
    if (query->recursion_desired)
        clients_note_end(conversation->index, truth_of_query(query).hash, conversation->asked == 1);
    return true;
}

/* Fails when a query is not as message_build_query should make it, or its ID is in flight. */
static void take_query(struct conversation *conversation, const uint8_t *message, size_t length)
{
    struct reader reader = reader_over(message, length);
    struct query_view query = {.id = read_u16(&reader)};
    const uint16_t flags = read_u16(&reader);
    const bool has_one_question = read_u16(&reader) == 1 && read_u16(&reader) == 0;
    const bool has_opt = read_u16(&reader) == 0 && read_u16(&reader) == 1;
    query.question = reader.position;
    for (const uint8_t *label; (label = read_bytes(&reader, 1)) && *label != 0;)
        (void)read_bytes(&reader, *label);
    query.type = read_u16(&reader);
    (void)read_u16(&reader);
    query.question_length = (size_t)(reader.position - query.question);
    query.checking_disabled = flags & DNS_FLAG_CD;
    query.recursion_desired = flags & DNS_FLAG_RD;
    (void)read_bytes(&reader, 7); /* root, OPT, size, extended RCODE and version */
    query.dnssec_ok = read_u16(&reader) & DNS_EDNS_FLAG_DO;
    if (reader.failed || flags & DNS_FLAG_QR || !has_one_question || !has_opt || length % 128 != 0)
        sim_fail("upstream %zu got a query that is none", conversation->index);
    note_id(conversation, query.id);
    query.kind = kind_of(&query);
    check_self(conversation);
    if (query.kind == ASKED_BY_LOOKUP) {
        conversation->asked++;
        clients_note_request(conversation->index, truth_of_query(&query).hash);
    }
    queries_received[conversation->index] += query.kind == ASKED_BY_LOOKUP;
    probes_received[conversation->index] += query.kind == ASKED_AS_PROBE;
    sim_tell("upstream %zu is asked (%d) for %08x, ID %u", conversation->index, (int)query.kind,
             truth_of_query(&query).hash, query.id);
    if (closes_on(conversation, &query))
        end_conversation(conversation, random_below(4) == 0);
    else
        answer(conversation, &query);
}

static void idle_check(void *subject, const uint8_t *bytes, size_t length)
{
    struct conversation *conversation = subject;
    uint64_t idle_ns;
    (void)length;
    memcpy(&idle_ns, bytes, sizeof(idle_ns));
    if (conversation->id_count == 0 && net_now() - conversation->active_ns >= idle_ns)
        end_conversation(conversation, false);
}

static void send_verdict(void *subject, const uint8_t *bytes, size_t length)
{
    struct conversation *conversation = subject;
    if (conversation->is_over || outages[conversation->index] != OUTAGE_NONE)
        return;
    conversation->is_open = bytes[0] == 'O';
    send_bytes(conversation, bytes, length);
    if (conversation->ends_at == STAGE_OPEN)
        end_conversation(conversation, false);
    else if (conversation->is_open && fault_happens_at(FAULT_UNSOLICITED, conversation->index))
        post_stranger(conversation);
}

static void take_greeting(struct conversation *conversation)
{
    const size_t index = conversation->index;
    const uint8_t name = (uint8_t)('0' + index);
    const uint8_t *greeting = conversation->received;
    if (greeting[0] != 'H' || greeting[1] != name || (greeting[2] != 0 && greeting[2] != name))
        sim_fail("upstream %zu is greeted as %c with the ticket of %d (E3)", index, greeting[1],
                 greeting[2]);
    if (conversation->ends_at == STAGE_GREETED) {
        end_conversation(conversation, false);
        return;
    }
    uint64_t after_ns = random_below(MILLISECONDS(2));
    if (fault_happens_at(FAULT_SLOW_HANDSHAKE, index)) {
        if (random_below(3) == 0)
            return;
        after_ns += random_below(MILLISECONDS(3000));
    }
    uint8_t verdict = 'O';
    if (fault_happens_at(FAULT_BAD_HANDSHAKE, index))
        verdict = random_below(2) ? 'N' : 'F';
    net_schedule(after_ns, send_verdict, conversation, &verdict, 1);
}

static void drop_received(struct conversation *conversation, size_t count)
{
    conversation->length -= count;
    memmove(conversation->received, conversation->received + count, conversation->length);
}

static void take_messages(struct conversation *conversation)
{
    while (conversation->length >= 2 && !conversation->is_over) {
        const size_t message = load_u16(conversation->received);
        if (message + 2 > RECEIVED_MAX)
            sim_fail("upstream %zu got a message of %zu octets", conversation->index, message);
        if (conversation->length < message + 2)
            break;
        take_query(conversation, conversation->received + 2, message);
        drop_received(conversation, message + 2);
    }
}

void upstream_receive(struct conversation *conversation, const uint8_t *bytes, size_t length)
{
    if (conversation->is_over || outages[conversation->index] != OUTAGE_NONE)
        return;
    conversation->active_ns = net_now();
    while (length > 0 && !conversation->is_over) {
        if (!conversation->is_open && conversation->length >= GREETING_LENGTH)
            sim_fail("upstream %zu got more than a greeting (E1)", conversation->index);
        size_t piece = conversation->is_open ? RECEIVED_MAX - conversation->length
                                             : GREETING_LENGTH - conversation->length;
        piece = piece < length ? piece : length;
        memcpy(conversation->received + conversation->length, bytes, piece);
        conversation->length += piece;
        bytes += piece;
        length -= piece;
        if (conversation->is_open)
            take_messages(conversation);
        else if (conversation->length == GREETING_LENGTH) {
            take_greeting(conversation);
            conversation->length = 0;
        }
    }
    if (fault_happens_at(FAULT_IDLE_CLOSE, conversation->index)) {
        const uint64_t idle_ns = MILLISECONDS(random_between(1, 1500));
        net_schedule(idle_ns, idle_check, conversation, (const uint8_t *)&idle_ns, sizeof(idle_ns));
    }
}

void upstream_peer_closed(struct conversation *conversation)
{
    conversation->is_over = true;
}

size_t upstream_queries(size_t index)
{
    return queries_received[index];
}

uint64_t upstream_answered_ns(size_t index)
{
    return answered_ns[index];
}

size_t upstream_probes(size_t index)
{
    return probes_received[index];
}

/* --- Connecting --- */

enum connect_end upstream_connect(size_t index, uint64_t *after_ns)
{
    if (fault_happens_at(FAULT_UNREACHABLE, index) || outages[index] == OUTAGE_UNROUTED)
        return CONNECT_UNREACHABLE;
    if (fault_happens_at(FAULT_REFUSE, index) || outages[index] == OUTAGE_KILLED)
        return CONNECT_REFUSED;
    if (outages[index] == OUTAGE_VANISHED)
        return CONNECT_NEVER;
    if (!fault_happens_at(FAULT_SLOW_CONNECT, index))
        return CONNECT_DONE;
    *after_ns = random_below(MILLISECONDS(2000));
    return random_below(2) ? CONNECT_DONE : CONNECT_NEVER;
}

/* A connection that breaks at some moment, whatever is under way. */
static void break_later(void *subject, const uint8_t *bytes, size_t length)
{
    struct conversation *conversation = subject;
    (void)length;
    if (bytes[0] == FAULT_STALL)
        link_stall(conversation->link);
    else
        end_conversation(conversation, bytes[0] == FAULT_RESET);
}

struct conversation *upstream_accept(size_t index, struct link *link)
{
    static const enum fault breaks[] = {FAULT_CLOSE, FAULT_RESET, FAULT_STALL};
    struct conversation *conversation = sim_allocate(sizeof(*conversation));
    *conversation = (struct conversation){.next = conversations,
                                          .link = link,
                                          .index = index,
                                          .active_ns = net_now(),
                                          .ends_at = STAGE_COUNT,
                                          .is_silent = fault_happens_at(FAULT_HALF_OPEN, index)};
    conversations = conversation;
    for (size_t i = 0; i < 3; i++) {
        const uint8_t how = (uint8_t)breaks[i];
        if (fault_happens_at(breaks[i], index))
            net_schedule(random_below(MILLISECONDS(3000)), break_later, conversation, &how, 1);
    }
    if (closes_all[index]) {
        trouble(FAULT_ACCEPTS_AND_CLOSES);
        conversation->ends_at = (enum stage)random_below(STAGE_COUNT);
    }
    if (conversation->ends_at == STAGE_ACCEPTED)
        end_conversation(conversation, false);
    return conversation;
}

/* --- Outages --- */

static void outage_changes(void *subject, const uint8_t *bytes, size_t length)
{
    (void)subject;
    (void)length;
    const size_t index = bytes[0];
    const enum outage outage = (enum outage)bytes[1];
    sim_tell("upstream %zu: outage %d", index, (int)outage);
    outages[index] = outage;
    outages_ended_ns[index] = net_now();
    if (outage == OUTAGE_NONE)
        return;
    for (struct conversation *conversation = conversations; conversation;
         conversation = conversation->next) {
        if (conversation->index != index)
            continue;
        if (outage == OUTAGE_KILLED)
            end_conversation(conversation, true);
        else
            link_stall(conversation->link);
    }
}

static void absence_begins(void *subject, const uint8_t *bytes, size_t length)
{
    const size_t index = bytes[0];
    const bool accepts = bytes[1] == FAULT_ACCEPTS_AND_CLOSES;
    (void)subject;
    (void)length;
    trouble((enum fault)bytes[1]);
    sim_tell("upstream %zu is away", index);
    closes_all[index] = accepts;
    outages[index] = accepts ? OUTAGE_NONE : OUTAGE_KILLED;
    for (struct conversation *conversation = conversations; conversation;
         conversation = conversation->next)
        if (conversation->index == index)
            end_conversation(conversation, random_below(2));
}

static void absence_ends(void *subject, const uint8_t *bytes, size_t length)
{
    const size_t index = bytes[0];
    (void)subject;
    (void)length;
    sim_tell("upstream %zu is back", index);
    closes_all[index] = false;
    outages[index] = OUTAGE_NONE;
    for (struct conversation *conversation = conversations; conversation;
         conversation = conversation->next)
        if (conversation->index == index && conversation->ends_at < STAGE_COUNT)
            end_conversation(conversation, false);
}

void upstream_plan_absence(enum fault fault, size_t index, uint64_t from_ns, uint64_t length_ns)
{
    const uint8_t what[] = {(uint8_t)index, (uint8_t)fault};
    net_schedule(from_ns, absence_begins, NULL, what, sizeof(what));
    net_schedule(from_ns + length_ns, absence_ends, NULL, what, sizeof(what));
}

static void network_is_told(void *subject, const uint8_t *bytes, size_t length)
{
    (void)subject;
    (void)bytes;
    (void)length;
    world_change_network(random_below(4) == 0);
}

static void plan_outage(size_t index, enum outage outage)
{
    const uint64_t from_ns = random_below(plan.duration_ns + 1);
    const uint64_t length_ns = random_below(MILLISECONDS(3000));
    const uint8_t begin[] = {(uint8_t)index, (uint8_t)outage};
    const uint8_t end[] = {(uint8_t)index, OUTAGE_NONE};
    net_schedule(from_ns, outage_changes, NULL, begin, sizeof(begin));
    net_schedule(from_ns + length_ns, outage_changes, NULL, end, sizeof(end));
    if (outage != OUTAGE_UNROUTED)
        return;
    net_schedule(from_ns + random_below(MILLISECONDS(300)), network_is_told, NULL, NULL, 0);
    net_schedule(from_ns + length_ns + random_below(MILLISECONDS(300)), network_is_told, NULL, NULL,
                 0);
}

static void plan_outages(size_t index)
{
    for (size_t i = 0; i < OUTAGES_MAX && fault_happens_at(FAULT_OUTAGE, index); i++)
        plan_outage(index, (enum outage)random_between(OUTAGE_KILLED, OUTAGE_VANISHED));
    for (size_t i = 0; i < OUTAGES_MAX && fault_happens_at(FAULT_NO_ROUTE, index); i++)
        plan_outage(index, OUTAGE_UNROUTED);
}

/* --- Changes of the network --- */

uint32_t upstream_source(size_t index)
{
    return outages[index] == OUTAGE_UNROUTED ? 0 : sources[index];
}

/* Some upstreams, or none, are reached from another address of ours: what was sent from the old
 * one gets no answer. */
static void network_changes(void *subject, const uint8_t *bytes, size_t length)
{
    (void)subject;
    (void)bytes;
    (void)length;
    const uint64_t moved = random_below(UINT64_C(1) << SIM_UPSTREAMS_MAX);
    for (size_t i = 0; i < plan.upstream_count; i++)
        sources[i] += (uint32_t)(moved >> i & 1);
    for (struct conversation *conversation = conversations; conversation;
         conversation = conversation->next)
        if (moved >> conversation->index & 1)
            link_stall(conversation->link);
    sim_tell("the network changes, and ways to upstreams %x", (unsigned)moved);
    net_schedule(random_below(MILLISECONDS(300)), network_is_told, NULL, NULL, 0);
}

static void plan_network_changes(void)
{
    for (size_t i = 0; i < NETWORK_CHANGES_MAX && fault_happens(FAULT_NETWORK); i++)
        net_schedule(random_below(plan.duration_ns + 1), network_changes, NULL, NULL, 0);
}

bool upstreams_were_dead_since(uint64_t since_ns)
{
    for (size_t i = 0; i < plan.upstream_count; i++)
        if (outages[i] == OUTAGE_NONE && outages_ended_ns[i] < since_ns)
            return false;
    return true;
}

void upstreams_reset(void)
{
    memset(outages_ended_ns, 0, sizeof(outages_ended_ns));
    memset(outages, 0, sizeof(outages));
    memset(closes_all, 0, sizeof(closes_all));
    memset(queries_received, 0, sizeof(queries_received));
    memset(probes_received, 0, sizeof(probes_received));
    memset(answered_ns, 0, sizeof(answered_ns));
    for (size_t i = 0; i < plan.upstream_count; i++) {
        sources[i] = FIRST_SOURCE;
        plan_outages(i);
    }
    plan_network_changes();
    troubles_reset();
}

void upstreams_close(void)
{
    while (conversations) {
        struct conversation *conversation = conversations;
        conversations = conversation->next;
        sim_release(conversation);
    }
}
