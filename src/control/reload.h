// SPDX-License-Identifier: Apache-2.0
/* Reading the configuration anew while the daemon runs (SIGHUP).
 *
 * All or nothing: a configuration with an error anywhere leaves everything as it is, and the log
 * says what is wrong and where. What only a restart can change stays as it is, and the log names
 * it. The snapshot of a valid one goes to every worker. The one before it is freed when nothing
 * goes by it any more, be it an answer that is awaited from an upstream which it alone has: so
 * there are two at most. Whoever asks meanwhile, or within a second of the last, is served after
 * that, all who have asked at once: the configuration that a reload reads is never older than the
 * last wish.
 *
 * Thread: main.   Owner: main. */
#ifndef CONTROL_RELOAD_H
#define CONTROL_RELOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"

/* How main hands a snapshot to all that go by one, and whether they have taken it. */
struct reload_events {
    void (*hand_out)(const struct snapshot *next, const struct snapshot *former);
    bool (*is_taken)(void);
    uint64_t (*ceiling)(const struct snapshot *snapshot); /* bytes that the process can occupy */
};

struct trusts;

struct reload {
    const struct reload_events *events;
    int argc;
    char *const *argv;
    const struct config *start; /* all but its snapshot holds until the end */
    struct config *current;     /* whose snapshot is in force; NULL: that of the start */
    struct config *next;        /* handed out, not yet taken by all; NULL: none */
    struct trusts *trusts;      /* of the snapshot that is in force, */
    struct trusts *next_trusts; /* and of the next */
    uint64_t next_ns;           /* when one may begin again */
    bool is_asked;
    bool has_failed;     /* the last one */
    size_t left;         /* keys that a restart would change */
    uint64_t generation; /* snapshots so far, that of the start included */
    uint64_t ended_s;    /* when that one came into force, since the epoch */
};

/* `start` is what was read from the arguments first; it and they outlive the reload. Its trusts
 * become the reload's. */
void reload_init(struct reload *reload, int argc, char *const argv[], const struct config *start,
                 struct trusts *trusts, const struct reload_events *events);

/* One is wanted. */
void reload_ask(struct reload *reload);

/* Goes on with what is to be done; returns the nanoseconds until it must be called again at the
 * latest. `now` is of loop_clock. */
uint64_t reload_run(struct reload *reload, uint64_t now);

/* The one in force. */
const struct snapshot *reload_snapshot(const struct reload *reload);

/* Once nobody goes by a snapshot any more. */
void reload_close(struct reload *reload);

#endif
