// SPDX-License-Identifier: Apache-2.0
/* DNS over TCP, the door: accepts clients within the limits and lets them go.
 *
 * When all places are taken whoever has most of them gives one to a newcomer (query/clients.c
 * chooses it). A client above a limit is accepted and closed at once, so that it learns of it now
 * and does not sit in the kernel's queue. When there are no descriptors even for that, the listener
 * leaves the loop for a while: a descriptor that stays readable would make the loop spin (FAULTS
 * I1).
 *
 * Thread: one worker. Owner: the worker, from open to close.
 * RFC: 7766, 9210 4.1 (limits). */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "listen/listen.h"
#include "listen/tcp_client.h"
#include "net/socket.h"
#include "observe/log.h"

enum {
    ACCEPTS_PER_TURN = 32,
    ACCEPTS_AT_STOP = 4096,         /* the longest queue of the kernel (net/socket.c) */
    LEAVING_MAX = ACCEPTS_PER_TURN, /* gave way in this turn, and are not freed yet */
};
#define ACCEPT_PAUSE_NS (500 * NANOSECONDS_PER_MILLISECOND)
#define STILL_NS (200 * NANOSECONDS_PER_MILLISECOND) /* by then a client has read something */
#define RELIEF_PAUSE_NS                                                       \
    (10 * NANOSECONDS_PER_MILLISECOND) /* each time all clients are looked at \
                                        */
#define ACCEPT_LOG_NS (10 * NANOSECONDS_PER_SECOND)

struct tcp_listener {
    struct tcp_clients *clients;
    struct loop_source source;
    struct list link;             /* tcp_clients.listeners */
    struct deadline accept_again; /* armed: no descriptors, out of the loop */
    int fd;                       /* -1: stopped */
};

/* --- Listeners --- */

static struct loop *loop_of(const struct tcp_listener *listener)
{
    return listener->clients->resolver->loop;
}

/* False when there is no room for it. */
static bool admit(struct tcp_clients *clients, int fd, const struct address *address)
{
    return !clients->draining && tcp_client_open(clients, fd, address) == STATUS_OK;
}

static void log_accept_failure(struct tcp_clients *clients, int error)
{
    const uint64_t now = clients->resolver->loop->now;
    if (now < clients->next_log_ns)
        return;
    clients->next_log_ns = now + ACCEPT_LOG_NS;
    log_event(LOG_LEVEL_WARNING, "accept_failed", "cause", strerror(error), NULL);
}

static void pause_accepting(struct tcp_listener *listener)
{
    assert(listener->fd >= 0);
    struct tcp_clients *clients = listener->clients;
    metric_add(&clients->resolver->metrics->tcp_accept_failed, 1);
    log_accept_failure(clients, errno);
    loop_remove(loop_of(listener), &listener->source);
    deadline_arm(&clients->accept_again, &listener->accept_again, loop_of(listener)->now);
}

static void on_accept_again(struct deadline *deadline, uint64_t now)
{
    struct tcp_listener *listener = CONTAINER_OF(deadline, struct tcp_listener, accept_again);
    assert(listener->fd >= 0 && listener->source.fd == -1);
    if (loop_add(loop_of(listener), &listener->source, listener->fd, EPOLLIN) != STATUS_OK)
        deadline_arm(&listener->clients->accept_again, deadline, now);
}

/* False when no more can be accepted in this turn. */
static bool accept_one(struct tcp_listener *listener)
{
    assert(listener->fd >= 0);
    struct metrics *metrics = listener->clients->resolver->metrics;
    struct address address;
    int fd;
    const enum status status = socket_accept(listener->fd, &fd, &address);
    if (status == STATUS_AGAIN)
        return false;
    if (status == STATUS_CLOSED)
        return true; /* that one has gone, perhaps another waits */
    if (status != STATUS_OK) {
        pause_accepting(listener);
        return false;
    }
    if (admit(listener->clients, fd, &address)) {
        metric_add(&metrics->tcp_accepted, 1);
    } else {
        metric_add(&metrics->tcp_refused, 1);
        close(fd);
    }
    return true;
}

static void on_ready(struct loop_source *source, uint32_t events)
{
    (void)events;
    struct tcp_listener *listener = CONTAINER_OF(source, struct tcp_listener, source);
    for (size_t accepted = 0; accepted < ACCEPTS_PER_TURN; accepted++) {
        if (!accept_one(listener))
            return;
    }
}

enum status tcp_open(struct tcp_clients *clients, int fd, struct tcp_listener **out)
{
    assert(clients && out && !clients->draining);
    assert(fd >= 0);
    struct tcp_listener *listener = calloc(1, sizeof(*listener));
    if (!listener)
        return STATUS_SYSTEM;
    listener->clients = clients;
    listener->source = (struct loop_source){.fd = -1, .on_ready = on_ready};
    listener->fd = fd;
    deadline_init(&listener->accept_again);
    const enum status status = loop_add(loop_of(listener), &listener->source, fd, EPOLLIN);
    if (status != STATUS_OK) {
        free(listener);
        return status;
    }
    list_append(&clients->listeners, &listener->link);
    *out = listener;
    return STATUS_OK;
}

/* Closes the socket, so that new clients are refused by the kernel instead of waiting in vain. */
static void shut(struct tcp_listener *listener)
{
    if (listener->fd < 0)
        return;
    assert(list_is_linked(&listener->link));
    loop_remove(loop_of(listener), &listener->source);
    deadline_cancel(&listener->accept_again);
    list_remove(&listener->link);
    close(listener->fd);
    listener->fd = -1;
}

/* Those whom the kernel has let in already may have asked: closing would reset them (FAULTS J14).
 */
void tcp_stop(struct tcp_listener *listener)
{
    for (size_t accepted = 0; accepted < ACCEPTS_AT_STOP && accept_one(listener); accepted++)
        continue;
    shut(listener);
}

void tcp_close(struct tcp_listener *listener)
{
    if (!listener)
        return;
    shut(listener);
    free(listener);
}

/* --- Memory --- */

static uint64_t soft_max(const struct output_account *account)
{
    return account->max - account->max / 4;
}

bool tcp_clients_are_short(const struct tcp_clients *clients)
{
    const struct output_account *account = &clients->resolver->output;
    return account->used > soft_max(account);
}

/* For how long it has neither taken a byte of its replies nor sent one of a message that it has
 * begun. */
static uint64_t still_for_ns(const struct tcp_client *client, uint64_t now)
{
    uint64_t since_ns = now;
    if (list_is_linked(&client->send.link))
        since_ns = client->send.armed_ns;
    if (list_is_linked(&client->message.link) && client->message.armed_ns < since_ns)
        since_ns = client->message.armed_ns;
    return now - since_ns;
}

/* What each holds that has been still for so long is in its account. */
static void charge_still(struct tcp_clients *clients, uint64_t still_ns)
{
    assert(still_ns <= STILL_NS);
    LIST_EACH (struct tcp_client, client, &clients->open, link) {
        if (!client->seat.account) /* it is being closed */
            continue;
        const bool is_still = still_for_ns(client, client->stream.loop->now) >= still_ns;
        clients_charge(clients->resolver->clients, &client->seat,
                       is_still ? stream_held(&client->stream) : 0);
    }
}

/* Closes those that have been still for so long, of whoever has most in such, until no more than
 * `max` bytes are used. `used` are those without the closed, which are freed at the end of the
 * turn. Returns what is used then. */
static size_t close_still(struct tcp_clients *clients, uint64_t still_ns, size_t used, size_t max)
{
    if (used <= max)
        return used;
    charge_still(clients, still_ns);
    struct seat *seat;
    while (used > max && (seat = clients_most_charged(clients->resolver->clients))) {
        used -= seat->charge < used ? seat->charge : used;
        tcp_client_evict(CONTAINER_OF(seat, struct tcp_client, seat));
    }
    return used;
}

/* A client that reads is still for some milliseconds at most. At three quarters of what may be used
 * only those go that do not read at all; at the limit it is also those of whoever holds most
 * (FAULTS K5). */
static void on_relief(struct loop_task *task)
{
    struct tcp_clients *clients = CONTAINER_OF(task, struct tcp_clients, relief);
    const struct output_account *account = &clients->resolver->output;
    const uint64_t now = clients->resolver->loop->now;
    const uint64_t before = metric_get(&clients->resolver->metrics->tcp_evicted);
    size_t used = account->used;
    if (used <= account->max && now < clients->next_relief_ns)
        return;
    clients->next_relief_ns = now + RELIEF_PAUSE_NS;
    used = close_still(clients, STILL_NS, used, soft_max(account));
    (void)close_still(clients, 0, used, account->max);
    if (metric_get(&clients->resolver->metrics->tcp_evicted) > before)
        log_event_limited(&clients->relief_limit, now, LOG_LEVEL_WARNING, "tcp_memory_short",
                          "cause",
                          "clients that did not read their replies were closed; limits.tcp-memory "
                          "would be passed",
                          NULL);
}

/* --- What listeners share --- */

static void open_queues(struct tcp_clients *clients)
{
    struct loop *loop = clients->resolver->loop;
    const struct config *config = clients->resolver->config;
    const struct snapshot *snapshot = clients->resolver->snapshot;
    loop_add_queue(loop, &clients->idle, snapshot->timeouts.tcp_idle_ns, tcp_client_on_idle);
    loop_add_queue(loop, &clients->message, snapshot->timeouts.tcp_message_ns,
                   tcp_client_on_message_timeout);
    loop_add_queue(loop, &clients->send, snapshot->timeouts.tcp_send_ns,
                   tcp_client_on_send_timeout);
    loop_add_queue(loop, &clients->lifetime, config->limits.tcp_lifetime_ns,
                   tcp_client_on_lifetime);
    loop_add_queue(loop, &clients->accept_again, ACCEPT_PAUSE_NS, on_accept_again);
}

enum status tcp_clients_open(struct resolver *resolver, struct tcp_clients **out)
{
    assert(resolver->snapshot && resolver->clients && out);
    const size_t capacity = resolver->config->limits.tcp_clients;
    struct tcp_clients *clients = calloc(1, sizeof(*clients));
    if (!clients)
        return STATUS_SYSTEM;
    clients->resolver = resolver;
    clients->room.on_space = tcp_client_on_space;
    loop_task_init(&clients->relief, on_relief);
    list_init(&clients->room.link);
    list_init(&clients->listeners);
    list_init(&clients->open);
    list_init(&clients->starved);
    if (pool_open(&clients->pool, sizeof(struct tcp_client), capacity + LEAVING_MAX) != STATUS_OK) {
        free(clients);
        return STATUS_SYSTEM;
    }
    open_queues(clients);
    *out = clients;
    return STATUS_OK;
}

static void close_queues(struct tcp_clients *clients)
{
    loop_remove_queue(&clients->idle);
    loop_remove_queue(&clients->message);
    loop_remove_queue(&clients->send);
    loop_remove_queue(&clients->lifetime);
    loop_remove_queue(&clients->accept_again);
}

void tcp_clients_close(struct tcp_clients *clients)
{
    if (!clients)
        return;
    while (!list_is_empty(&clients->listeners))
        shut(CONTAINER_OF(clients->listeners.next, struct tcp_listener, link));
    while (!list_is_empty(&clients->open))
        tcp_client_free(CONTAINER_OF(clients->open.next, struct tcp_client, link));
    assert(list_is_empty(&clients->starved));
    list_remove(&clients->room.link);
    loop_cancel_task(&clients->relief);
    close_queues(clients);
    pool_close(&clients->pool);
    free(clients);
}

void tcp_clients_reload(struct tcp_clients *clients)
{
    const struct snapshot *snapshot = clients->resolver->snapshot;
    assert(snapshot->timeouts.tcp_idle_ns > 0 && snapshot->timeouts.tcp_message_ns > 0);
    clients->idle.duration_ns = snapshot->timeouts.tcp_idle_ns;
    clients->message.duration_ns = snapshot->timeouts.tcp_message_ns;
    clients->send.duration_ns = snapshot->timeouts.tcp_send_ns;
}

size_t tcp_clients_ceiling(const struct tcp_clients *clients)
{
    return sizeof(*clients) + pool_ceiling(&clients->pool);
}

void tcp_clients_drain(struct tcp_clients *clients)
{
    assert(!clients->draining);
    clients->draining = true;
    LIST_EACH (struct tcp_client, client, &clients->open, link)
        tcp_client_drain(client); /* leaves the list at the end of the turn at the earliest */
}
