// SPDX-License-Identifier: Apache-2.0
/* An upstream's answer checked: every record within bounds, every name valid, which of them a
 * client cannot do without, and how long these may be kept. Nothing is decompressed; the records
 * stay as they came.
 *
 * Thread: any.   Owner: nothing; the answer borrows the message and the scratch.
 * RFC:    1035 4.1, 2181 8 (TTL), 2308 2 and 5 (negative answers), 3597 (unknown types are opaque),
 *         4035 3.1.3, 6891, 7828 3.2.2, 8914, 8945 5.1, 9267, 9520. */
#include <assert.h>

#include "base/bytes.h"
#include "dns/extended_error.h"
#include "dns/message.h"
#include "dns/name.h"

enum {
    FAILURE_TTL_S = 1, /* RFC 9520 3.2 */
    CHAIN_MAX = 16,    /* CNAMEs that are followed; a longer chain is not kept */
    SOA_MINIMUM = 4,   /* octets, the last of the RDATA */
    QUESTION_NAME = DNS_POINTER_MARK << 8 | DNS_HEADER_SIZE, /* as a pointer */
};

enum section { SECTION_ANSWER, SECTION_AUTHORITY, SECTION_ADDITIONAL };

struct record {
    size_t owner;
    size_t data; /* offset of the RDATA */
    size_t end;
    uint32_t ttl;
    uint16_t type;
    uint16_t class;
};

/* What a client must get of the records: octets up to the last of them, and the least TTL of those
 * and of all that stands before, which cannot be cut. */
struct part {
    size_t end; /* offset in the message */
    uint32_t ttl_s;
};

/* The walk over one message. */
struct check {
    const struct question *question;
    struct name_map names;
    size_t position;
    size_t body;          /* offset of the first record */
    size_t body_end;      /* behind the last record that is kept */
    struct part needed;   /* whatever the answer says */
    struct part soa;      /* when it says no: the SOA and its signatures */
    uint32_t least_ttl_s; /* of the records so far */
    uint32_t soa_minimum_s;
    bool is_answered; /* by a record that stands behind the question's own name */
    bool has_soa;
    bool has_opt;
    bool has_extended_errors;
    bool is_over; /* nothing that follows is kept */
    struct answer_scratch *scratch;
    struct answer answer;
};

/* The RDATA of the types that hold names: octets, then character strings, then names, then octets.
 * What has no row may hold anything (RFC 3597). SVCB and HTTPS too: their names are never
 * compressed (RFC 9460 2.2). */
struct rdata_layout {
    bool exact; /* nothing may follow */
    uint8_t before;
    uint8_t strings;
    uint8_t names;
    uint8_t after;
};

static const struct rdata_layout rdata_layouts[] = {
    [TYPE_A] = {.exact = true, .before = 4},
    [TYPE_NS] = {.exact = true, .names = 1},
    [TYPE_MD] = {.exact = true, .names = 1},
    [TYPE_MF] = {.exact = true, .names = 1},
    [TYPE_CNAME] = {.exact = true, .names = 1},
    [TYPE_SOA] = {.exact = true, .names = 2, .after = 20},
    [TYPE_MB] = {.exact = true, .names = 1},
    [TYPE_MG] = {.exact = true, .names = 1},
    [TYPE_MR] = {.exact = true, .names = 1},
    [TYPE_PTR] = {.exact = true, .names = 1},
    [TYPE_MINFO] = {.exact = true, .names = 2},
    [TYPE_MX] = {.exact = true, .before = 2, .names = 1},
    [TYPE_RP] = {.exact = true, .names = 2},
    [TYPE_AFSDB] = {.exact = true, .before = 2, .names = 1},
    [TYPE_RT] = {.exact = true, .before = 2, .names = 1},
    [TYPE_SIG] = {.before = 18, .names = 1},
    [TYPE_PX] = {.exact = true, .before = 2, .names = 2},
    [TYPE_AAAA] = {.exact = true, .before = 16},
    [TYPE_NXT] = {.names = 1},
    [TYPE_SRV] = {.exact = true, .before = 6, .names = 1},
    [TYPE_NAPTR] = {.exact = true, .before = 4, .strings = 3, .names = 1},
    [TYPE_KX] = {.exact = true, .before = 2, .names = 1},
    [TYPE_DNAME] = {.exact = true, .names = 1},
    [TYPE_RRSIG] = {.before = 18, .names = 1},
};

static const struct rdata_layout *layout_of(const struct record *record)
{
    static const struct rdata_layout opaque = {0};
    const bool is_address = record->type == TYPE_A || record->type == TYPE_AAAA;
    if (is_address && record->class != CLASS_IN) /* RFC 3597 4: addresses of other classes differ */
        return &opaque;
    if (record->type >= sizeof rdata_layouts / sizeof rdata_layouts[0])
        return &opaque;
    return &rdata_layouts[record->type];
}

static enum status check_rdata(struct check *check, const struct record *record)
{
    const struct rdata_layout *layout = layout_of(record);
    size_t position = record->data + layout->before;
    for (unsigned i = 0; i < layout->strings; i++) {
        if (position >= record->end)
            return STATUS_MALFORMED;
        position += 1 + (size_t)check->names.bytes[position];
    }
    for (unsigned i = 0; i < layout->names; i++)
        TRY(name_check(&check->names, &position, record->end));
    position += layout->after;
    const bool fits = layout->exact ? position == record->end : position <= record->end;
    return fits ? STATUS_OK : STATUS_MALFORMED;
}

static void read_record_fixed(const uint8_t *bytes, size_t fixed, struct record *record)
{
    record->type = load_u16(bytes + fixed);
    record->class = load_u16(bytes + fixed + 2);
    record->ttl = load_u32(bytes + fixed + 4);
    record->data = fixed + DNS_RECORD_FIXED;
    record->end = record->data + load_u16(bytes + fixed + 8);
}

static void take_option(struct check *check, const uint8_t *option, size_t length)
{
    struct answer *answer = &check->answer;
    switch ((enum edns_option)load_u16(option)) {
    case OPTION_KEEPALIVE:
        /* RFC 7828 3.1: a timeout; the empty one of a server says nothing, nor does one of any
         * other length, which costs nobody the answer. */
        if (length == DNS_OPTION_FIXED + 2) {
            answer->has_keepalive = true;
            answer->keepalive_100ms = load_u16(option + DNS_OPTION_FIXED);
        }
        break;
    case OPTION_PADDING:
        answer->has_padding = true;
        break;
    case OPTION_EXTENDED_ERROR: /* all at once: see take_opt */
        check->has_extended_errors = true;
        break;
    case OPTION_NSID:
    case OPTION_CLIENT_SUBNET:
    case OPTION_COOKIE:
    default:
        break; /* for this hop only (FAULTS H9) */
    }
}

static void keep_extended_errors(struct check *check, const uint8_t *options, size_t length)
{
    struct writer errors =
        writer_over(check->scratch->extended_errors, sizeof(check->scratch->extended_errors));
    extended_errors_copy(&errors, options, length);
    check->answer.extended_errors_length = (uint16_t)writer_length(&errors);
}

static enum status take_opt(struct check *check, const struct record *record)
{
    const bool has_root_owner = record->data - record->owner == 1 + DNS_RECORD_FIXED;
    if (check->has_opt || !has_root_owner) /* RFC 6891 6.1.1 and 6.1.2 */
        return STATUS_MALFORMED;
    check->has_opt = true;
    check->is_over = true;
    const uint16_t rcode_upper = (uint16_t)(record->ttl >> 24);
    check->answer.rcode = (uint16_t)(check->answer.rcode | rcode_upper << 4);

    const uint8_t *bytes = check->names.bytes;
    struct reader reader = reader_over(bytes + record->data, record->end - record->data);
    while (reader_left(&reader) > 0) {
        const uint8_t *option = reader.position;
        read_u16(&reader);
        read_bytes(&reader, read_u16(&reader));
        if (reader.failed)
            return STATUS_MALFORMED;
        take_option(check, option, (size_t)(reader.position - option));
    }
    if (check->has_extended_errors)
        keep_extended_errors(check, bytes + record->data, record->end - record->data);
    return STATUS_OK;
}

/* The part that the record belongs to, NULL when it is optional: additional data is, and of
 * authority all but the SOA that says no and, with DO, the proofs (RFC 4035 3.1.3). */
static struct part *part_of(struct check *check, const struct record *record, enum section section)
{
    if (section == SECTION_ANSWER)
        return &check->needed;
    if (section == SECTION_ADDITIONAL)
        return NULL;
    uint16_t type = record->type;
    if (type == TYPE_RRSIG && check->question->dnssec_ok)
        type = load_u16(check->names.bytes + record->data); /* the type that it covers */
    switch (type) {
    case TYPE_SOA:
        return &check->soa;
    case TYPE_NSEC:
    case TYPE_NSEC3:
        return check->question->dnssec_ok ? &check->needed : NULL;
    default:
        return NULL;
    }
}

static bool has_type_asked_for(const struct check *check, const struct record *record)
{
    return record->type == check->question->type || check->question->type == TYPE_ANY;
}

/* Counts the record among those that are kept. */
static void keep_record(struct check *check, const struct record *record, enum section section)
{
    if (check->is_over)
        return;
    struct answer *answer = &check->answer;
    assert(answer->ttl_count < ANSWER_TTLS_MAX);
    const size_t ttl_offset = record->data - DNS_RECORD_FIXED + 4 - check->body;
    check->scratch->ttl_offsets[answer->ttl_count++] = (uint16_t)ttl_offset;
    check->body_end = record->end;
    const uint32_t ttl_s = ttl_meant(record->ttl);
    if (ttl_s < check->least_ttl_s)
        check->least_ttl_s = ttl_s;
    struct part *part = part_of(check, record, section);
    if (part)
        *part = (struct part){record->end, check->least_ttl_s};
    if (section == SECTION_ADDITIONAL)
        answer->additional_count++;
    if (section != SECTION_AUTHORITY || record->type != TYPE_SOA)
        return;
    const uint8_t *minimum = check->names.bytes + record->end - SOA_MINIMUM;
    const uint32_t minimum_s = ttl_meant(load_u32(minimum));
    if (!check->has_soa || minimum_s < check->soa_minimum_s)
        check->soa_minimum_s = minimum_s;
    check->has_soa = true;
}

/* Records that speak of the message and not of names: TSIG, TKEY and SIG(0) (RFC 2931 3). We ask
 * for none of them, and they are of no use to a client who did not send the message. */
static bool is_of_transaction(const struct check *check, const struct record *record)
{
    return record->type == TYPE_TSIG || record->type == TYPE_TKEY ||
           (record->type == TYPE_SIG && load_u16(check->names.bytes + record->data) == 0);
}

static enum status check_record(struct check *check, enum section section)
{
    const size_t length = check->names.length;
    struct record record = {.owner = check->position};
    TRY(name_check(&check->names, &check->position, length));
    if (check->position + DNS_RECORD_FIXED > length)
        return STATUS_MALFORMED;
    read_record_fixed(check->names.bytes, check->position, &record);
    if (record.end > length)
        return STATUS_MALFORMED;
    /* No name may read a TTL as a label: it would change with age. */
    name_map_forbid(&check->names, check->position, DNS_RECORD_FIXED);
    check->position = record.end;
    if (record.type == TYPE_OPT)
        return section == SECTION_ADDITIONAL ? take_opt(check, &record) : STATUS_MALFORMED;
    TRY(check_rdata(check, &record));
    if (is_of_transaction(check, &record)) { /* RFC 8945 5.1: it has one place, as OPT has */
        check->is_over = true;
        return section == SECTION_ADDITIONAL ? STATUS_OK : STATUS_MALFORMED;
    }
    keep_record(check, &record, section);
    if (section == SECTION_ANSWER && load_u16(check->names.bytes + record.owner) == QUESTION_NAME)
        check->is_answered = check->is_answered || has_type_asked_for(check, &record);
    return STATUS_OK;
}

/* Ours is known to be a name, so one that is equal to it need not be measured. */
static bool has_question(const uint8_t *bytes, size_t length, const struct question *question)
{
    const uint8_t *name = bytes + DNS_HEADER_SIZE;
    const uint8_t *tail = name + question->name_length;
    return length >= DNS_HEADER_SIZE + (size_t)question->name_length + DNS_QUESTION_TAIL &&
           name_matches(name, question->name, question->name_length) &&
           load_u16(tail) == question->type && load_u16(tail + 2) == question->class;
}

static enum status check_question(const uint8_t *bytes, size_t length,
                                  const struct question *question)
{
    const size_t count = load_u16(bytes + 4);
    if (count != 1)
        return count == 0 ? STATUS_NOT_FOUND : STATUS_MALFORMED;
    if (has_question(bytes, length, question))
        return STATUS_OK;
    const size_t name_length = name_measure(bytes + DNS_HEADER_SIZE, length - DNS_HEADER_SIZE);
    const bool is_whole =
        name_length > 0 && length >= DNS_HEADER_SIZE + name_length + DNS_QUESTION_TAIL;
    return is_whole ? STATUS_NOT_FOUND : STATUS_MALFORMED;
}

/* Looks through the answer section for what is at `name`: true when that has the type asked for;
 * otherwise `*next` is where its CNAME leads, or 0. */
static bool find_at_name(struct check *check, size_t name, size_t *next)
{
    *next = 0;
    size_t position = check->body;
    for (unsigned i = 0; i < check->answer.answer_count; i++) {
        struct record record = {.owner = position};
        read_record_fixed(check->names.bytes, name_end(check->names.bytes, position), &record);
        position = record.end;
        const bool is_wanted = has_type_asked_for(check, &record);
        if (!is_wanted && record.type != TYPE_CNAME)
            continue;
        if (!name_equal(&check->names, record.owner, name))
            continue;
        if (is_wanted)
            return true;
        *next = record.data;
    }
    return false;
}

/* Seldom needed. RFC 2308 2.2: false for NODATA, which includes a chain of CNAMEs that ends
 * nowhere. A DNAME needs no look of its own: its CNAME comes with it (RFC 6672 3.1). The records
 * may be in any order. */
static bool has_data(struct check *check)
{
    size_t name = DNS_HEADER_SIZE;
    for (unsigned hops = 0; hops <= CHAIN_MAX; hops++) {
        size_t next;
        if (find_at_name(check, name, &next))
            return true;
        if (next == 0)
            return false;
        name = next;
    }
    return false;
}

static enum answer_kind kind_of(struct check *check)
{
    switch (check->answer.rcode) {
    case RCODE_NOERROR:
        return check->is_answered || has_data(check) ? ANSWER_POSITIVE : ANSWER_NEGATIVE;
    case RCODE_NXDOMAIN:
        return ANSWER_NEGATIVE;
    case RCODE_YXDOMAIN: /* RFC 6672 2.2: the DNAME that says so comes with it, and has a TTL */
        return check->answer.answer_count > 0 ? ANSWER_POSITIVE : ANSWER_FAILURE;
    default:
        return ANSWER_FAILURE;
    }
}

/* A referral has no SOA, and all of it is what it says. */
static struct part needed_of(const struct check *check)
{
    if (check->answer.kind != ANSWER_NEGATIVE)
        return check->needed;
    if (!check->has_soa)
        return (struct part){check->body_end, check->least_ttl_s};
    return check->soa.end > check->needed.end ? check->soa : check->needed;
}

static uint32_t ttl_of(const struct check *check, uint32_t needed_ttl_s)
{
    const struct answer *answer = &check->answer;
    if (answer->flags & DNS_FLAG_TC) /* RFC 2181 9 */
        return 0;
    switch (answer->kind) {
    case ANSWER_POSITIVE:
        return needed_ttl_s;
    case ANSWER_NEGATIVE:
        if (!check->has_soa)
            return 0;
        return needed_ttl_s < check->soa_minimum_s ? needed_ttl_s : check->soa_minimum_s;
    case ANSWER_FAILURE:
    case ANSWER_TIMEOUT:
    default:
        return answer->rcode == RCODE_BADVERS || answer->rcode == RCODE_BADCOOKIE ? 0
                                                                                  : FAILURE_TTL_S;
    }
}

static void finish(struct check *check)
{
    struct answer *answer = &check->answer;
    assert(check->body <= check->body_end && check->body_end <= check->names.length);
    answer->body = check->names.bytes + check->body;
    answer->body_length = (uint16_t)(check->body_end - check->body);
    answer->ttl_offsets = check->scratch->ttl_offsets;
    answer->extended_errors = check->scratch->extended_errors;
    answer->kind = kind_of(check);
    /* RFC 4035 3.2.3: AD speaks of records. Some servers (Unbound) write an error over the header
     * of the query, and AD is set in ours. */
    if (answer->kind == ANSWER_FAILURE)
        answer->flags &= (uint16_t)~DNS_FLAG_AD;
    const struct part needed = needed_of(check);
    answer->needed_length = (uint16_t)(needed.end - check->body);
    answer->ttl_s = ttl_of(check, needed.ttl_s);
}

static enum status check_records(struct check *check, const uint8_t *bytes)
{
    struct answer *answer = &check->answer;
    answer->answer_count = load_u16(bytes + 6);
    answer->authority_count = load_u16(bytes + 8);
    /* The name of the question is the one that most pointers lead to. */
    const size_t question_end = check->body - DNS_QUESTION_TAIL;
    name_map_learn(&check->names, DNS_HEADER_SIZE, question_end - DNS_HEADER_SIZE);
    name_map_forbid(&check->names, question_end, DNS_QUESTION_TAIL);
    check->position = check->body;
    for (enum section section = SECTION_ANSWER; section <= SECTION_ADDITIONAL; section++)
        for (unsigned left = load_u16(bytes + 6 + 2 * section); left > 0; left--)
            TRY(check_record(check, section));
    return STATUS_OK;
}

enum status message_check_answer(const uint8_t *bytes, size_t length,
                                 const struct question *question, struct answer_scratch *scratch,
                                 struct answer *out)
{
    assert(bytes && scratch && question->name_length > 0);
    if (length < DNS_HEADER_SIZE || length > DNS_MESSAGE_MAX)
        return STATUS_MALFORMED;
    const uint16_t flags = load_u16(bytes + 2);
    if (!(flags & DNS_FLAG_QR) || flags & DNS_OPCODE_MASK)
        return STATUS_MALFORMED;
    TRY(check_question(bytes, length, question));

    const size_t body = DNS_HEADER_SIZE + (size_t)question->name_length + DNS_QUESTION_TAIL;
    struct check check = {
        .question = question,
        .body = body,
        .body_end = body,
        .needed = {.end = body, .ttl_s = DNS_TTL_MAX},
        .soa = {.end = body, .ttl_s = DNS_TTL_MAX},
        .least_ttl_s = DNS_TTL_MAX,
        .scratch = scratch,
        .answer = {.flags = flags & (DNS_FLAG_AA | DNS_FLAG_TC | DNS_FLAG_RA | DNS_FLAG_AD),
                   .rcode = flags & DNS_RCODE_MASK},
    };
    name_map_init(&check.names, bytes, length, scratch->name_lengths);
    TRY(check_records(&check, bytes));
    finish(&check);
    *out = check.answer;
    return STATUS_OK;
}
