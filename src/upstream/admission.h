// SPDX-License-Identifier: Apache-2.0
/* How many connections a server takes from all workers: see admission.c. */
#ifndef UPSTREAM_ADMISSION_H
#define UPSTREAM_ADMISSION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed but for the workers: nothing is open, nothing is known. */
struct admission {
    size_t workers;       /* that share it, one or more */
    atomic_size_t count;  /* of connections, */
    atomic_size_t open;   /* and of those whose handshake is done */
    atomic_size_t failed; /* so many have ended before that, ever */
    atomic_size_t admitted;
    _Atomic uint64_t until_ns;       /* that is known */
    _Atomic uint64_t taken_begun_ns; /* when that was begun which was begun last of what opened */
};

/* A connection is on its way; the ticket is for admission_refused. It is open; it is gone. */
size_t admission_enter(struct admission *admission);
void admission_opened(struct admission *admission, uint64_t begun_ns);
void admission_leave(struct admission *admission, bool was_open);

/* How many are open, of all workers. */
size_t admission_open(const struct admission *admission);

/* The server has not taken the one with this ticket, which has not left yet. */
void admission_refused(struct admission *admission, size_t ticket, uint64_t begun_ns, uint64_t now);

/* How many connections each worker may have; SIZE_MAX when nothing is known. */
size_t admission_share(const struct admission *admission, uint64_t now);

#endif
