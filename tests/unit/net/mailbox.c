// SPDX-License-Identifier: Apache-2.0
/* What main has to say to a worker: in order, once, taken when the worker says so. */
#include "test.h"

#include <pthread.h>

#include "net/mailbox.h"

static struct loop loop;
static struct mailbox mailbox;

static int setup(void **state)
{
    (void)state;
    mailbox_init(&mailbox, &loop);
    return loop_open(&loop) == STATUS_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    loop_close(&loop);
    return 0;
}

static void letters_come_in_order_and_once(void **state)
{
    (void)state;
    static const char first[] = "first";
    assert_null(mailbox_first(&mailbox));
    assert_true(mailbox_is_taken(&mailbox));
    mailbox_send(&mailbox, 3, first);
    mailbox_send(&mailbox, 4, NULL);
    assert_int_equal(mailbox_first(&mailbox)->kind, 3);
    assert_ptr_equal(mailbox_first(&mailbox)->content, first); /* it stays until it is taken */
    mailbox_take(&mailbox);
    assert_int_equal(mailbox_first(&mailbox)->kind, 4);
    assert_false(mailbox_is_taken(&mailbox));
    mailbox_take(&mailbox);
    assert_null(mailbox_first(&mailbox));
    assert_true(mailbox_is_taken(&mailbox));
}

static void ring_goes_round_and_may_be_full(void **state)
{
    (void)state;
    unsigned sent = 0;
    unsigned taken = 0;
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < MAILBOX_SIZE; i++)
            mailbox_send(&mailbox, sent++, NULL);
        for (unsigned i = 0; i < MAILBOX_SIZE - round; i++) {
            assert_int_equal(mailbox_first(&mailbox)->kind, taken++);
            mailbox_take(&mailbox);
        }
        for (; taken < sent; taken++) {
            assert_int_equal(mailbox_first(&mailbox)->kind, taken);
            mailbox_take(&mailbox);
        }
    }
    assert_true(mailbox_is_taken(&mailbox));
}

enum { LETTERS = 20000 };

static void *send_all(void *argument)
{
    (void)argument;
    for (unsigned i = 0; i < LETTERS; i++) {
        while (!mailbox_is_taken(&mailbox))
            sched_yield();
        mailbox_send(&mailbox, i, &loop);
    }
    return NULL;
}

/* The loop, which would sleep for ever, is woken by each; nothing is seen before it is whole. */
static void another_thread_is_heard(void **state)
{
    (void)state;
    pthread_t thread;
    unsigned taken = 0;
    assert_int_equal(pthread_create(&thread, NULL, send_all, NULL), 0);
    while (taken < LETTERS) {
        const struct letter *letter = mailbox_first(&mailbox);
        if (!letter) {
            assert_true(loop_turn(&loop, DEADLINE_NEVER));
            continue;
        }
        assert_int_equal(letter->kind, taken++);
        assert_ptr_equal(letter->content, &loop);
        mailbox_take(&mailbox);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(letters_come_in_order_and_once, setup, teardown),
        cmocka_unit_test_setup_teardown(ring_goes_round_and_may_be_full, setup, teardown),
        cmocka_unit_test_setup_teardown(another_thread_is_heard, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
