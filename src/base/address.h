// SPDX-License-Identifier: Apache-2.0
/* An IP address with a port, and an address prefix (CIDR): parse, print, compare, contain. */
#ifndef BASE_ADDRESS_H
#define BASE_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/status.h"

struct address {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    };
};

/* Bytes for any address as text, "[address%scope]:port" and the final NUL. */
enum { ADDRESS_TEXT_SIZE = 72 };

/* Parses "192.0.2.1", "192.0.2.1:53", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:53", and
 * IPv6 with a zone, "fe80::1%eth0". Without a port `default_port` is taken. STATUS_MALFORMED for
 * anything else, names and port 0 included. */
enum status address_parse(const char *text, uint16_t default_port, struct address *out);

/* True when `text` is an IPv6 address without brackets and a port behind it, as "::1:53", which may
 * be an address as well; `out` is the one with the port. */
bool address_has_unclear_port(const char *text, struct address *out);

/* A whole decimal number from 1 to 65535. STATUS_MALFORMED for anything else. */
enum status port_parse(const char *text, uint16_t *out);

/* Writes "192.0.2.1:53" or "[2001:db8::1]:53" and returns `text`. */
const char *address_format(const struct address *address, char text[static ADDRESS_TEXT_SIZE]);

/* sizeof the sockaddr that `address` really is, for bind, connect and sendmsg. */
socklen_t address_length(const struct address *address);

/* In host byte order. */
uint16_t address_port(const struct address *address);

/* Same family, address, port and zone. */
bool address_equal(const struct address *a, const struct address *b);

/* The wildcard address 0.0.0.0 or ::. */
bool address_is_any(const struct address *address);

/* The address as two numbers, the upper half first; an IPv4 address is its IPv4-mapped IPv6 one. */
void address_bits(const struct address *address, uint64_t bits[static 2]);

/* An IPv4 prefix is kept as its IPv4-mapped IPv6 form, length + 96. */
struct prefix {
    uint64_t bits[2]; /* as numbers, the upper half first; none beyond the length */
    uint8_t length;   /* in bits, 0 to 128 */
};

/* Parses "10.0.0.0/8", "2001:db8::/32" or a single address. STATUS_MALFORMED for anything else,
 * bits set beyond the length included. */
enum status prefix_parse(const char *text, struct prefix *out);

/* The port does not matter. An IPv4-mapped IPv6 address is its IPv4 address, and no IPv6 prefix
 * shorter than ::ffff:0:0/96 contains an IPv4 address: "::/0" is all of IPv6 only. */
bool prefix_contains(const struct prefix *prefix, const struct address *address);

/* The prefix of the given length that `address` is in: `v4_length` bits (of 32) for IPv4 and
 * IPv4-mapped addresses, `v6_length` bits (of 128) for others. */
struct prefix prefix_of(const struct address *address, uint8_t v4_length, uint8_t v6_length);

#endif
