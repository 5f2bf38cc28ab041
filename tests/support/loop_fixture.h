// SPDX-License-Identifier: Apache-2.0
/* A real loop for each test of a file. */
#ifndef LOOP_FIXTURE_H
#define LOOP_FIXTURE_H

#include "net/loop.h"
#include "sockets.h"

static struct loop loop;

static int open_loop(void **state)
{
    (void)state;
    return loop_open(&loop) == STATUS_OK ? 0 : -1;
}

static int close_loop(void **state)
{
    (void)state;
    loop_close(&loop);
    return 0;
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, open_loop, close_loop)

#endif
