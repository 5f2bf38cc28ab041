// SPDX-License-Identifier: Apache-2.0
/* Domain names on the wire: letters without case, names behind compression pointers, and as text.
 *
 * RFC: 1035 3.1 and 4.1.4, 4343 (case), 9267 (what parsers of names got wrong). */
#ifndef DNS_NAME_H
#define DNS_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/status.h"
#include "dns/dns.h"

/* The octet with an ASCII capital made small. Label lengths are below 'A', so whole names may go
 * through it. */
static inline uint8_t octet_lower(uint8_t octet)
{
    return (uint8_t)(octet | ((uint8_t)(octet - 'A') < 26) << 5);
}

/* octet_lower of eight octets at once: bit 7 of each octet of `capital` tells whether it is one. */
static inline uint64_t octets_lower(uint64_t octets)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    const uint64_t low_bits = octets & ones * 0x7f;
    const uint64_t from_a = low_bits + ones * (0x80 - 'A');
    const uint64_t above_z = low_bits + ones * (0x80 - 'Z' - 1);
    const uint64_t capital = from_a & ~above_z & ~octets & ones * 0x80;
    return octets | capital >> 2;
}

/* Copies `length` octets of a name to `spelling`, and in lower case to `lower`. */
static inline void name_copy(const uint8_t *name, size_t length, uint8_t *spelling, uint8_t *lower)
{
    size_t done = 0;
    for (; done + 8 <= length; done += 8) {
        uint64_t octets;
        memcpy(&octets, name + done, 8);
        memcpy(spelling + done, &octets, 8);
        octets = octets_lower(octets);
        memcpy(lower + done, &octets, 8);
    }
    for (; done < length; done++) {
        spelling[done] = name[done];
        lower[done] = octet_lower(name[done]);
    }
}

/* True when `length` octets are, in lower case, those of `lower`. */
static inline bool name_matches(const uint8_t *name, const uint8_t *lower, size_t length)
{
    size_t done = 0;
    for (; done + 8 <= length; done += 8) {
        uint64_t octets;
        uint64_t expected;
        memcpy(&octets, name + done, 8);
        memcpy(&expected, lower + done, 8);
        if (octets != expected && octets_lower(octets) != expected)
            return false;
    }
    for (; done < length; done++) {
        if (octet_lower(name[done]) != lower[done])
            return false;
    }
    return true;
}

/* Octets of the uncompressed name that starts at `bytes`, 0 when it is not one: a pointer, a label
 * over 63, more than 255 octets, or the end comes first. */
size_t name_measure(const uint8_t *bytes, size_t length);

/* The names of one message, as far as it has been read. `lengths[offset]` is the length of the name
 * that starts at that offset, or 0 when none has been seen there. A pointer to a known name costs
 * one look, and an unknown one becomes known, so all names together cost time linear in the
 * message, whatever they point at (FAULTS G2). */
struct name_map {
    const uint8_t *bytes;
    size_t length;
    uint8_t *lengths;      /* of DNS_POINTER_REACH octets */
    size_t compare_budget; /* labels and pointers that name_equal may still look at */
};

/* Starts over for a message of `length` octets. */
void name_map_init(struct name_map *map, const uint8_t *bytes, size_t length, uint8_t *lengths);

/* Checks the name at `*offset`, whose own octets must end at or before `end`, and moves `*offset`
 * behind it. Pointers lead strictly backward: what they point at ends before the part of the name
 * that they stand in. */
enum status name_check(struct name_map *map, size_t *offset, size_t end);

/* Makes the uncompressed name of `length` octets at `offset` known, which the caller has checked.
 */
void name_map_learn(struct name_map *map, size_t offset, size_t length);

/* Forbids names to have a label that starts in these octets. */
void name_map_forbid(struct name_map *map, size_t offset, size_t length);

/* The offset behind the name at `offset`, which name_check has passed. */
size_t name_end(const uint8_t *bytes, size_t offset);

/* Compares two names that name_check has passed. False when the budget is used up. */
bool name_equal(struct name_map *map, size_t a, size_t b);

/* Writes an uncompressed name in presentation form (RFC 1035 5.1 escapes) into `text`, and returns
 * that. */
enum { DNS_NAME_TEXT_SIZE = 1024 };
const char *name_format(const uint8_t *name, size_t length, char text[static DNS_NAME_TEXT_SIZE]);

#endif
