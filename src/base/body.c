// SPDX-License-Identifier: Apache-2.0
/* Counted bodies of answers, and the account of what clients make a worker hold.
 *
 * Thread: one worker.   Owner: see the header. */
#include "base/body.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void *output_take(struct output_account *account, size_t size)
{
    assert(size > 0);
    assert(!account || account->used <= account->ceiling);
    if (account && size > account->ceiling - account->used)
        return NULL;
    void *memory = malloc(size);
    if (memory && account)
        account->used += size;
    return memory;
}

void output_give(struct output_account *account, void *memory, size_t size)
{
    if (memory && account) {
        assert(size > 0);
        assert(account->used >= size);
        account->used -= size;
    }
    free(memory);
}

struct body *body_new(struct output_account *account, const uint8_t *bytes, size_t length)
{
    assert(bytes || length == 0);
    assert(length <= UINT32_MAX);
    struct body *body = output_take(account, sizeof(*body) + length);
    if (!body)
        return NULL;
    *body = (struct body){.account = account, .holders = 1, .length = (uint32_t)length};
    if (length > 0)
        memcpy(body->bytes, bytes, length);
    return body;
}

struct body *body_share(struct output_account *account, const uint8_t *bytes, size_t length)
{
    assert(account && (bytes || length == 0));
    struct body *last = account->last;
    if (last && last->length == length && memcmp(last->bytes, bytes, length) == 0)
        return body_hold(last);
    struct body *body = body_new(account, bytes, length);
    if (body)
        account->last = body;
    return body;
}

struct body *body_hold(struct body *body)
{
    assert(body->holders > 0 && body->holders < UINT32_MAX);
    body->holders++;
    return body;
}

void body_release(struct body *body)
{
    if (!body)
        return;
    assert(body->holders > 0);
    if (--body->holders > 0)
        return;
    if (body->account && body->account->last == body)
        body->account->last = NULL;
    output_give(body->account, body, sizeof(*body) + body->length);
}
