// SPDX-License-Identifier: Apache-2.0
/* Who asks for what ends connections: what makes a habit, how it fades, whose it is. */
#include "test.h"

#include <string.h>

#include "base/deadline.h"
#include "upstream/blame.h"

enum { HABIT = 5, ENDS_PER_ANSWER = 10 };

#define HALF_LIFE_NS (5 * NANOSECONDS_PER_SECOND)
#define BEGIN_NS (1000 * NANOSECONDS_PER_SECOND)

/* Neighbours, as addresses of one network are. */
static const uint64_t mallory = 2000;
static const uint64_t alice = 2001;

static struct blame_table table;

/* The secret is a known one, so that no two of a test meet by chance. */
static int table_setup(void **state)
{
    (void)state;
    table = (struct blame_table){.key = {11, 22}};
    return 0;
}

static const struct question *named(const char *wire)
{
    static struct question question;
    question = (struct question){.type = TYPE_A, .class = CLASS_IN};
    question.name_length = (uint8_t)(strlen(wire) + 1);
    memcpy(question.name, wire, question.name_length);
    return &question;
}

static void end_often(uint64_t now, uint64_t client, const char *wire, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        blame_end(&table, now, client, named(wire));
}

static void answer_often(uint64_t now, uint64_t client, const char *wire, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        blame_answer(&table, now, client, named(wire));
}

static bool is_bad(uint64_t now, uint64_t client, const char *wire)
{
    return blame_is_bad(&table, now, client, named(wire));
}

/* --- Habits --- */

static void K9_nobody_is_known_before_anything_has_ended(void **state)
{
    (void)state;
    assert_false(is_bad(BEGIN_NS, mallory, "\1a\3bad"));
    answer_often(BEGIN_NS, mallory, "\1a\3bad", 3);
    assert_false(is_bad(BEGIN_NS, mallory, "\1a\3bad"));
}

static void K1_fifth_lone_end_makes_a_habit(void **state)
{
    (void)state;
    end_often(BEGIN_NS, mallory, "\1a\3bad", HABIT - 1);
    assert_false(is_bad(BEGIN_NS, mallory, "\1a\3bad"));
    end_often(BEGIN_NS, mallory, "\1b\3bad", 1);
    assert_true(is_bad(BEGIN_NS, mallory, "\1c\3bad"));
}

/* Whoever asks for much that is answered keeps what he has, but for the zone that is poisoned. */
static void K1_good_answers_outweigh_ends_where_they_are_asked_for(void **state)
{
    (void)state;
    end_often(BEGIN_NS, mallory, "\1a\3bad", HABIT);
    answer_often(BEGIN_NS, mallory, "\1a\4good", 1);
    assert_false(is_bad(BEGIN_NS, mallory, "\1b\4good"));
    assert_true(is_bad(BEGIN_NS, mallory, "\1b\3bad"));
    answer_often(BEGIN_NS, mallory, "\1a\3bad", 1);
    assert_false(is_bad(BEGIN_NS, mallory, "\1b\3bad"));
    end_often(BEGIN_NS, mallory, "\1a\3bad", ENDS_PER_ANSWER + 1 - HABIT);
    assert_true(is_bad(BEGIN_NS, mallory, "\1b\3bad"));
    assert_false(is_bad(BEGIN_NS, mallory, "\1b\4good"));
}

/* --- Whose it is --- */

/* Who poisons `com`, or a competitor's zone, must not hurt those who ask for it. */
static void K9_suffix_alone_never_counts(void **state)
{
    (void)state;
    end_often(BEGIN_NS, mallory, "\1a\3com", 100);
    assert_true(is_bad(BEGIN_NS, mallory, "\1a\3com"));
    assert_false(is_bad(BEGIN_NS, alice, "\1a\3com"));
    for (uint64_t client = 1; client < 20; client += 2)
        end_often(BEGIN_NS, client, "\1a\3com", HABIT - 1);
    assert_false(is_bad(BEGIN_NS, alice, "\1b\3com"));
}

static void K1_client_alone_counts_whatever_it_asks_for(void **state)
{
    (void)state;
    const char *const zones[HABIT] = {"\1a\1v", "\1a\1w", "\1a\1x", "\1a\1y", "\1a\1z"};
    for (size_t i = 0; i < HABIT; i++)
        end_often(BEGIN_NS, mallory, zones[i], 1);
    assert_true(is_bad(BEGIN_NS, mallory, "\1a\1u"));
    assert_false(is_bad(BEGIN_NS, alice, "\1a\1v"));
}

/* What stands above the first label is what names have in common; the root has no such name. */
static void K1_names_of_one_parent_are_one_and_the_root_is_its_own(void **state)
{
    (void)state;
    end_often(BEGIN_NS, mallory, "\3www\3bad\3com", HABIT);
    answer_often(BEGIN_NS, mallory, "\1x\4good", 1);
    assert_true(is_bad(BEGIN_NS, mallory, "\5other\3bad\3com"));
    assert_false(is_bad(BEGIN_NS, mallory, "\3bad\3com"));
    assert_false(is_bad(BEGIN_NS, mallory, "\1x\3www\3bad\3com"));
    end_often(BEGIN_NS, alice, "", HABIT);
    answer_often(BEGIN_NS, alice, "\1x\4good", 1);
    assert_true(is_bad(BEGIN_NS, alice, ""));
    assert_false(is_bad(BEGIN_NS, alice, "\1x\4good"));
}

/* --- Fading --- */

static void K9_half_is_forgotten_each_five_seconds(void **state)
{
    (void)state;
    end_often(BEGIN_NS, mallory, "\1a\3bad", 2 * HABIT);
    assert_true(is_bad(BEGIN_NS + 2 * HALF_LIFE_NS - 1, mallory, "\1a\3bad"));
    blame_end(&table, BEGIN_NS + 2 * HALF_LIFE_NS, alice, named("\1a\5other"));
    assert_false(is_bad(BEGIN_NS + 2 * HALF_LIFE_NS, mallory, "\1a\3bad"));
}

static void K9_looking_forgets_nothing(void **state)
{
    (void)state;
    end_often(BEGIN_NS, mallory, "\1a\3bad", 2 * HABIT);
    for (unsigned i = 0; i < 10; i++)
        assert_true(is_bad(BEGIN_NS + HALF_LIFE_NS, mallory, "\1a\3bad"));
}

static void K9_all_is_over_when_nothing_has_ended_for_ten_seconds(void **state)
{
    (void)state;
    end_often(BEGIN_NS, mallory, "\1a\3bad", 1000);
    assert_true(is_bad(BEGIN_NS + 2 * HALF_LIFE_NS - 1, mallory, "\1a\3bad"));
    assert_false(is_bad(BEGIN_NS + 2 * HALF_LIFE_NS, mallory, "\1a\3bad"));
    /* A year later the counts are not what they were either. */
    const uint64_t later_ns = BEGIN_NS + 31536000 * NANOSECONDS_PER_SECOND;
    end_often(later_ns, mallory, "\1a\3bad", HABIT - 1);
    assert_false(is_bad(later_ns, mallory, "\1a\3bad"));
}

static void K9_answers_fade_as_ends_do(void **state)
{
    (void)state;
    end_often(BEGIN_NS, mallory, "\1a\3bad", 1);
    answer_often(BEGIN_NS, mallory, "\1a\3bad", 2);
    end_often(BEGIN_NS, mallory, "\1a\3bad", 2 * ENDS_PER_ANSWER - 1);
    assert_false(is_bad(BEGIN_NS, mallory, "\1a\3bad"));
    end_often(BEGIN_NS + HALF_LIFE_NS, mallory, "\1a\3bad", 1);
    assert_true(is_bad(BEGIN_NS + HALF_LIFE_NS, mallory, "\1a\3bad"));
}

/* --- Two that meet in one record --- */

static void K9_of_two_that_meet_in_one_record_the_newer_has_it(void **state)
{
    (void)state;
    const uint64_t twin = mallory + 2 * BLAMES; /* the next account in the same record */
    end_often(BEGIN_NS, mallory, "\1a\3bad", HABIT);
    answer_often(BEGIN_NS, mallory, "\1a\3bad", 1); /* so that the account's own record decides */
    end_often(BEGIN_NS, mallory, "\1a\5worse", ENDS_PER_ANSWER);
    assert_true(is_bad(BEGIN_NS, mallory, "\1a\5other"));
    end_often(BEGIN_NS, twin, "\1a\3bad", 1);
    assert_false(is_bad(BEGIN_NS, mallory, "\1a\5other")); /* forgotten, */
    assert_false(is_bad(BEGIN_NS, twin, "\1a\5other"));    /* and not the twin's */
    end_often(BEGIN_NS, twin, "\1a\5other", HABIT - 1);
    assert_true(is_bad(BEGIN_NS, twin, "\1a\1x"));
}

/* Whatever the secret is: else one in 512 would never be found out, whatever it ends. */
static void K9_client_and_its_suffix_never_meet(void **state)
{
    (void)state;
    for (uint64_t k0 = 1; k0 <= 4096; k0++) {
        table = (struct blame_table){.key = {k0, 22}};
        end_often(BEGIN_NS, mallory, "\1a\3bad", HABIT);
        assert_true(is_bad(BEGIN_NS, mallory, "\1b\3bad"));
    }
}

static void I9_secret_is_another_in_each_table(void **state)
{
    (void)state;
    struct blame_table other = {0};
    table.key = (struct siphash_key){0};
    blame_init(&table);
    blame_init(&other);
    assert_true(table.key.k0 != other.key.k0 || table.key.k1 != other.key.k1);
}

#define TEST(function) cmocka_unit_test_setup(function, table_setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(K9_nobody_is_known_before_anything_has_ended),
        TEST(K1_fifth_lone_end_makes_a_habit),
        TEST(K1_good_answers_outweigh_ends_where_they_are_asked_for),
        TEST(K9_suffix_alone_never_counts),
        TEST(K1_client_alone_counts_whatever_it_asks_for),
        TEST(K1_names_of_one_parent_are_one_and_the_root_is_its_own),
        TEST(K9_half_is_forgotten_each_five_seconds),
        TEST(K9_looking_forgets_nothing),
        TEST(K9_all_is_over_when_nothing_has_ended_for_ten_seconds),
        TEST(K9_answers_fade_as_ends_do),
        TEST(K9_of_two_that_meet_in_one_record_the_newer_has_it),
        TEST(K9_client_and_its_suffix_never_meet),
        TEST(I9_secret_is_another_in_each_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
