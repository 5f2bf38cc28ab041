// SPDX-License-Identifier: Apache-2.0
/* Bounds-checked reading and writing of big-endian wire data.
 *
 * Both cursors have a sticky error: after the first step past the end every read gives 0 or NULL
 * and every write does nothing, so ten fields are read and `failed` is tested once. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct reader {
    const uint8_t *position;
    const uint8_t *end;
    bool failed;
};

struct writer {
    uint8_t *start;
    uint8_t *position;
    uint8_t *end;
    bool failed;
};

static inline uint16_t load_u16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

static inline uint32_t load_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static inline void store_u16(uint8_t *bytes, uint16_t value)
{
    bytes[0] = (uint8_t)(value >> 8);
    bytes[1] = (uint8_t)value;
}

static inline void store_u32(uint8_t *bytes, uint32_t value)
{
    store_u16(bytes, (uint16_t)(value >> 16));
    store_u16(bytes + 2, (uint16_t)value);
}

static inline struct reader reader_over(const uint8_t *bytes, size_t length)
{
    assert(bytes || length == 0); /* of NULL not even the end may be reckoned */
    return (struct reader){.position = bytes, .end = bytes ? bytes + length : NULL};
}

static inline size_t reader_left(const struct reader *reader)
{
    return (size_t)(reader->end - reader->position);
}

/* The next `length` bytes, or NULL (and failed) when fewer are left. */
static inline const uint8_t *read_bytes(struct reader *reader, size_t length)
{
    if (reader->failed || reader_left(reader) < length) {
        reader->failed = true;
        return NULL;
    }
    const uint8_t *bytes = reader->position;
    reader->position += length;
    return bytes;
}

static inline uint16_t read_u16(struct reader *reader)
{
    const uint8_t *bytes = read_bytes(reader, 2);
    return bytes ? load_u16(bytes) : 0;
}

static inline struct writer writer_over(uint8_t *bytes, size_t size)
{
    assert(bytes || size == 0);
    return (struct writer){.start = bytes, .position = bytes, .end = bytes + size};
}

static inline size_t writer_length(const struct writer *writer)
{
    return (size_t)(writer->position - writer->start);
}

static inline size_t writer_left(const struct writer *writer)
{
    return (size_t)(writer->end - writer->position);
}

/* Room for `length` bytes that the caller fills, or NULL (and failed) when there is less. */
static inline uint8_t *write_room(struct writer *writer, size_t length)
{
    if (writer->failed || writer_left(writer) < length) {
        writer->failed = true;
        return NULL;
    }
    uint8_t *room = writer->position;
    writer->position += length;
    return room;
}

static inline void write_bytes(struct writer *writer, const void *bytes, size_t length)
{
    uint8_t *room = write_room(writer, length);
    if (room && length > 0)
        memcpy(room, bytes, length);
}

static inline void write_u8(struct writer *writer, uint8_t value)
{
    write_bytes(writer, &value, 1);
}

static inline void write_u16(struct writer *writer, uint16_t value)
{
    uint8_t *room = write_room(writer, 2);
    if (room)
        store_u16(room, value);
}

static inline void write_u32(struct writer *writer, uint32_t value)
{
    uint8_t *room = write_room(writer, 4);
    if (room)
        store_u32(room, value);
}

#endif
