// SPDX-License-Identifier: Apache-2.0
/* Extended errors within their room, and what of a text is UTF-8.
 *
 * Thread: any; no state.   Owner: the caller's buffer.
 * RFC:    3629 4 (UTF-8), 8914 2. */
#include "dns/extended_error.h"

#include <assert.h>

#include "dns/dns.h"

enum {
    CODE_LENGTH = 2,
    ERROR_LENGTH_MIN = DNS_OPTION_FIXED + CODE_LENGTH, /* without text */
};

/* The octets of the character that `text` begins with, 0 when that is none. */
static size_t character_length(const uint8_t *text, size_t left)
{
    static const uint32_t least[] = {[2] = 0x80, [3] = 0x800, [4] = 0x10000};
    if (text[0] < 0x80)
        return 1;
    const size_t length = text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : 4;
    if (text[0] < 0xc0 || text[0] > 0xf7 || length > left)
        return 0;
    uint32_t point = text[0] & (0x7fU >> length);
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        point = point << 6 | (text[i] & 0x3fU);
    }
    const bool is_surrogate = point >= 0xd800 && point <= 0xdfff;
    return point < least[length] || point > 0x10ffff || is_surrogate ? 0 : length;
}

/* How much of the text is kept in `room` octets. */
static size_t kept_length(const uint8_t *text, size_t length, size_t room)
{
    size_t kept = 0;
    for (size_t end = 0; end < length;) {
        const size_t character = character_length(text + end, length - end);
        if (character == 0)
            return 0;
        end += character;
        if (end <= room)
            kept = end;
    }
    return kept;
}

void extended_error_write(struct writer *writer, uint16_t code, const void *text, size_t length,
                          size_t reserve)
{
    assert(!writer->failed && (text || length == 0));
    const size_t left = writer_left(writer);
    if (left < ERROR_LENGTH_MIN)
        return;
    const size_t taken = ERROR_LENGTH_MIN + reserve;
    const size_t kept = kept_length(text, length, left > taken ? left - taken : 0);
    write_u16(writer, OPTION_EXTENDED_ERROR);
    write_u16(writer, (uint16_t)(CODE_LENGTH + kept));
    write_u16(writer, code);
    write_bytes(writer, text, kept);
}

/* The next extended error's code and text, of `*length` octets; NULL at the end. */
static const uint8_t *next_error(struct reader *reader, size_t *length)
{
    while (reader_left(reader) > 0) {
        const uint16_t option = read_u16(reader);
        *length = read_u16(reader);
        const uint8_t *data = read_bytes(reader, *length);
        assert(!reader->failed);
        if (option == OPTION_EXTENDED_ERROR && *length >= CODE_LENGTH)
            return data;
    }
    return NULL;
}

void extended_errors_copy(struct writer *writer, const uint8_t *options, size_t length)
{
    assert(!writer->failed && (options || length == 0));
    size_t data_length;
    size_t behind = 0; /* those still to come */
    struct reader reader = reader_over(options, length);
    while (next_error(&reader, &data_length))
        behind++;
    reader = reader_over(options, length);
    while (behind-- > 0) {
        const uint8_t *data = next_error(&reader, &data_length);
        extended_error_write(writer, load_u16(data), data + CODE_LENGTH, data_length - CODE_LENGTH,
                             behind * ERROR_LENGTH_MIN);
    }
}

bool extended_errors_are_final(const uint8_t *options, size_t length)
{
    /* RFC 8914 4: 1, 2 and 5 to 12 are about DNSSEC; 15 to 17 blocked, censored, filtered. */
    static const uint32_t final = 1u << 1 | 1u << 2 | 0xffu << 5 | 7u << 15;
    struct reader reader = reader_over(options, length);
    const uint8_t *data;
    size_t data_length;
    while ((data = next_error(&reader, &data_length))) {
        const uint16_t code = load_u16(data);
        if (code < 32 && (final & 1u << code))
            return true;
    }
    return false;
}
