// SPDX-License-Identifier: Apache-2.0
/* The words of the failures, and what follows from them, from their table.
 *
 * Thread: any. */
#include "base/failure.h"

#include <assert.h>

enum { CLOSE = FAILURE_IS_CLOSE, SILENCE = FAILURE_IS_SILENCE, SLOW = FAILURE_IS_SLOW };
enum { PASSES = FAILURE_PASSES, OF_NAME = FAILURE_OF_NAME, OURS = FAILURE_IS_OURS };

static const struct {
    unsigned code;
    unsigned bits;
    const char *label;
    const char *text;
} rows[FAILURE_COUNT] = {
#define FAILURE_ROW(name, code, bits, label, text) {code, bits, label, text},
    FAILURES(FAILURE_ROW)
#undef FAILURE_ROW
};

const char *failure_label(enum failure failure)
{
    assert((unsigned int)failure < FAILURE_COUNT);
    return rows[failure].label;
}

const char *failure_text(enum failure failure)
{
    assert((unsigned int)failure < FAILURE_COUNT);
    return rows[failure].text;
}

bool failure_is(enum failure failure, unsigned bits)
{
    assert((unsigned int)failure < FAILURE_COUNT);
    return (rows[failure].bits & bits) != 0;
}

unsigned failure_extended_error(enum failure failure)
{
    assert((unsigned int)failure < FAILURE_COUNT);
    return rows[failure].code;
}
