// SPDX-License-Identifier: Apache-2.0
/* Domain names on the wire: measuring, following compression pointers, comparing, as text.
 *
 * Thread: any.   Owner: a name_map lives on its user's stack and borrows the message.
 * RFC:    1035 4.1.4, 4343, 9267. */
#include "dns/name.h"

#include <assert.h>

#include "base/bytes.h"

enum {
    POINTERS_MAX = 127, /* of one name: as many as it can have labels before the root */
    LENGTH_UNKNOWN = 0,
    LENGTH_FORBIDDEN = 1, /* free to mean this: the root, of length 1, is not worth remembering */
    COMPARE_BUDGET = 16384,
};

size_t name_measure(const uint8_t *bytes, size_t length)
{
    const size_t end = length < DNS_NAME_MAX ? length : DNS_NAME_MAX;
    size_t position = 0;
    while (position < end) {
        const uint8_t octet = bytes[position];
        if (octet == 0)
            return position + 1;
        if (octet > DNS_LABEL_MAX)
            return 0;
        position += 1 + (size_t)octet;
    }
    return 0;
}

void name_map_init(struct name_map *map, const uint8_t *bytes, size_t length, uint8_t *lengths)
{
    assert(length >= DNS_HEADER_SIZE && length <= DNS_MESSAGE_MAX);
    *map = (struct name_map){
        .bytes = bytes, .length = length, .lengths = lengths, .compare_budget = COMPARE_BUDGET};
    memset(lengths, LENGTH_UNKNOWN, length < DNS_POINTER_REACH ? length : DNS_POINTER_REACH);
}

static size_t pointer_target(const struct name_map *map, size_t offset)
{
    return load_u16(map->bytes + offset) & DNS_POINTER_MASK;
}

static uint8_t known_length(const struct name_map *map, size_t offset)
{
    return offset < DNS_POINTER_REACH ? map->lengths[offset] : LENGTH_UNKNOWN;
}

/* Where a walk along a name is: in the run of labels that began at `run`. */
struct name_walk {
    size_t position;
    size_t run;
    size_t end;    /* the run must end here at the latest */
    size_t length; /* of the labels so far */
    size_t pointers;
    bool at_root;
};

static enum status walk_pointer(const struct name_map *map, struct name_walk *walk)
{
    if (walk->position + DNS_POINTER_SIZE > walk->end || ++walk->pointers > POINTERS_MAX)
        return STATUS_MALFORMED;
    const size_t target = pointer_target(map, walk->position);
    if (target < DNS_HEADER_SIZE || target >= walk->run)
        return STATUS_MALFORMED;
    walk->end = walk->run;
    walk->run = target;
    walk->position = target;
    return STATUS_OK;
}

/* Takes one label or pointer. */
static enum status walk_step(const struct name_map *map, struct name_walk *walk)
{
    if (walk->position >= walk->end)
        return STATUS_MALFORMED;
    const uint8_t known = known_length(map, walk->position);
    if (known == LENGTH_FORBIDDEN)
        return STATUS_MALFORMED;
    if (known != LENGTH_UNKNOWN) {
        walk->length += known;
        walk->at_root = true;
        return walk->length > DNS_NAME_MAX ? STATUS_MALFORMED : STATUS_OK;
    }
    const uint8_t octet = map->bytes[walk->position];
    if (octet >= DNS_POINTER_MARK)
        return walk_pointer(map, walk);
    walk->position += 1 + (size_t)octet;
    walk->length += 1 + (size_t)octet;
    walk->at_root = octet == 0;
    return octet > DNS_LABEL_MAX || walk->length > DNS_NAME_MAX ? STATUS_MALFORMED : STATUS_OK;
}

/* Notes the length of the name at `offset` and of each name that is a tail of it. */
void name_map_learn(struct name_map *map, size_t offset, size_t length)
{
    while (length > LENGTH_FORBIDDEN && known_length(map, offset) == LENGTH_UNKNOWN) {
        if (offset < DNS_POINTER_REACH)
            map->lengths[offset] = (uint8_t)length;
        const uint8_t octet = map->bytes[offset];
        if (octet >= DNS_POINTER_MARK) {
            offset = pointer_target(map, offset);
        } else {
            offset += 1 + (size_t)octet;
            length -= 1 + (size_t)octet;
        }
    }
}

/* Octets of what most names are: the root, or a pointer to a name that is known. 0: another one. */
static size_t usual_size(const struct name_map *map, size_t offset, size_t end)
{
    if (offset >= end || known_length(map, offset) == LENGTH_FORBIDDEN)
        return 0;
    if (map->bytes[offset] == 0)
        return 1;
    if (map->bytes[offset] < DNS_POINTER_MARK || offset + DNS_POINTER_SIZE > end)
        return 0;
    const size_t target = pointer_target(map, offset);
    const bool is_known = target < offset && known_length(map, target) > LENGTH_FORBIDDEN;
    return is_known ? DNS_POINTER_SIZE : 0;
}

enum status name_check(struct name_map *map, size_t *offset, size_t end)
{
    assert(end <= map->length);
    const size_t usual = usual_size(map, *offset, end);
    if (usual > 0) {
        *offset += usual;
        return STATUS_OK;
    }
    struct name_walk walk = {.position = *offset, .run = *offset, .end = end};
    while (!walk.at_root)
        TRY(walk_step(map, &walk));
    name_map_learn(map, *offset, walk.length);
    *offset = name_end(map->bytes, *offset);
    return STATUS_OK;
}

void name_map_forbid(struct name_map *map, size_t offset, size_t length)
{
    if (offset + length <= DNS_POINTER_REACH)
        memset(map->lengths + offset, LENGTH_FORBIDDEN, length);
    else if (offset < DNS_POINTER_REACH)
        memset(map->lengths + offset, LENGTH_FORBIDDEN, DNS_POINTER_REACH - offset);
}

size_t name_end(const uint8_t *bytes, size_t offset)
{
    while (bytes[offset] > 0 && bytes[offset] < DNS_POINTER_MARK)
        offset += 1 + (size_t)bytes[offset];
    return offset + (bytes[offset] == 0 ? 1 : DNS_POINTER_SIZE);
}

/* Each costs as much as a label. With nothing left to spend it stays at a pointer. */
static size_t follow_pointers(struct name_map *map, size_t offset)
{
    for (; map->bytes[offset] >= DNS_POINTER_MARK && map->compare_budget > 0; map->compare_budget--)
        offset = pointer_target(map, offset);
    return offset;
}

static bool label_equal(const uint8_t *a, const uint8_t *b)
{
    for (size_t i = 0; i <= a[0]; i++) {
        if (octet_lower(a[i]) != octet_lower(b[i]))
            return false;
    }
    return true;
}

bool name_equal(struct name_map *map, size_t a, size_t b)
{
    for (;;) {
        a = follow_pointers(map, a);
        b = follow_pointers(map, b);
        assert(a < map->length && b < map->length);
        if (a == b)
            return true;
        if (map->compare_budget == 0 || !label_equal(map->bytes + a, map->bytes + b))
            return false;
        map->compare_budget--;
        const size_t step = 1 + (size_t)map->bytes[a];
        if (step == 1)
            return true;
        a += step;
        b += step;
    }
}

static char *format_octet(uint8_t octet, char *text)
{
    if (octet <= ' ' || octet > '~') {
        *text++ = '\\';
        *text++ = (char)('0' + octet / 100);
        *text++ = (char)('0' + octet / 10 % 10);
        *text++ = (char)('0' + octet % 10);
        return text;
    }
    if (strchr("\"$().;@\\", octet))
        *text++ = '\\';
    *text++ = (char)octet;
    return text;
}

const char *name_format(const uint8_t *name, size_t length, char text[static DNS_NAME_TEXT_SIZE])
{
    assert(name && length <= DNS_NAME_MAX);
    char *position = text;
    size_t i = 0;
    while (i < length && name[i] != 0) {
        const size_t label_end = i + 1 + name[i];
        for (i++; i < label_end && i < length; i++)
            position = format_octet(name[i], position);
        *position++ = '.';
    }
    if (position == text)
        *position++ = '.';
    *position = '\0';
    return text;
}
