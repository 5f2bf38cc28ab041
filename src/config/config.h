// SPDX-License-Identifier: Apache-2.0
/* The configuration as plain data: what options.c and yaml.c fill in and everybody reads.
 *
 * It has two parts. What is in `snapshot` a reload replaces, and who uses it is handed the next
 * one; the rest is that of the start, since pools, sockets and threads are made after it.
 *
 * Thread: built by the main thread, immutable afterwards. Owner: main, which frees it with
 * config_free after the last worker has ended or has a later snapshot. Durations are nanoseconds,
 * sizes are bytes. */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/address.h"

enum {
    CONFIG_LISTENERS_MAX = 64,
    CONFIG_UPSTREAMS_MAX = 32,
    CONFIG_UPSTREAM_SLOTS = 64, /* of a snapshot's upstreams, and of those that it has replaced */
    CONFIG_BOOTSTRAPS_MAX = 8,
    CONFIG_PINS_MAX = 8,
    CONFIG_PREFIXES_MAX = 256,
    CONFIG_PORTS_MAX = 64,
    CONFIG_WORKERS_MAX = 64,
    CONFIG_WORKERS_AUTO_MAX = 8,                /* one answers 200,000 queries a second */
    PIN_SIZE = 32,                              /* SHA-256 */
    PIN_TEXT_SIZE = (PIN_SIZE + 2) / 3 * 4 + 1, /* in base64 (RFC 4648 4), with the final NUL */
};

enum strategy { STRATEGY_FASTEST, STRATEGY_ORDERED, STRATEGY_WEIGHTED, STRATEGY_HASH };
enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum toggle { TOGGLE_OFF, TOGGLE_ON };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

struct listener_config {
    struct address address;
    bool udp;
    bool tcp;
    bool is_default; /* not asked for: skipped with a warning when the machine lacks the family */
};

/* A set of upstreams: a bit for each slot (of an upstream, not of upstream/slots.h). */
typedef uint64_t upstream_set;

static inline upstream_set upstream_bit(size_t slot)
{
    static_assert(CONFIG_UPSTREAM_SLOTS <= 64, "a set has a bit for each");
    assert(slot < CONFIG_UPSTREAM_SLOTS);
    return UINT64_C(1) << slot;
}

struct tls_trust;

struct upstream_config {
    size_t slot;   /* below CONFIG_UPSTREAM_SLOTS: its own for as long as it is the same upstream */
    char *label;   /* as in logs, metrics and EDE: "1.1.1.1:853#cloudflare-dns.com" */
    char *name;    /* authentication name, DNS name or IP address; NULL when only pins are given */
    char *ca_file; /* NULL: tls.ca, and without that the system store */
    char *ca_origin; /* where ca_file was written, as the start of an error about it */
    const struct tls_trust *trust; /* of control/trusts.h, its owner; NULL: pins alone decide */
    char *host;    /* a name whose addresses are looked up; NULL: `address` is given */
    uint16_t port; /* of the host */
    struct address address;
    uint8_t pins[CONFIG_PINS_MAX][PIN_SIZE]; /* SHA-256 of the SubjectPublicKeyInfo */
    size_t pin_count;
    uint32_t weight; /* 1 to 1000 */
};

/* For how long answers are kept. */
struct cache_limits {
    uint32_t ttl_min_s; /* raises the TTL of positive answers, also what the client sees */
    uint32_t ttl_max_s;
    uint32_t negative_ttl_max_s;
    uint32_t stale_max_s; /* an answer stays usable for so long after its time; 0: not at all */
    enum toggle refresh;  /* ask anew for popular answers before their time is over */
};

/* What a reload replaces. */
struct snapshot {
    struct upstream_config upstreams[CONFIG_UPSTREAMS_MAX];
    size_t upstream_count;
    enum strategy strategy;
    struct address bootstraps[CONFIG_BOOTSTRAPS_MAX]; /* asked for upstreams' host names alone */
    size_t bootstrap_count;
    char *tls_ca_file;   /* NULL: the system store */
    char *tls_ca_origin; /* where it was written, as the start of an error about it */
    struct cache_limits cache;
    enum log_level log_level;
    struct prefix allow[CONFIG_PREFIXES_MAX];
    size_t allow_count;
    uint16_t refused_source_ports[CONFIG_PORTS_MAX]; /* UDP queries from these are dropped */
    size_t refused_source_port_count;

    struct {
        uint64_t query_ns;     /* a client has its reply within this time */
        uint64_t connect_ns;   /* TCP connect to an upstream */
        uint64_t handshake_ns; /* TLS handshake with an upstream */
        uint64_t request_ns;   /* silence after which an upstream connection is dead, at most */
        uint64_t park_ns;     /* a query waits so long for upstreams that are away; 0: not at all */
        uint64_t idle_ns;     /* an upstream connection without requests is closed */
        uint64_t tcp_idle_ns; /* a TCP client without queries is closed */
        uint64_t tcp_message_ns; /* from the first byte of a TCP message to its last */
        uint64_t tcp_send_ns;    /* a TCP client that takes no byte of its replies is closed */
        uint64_t lame_duck_ns;   /* from SIGTERM to the drain; 0: none */
        uint64_t drain_ns;       /* from there to the end */
    } timeouts;

    struct {                              /* of each worker */
        uint32_t tcp_clients_per_address; /* open connections from one address (/64 for IPv6) */
        uint32_t tcp_queries;             /* in flight on one connection; then it is not read */
        uint32_t tcp_queries_total;       /* asked on one connection before it is closed; 0: any */
        uint32_t tcp_accept_rate;         /* new connections per second; 0: any */
        uint32_t udp_queries_per_address; /* in flight of one address, then TC=1 only; 0: any */
        uint16_t udp_reply_size;          /* bytes, 512 to 4096 (RFC 9715: 1232) */
    } limits;
};

static inline upstream_set upstreams_slots(const struct snapshot *snapshot)
{
    upstream_set slots = 0;
    for (size_t i = 0; i < snapshot->upstream_count; i++)
        slots |= upstream_bit(snapshot->upstreams[i].slot);
    return slots;
}

struct config {
    const char *file; /* that was read; NULL: none */
    struct listener_config listeners[CONFIG_LISTENERS_MAX];
    size_t listener_count;
    enum toggle listen_freebind; /* of admin, too: bind what this machine does not have yet */
    uint32_t workers;            /* 1 to CONFIG_WORKERS_MAX */

    uint64_t cache_size_bytes; /* 0: no cache */

    struct {
        bool enabled;
        struct address address;
    } admin;

    enum log_format log_format;

    /* All of them per worker, because workers share no tables. */
    struct {
        uint32_t queries;              /* in flight, over all transports */
        uint32_t upstream_requests;    /* in flight on one upstream connection; on all of them
                                          at least `queries` */
        uint32_t upstream_connections; /* open to one upstream */
        uint32_t tcp_clients;          /* open connections */
        uint64_t tcp_lifetime_ns;      /* age at which a connection is closed; 0: never */
        uint64_t tcp_memory_bytes;     /* that TCP clients may make a worker hold */
        uint32_t udp_rate; /* replies per second to one /24 or /56, then TC=1 only; 0: any */
    } limits;

    struct snapshot snapshot; /* the last member: what lies before it needs a restart */
};

/* What the command line asks for besides settings. */
enum command {
    COMMAND_SERVE,
    COMMAND_CHECK,
    COMMAND_PROBE,
    COMMAND_HEALTH,
    COMMAND_HELP,
    COMMAND_VERSION
};

#endif
