// SPDX-License-Identifier: Apache-2.0
/* Extended errors within a room: what of their texts is kept, and that the codes are. */
#include "test.h"

#include "dns/dns.h"
#include "dns/extended_error.h"

static uint8_t out[1024];

/* What one option becomes in a room of `size` octets. */
static size_t write_text(size_t size, const char *text, size_t length)
{
    struct writer writer = writer_over(out, size);
    extended_error_write(&writer, 22, text, length, 0);
    assert_false(writer.failed);
    return writer_length(&writer);
}

static size_t kept_of(size_t size, const char *text)
{
    const size_t length = write_text(size, text, strlen(text));
    assert_true(length >= 6);
    assert_int_equal(load_u16(out), OPTION_EXTENDED_ERROR);
    assert_int_equal(load_u16(out + 2), length - 4);
    assert_int_equal(load_u16(out + 4), 22);
    assert_memory_equal(out + 6, text, length - 6);
    return length - 6;
}

static void RFC8914_text_is_cut_between_characters(void **state)
{
    (void)state;
    /* Characters of 1, 2, 3 and 4 octets. */
    static const char text[] = "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80";
    static const size_t kept[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 10};
    for (size_t room = 0; room < sizeof(kept) / sizeof(kept[0]); room++)
        assert_int_equal(kept_of(6 + room, text), kept[room]);
}

static void RFC8914_text_that_is_not_utf8_goes_and_the_code_stays(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "\xff\xfe",         "good until \x80",  "\xc3",
        "a\xc3z",           "\xe2\x82",         "\xe2\x28\xa1",
        "\xf0\x9f\x98",     "\xc0\xaf", /* too long */
        "\xc1\xbf",         "\xe0\x9f\xbf",     "\xf0\x8f\xbf\xbf",
        "\xed\xa0\x80", /* surrogates */
        "\xed\xbf\xbf",     "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80",
        "\xf7\xbf\xbf\xbf",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_int_equal(kept_of(sizeof(out), texts[i]), 0);
    /* Wherever it stops to be UTF-8, also behind what there is room for. */
    assert_int_equal(kept_of(9, "abcdef\xff"), 0);
}

static void RFC3629_first_and_last_characters_of_each_length_are_kept(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "\x01",         "\x7f",         "\xc2\x80",         "\xdf\xbf",        "\xe0\xa0\x80",
        "\xed\x9f\xbf", "\xee\x80\x80", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_int_equal(kept_of(sizeof(out), texts[i]), strlen(texts[i]));
    assert_int_equal(write_text(sizeof(out), "a\0b", 3), 9);
}

static void code_without_room_is_left_out(void **state)
{
    (void)state;
    for (size_t size = 0; size < 6; size++)
        assert_int_equal(write_text(size, "text", 4), 0);
    assert_int_equal(write_text(6, NULL, 0), 6);
}

/* `count` options with texts of `text_length` octets, and others between them. */
static size_t make_options(uint8_t *options, size_t size, size_t count, size_t text_length)
{
    /* An NSID, an extended error that is too short to be one, and the begin of a whole one. */
    static const char begin[] = "\0\3\0\1x"
                                "\0\x0f\0\1y"
                                "\0\x0f";
    uint8_t *at = options;
    for (size_t i = 0; i < count; i++) {
        assert_true(at + sizeof(begin) + 3 + text_length <= options + size);
        memcpy(at, begin, sizeof(begin) - 1);
        at += sizeof(begin) - 1;
        store_u16(at, (uint16_t)(2 + text_length));
        store_u16(at + 2, (uint16_t)(100 + i));
        memset(at + 4, 'a' + (int)(i % 26), text_length);
        at += 4 + text_length;
    }
    return (size_t)(at - options);
}

static void RFC8914_texts_give_way_to_the_codes_behind_them(void **state)
{
    (void)state;
    static uint8_t options[65536];
    enum { ROOM = 512 };
    static const struct {
        size_t count, text_length, kept_texts, kept_codes;
    } cases[] = {
        {1, 100, 100, 1}, {1, 700, 506, 1}, {3, 100, 300, 3},
        {3, 300, 494, 3}, {85, 1, 2, 85},   {86, 1, 0, 85}, /* no room for all codes */
        {600, 90, 0, 85},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const size_t length =
            make_options(options, sizeof(options), cases[i].count, cases[i].text_length);
        struct writer writer = writer_over(out, ROOM);
        extended_errors_copy(&writer, options, length);
        assert_false(writer.failed);
        size_t texts = 0;
        size_t codes = 0;
        for (size_t at = 0; at < writer_length(&writer); codes++) {
            assert_int_equal(load_u16(out + at), OPTION_EXTENDED_ERROR);
            assert_int_equal(load_u16(out + at + 4), 100 + codes);
            texts += load_u16(out + at + 2) - 2U;
            at += 4U + load_u16(out + at + 2);
        }
        assert_int_equal(codes, cases[i].kept_codes);
        assert_int_equal(texts, cases[i].kept_texts);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(RFC8914_text_is_cut_between_characters),
        cmocka_unit_test(RFC8914_text_that_is_not_utf8_goes_and_the_code_stays),
        cmocka_unit_test(RFC3629_first_and_last_characters_of_each_length_are_kept),
        cmocka_unit_test(code_without_room_is_left_out),
        cmocka_unit_test(RFC8914_texts_give_way_to_the_codes_behind_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
