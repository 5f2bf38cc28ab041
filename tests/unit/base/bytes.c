// SPDX-License-Identifier: Apache-2.0
/* The cursors: byte order, bounds, and the error that sticks. */
#include "test.h"

#include "base/bytes.h"

static void reads_big_endian(void **state)
{
    (void)state;
    const uint8_t bytes[] = {0x01, 0x82, 0x03, 0x84, 0x05, 0x06, 0xff, 0xaa, 0xbb};
    struct reader reader = reader_over(bytes, sizeof bytes);
    assert_int_equal(read_u16(&reader), 0x0182);
    assert_int_equal(read_u16(&reader), 0x0384);
    assert_ptr_equal(read_bytes(&reader, 3), bytes + 4);
    assert_int_equal(load_u32(bytes + 3), 0x840506ff);
    assert_int_equal(reader_left(&reader), 2);
    assert_ptr_equal(read_bytes(&reader, 2), bytes + 7);
    assert_int_equal(reader_left(&reader), 0);
    assert_non_null(read_bytes(&reader, 0));
    assert_false(reader.failed);
}

static void A1_reading_past_the_end_fails_and_stays_failed(void **state)
{
    (void)state;
    const uint8_t bytes[] = {1, 2, 3};
    struct reader reader = reader_over(bytes, sizeof bytes);
    assert_null(read_bytes(&reader, 4));
    assert_true(reader.failed);
    /* There would be room for these, but what they mean is lost. */
    assert_int_equal(read_u16(&reader), 0);
    assert_null(read_bytes(&reader, 1));
    assert_null(read_bytes(&reader, 0));
    assert_int_equal(reader_left(&reader), 3);

    reader = reader_over(bytes, sizeof bytes);
    assert_null(read_bytes(&reader, SIZE_MAX));
    reader = reader_over(bytes, 0);
    assert_int_equal(read_u16(&reader), 0);
    assert_true(reader.failed);
    reader = reader_over(bytes, 1);
    assert_int_equal(read_u16(&reader), 0);
    assert_true(reader.failed);
}

static void writes_big_endian(void **state)
{
    (void)state;
    uint8_t bytes[9] = {};
    struct writer writer = writer_over(bytes, sizeof bytes);
    write_u8(&writer, 0x01);
    write_u16(&writer, 0x8203);
    write_u32(&writer, 0x840506ff);
    write_bytes(&writer, "", 0);
    assert_int_equal(writer_length(&writer), 7);
    assert_int_equal(writer_left(&writer), 2);
    write_bytes(&writer, "\xaa\xbb", 2);
    assert_false(writer.failed);
    const uint8_t expected[] = {0x01, 0x82, 0x03, 0x84, 0x05, 0x06, 0xff, 0xaa, 0xbb};
    assert_memory_equal(bytes, expected, sizeof expected);
}

static void G3_writing_past_the_end_writes_nothing_and_stays_failed(void **state)
{
    (void)state;
    uint8_t bytes[4] = {9, 9, 9, 9};
    struct writer writer = writer_over(bytes, 3);
    write_u32(&writer, 1);
    assert_true(writer.failed);
    write_u16(&writer, 1);
    write_u8(&writer, 1);
    write_bytes(&writer, "x", 1);
    assert_null(write_room(&writer, 0));
    assert_int_equal(writer_length(&writer), 0);
    const uint8_t untouched[] = {9, 9, 9, 9};
    assert_memory_equal(bytes, untouched, sizeof untouched);

    writer = writer_over(bytes, 3);
    assert_null(write_room(&writer, SIZE_MAX));
    assert_true(writer.failed);
}

static void stores_and_loads_are_inverse(void **state)
{
    (void)state;
    uint8_t bytes[4];
    for (uint32_t i = 0; i < 32; i++) {
        store_u32(bytes, UINT32_C(1) << i);
        assert_int_equal(load_u32(bytes), UINT32_C(1) << i);
        store_u16(bytes, (uint16_t)(1 << i % 16));
        assert_int_equal(load_u16(bytes), 1 << i % 16);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_big_endian),
        cmocka_unit_test(A1_reading_past_the_end_fails_and_stays_failed),
        cmocka_unit_test(writes_big_endian),
        cmocka_unit_test(G3_writing_past_the_end_writes_nothing_and_stays_failed),
        cmocka_unit_test(stores_and_loads_are_inverse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
