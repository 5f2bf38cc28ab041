// SPDX-License-Identifier: Apache-2.0
/* SipHash-1-3 against the published results of other implementations. */
#include "test.h"

#include <string.h>

#include "base/siphash.h"

/* hash() of bytes objects in CPython 3.11 with PYTHONHASHSEED=0, where the key is zero. */
static void I9_matches_cpython(void **state)
{
    (void)state;
    const struct siphash_key zero = {0, 0};
    uint8_t counting[63];
    for (size_t i = 0; i < sizeof counting; i++)
        counting[i] = (uint8_t)i;
    assert_int_equal(siphash(&zero, "a", 1), UINT64_C(0x407448d2b89b1813));
    assert_int_equal(siphash(&zero, "abcdefg", 7), UINT64_C(0x6db12aae9070f506));
    assert_int_equal(siphash(&zero, "abcdefgh", 8), UINT64_C(0x3f7b849c0b8e35ea));
    assert_int_equal(siphash(&zero, "example.com", 11), UINT64_C(0x7e0432aaedb1758c));
    assert_int_equal(siphash(&zero, counting, sizeof counting), UINT64_C(0x385d3e39e5f37359));
}

/* The first vectors of the test of SipHasher13 in Rust's core library: key 00 01 .. 0f. */
static void I9_matches_rust(void **state)
{
    (void)state;
    const struct siphash_key key = {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)};
    assert_int_equal(siphash(&key, "", 0), UINT64_C(0xabac0158050fc4dc));
    assert_int_equal(siphash(&key, "\x00", 1), UINT64_C(0xc9f49bf37d57ca93));
    assert_int_equal(siphash(&key, "\x00\x01", 2), UINT64_C(0x82cb9b024dc7d44d));
}

static void I9_reads_any_alignment(void **state)
{
    (void)state;
    const struct siphash_key key = {1, 2};
    const char text[] = "www.example.com";
    char shifted[sizeof text + 8];
    const uint64_t expected = siphash(&key, text, sizeof text);
    for (size_t shift = 0; shift < 8; shift++) {
        memcpy(shifted + shift, text, sizeof text);
        assert_int_equal(siphash(&key, shifted + shift, sizeof text), expected);
    }
}

static void I9_a_first_word_apart_is_as_good_as_in_front(void **state)
{
    (void)state;
    const struct siphash_key key = {1, 2};
    const uint8_t joined[] = "\x01\x02\x03\x04\x05\x06\x07\x08www.example.com";
    const size_t word = sizeof(uint64_t);
    for (size_t length = 0; length <= sizeof joined - word; length++)
        assert_int_equal(siphash_with(&key, UINT64_C(0x0807060504030201), joined + word, length),
                         siphash(&key, joined, word + length));
}

static void I9_each_half_of_the_key_and_the_length_matter(void **state)
{
    (void)state;
    const uint64_t hash = siphash(&(struct siphash_key){1, 2}, "name", 4);
    assert_int_not_equal(siphash(&(struct siphash_key){3, 2}, "name", 4), hash);
    assert_int_not_equal(siphash(&(struct siphash_key){1, 3}, "name", 4), hash);
    assert_int_not_equal(siphash(&(struct siphash_key){1, 2}, "name\0", 5), hash);
}

static void I9_random_keys_differ(void **state)
{
    (void)state;
    const struct siphash_key a = siphash_random_key();
    const struct siphash_key b = siphash_random_key();
    assert_memory_not_equal(&a, &b, sizeof a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(I9_matches_cpython),
        cmocka_unit_test(I9_matches_rust),
        cmocka_unit_test(I9_reads_any_alignment),
        cmocka_unit_test(I9_a_first_word_apart_is_as_good_as_in_front),
        cmocka_unit_test(I9_each_half_of_the_key_and_the_length_matter),
        cmocka_unit_test(I9_random_keys_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
