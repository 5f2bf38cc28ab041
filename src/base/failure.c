// SPDX-License-Identifier: Apache-2.0
/* The words of the failures, from their table.
 *
 * Thread: any. */
#include "base/failure.h"

#include <assert.h>

static const struct {
    const char *label;
    const char *text;
} WORDS[FAILURE_COUNT] = {
#define FAILURE_WORDS(name, label, text) {label, text},
    FAILURES(FAILURE_WORDS)
#undef FAILURE_WORDS
};

const char *failure_label(enum failure failure)
{
    assert((unsigned int)failure < FAILURE_COUNT);
    return WORDS[failure].label;
}

const char *failure_text(enum failure failure)
{
    assert((unsigned int)failure < FAILURE_COUNT);
    return WORDS[failure].text;
}

bool failure_is_close(enum failure failure)
{
    return failure == FAILURE_CLOSED || failure == FAILURE_RESET || failure == FAILURE_TLS ||
           failure == FAILURE_PROTOCOL;
}
