// SPDX-License-Identifier: Apache-2.0
/* DNS messages written by hand, for tests: what the product would never write as well. */
#ifndef SUPPORT_PACKET_H
#define SUPPORT_PACKET_H

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "dns/message.h"

struct packet {
    uint8_t bytes[DNS_MESSAGE_MAX + 1024];
    size_t length;
};

enum { PACKET_ID = 0x1234, QUESTION_POINTER = DNS_HEADER_SIZE };

static inline void put_u8(struct packet *packet, unsigned value)
{
    packet->bytes[packet->length++] = (uint8_t)value;
}

static inline void put_u16(struct packet *packet, unsigned value)
{
    store_u16(packet->bytes + packet->length, (uint16_t)value);
    packet->length += 2;
}

static inline void put_u32(struct packet *packet, uint32_t value)
{
    store_u32(packet->bytes + packet->length, value);
    packet->length += 4;
}

static inline void put_bytes(struct packet *packet, const void *bytes, size_t length)
{
    memcpy(packet->bytes + packet->length, bytes, length);
    packet->length += length;
}

static inline void put_zeros(struct packet *packet, size_t length)
{
    memset(packet->bytes + packet->length, 0, length);
    packet->length += length;
}

/* Labels of `text`, "www.example"; without the root at the end. */
static inline void put_labels(struct packet *packet, const char *text)
{
    while (*text != '\0') {
        const size_t length = strcspn(text, ".");
        put_u8(packet, (unsigned)length);
        put_bytes(packet, text, length);
        text += length + (text[length] == '.');
    }
}

static inline void put_name(struct packet *packet, const char *text)
{
    put_labels(packet, text);
    put_u8(packet, 0);
}

static inline void put_pointer(struct packet *packet, size_t offset)
{
    put_u16(packet, 0xc000 | (unsigned)offset);
}

static inline void put_header(struct packet *packet, unsigned flags, unsigned questions,
                              unsigned answers, unsigned authorities, unsigned additionals)
{
    packet->length = 0;
    put_u16(packet, PACKET_ID);
    put_u16(packet, flags);
    put_u16(packet, questions);
    put_u16(packet, answers);
    put_u16(packet, authorities);
    put_u16(packet, additionals);
}

static inline void put_question(struct packet *packet, const char *name, unsigned type)
{
    put_name(packet, name);
    put_u16(packet, type);
    put_u16(packet, CLASS_IN);
}

/* What follows the owner of a record, up to its RDATA. */
static inline void put_record(struct packet *packet, unsigned type, uint32_t ttl, size_t length)
{
    put_u16(packet, type);
    put_u16(packet, CLASS_IN);
    put_u32(packet, ttl);
    put_u16(packet, (unsigned)length);
}

/* A record without RDATA; packet_end_record sets its length. Returns the offset of the RDATA. */
static inline size_t packet_begin_record(struct packet *packet, unsigned type, uint32_t ttl)
{
    put_record(packet, type, ttl, 0);
    return packet->length;
}

static inline void packet_end_record(struct packet *packet, size_t data)
{
    store_u16(packet->bytes + data - 2, (uint16_t)(packet->length - data));
}

/* An OPT with version 0 whose options the caller writes: `length` octets of them. */
static inline void put_opt(struct packet *packet, unsigned udp_size, uint32_t ttl, size_t length)
{
    put_u8(packet, 0);
    put_u16(packet, TYPE_OPT);
    put_u16(packet, udp_size);
    put_u32(packet, ttl);
    put_u16(packet, (unsigned)length);
}

static inline void put_option(struct packet *packet, unsigned code, const void *data, size_t length)
{
    put_u16(packet, code);
    put_u16(packet, (unsigned)length);
    put_bytes(packet, data, length);
}

/* A copy in memory of exactly its size, so that the sanitizer sees one octet too far. */
static inline uint8_t *exact_copy(const void *bytes, size_t length)
{
    uint8_t *copy = malloc(length ? length : 1);
    if (copy == NULL)
        abort();
    memcpy(copy, bytes, length);
    return copy;
}

static inline enum query_verdict parse_exact(const struct packet *packet, struct query_message *out,
                                             enum rcode *rcode)
{
    uint8_t *copy = exact_copy(packet->bytes, packet->length);
    const enum query_verdict verdict = message_parse_query(copy, packet->length, out, rcode);
    free(copy);
    return verdict;
}

static inline struct question question_of(const char *name, unsigned type)
{
    struct packet packet = {.length = 0};
    put_name(&packet, name);
    struct question question = {.type = (uint16_t)type,
                                .class = CLASS_IN,
                                .recursion_desired = true,
                                .name_length = (uint8_t)packet.length};
    memcpy(question.name, packet.bytes, packet.length);
    return question;
}

/* Whether dns/answer.c looks into the RDATA of such records, or takes it for opaque. */
static inline bool is_checked_by_us(unsigned type, unsigned class)
{
    static const uint8_t checked[] = {TYPE_NS, TYPE_MD,    TYPE_MF, TYPE_CNAME, TYPE_SOA,
                                      TYPE_MB, TYPE_MG,    TYPE_MR, TYPE_PTR,   TYPE_MINFO,
                                      TYPE_MX, TYPE_RP,    TYPE_RT, TYPE_AFSDB, TYPE_PX,
                                      TYPE_KX, TYPE_DNAME, TYPE_SRV};
    if (type == TYPE_A || type == TYPE_AAAA)
        return class == CLASS_IN;
    return type < 256 && memchr(checked, (int)type, sizeof(checked)) != NULL;
}

#endif
