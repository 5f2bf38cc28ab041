// SPDX-License-Identifier: Apache-2.0
/* The simulation: the real query, lookup, upstream, cache, dns, stream and loop code over system
 * calls and a TLS that this directory plays, in virtual time, everything drawn from one seed.
 *
 *   plan.c      seed -> plan: which faults, how many upstreams and queries, which limits; chance
 *   net.c       the kernel: clock, epoll, TCP links, allocations that fail
 *   tls.c       in place of net/tls.c: a greeting, then plain bytes
 *   upstream.c  the scripted upstreams, and what is true of each question
 *   troubles.c  which of them close, err, fall behind or are away, and on which names
 *   clients.c   the clients, and what each reply must be
 *   readers.c   those that read late, and what is held for them
 *   requests.c  which upstreams are asked, and how often
 *   world.c     opens the product, turns its loop, holds the invariants, closes it
 *   main.c      arguments, many seeds, the minimiser
 *
 * A run with the same options is the same run. Thread: one; state is static and reset by run. */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/deadline.h"
#include "base/siphash.h"
#include "config/config.h"
#include "upstream_view.h"

enum { SIM_UPSTREAMS_MAX = 4, SIM_PORT_BASE = 1000, SIM_QUERIES_MAX = 256, SIM_SECONDS_MAX = 60 };

#define MILLISECONDS(count) ((uint64_t)(count)*NANOSECONDS_PER_MILLISECOND)

/* Everything that can go wrong: the enum, the name for --without, and what it is. */
#define SIM_FAULTS(ROW)                                                                          \
    ROW(SPLIT, "split", "bytes arrive and leave in pieces, or many messages in one")             \
    ROW(DELAY, "delay", "segments take their time")                                              \
    ROW(REORDER, "reorder", "answers leave in another order")                                    \
    ROW(CLOSE, "close", "an orderly end, at any byte")                                           \
    ROW(RESET, "reset", "a reset, at any byte")                                                  \
    ROW(STALL, "stall", "a link that loses all from some moment on")                             \
    ROW(HALF_OPEN, "half-open", "a connection that takes queries and never answers")             \
    ROW(REFUSE, "refuse", "connects are refused")                                                \
    ROW(UNREACHABLE, "unreachable", "connects fail at once")                                     \
    ROW(SLOW_CONNECT, "slow-connect", "connects take long, or for ever")                         \
    ROW(SLOW_HANDSHAKE, "slow-handshake", "handshakes take long, or for ever")                   \
    ROW(BAD_HANDSHAKE, "bad-handshake", "handshakes fail")                                       \
    ROW(TLS_TURNS, "tls-turns", "TLS must write before it can read, or read before it writes")   \
    ROW(SLOW_READER, "slow-reader", "the upstream takes few bytes at a time")                    \
    ROW(OUTAGE, "outage", "an upstream that is dead for a while")                                \
    ROW(IDLE_CLOSE, "idle-close", "the upstream closes what is idle")                            \
    ROW(DUPLICATE, "duplicate", "answers come twice")                                            \
    ROW(LATE, "late", "answers come after seconds")                                              \
    ROW(LOST, "lost", "answers never come")                                                      \
    ROW(UNSOLICITED, "unsolicited", "answers to what nobody asked")                              \
    ROW(WRONG_ID, "wrong-id", "answers with the ID of another use of the slot")                  \
    ROW(WRONG_QUESTION, "wrong-question", "answers with the right ID to another question")       \
    ROW(NO_QUESTION, "no-question", "answers that are a header alone")                           \
    ROW(MALFORMED, "malformed", "messages cut at any byte")                                      \
    ROW(TRUNCATED, "truncated", "answers with TC=1")                                             \
    ROW(ERROR_RCODE, "error-rcode", "SERVFAIL, REFUSED and other errors")                        \
    ROW(KEEPALIVE, "keepalive", "keepalive 0, or a short one")                                   \
    ROW(HUGE, "huge", "many answers are nearly as long as a message can be")                     \
    ROW(SMALL_LIMITS, "small-limits", "few queries, requests and connections are allowed")       \
    ROW(ODD_TIMEOUTS, "odd-timeouts", "timeouts of any length and order")                        \
    ROW(SMALL_CACHE, "small-cache", "a cache that is full at once")                              \
    ROW(ALLOCATION, "allocation", "memory is short")                                             \
    ROW(DESCRIPTORS, "descriptors", "sockets and watches are refused")                           \
    ROW(CLOCK_JUMP, "clock-jump", "the machine sleeps")                                          \
    ROW(SIGNAL, "signal", "epoll_wait is interrupted")                                           \
    ROW(NETWORK, "network", "our address towards upstreams changes, or is said to, or we slept") \
    ROW(NO_ROUTE, "no-route", "no way leads to an upstream for a while")                         \
    ROW(SELF, "self", "an upstream is this daemon itself")                                       \
    ROW(LEAVE, "leave", "TCP clients leave before their reply")                                  \
    ROW(HOSTILE_CLIENT, "hostile-client", "clients that send anything")                          \
    ROW(BUSY, "busy", "a reply takes what is left of the turn's budget")                         \
    ROW(GREEDY, "greedy", "a client that asks and asks for what is never answered")              \
    ROW(FORGED, "forged", "the same, each from an address of its own")                           \
    ROW(ABRUPT_END, "abrupt-end", "the worker ends with everything in flight")                   \
    ROW(CLOSES_ON_A_NAME, "closes-on-a-name", "names that make an upstream close at once")       \
    ROW(CLOSES_ON_A_SUFFIX, "closes-on-a-suffix", "the same of all names below one")             \
    ROW(CLOSES_EACH_NTH, "closes-each-nth", "an upstream that closes after so many answers")     \
    ROW(ANSWERS_IN_ORDER, "answers-in-order", "what is slow holds up all that was asked behind") \
    ROW(ERRORS_FOR_ALL, "errors-for-all", "an upstream that answers nothing but SERVFAIL")       \
    ROW(ACCEPTS_AND_CLOSES, "accepts-and-closes", "an upstream that closes all it accepts")      \
    ROW(RUNT_FRAMES, "runt-frames", "names whose answer is a frame of 1 to 11 octets")           \
    ROW(RESTARTS, "restarts", "an upstream that is away for up to 2.5 s and comes back")         \
    ROW(RELOAD, "reload",                                                                        \
        "the configuration is read anew, with other upstreams and another strategy")             \
    ROW(REPEAT, "repeat", "UDP clients ask once more while they wait")                           \
    ROW(LATE_READER, "late-reader", "TCP clients read their replies late")

enum fault {
#define FAULT_ENUM(name, label, text) FAULT_##name,
    SIM_FAULTS(FAULT_ENUM)
#undef FAULT_ENUM
        FAULT_COUNT
};

extern const char *const fault_labels[FAULT_COUNT];

/* --- plan.c --- */

struct sim_options {
    uint64_t seed;
    uint32_t queries_max;
    uint32_t duration_max_ms; /* queries that would come later are left out */
    uint64_t faults;          /* that are on in each run, as bits: no other harmful one is */
    uint64_t without;         /* faults that are turned off, the same */
    bool counts_failures;     /* of innocent questions, instead of ending with the first */
    bool verbose;
};

struct plan {
    uint64_t faults;
    uint16_t permille[FAULT_COUNT]; /* how often, where it can happen */
    size_t upstream_count;
    size_t healthy; /* the upstream that nothing is ever wrong with; SIZE_MAX: none */
    uint32_t queries;
    uint32_t names;
    uint64_t duration_ns;
    uint64_t latency_ns; /* one way, to the nearest upstream */
    bool has_cache;
    bool has_self_check; /* upstreams are asked whether they are us */
    struct config config;
};

extern struct plan plan;
extern struct sim_options sim_options;
extern uint64_t fault_counts[FAULT_COUNT]; /* how often each has happened, over all runs */

/* Draws the plan of `options` and seeds all chance with it. */
void plan_draw(const struct sim_options *options);
void plan_print(void);

/* Chance of the run; bound > 0. */
uint64_t random_below(uint64_t bound);
uint64_t random_between(uint64_t low, uint64_t high);

/* The same for what is drawn before the run, so that a shorter run begins alike. */
uint64_t plan_below(uint64_t bound);

bool has_fault(enum fault fault);

/* True when no fault is on but those that may cost nobody an answer, and those of `harmful`. */
bool has_only_harmless_faults_but(uint64_t harmful);

/* Whether it happens now; counts it. */
bool fault_happens(enum fault fault);

/* The same at upstream `index`, never at the healthy one. */
bool fault_happens_at(enum fault fault, size_t index);

/* An invariant is broken: says so and ends the process. */
_Noreturn void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A line of the story, with --verbose; it also goes into the digest that replays are compared by.
 */
void sim_tell(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t sim_digest(void);

/* --- net.c --- */

/* One TCP connection of the product to an upstream. */
struct link;

typedef void event_run(void *subject, const uint8_t *bytes, size_t length);

void net_reset(void);

/* After a run: fails when the product has left a descriptor or an allocation behind. */
void net_check_closed(void);

/* Where the clock starts. */
#define NET_START_NS (1000 * NANOSECONDS_PER_SECOND)

uint64_t net_now(void);
uint64_t net_turns(void);
uint64_t net_last_jump(void); /* when the clock last jumped, 0: never */
size_t net_open_links(void);
uint64_t net_last_heard(int fd);    /* when the link's last byte came, 0: none */
uint64_t net_blocked_since(int fd); /* since when what is sent is lost, 0: never */

/* Calls `run` with a copy of the bytes. */
void net_schedule(uint64_t after_ns, event_run *run, void *subject, const uint8_t *bytes,
                  size_t length);

/* A descriptor that is readable while `is_ringing` says so. */
int net_open_bell(bool (*is_ringing)(void));

void net_allow_failing_allocations(bool allowed);

void *sim_allocate(size_t size); /* zeroed, never fails, not counted */
void sim_release(void *memory);

/* What upstreams do with a link. */
void link_send(struct link *link, const uint8_t *bytes, size_t length);
void link_end(struct link *link);   /* behind what was sent */
void link_reset(struct link *link); /* the same */
void link_stall(struct link *link); /* nothing passes from now on */

/* For TLS: makes the descriptor readable after a while, without a byte; and whether it was. */
void net_nudge(int fd);
bool net_take_nudge(int fd);

/* --- upstream.c --- */

/* How a connect ends, `after_ns` from now. */
enum connect_end { CONNECT_DONE, CONNECT_REFUSED, CONNECT_NEVER, CONNECT_UNREACHABLE };

struct conversation; /* the upstream's side of a link */

void upstreams_reset(void);
void upstreams_close(void);
enum connect_end upstream_connect(size_t index, uint64_t *after_ns);
struct conversation *upstream_accept(size_t index, struct link *link);
void upstream_receive(struct conversation *conversation, const uint8_t *bytes, size_t length);
void upstream_peer_closed(struct conversation *conversation);
size_t upstream_queries(size_t index); /* received, for lookups */
size_t upstream_probes(size_t index);  /* received, for the root's name servers */

uint64_t
upstream_answered_ns(size_t index); /* when that came which came last of what it answered */

/* Our address towards it, 0: no way leads there. */
uint32_t upstream_source(size_t index);

/* Whether each upstream was dead in an outage at some moment since then. */
bool upstreams_were_dead_since(uint64_t since_ns);

/* What every honest upstream says about a question; TRUTH_SILENCE: nothing. */
enum truth_kind { TRUTH_POSITIVE, TRUTH_NODATA, TRUTH_NXDOMAIN, TRUTH_SILENCE };

/* The names that are never answered begin so. */
#define SIM_SILENT_LABEL "silent"

struct truth {
    enum truth_kind kind;
    uint32_t hash; /* of all that makes another answer; in the records */
    uint32_t ttl_s;
    uint32_t filler_count;   /* further records */
    uint32_t optional_count; /* in additional, each an RRset */
    uint32_t optional_ttl_s;
};

struct truth truth_of(const uint8_t *name, size_t name_length, uint16_t type, bool dnssec_ok,
                      bool checking_disabled);

/* Ends all its connections after `from_ns`, and then refuses new ones or, with ACCEPTS_AND_CLOSES,
 * closes them, for `length_ns`. */
void upstream_plan_absence(enum fault fault, size_t index, uint64_t from_ns, uint64_t length_ns);

/* --- troubles.c --- */

/* What a name does to upstreams that have the fault for it. */
enum mark { MARK_NONE, MARK_CLOSES, MARK_CLOSES_BELOW, MARK_SLOW, MARK_RUNT, MARK_COUNT };

struct mark_kind {
    enum fault fault;
    const char *label; /* the first one begins so, of MARK_CLOSES_BELOW the last */
    uint32_t a_second; /* so many questions for such names there are at most in each second, */
    uint32_t more;     /* and so many more for each upstream */
};

extern const struct mark_kind mark_kinds[MARK_COUNT];

enum mark mark_of(const uint8_t *name);
bool mark_troubles(enum mark mark, size_t index);

/* So many questions for such names may be in one second of the plan. */
uint32_t marks_max(enum mark mark);

void troubles_reset(void);
bool upstream_has(enum fault fault, size_t index);
unsigned upstream_closes_after(size_t index); /* so many answers, 0: never */
bool upstream_only_errs(size_t index);        /* now */

/* Whether the error that it gives now may be taken for the question's, since what it answered until
 * a moment ago was good. */
bool upstream_errs_anew(size_t index);
void upstream_note_good(size_t index);

/* True when upstreams take all connections, and end them for nothing but the names that make them
 * do it, or after so many answers. */
bool upstreams_end_only_what_is_open(void);

/* The same but for the answers. */
bool upstreams_end_only_for_names(void);

/* --- clients.c --- */

/* What came of questions, over all runs. Innocent are those of honest clients that nothing is wrong
 * with. */
struct figures {
    uint64_t innocent; /* and replied to */
    uint64_t convicted;
    uint64_t promised; /* an answer, in such a run */
    uint64_t failed;   /* of those */
    uint32_t sends;    /* the most of one lookup to one upstream */
};

extern struct figures figures;

struct resolver;

void sim_clients_open(struct resolver *resolver);
void sim_clients_close(void);
bool clients_are_done(void);

/* A request for the question of this truth has come to an upstream. */
void clients_note_request(size_t upstream, uint32_t hash);

/* Its error is one of the first after good answers. */
void clients_note_onset(uint32_t hash);

void clients_note_network_change(void);

/* It is configured, and was not before: what it was asked then counts no more. */
void clients_note_upstream(size_t upstream);

/* An upstream has just been asked the question of this truth and ended the connection for it;
 * `is_fresh`: it was asked nothing else there. */
void clients_note_end(size_t upstream, uint32_t hash, bool is_fresh);

/* Invariants of the clients, at the end of a turn. */
void clients_check(void);
void clients_check_counters(void);

/* --- readers.c --- */

struct body;

void readers_open(struct resolver *resolver);
void readers_close(void);

/* Client `number` has a reply of `size` bytes, beside its body if that is apart, and will read it
 * some time. */
void readers_hold(size_t number, size_t size, struct body *body);

/* Invariants of what is held, at the end of a turn; then some go, if it is too much. */
void readers_check(void);

/* --- requests.c --- */

struct metrics;

void requests_reset(void);

/* Invariants of requests, at the end of a turn; `has_asked`: something was asked in it. */
void requests_check(const struct group_view *view, bool has_asked);

/* --- world.c --- */

/* One whole run. Returns its digest, or does not return. */
uint64_t sim_run(const struct sim_options *options);

/* Invariants at the end of each turn; called by epoll_wait. */
void world_check_turn(void);

/* Requests that were sent so far and are no hedges. */
uint64_t world_plain_requests(void);

/* The kernel tells that the network may have changed, or the machine wakes from a sleep. */
void world_change_network(bool has_slept);

/* What the product tells its own questions by, NULL when it does not look for itself. */
const struct siphash_key *world_self_key(void);

/* An error of that upstream has arrived since its last good answer. */
bool world_has_erred(size_t index);

#endif
