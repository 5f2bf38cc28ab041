// SPDX-License-Identifier: Apache-2.0
/* The pool: capacity, order, alignment, ownership. */
#include "test.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/pool.h"

static void full_pool_gives_null_until_one_comes_home(void **state)
{
    (void)state;
    struct pool pool;
    void *objects[3];
    assert_int_equal(pool_open(&pool, 24, 3), STATUS_OK);
    for (size_t i = 0; i < 3; i++) {
        objects[i] = pool_take(&pool);
        assert_non_null(objects[i]);
        memset(objects[i], (int)i, 24);
    }
    assert_int_equal(pool.in_use, 3);
    assert_null(pool_take(&pool));
    assert_int_equal(pool.in_use, 3);

    pool_give(&pool, objects[1]);
    assert_ptr_equal(pool_take(&pool), objects[1]);
    assert_null(pool_take(&pool));
    for (size_t i = 0; i < 3; i++)
        pool_give(&pool, objects[i]);
    assert_int_equal(pool.in_use, 0);
    pool_close(&pool);
}

static void objects_are_aligned_apart_and_keep_their_bytes(void **state)
{
    (void)state;
    enum { COUNT = 1000, SIZE = 41 };
    static uint8_t *objects[COUNT];
    struct pool pool;
    assert_int_equal(pool_open(&pool, SIZE, COUNT), STATUS_OK);
    for (size_t i = 0; i < COUNT; i++) {
        objects[i] = pool_take(&pool);
        assert_int_equal((uintptr_t)objects[i] % 64, 0);
        memset(objects[i], (int)(i % 251), SIZE);
    }
    for (size_t i = 0; i < COUNT; i++) {
        for (size_t j = 0; j < SIZE; j++)
            assert_int_equal(objects[i][j], i % 251);
        pool_give(&pool, objects[i]);
    }
    pool_close(&pool);
}

static void last_in_first_out_touches_few_objects(void **state)
{
    (void)state;
    struct pool pool;
    assert_int_equal(pool_open(&pool, 64, 1000), STATUS_OK);
    for (size_t i = 0; i < 5000; i++) {
        void *a = pool_take(&pool);
        void *b = pool_take(&pool);
        pool_give(&pool, a);
        pool_give(&pool, b);
    }
    assert_int_equal(pool.touched, 2);
    pool_close(&pool);
}

static void ceiling_counts_the_rounded_size(void **state)
{
    (void)state;
    struct pool pool;
    assert_int_equal(pool_open(&pool, 1, 10), STATUS_OK);
    assert_int_equal(pool_ceiling(&pool), 10 * 64);
    pool_close(&pool);
}

static void I2_refused_memory_is_a_status_and_leaves_the_pool_alone(void **state)
{
    (void)state;
    struct pool pool = {.in_use = 7};
    errno = 0;
    assert_int_equal(pool_open(&pool, SIZE_MAX, 1), STATUS_SYSTEM);
    assert_int_equal(errno, ENOMEM);
    assert_int_equal(pool_open(&pool, SIZE_MAX / 4, 8), STATUS_SYSTEM);
    assert_int_equal(pool_open(&pool, (size_t)1 << 50, 16), STATUS_SYSTEM);
    assert_int_equal(pool.in_use, 7);
}

static void close_is_safe_on_a_zeroed_or_closed_pool(void **state)
{
    (void)state;
    struct pool pool = {};
    pool_close(&pool);
    assert_int_equal(pool_open(&pool, 8, 8), STATUS_OK);
    pool_close(&pool);
    assert_null(pool.memory);
    pool_close(&pool);
}

static void leak(void)
{
    struct pool pool;
    if (pool_open(&pool, 8, 8) == STATUS_OK && pool_take(&pool))
        pool_close(&pool);
}

static void give_a_stranger(void)
{
    struct pool pool;
    if (pool_open(&pool, 64, 8) == STATUS_OK)
        pool_give(&pool, (char *)pool_take(&pool) + 8);
}

#ifdef __SANITIZE_ADDRESS__
static void use_after_give(void)
{
    struct pool pool;
    if (pool_open(&pool, 64, 8) != STATUS_OK)
        return;
    volatile char *object = pool_take(&pool);
    pool_give(&pool, (char *)(uintptr_t)object);
    object[20] = 1;
}
#endif

/* True when `mistake` ends its process by a signal or a sanitizer. */
static bool dies(void (*mistake)(void))
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        close(STDERR_FILENO);
        mistake();
        _exit(0);
    }
    int end;
    assert_int_equal(waitpid(child, &end, 0), child);
    return !(WIFEXITED(end) && WEXITSTATUS(end) == 0);
}

static void our_own_mistakes_abort(void **state)
{
    (void)state;
    assert_true(dies(leak));
    assert_true(dies(give_a_stranger));
#ifdef __SANITIZE_ADDRESS__
    assert_true(dies(use_after_give));
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_pool_gives_null_until_one_comes_home),
        cmocka_unit_test(objects_are_aligned_apart_and_keep_their_bytes),
        cmocka_unit_test(last_in_first_out_touches_few_objects),
        cmocka_unit_test(ceiling_counts_the_rounded_size),
        cmocka_unit_test(I2_refused_memory_is_a_status_and_leaves_the_pool_alone),
        cmocka_unit_test(close_is_safe_on_a_zeroed_or_closed_pool),
        cmocka_unit_test(our_own_mistakes_abort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
