// SPDX-License-Identifier: Apache-2.0
/* The form of a log line.
 *
 * Values come from anywhere: configuration, the system, an upstream's certificate. Whatever they
 * hold, JSON stays valid, text stays one line, and no control character reaches a terminal.
 *
 * Thread: any.   Owner: none, it keeps nothing.
 * RFC:    3339 (time), 3629 (UTF-8), 8259 (JSON). */
#include "observe/log_line.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"

enum {
    TAIL_SIZE = 24,  /* room for what closes a line that was cut */
    ESCAPE_SIZE = 8, /* the longest form of one character, \u001b */
};

struct composer {
    struct writer out;
    bool is_json;
    bool is_cut;
};

static const char *const level_names[] = {
    [LOG_LEVEL_ERROR] = "error",
    [LOG_LEVEL_WARNING] = "warning",
    [LOG_LEVEL_INFO] = "info",
    [LOG_LEVEL_DEBUG] = "debug",
};

/* ---- characters ---- */

struct utf8_form {
    uint8_t lead_mask;
    uint8_t lead;
    uint8_t length;
    uint32_t least; /* smaller code points have a shorter form (RFC 3629 3) */
};

static const struct utf8_form utf8_forms[] = {
    {0x80, 0x00, 1, 0}, {0xe0, 0xc0, 2, 0x80}, {0xf0, 0xe0, 3, 0x800}, {0xf8, 0xf0, 4, 0x10000}};

/* The octets of the character at `text`, 0 when it is not UTF-8. Stops at the final NUL, which is
 * no continuation octet. */
static size_t utf8_decode(const uint8_t *text, uint32_t *code_point)
{
    for (size_t i = 0; i < sizeof(utf8_forms) / sizeof(*utf8_forms); i++) {
        const struct utf8_form *form = &utf8_forms[i];
        if ((text[0] & form->lead_mask) != form->lead)
            continue;
        uint32_t code = text[0] & (uint8_t)~form->lead_mask;
        for (size_t octet = 1; octet < form->length; octet++) {
            if ((text[octet] & 0xc0) != 0x80)
                return 0;
            code = code << 6 | (text[octet] & 0x3fU);
        }
        if (code < form->least || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
            return 0;
        *code_point = code;
        return form->length;
    }
    return 0;
}

/* C0, DEL and C1: a terminal may obey any of them. */
static bool is_control(uint32_t code_point)
{
    return code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0);
}

static size_t escape_text(uint32_t code_point, char out[static ESCAPE_SIZE])
{
    switch (code_point) {
    case '\n':
        return (size_t)snprintf(out, ESCAPE_SIZE, "\\n");
    case '\t':
        return (size_t)snprintf(out, ESCAPE_SIZE, "\\t");
    case '"':
    case '\\':
        return (size_t)snprintf(out, ESCAPE_SIZE, "\\%c", (char)code_point);
    default:
        return (size_t)snprintf(out, ESCAPE_SIZE, "\\x%02x", code_point & 0xff);
    }
}

static size_t escape_json(uint32_t code_point, char out[static ESCAPE_SIZE])
{
    if (code_point == '"' || code_point == '\\')
        return (size_t)snprintf(out, ESCAPE_SIZE, "\\%c", (char)code_point);
    return (size_t)snprintf(out, ESCAPE_SIZE, "\\u%04x", code_point & 0xffff);
}

/* Writes the safe form of the first character of `text` and returns how many octets it was. */
static size_t encode_character(bool is_json, const uint8_t *text, char out[static ESCAPE_SIZE],
                               size_t *out_length)
{
    uint32_t code_point = 0;
    const size_t length = utf8_decode(text, &code_point);
    if (length == 0) {
        *out_length = is_json ? escape_json(0xfffd, out) : escape_text(text[0], out);
        return 1;
    }
    if (is_control(code_point) || code_point == '"' || code_point == '\\') {
        *out_length = is_json ? escape_json(code_point, out) : escape_text(code_point, out);
    } else {
        memcpy(out, text, length);
        *out_length = length;
    }
    return length;
}

/* ---- the line ---- */

static bool needs_quotes(const char *value)
{
    if (*value == '\0')
        return true;
    for (; *value; value++) {
        const uint8_t octet = (uint8_t)*value;
        if (octet <= ' ' || octet >= 0x7f || octet == '"' || octet == '\\' || octet == '=')
            return true;
    }
    return false;
}

static void append(struct composer *composer, const char *text)
{
    write_bytes(&composer->out, text, strlen(text));
}

/* Room for the two quotes is there; one more octet is kept for the closing one. */
static void append_value(struct composer *composer, const char *value)
{
    const char *quote = composer->is_json || needs_quotes(value) ? "\"" : "";
    append(composer, quote);
    for (const uint8_t *next = (const uint8_t *)value; *next;) {
        char encoded[ESCAPE_SIZE];
        size_t length;
        next += encode_character(composer->is_json, next, encoded, &length);
        if (writer_left(&composer->out) <= length) {
            composer->is_cut = true;
            break;
        }
        write_bytes(&composer->out, encoded, length);
    }
    append(composer, quote);
}

static void append_pair(struct composer *composer, const char *key, const char *value)
{
    if (composer->is_cut)
        return;
    const struct writer before = composer->out;
    append(composer, composer->is_json ? ",\"" : " ");
    append(composer, key);
    append(composer, composer->is_json ? "\":" : "=");
    if (composer->out.failed || writer_left(&composer->out) < 3) {
        composer->out = before;
        composer->is_cut = true;
        return;
    }
    append_value(composer, value);
}

static void append_head(struct composer *composer, const struct log_head *head)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm utc;
    gmtime_r(&now.tv_sec, &utc);
    char date[32];
    char time[48];
    const size_t date_length = strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &utc);
    assert(date_length > 0);
    snprintf(time, sizeof(time), "%s.%03ldZ", date, now.tv_nsec / 1000000);

    append(composer, composer->is_json ? "{\"time\":\"" : "");
    append(composer, time);
    append(composer, composer->is_json ? "\",\"level\":\"" : " ");
    append(composer, level_names[head->level]);
    append(composer, composer->is_json ? "\",\"event\":" : " ");
    append_value(composer, head->event);
}

static void append_tail(struct composer *composer)
{
    composer->out.end += TAIL_SIZE;
    if (composer->is_json)
        append(composer, composer->is_cut ? ",\"truncated\":true}\n" : "}\n");
    else
        append(composer, composer->is_cut ? " truncated=true\n" : "\n");
    assert(!composer->out.failed);
}

void log_line_compose(struct log_line *line, enum log_format format, const struct log_head *head,
                      va_list pairs)
{
    assert(head->event && head->level <= LOG_LEVEL_DEBUG);
    assert(!head->count_key || head->count_key[0] != '\0');
    struct composer composer = {
        .out = writer_over((uint8_t *)line->text, sizeof(line->text) - TAIL_SIZE),
        .is_json = format == LOG_FORMAT_JSON,
    };
    append_head(&composer, head);
    if (head->count_key && head->count > 0) {
        char count[24];
        snprintf(count, sizeof(count), "%lu", (unsigned long)head->count);
        append_pair(&composer, head->count_key, count);
    }
    const char *key;
    while ((key = va_arg(pairs, const char *)) != NULL) {
        const char *value = va_arg(pairs, const char *);
        if (value)
            append_pair(&composer, key, value);
    }
    append_tail(&composer);
    line->length = writer_length(&composer.out);
}
