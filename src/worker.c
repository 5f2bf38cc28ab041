// SPDX-License-Identifier: Apache-2.0
/* One worker: wires loop, listeners, cache and upstreams together, and turns the loop until it is
 * told to drain.
 *
 * Thread: opened and closed by main, in between its own.   Owner: main. */
#include "worker.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "listen/listen.h"
#include "net/link.h"
#include "net/loop.h"
#include "net/mailbox.h"
#include "net/socket.h"
#include "observe/log.h"
#include "query/resolve.h"
#include "upstream/upstream.h"

/* A turn never waits longer, so that the watchdog can tell an idle worker from a stuck one. */
#define TURN_MAX_NS (1 * NANOSECONDS_PER_SECOND)
#define DRAIN_TURN_MAX_NS (20 * NANOSECONDS_PER_MILLISECOND)

enum letter_kind { LETTER_SNAPSHOT, LETTER_DRAIN };

struct worker {
    const struct config *config;
    void (*on_news)(void);
    pthread_t thread;
    bool is_started;
    atomic_bool has_stopped;
    _Atomic uint64_t last_turn_ns;
    atomic_bool is_leaving;  /* upstreams do, by the snapshot before */
    uint64_t drain_until_ns; /* 0: not draining */
    struct loop loop;
    struct mailbox mailbox; /* of enum letter_kind */
    struct link link;
    struct group *group;
    struct tcp_clients *tcp_clients;
    struct udp_listener *udp[CONFIG_LISTENERS_MAX];
    struct tcp_listener *tcp[CONFIG_LISTENERS_MAX];
    struct resolver resolver;
};

/* --- The thread --- */

/* Main may say so again when it closes the worker. */
static void begin_drain(struct worker *worker)
{
    if (worker->drain_until_ns != 0)
        return;
    worker->drain_until_ns = worker->loop.now + worker->resolver.snapshot->timeouts.drain_ns;
    for (size_t i = 0; i < worker->config->listener_count; i++) {
        if (worker->udp[i])
            udp_stop(worker->udp[i]);
        if (worker->tcp[i])
            tcp_stop(worker->tcp[i]);
    }
    tcp_clients_drain(worker->tcp_clients);
}

static bool is_drained(const struct worker *worker)
{
    if (worker->drain_until_ns == 0)
        return false;
    const bool is_idle = worker->resolver.queries.in_use == 0 &&
                         metric_get(&worker->resolver.metrics->tcp_clients) == 0;
    return is_idle || worker->loop.now >= worker->drain_until_ns;
}

static void take_snapshot(struct worker *worker, const struct snapshot *snapshot)
{
    assert(snapshot && !atomic_load(&worker->is_leaving));
    const upstream_set changed = group_reload(worker->group, snapshot);
    resolver_reload(&worker->resolver, snapshot, changed);
    tcp_clients_reload(worker->tcp_clients);
    for (size_t i = 0; i < worker->config->listener_count; i++)
        if (worker->udp[i])
            udp_reload(worker->udp[i]);
    atomic_store(&worker->is_leaving, group_is_leaving(worker->group));
}

/* Between two turns, so that none of it happens inside an event. */
static void read_mail(struct worker *worker)
{
    const struct letter *letter;
    while ((letter = mailbox_first(&worker->mailbox))) {
        switch ((enum letter_kind)letter->kind) {
        case LETTER_SNAPSHOT:
            take_snapshot(worker, letter->content);
            break;
        case LETTER_DRAIN:
            begin_drain(worker);
            break;
        }
        mailbox_take(&worker->mailbox);
        worker->on_news();
    }
}

static void note_left(struct worker *worker)
{
    if (!atomic_load_explicit(&worker->is_leaving, memory_order_relaxed) ||
        group_is_leaving(worker->group))
        return;
    atomic_store(&worker->is_leaving, false);
    worker->on_news();
}

static void *run(void *argument)
{
    struct worker *worker = argument;
    while (!is_drained(worker)) {
        if (!loop_turn(&worker->loop,
                       worker->drain_until_ns == 0 ? TURN_MAX_NS : DRAIN_TURN_MAX_NS)) {
            log_event(LOG_LEVEL_ERROR, "worker_failed", "cause", "epoll_wait", NULL);
            break;
        }
        atomic_store_explicit(&worker->last_turn_ns, worker->loop.now, memory_order_relaxed);
        if (link_has_slept(&worker->link))
            group_resumed(worker->group);
        read_mail(worker);
        note_left(worker);
    }
    atomic_store(&worker->has_stopped, true);
    worker->on_news();
    return NULL;
}

enum status worker_start(struct worker *worker)
{
    assert(!worker->is_started);
    atomic_store(&worker->last_turn_ns, loop_clock());
    if (pthread_create(&worker->thread, NULL, run, worker) != 0)
        return STATUS_SYSTEM;
    worker->is_started = true;
    return STATUS_OK;
}

void worker_reload(struct worker *worker, const struct snapshot *snapshot)
{
    assert(worker->is_started && snapshot && worker_has_reloaded(worker));
    mailbox_send(&worker->mailbox, LETTER_SNAPSHOT, snapshot);
}

bool worker_has_reloaded(const struct worker *worker)
{
    /* In this order: it is told that upstreams leave before the letter is. */
    return mailbox_is_taken(&worker->mailbox) && !atomic_load(&worker->is_leaving);
}

void worker_drain(struct worker *worker)
{
    assert(worker->is_started);
    mailbox_send(&worker->mailbox, LETTER_DRAIN, NULL);
}

uint64_t worker_last_turn_ns(const struct worker *worker)
{
    return atomic_load_explicit(&worker->last_turn_ns, memory_order_relaxed);
}

bool worker_has_stopped(const struct worker *worker)
{
    return atomic_load(&worker->has_stopped);
}

/* The kernel allows twice what a socket asks for. */
struct worker_memory worker_memory(const struct worker *worker, const struct snapshot *snapshot)
{
    assert(worker->group && worker->tcp_clients);
    const struct config *config = worker->config;
    const size_t udp_sockets = (size_t)4 * SOCKET_UDP_BUFFER * config->listener_count;
    const size_t tcp_sockets = (size_t)4 * SOCKET_TCP_BUFFER * config->limits.tcp_clients;
    return (struct worker_memory){
        .queries = resolver_ceiling(&worker->resolver),
        .listeners =
            config->listener_count * udp_ceiling() + tcp_clients_ceiling(worker->tcp_clients),
        .tcp_output = worker->resolver.output.ceiling,
        .upstreams = group_ceiling(config, snapshot),
        .in_kernel = udp_sockets + tcp_sockets,
    };
}

/* --- Birth and death --- */

static void on_link_change(struct link *link)
{
    assert(link->loop);
    group_network_changed(CONTAINER_OF(link, struct worker, link)->group);
}

/* Without it (a container's profile may forbid it) dead paths are still found by their silence. */
static void watch_links(struct worker *worker)
{
    if (link_open(&worker->link, &worker->loop, on_link_change) != STATUS_OK)
        log_event(LOG_LEVEL_WARNING, "links_not_watched", "cause", strerror(errno), NULL);
}

static enum status open_resolver(struct worker *worker, const struct worker_settings *settings)
{
    const struct group_settings group_settings = {
        .config = settings->config,
        .loop = &worker->loop,
        .metrics = settings->metrics,
        .self_key = settings->self_key,
        .admissions = settings->admissions,
    };
    TRY(group_open(&group_settings, &worker->group));
    worker->resolver.config = settings->config;
    worker->resolver.loop = &worker->loop;
    worker->resolver.metrics = settings->metrics;
    worker->resolver.cache = settings->cache;
    worker->resolver.group = worker->group;
    worker->resolver.self_key = settings->self_key;
    return resolver_open(&worker->resolver);
}

/* What no listener has taken is closed: the descriptors are handed over whatever happens. */
static enum status open_listeners(struct worker *worker, const struct worker_settings *settings)
{
    assert(settings->udp_fds && settings->tcp_fds && worker->tcp_clients);
    enum status status = STATUS_OK;
    for (size_t i = 0; i < settings->config->listener_count; i++) {
        const int udp_fd = settings->udp_fds[i];
        const int tcp_fd = settings->tcp_fds[i];
        if (udp_fd >= 0 && status == STATUS_OK)
            status = udp_open(&worker->resolver, udp_fd, &settings->config->listeners[i].address,
                              &worker->udp[i]);
        if (udp_fd >= 0 && !worker->udp[i])
            close(udp_fd);
        if (tcp_fd >= 0 && status == STATUS_OK)
            status = tcp_open(worker->tcp_clients, tcp_fd, &worker->tcp[i]);
        if (tcp_fd >= 0 && !worker->tcp[i])
            close(tcp_fd);
    }
    return status;
}

enum status worker_open(const struct worker_settings *settings, struct worker **out)
{
    assert(settings->config && out);
    assert(settings->config->listener_count <= CONFIG_LISTENERS_MAX);
    assert(settings->metrics && settings->on_news);
    struct worker *worker = calloc(1, sizeof(*worker));
    if (!worker)
        return STATUS_FULL;
    worker->config = settings->config;
    worker->on_news = settings->on_news;
    enum status status = loop_open(&worker->loop);
    if (status != STATUS_OK) {
        free(worker);
        return status;
    }
    mailbox_init(&worker->mailbox, &worker->loop);
    if ((status = open_resolver(worker, settings)) != STATUS_OK ||
        (status = tcp_clients_open(&worker->resolver, &worker->tcp_clients)) != STATUS_OK ||
        (status = open_listeners(worker, settings)) != STATUS_OK)
        goto fail;
    watch_links(worker);
    *out = worker;
    return STATUS_OK;
fail:
    worker_close(worker);
    return status;
}

/* Ends what a drain in time has left over, with the loop at rest: clients first, so that no query
 * waits when the group closes. */
void worker_close(struct worker *worker)
{
    if (!worker)
        return;
    if (worker->is_started) {
        worker_drain(worker); /* which main has not done when its own start failed */
        pthread_join(worker->thread, NULL);
    }
    tcp_clients_close(worker->tcp_clients);
    if (worker->group) /* without it the resolver was never opened */
        resolver_abort(&worker->resolver);
    for (size_t i = 0; i < worker->config->listener_count; i++) {
        udp_close(worker->udp[i]);
        tcp_close(worker->tcp[i]);
    }
    if (worker->group)
        resolver_close(&worker->resolver);
    group_close(worker->group);
    link_close(&worker->link);
    loop_close(&worker->loop);
    free(worker);
}
