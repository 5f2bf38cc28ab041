// SPDX-License-Identifier: Apache-2.0
/* The addresses of a host: the question for them, and what an answer says.
 *
 * Thread: any; no state.   Owner: the caller's structs and buffers.
 * RFC:    1035 3.4.1 and 4.1, 3596 2. */
#include "dns/host.h"

#include <assert.h>

#include "base/bytes.h"
#include "dns/name.h"

void host_question(const char *host, enum dns_type type, struct question *out)
{
    assert(host && *host && (type == TYPE_A || type == TYPE_AAAA));
    uint8_t name[DNS_NAME_MAX];
    struct writer writer = writer_over(name, sizeof(name));
    for (const char *label = host; *label;) {
        const size_t length = strcspn(label, ".");
        assert(length > 0 && length <= DNS_LABEL_MAX);
        write_u8(&writer, (uint8_t)length);
        write_bytes(&writer, label, length);
        label += length + (label[length] == '.');
    }
    write_u8(&writer, 0);
    assert(!writer.failed);
    *out = (struct question){.type = (uint16_t)type,
                             .class = CLASS_IN,
                             .recursion_desired = true,
                             .name_length = (uint8_t)writer_length(&writer)};
    for (size_t i = 0; i < out->name_length; i++)
        out->name[i] = octet_lower(name[i]);
}

size_t host_query(const struct question *question, uint16_t id, uint8_t out[static HOST_QUERY_MAX])
{
    assert(question->name_length > 0);
    struct writer writer = writer_over(out, HOST_QUERY_MAX);
    write_u16(&writer, id);
    write_u16(&writer, DNS_FLAG_RD);
    write_u32(&writer, 1 << 16); /* QDCOUNT 1, ANCOUNT 0 */
    write_u32(&writer, 0);
    write_bytes(&writer, question->name, question->name_length);
    write_u16(&writer, question->type);
    write_u16(&writer, question->class);
    assert(!writer.failed);
    return writer_length(&writer);
}

static bool take_v4(const uint8_t *data, uint16_t port, struct address *out)
{
    const uint32_t number = load_u32(data);
    const bool is_link_local = number >> 16 == 0xa9fe; /* 169.254.0.0/16 */
    if (number >> 24 == 0 || number >> 28 >= 0xe || is_link_local)
        return false;
    *out = (struct address){.v4 = {.sin_family = AF_INET, .sin_port = htons(port)}};
    memcpy(&out->v4.sin_addr, data, sizeof(out->v4.sin_addr));
    return true;
}

/* A link-local address is none without the zone that no answer can tell. */
static bool take_v6(const uint8_t *data, uint16_t port, struct address *out)
{
    struct address address = {.v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)}};
    memcpy(&address.v6.sin6_addr, data, sizeof(address.v6.sin6_addr));
    const struct in6_addr *number = &address.v6.sin6_addr;
    if (address_is_any(&address) || IN6_IS_ADDR_MULTICAST(number) ||
        IN6_IS_ADDR_LINKLOCAL(number) || IN6_IS_ADDR_V4MAPPED(number))
        return false;
    *out = address;
    return true;
}

/* The names of a checked answer are whole: only their ends are looked for. */
static void skip_name(struct reader *reader)
{
    for (;;) {
        const uint8_t *octet = read_bytes(reader, 1);
        if (!octet)
            return;
        if (*octet >= DNS_POINTER_MARK) {
            read_bytes(reader, DNS_POINTER_SIZE - 1);
            return;
        }
        if (*octet == 0)
            return;
        read_bytes(reader, *octet);
    }
}

static bool is_among(const struct address *address, const struct address *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (address_equal(address, &list[i]))
            return true;
    return false;
}

size_t host_addresses(const struct answer *answer, const struct question *question, uint16_t port,
                      struct address *out, size_t max)
{
    assert(out && max > 0 && port != 0);
    assert(question->type == TYPE_A || question->type == TYPE_AAAA);
    struct reader reader = reader_over(answer->body, answer->body_length);
    size_t count = 0;
    for (unsigned i = 0; i < answer->answer_count && count < max; i++) {
        skip_name(&reader);
        const uint8_t *fixed = read_bytes(&reader, DNS_RECORD_FIXED);
        const uint8_t *data = fixed ? read_bytes(&reader, load_u16(fixed + 8)) : NULL;
        if (!data)
            break;
        if (load_u16(fixed) != question->type || load_u16(fixed + 2) != CLASS_IN)
            continue;
        struct address *next = &out[count];
        if (question->type == TYPE_A ? take_v4(data, port, next) : take_v6(data, port, next))
            count += !is_among(next, out, count);
    }
    return count;
}
