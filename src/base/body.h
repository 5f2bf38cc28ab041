// SPDX-License-Identifier: Apache-2.0
/* The body of an answer on its way to many clients: immutable bytes with a count of holders, the
 * one exception to "one owner". A long answer that hundreds wait for is then there once, however
 * slowly each of them reads (FAULTS K6). And the account of what clients make a worker hold:
 * bodies, and the buffers of their streams.
 *
 * Thread: one worker, as its account. Owner: all holders; the last one's release frees it. */
#ifndef BASE_BODY_H
#define BASE_BODY_H

#include <stddef.h>
#include <stdint.h>

struct body;

struct output_account {
    size_t used;       /* bytes */
    size_t max;        /* whoever takes more goes on; the listener makes room in the next turn */
    size_t ceiling;    /* nobody gets more */
    struct body *last; /* that body_share made last; NULL: nobody holds it any more */
};

/* Memory that is counted; without an account, as what is not a client's, it is not. NULL when there
 * is none, or the ceiling would be passed. */
void *output_take(struct output_account *account, size_t size);
void output_give(struct output_account *account, void *memory, size_t size); /* safe on NULL */

struct body {
    struct output_account *account;
    uint32_t holders;
    uint32_t length;
    uint8_t bytes[];
};

/* A copy of the bytes, with one holder, who may still change them; NULL when memory is short. */
struct body *body_new(struct output_account *account, const uint8_t *bytes, size_t length);

/* For one more holder a body of these bytes: the last one that was made so, if they are its own.
 * NULL when memory is short. */
struct body *body_share(struct output_account *account, const uint8_t *bytes, size_t length);

struct body *body_hold(struct body *body);
void body_release(struct body *body); /* safe on NULL */

#endif
