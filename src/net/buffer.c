// SPDX-License-Identifier: Apache-2.0
/* Bytes in or out of a stream.
 *
 * Thread: one.   Owner: the stream. */
#include "net/buffer.h"

#include <assert.h>
#include <string.h>

enum { SIZE_MIN = 4096 };

void buffer_compact(struct buffer *buffer)
{
    assert(buffer->start <= buffer->end && buffer->end <= buffer->size);
    if (buffer->start == 0)
        return;
    memmove(buffer->bytes, buffer->bytes + buffer->start, buffer_length(buffer));
    buffer->end -= buffer->start;
    buffer->start = 0;
}

void buffer_free(struct buffer *buffer, struct output_account *account)
{
    assert(buffer->start <= buffer->end && buffer->end <= buffer->size);
    output_give(account, buffer->bytes, buffer->size);
    *buffer = (struct buffer){0};
}

bool buffer_make_room(struct buffer *buffer, struct output_account *account, size_t room,
                      size_t size_max)
{
    const size_t length = buffer_length(buffer);
    const size_t needed = length + room;
    assert(needed <= size_max);
    if (needed <= buffer->size) {
        buffer_compact(buffer);
        return true;
    }
    size_t size = buffer->size ? buffer->size : SIZE_MIN;
    while (size < needed)
        size *= 2;
    if (size > size_max)
        size = size_max;
    uint8_t *bytes = output_take(account, size);
    if (!bytes)
        return false;
    if (buffer->bytes)
        memcpy(bytes, buffer->bytes + buffer->start, length);
    buffer_free(buffer, account);
    *buffer = (struct buffer){.bytes = bytes, .size = size, .end = length};
    return true;
}

void buffer_append(struct buffer *buffer, const uint8_t *bytes, size_t length)
{
    assert(bytes || length == 0);
    assert(buffer->size - buffer->end >= length);
    if (length > 0)
        memcpy(buffer->bytes + buffer->end, bytes, length);
    buffer->end += length;
}
