// SPDX-License-Identifier: Apache-2.0
/* Inside src/upstream only: upstreams that are host names, and the plain questions for them.
 *
 * Owner of a struct name: its upstream. Of a struct bootstrap: the question that embeds it.
 * Thread: one worker. */
#ifndef UPSTREAM_NAMES_H
#define UPSTREAM_NAMES_H

#include "dns/host.h"
#include "net/datagram.h"
#include "net/race.h"
#include "upstream/internal.h"

/* RFC 8305 3: how long the addresses of one family wait for those of the other. There it is for
 * IPv4 alone; but a race with IPv6 alone would be lost where there is none. */
#define NAME_SETTLE_NS (50 * NANOSECONDS_PER_MILLISECOND)

/* --- bootstrap.c: one question over plain DNS --- */

/* Most servers answer within 100 ms; one that does not is passed over. When its turn comes again it
 * has three times as long, for it may be far away. */
#define BOOTSTRAP_TRY_NS (500 * NANOSECONDS_PER_MILLISECOND)

struct bootstrap;

/* `answer` is NULL when every try failed; it is borrowed for the call. */
typedef void bootstrap_done(struct bootstrap *bootstrap, const struct answer *answer);

enum bootstrap_state {
    BOOTSTRAP_RESTING,
    BOOTSTRAP_DATAGRAM,
    BOOTSTRAP_STREAM,
    BOOTSTRAP_CLOSING, /* nothing is asked any more, but the stream has yet to be reaped */
};

struct bootstrap {
    struct group *group;
    const struct question *question;
    bootstrap_done *on_done;
    enum bootstrap_state state;
    struct datagram datagram;
    struct stream stream;
    struct deadline deadline;
    unsigned tries;
    unsigned patience;  /* how many times BOOTSTRAP_TRY_NS this try has yet */
    unsigned refusals;  /* servers in a row that could not be asked, or would not answer */
    unsigned strangers; /* messages of this try that answered nothing */
    size_t server;      /* the one asked last; the next question begins with it */
    uint16_t id;
};

/* Asks the configured servers one after the other; on_done is called once, perhaps from inside. */
void bootstrap_init(struct bootstrap *bootstrap);
void bootstrap_begin(struct bootstrap *bootstrap, struct group *group,
                     const struct question *question, bootstrap_done *on_done);

/* on_done is not called, and the next question begins with another server. Harmless when nothing is
 * asked. */
void bootstrap_cancel(struct bootstrap *bootstrap);

/* Frees what it holds, without waiting for the loop. */
void bootstrap_close(struct bootstrap *bootstrap);

void bootstrap_on_deadline(struct deadline *deadline, uint64_t now);

/* --- dial.c --- */

struct dial {
    struct connection *connection;
    struct list waiting; /* for the addresses of its upstream */
    struct race race;
    struct address addresses[RACE_ADDRESSES_MAX];
};

/* The addresses are known, or they could not be found. */
void dial_go(struct dial *dial);
void dial_fail(struct dial *dial, enum failure failure);

/* --- names.c --- */

enum status name_open(struct upstream *upstream, struct name **out);

/* How long one of the two questions may take: time for two upstreams that do not answer, and for
 * each bootstrap server, however short timeouts.query is. */
uint64_t name_query_ns(const struct config *config);

/* Takes back what was asked; then the name may be closed when no connection waits for it. Safe on
 * NULL, as name_close. */
void name_stop(struct name *name);
void name_close(struct name *name);

/* True when no address is known; false on NULL. */
bool name_is_unknown(const struct name *name);

/* The addresses to connect to, best first; 0 when none is known, with the cause in `*failure` if
 * they were looked up in vain. */
size_t name_addresses(const struct name *name, struct address out[static RACE_ADDRESSES_MAX],
                      enum failure *failure);

/* The dial is called back when addresses are known, or cannot be found. STATUS_NOT_FOUND when that
 * was tried a moment ago. */
enum status name_wait(struct name *name, struct dial *dial, enum failure *failure);

/* Why the last lookup failed, in words. */
const char *name_detail(const struct name *name);

/* What became of a connection to `peer`: it is open, or it has ended as it should not (AF_UNSPEC:
 * none of the addresses could be reached). */
void name_connected(struct name *name, const struct address *peer);
void name_failed(struct name *name, const struct address *peer);

/* A lookup that failed before may succeed now. Safe on NULL. */
void name_network_changed(struct name *name);

/* Handlers of the group's deadline queues. */
void name_on_query_deadline(struct deadline *deadline, uint64_t now);
void name_on_settled(struct deadline *deadline, uint64_t now);

#endif
