// SPDX-License-Identifier: Apache-2.0
/* Addresses and prefixes as text and as bytes.
 *
 * Only inet_pton reads addresses: it takes the one canonical spelling of IPv4, unlike inet_aton and
 * getaddrinfo, for which "127.1", "010.0.0.1" and "2130706433" are addresses as well.
 *
 * Thread: any. Owner: the caller. */
#include "base/address.h"

#include <arpa/inet.h>
#include <assert.h>
#include <endian.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { V4_MAPPED_BITS = 96, V4_BITS = 32, V6_BITS = 128 };

/* strtoul alone would take signs, spaces and empty text, and numbers of any length. */
static enum status parse_decimal(const char *text, uint32_t maximum, uint32_t *out)
{
    const size_t length = strspn(text, "0123456789");
    if (length == 0 || length > 6 || text[length] != '\0')
        return STATUS_MALFORMED;
    const unsigned long value = strtoul(text, NULL, 10);
    if (value > maximum)
        return STATUS_MALFORMED;
    *out = (uint32_t)value;
    return STATUS_OK;
}

enum status port_parse(const char *text, uint16_t *out)
{
    assert(text && out);
    uint32_t value;
    TRY(parse_decimal(text, UINT16_MAX, &value));
    if (value == 0)
        return STATUS_MALFORMED;
    *out = (uint16_t)value;
    return STATUS_OK;
}

static enum status parse_v4(const char *host, uint16_t port, struct address *out)
{
    struct address address = {.v4 = {.sin_family = AF_INET, .sin_port = htons(port)}};
    if (inet_pton(AF_INET, host, &address.v4.sin_addr) != 1)
        return STATUS_MALFORMED;
    *out = address;
    return STATUS_OK;
}

/* RFC 4007 11: the zone is an interface's name or number. */
static enum status parse_zone(const char *zone, uint32_t *scope)
{
    const unsigned int index = if_nametoindex(zone);
    if (index == 0)
        return parse_decimal(zone, UINT16_MAX, scope);
    *scope = index;
    return STATUS_OK;
}

static enum status parse_v6(char *host, uint16_t port, struct address *out)
{
    struct address address = {.v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)}};
    char *zone = strchr(host, '%');
    if (zone) {
        *zone = '\0';
        TRY(parse_zone(zone + 1, &address.v6.sin6_scope_id));
    }
    if (inet_pton(AF_INET6, host, &address.v6.sin6_addr) != 1)
        return STATUS_MALFORMED;
    *out = address;
    return STATUS_OK;
}

static enum status parse_bracketed(char *text, uint16_t port, struct address *out)
{
    char *close = strchr(text, ']');
    if (!close)
        return STATUS_MALFORMED;
    if (close[1] == ':')
        TRY(port_parse(close + 2, &port));
    else if (close[1] != '\0')
        return STATUS_MALFORMED;
    *close = '\0';
    return parse_v6(text + 1, port, out);
}

enum status address_parse(const char *text, uint16_t default_port, struct address *out)
{
    assert(text && out);
    char copy[ADDRESS_TEXT_SIZE];
    const size_t length = strlen(text);
    if (length >= sizeof copy)
        return STATUS_MALFORMED;
    memcpy(copy, text, length + 1);

    if (copy[0] == '[')
        return parse_bracketed(copy, default_port, out);
    char *colon = strchr(copy, ':');
    if (!colon)
        return parse_v4(copy, default_port, out);
    if (strchr(colon + 1, ':'))
        return parse_v6(copy, default_port, out);
    uint16_t port;
    TRY(port_parse(colon + 1, &port));
    *colon = '\0';
    return parse_v4(copy, port, out);
}

bool address_has_unclear_port(const char *text, struct address *out)
{
    assert(text && out);
    char copy[ADDRESS_TEXT_SIZE];
    const size_t length = strlen(text);
    const char *colon = strrchr(text, ':');
    uint16_t port;
    if (!colon || length >= sizeof copy || text[0] == '[' ||
        port_parse(colon + 1, &port) != STATUS_OK)
        return false;
    memcpy(copy, text, length + 1);
    copy[colon - text] = '\0';
    return parse_v6(copy, port, out) == STATUS_OK;
}

static void format_zone(uint32_t scope, char text[static IF_NAMESIZE + 1])
{
    text[0] = '\0';
    if (scope == 0)
        return;
    text[0] = '%';
    if (!if_indextoname(scope, text + 1))
        snprintf(text + 1, IF_NAMESIZE, "%u", scope);
}

const char *address_format(const struct address *address, char text[static ADDRESS_TEXT_SIZE])
{
    assert(address);
    char host[INET6_ADDRSTRLEN];
    if (address->any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &address->v4.sin_addr, host, sizeof host);
        snprintf(text, ADDRESS_TEXT_SIZE, "%s:%u", host, address_port(address));
        return text;
    }
    assert(address->any.sa_family == AF_INET6);
    char zone[IF_NAMESIZE + 1];
    format_zone(address->v6.sin6_scope_id, zone);
    inet_ntop(AF_INET6, &address->v6.sin6_addr, host, sizeof host);
    snprintf(text, ADDRESS_TEXT_SIZE, "[%s%s]:%u", host, zone, address_port(address));
    return text;
}

socklen_t address_length(const struct address *address)
{
    assert(address->any.sa_family == AF_INET || address->any.sa_family == AF_INET6);
    return address->any.sa_family == AF_INET ? sizeof address->v4 : sizeof address->v6;
}

uint16_t address_port(const struct address *address)
{
    assert(address->any.sa_family == AF_INET || address->any.sa_family == AF_INET6);
    return address->any.sa_family == AF_INET ? ntohs(address->v4.sin_port)
                                             : ntohs(address->v6.sin6_port);
}

bool address_equal(const struct address *a, const struct address *b)
{
    if (a->any.sa_family != b->any.sa_family || address_port(a) != address_port(b))
        return false;
    if (a->any.sa_family == AF_INET)
        return a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
    return IN6_ARE_ADDR_EQUAL(&a->v6.sin6_addr, &b->v6.sin6_addr) &&
           a->v6.sin6_scope_id == b->v6.sin6_scope_id;
}

bool address_is_any(const struct address *address)
{
    if (address->any.sa_family == AF_INET)
        return address->v4.sin_addr.s_addr == htonl(INADDR_ANY);
    assert(address->any.sa_family == AF_INET6);
    return IN6_IS_ADDR_UNSPECIFIED(&address->v6.sin6_addr);
}

static void v4_bits(struct in_addr v4, uint64_t bits[static 2])
{
    bits[0] = 0;
    bits[1] = (uint64_t)UINT16_MAX << V4_BITS | ntohl(v4.s_addr);
}

static void v6_bits(const struct in6_addr *v6, uint64_t bits[static 2])
{
    uint64_t halves[2];
    memcpy(halves, v6, sizeof halves);
    bits[0] = be64toh(halves[0]);
    bits[1] = be64toh(halves[1]);
}

void address_bits(const struct address *address, uint64_t bits[static 2])
{
    assert(address->any.sa_family == AF_INET || address->any.sa_family == AF_INET6);
    if (address->any.sa_family == AF_INET)
        v4_bits(address->v4.sin_addr, bits);
    else
        v6_bits(&address->v6.sin6_addr, bits);
}

static bool is_v4(const uint64_t bits[static 2])
{
    return bits[0] == 0 && bits[1] >> V4_BITS == UINT16_MAX;
}

/* The first `length` bits of 64 set; all or none when it is out of range. */
static uint64_t first_bits(int length)
{
    if (length <= 0)
        return 0;
    return length >= 64 ? UINT64_MAX : UINT64_MAX << (64 - length);
}

static enum status parse_prefix_host(const char *host, struct prefix *prefix, uint32_t *bits)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, host, &v4) == 1) {
        v4_bits(v4, prefix->bits);
        *bits = V4_BITS;
        return STATUS_OK;
    }
    if (inet_pton(AF_INET6, host, &v6) != 1)
        return STATUS_MALFORMED;
    v6_bits(&v6, prefix->bits);
    *bits = V6_BITS;
    return STATUS_OK;
}

enum status prefix_parse(const char *text, struct prefix *out)
{
    assert(text && out);
    char host[INET6_ADDRSTRLEN];
    const size_t host_length = strcspn(text, "/");
    if (host_length >= sizeof host)
        return STATUS_MALFORMED;
    memcpy(host, text, host_length);
    host[host_length] = '\0';

    struct prefix prefix;
    uint32_t bits;
    TRY(parse_prefix_host(host, &prefix, &bits));
    uint32_t length = bits;
    if (text[host_length] == '/')
        TRY(parse_decimal(text + host_length + 1, bits, &length));
    prefix.length = (uint8_t)(V6_BITS - bits + length);
    if (prefix.bits[0] & ~first_bits(prefix.length) ||
        prefix.bits[1] & ~first_bits(prefix.length - 64))
        return STATUS_MALFORMED;
    *out = prefix;
    return STATUS_OK;
}

bool prefix_contains(const struct prefix *prefix, const struct address *address)
{
    uint64_t bits[2];
    assert(prefix->length <= V6_BITS);
    address_bits(address, bits);
    /* "::/0" means every IPv6 address; that IPv4 has its place in there too is our own matter. */
    if (is_v4(bits) && prefix->length < V4_MAPPED_BITS)
        return false;
    return (bits[0] & first_bits(prefix->length)) == prefix->bits[0] &&
           (bits[1] & first_bits(prefix->length - 64)) == prefix->bits[1];
}

struct prefix prefix_of(const struct address *address, uint8_t v4_length, uint8_t v6_length)
{
    assert(v4_length <= V4_BITS && v6_length <= V6_BITS);
    struct prefix prefix;
    address_bits(address, prefix.bits);
    prefix.length = is_v4(prefix.bits) ? (uint8_t)(V4_MAPPED_BITS + v4_length) : v6_length;
    prefix.bits[0] &= first_bits(prefix.length);
    prefix.bits[1] &= first_bits(prefix.length - 64);
    return prefix;
}
