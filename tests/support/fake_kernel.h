// SPDX-License-Identifier: Apache-2.0
/* The kernel and OpenSSL as net/stream.c and net/loop.c see them, with the fuzzer deciding what
 * each call does: how many octets arrive before a turn and move in a call, what is blocked, broken
 * or interrupted. The linker leads their calls here (--wrap; see tests/meson.build), so that loop,
 * streams and all above them are the real ones.
 *
 * Time stands still but for waits without an event. When the input is used up everything moves at
 * once: then a test can demand that what was begun comes to its end. */
#ifndef SUPPORT_FAKE_KERNEL_H
#define SUPPORT_FAKE_KERNEL_H

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "base/bytes.h"
#include "base/deadline.h"
#include "net/socket.h"
#include "net/stream.h"

enum { SOCKETS_MAX = 200, FD_FIRST = 10000, FD_EPOLL = 9999, FD_WAKE = 9998, RECORD_MAX = 16384 };

/* --- What the fuzzer decides --- */

static const uint8_t *input, *input_end;

static unsigned choose(unsigned limit)
{
    return input < input_end ? *input++ % limit : 0;
}

[[maybe_unused]] static bool choose_one_in(unsigned count)
{
    return choose(count) == count - 1;
}

/* From nothing to all of `available`; all, when the input is used up. */
static size_t choose_part(size_t available)
{
    const size_t choice = choose(256);
    if (choice < 96)
        return available;
    if (choice < 160)
        return available < choice - 95 ? available : choice - 95;
    if (choice < 248)
        return available * (choice - 159) / 89;
    return 0;
}

/* --- Sockets --- */

struct octets {
    uint8_t *bytes;
    size_t length;
    size_t size;
};

static struct fake_socket {
    struct octets in;  /* all that the peer ever sends */
    struct octets out; /* all that it ever gets */
    size_t arrived;    /* of `in` */
    size_t taken;      /* of `in`, by recv or from a TLS record */
    uint32_t watched;
    void *source; /* NULL: not in the loop */
    int error;    /* reported once */
    bool is_open; /* on our side */
    bool is_connecting;
    bool is_silent; /* the path to the peer is dead: nothing arrives any more */
    bool has_ended; /* the peer's FIN is behind `in` */
    bool is_reset;
    bool is_shut;         /* we sent FIN */
    bool is_full;         /* takes no octets */
    bool has_control;     /* the peer sent octets that only TLS sees */
    bool tls_is_open;     /* handshake done */
    bool tls_wants_write; /* the last call did */
    bool tls_must_send;   /* before anything else, an answer of TLS to the peer */
    size_t tls_pending;   /* decrypted and not read */
} sockets[SOCKETS_MAX];
static size_t socket_count;
static uint64_t clock_ns;
static bool has_waited; /* in the last turn: nothing was to be done */

static struct fake_socket *socket_of(int fd)
{
    if (fd < FD_FIRST || fd >= FD_FIRST + (int)socket_count)
        return NULL;
    assert(sockets[fd - FD_FIRST].is_open);
    return &sockets[fd - FD_FIRST];
}

static int socket_open(void)
{
    assert(socket_count < SOCKETS_MAX);
    sockets[socket_count] = (struct fake_socket){.is_open = true};
    return FD_FIRST + (int)socket_count++;
}

static void append(struct octets *octets, const void *bytes, size_t length)
{
    if (octets->size - octets->length < length) {
        octets->size = (octets->length + length) * 2;
        octets->bytes = realloc(octets->bytes, octets->size);
        assert(octets->bytes);
    }
    if (length > 0)
        memcpy(octets->bytes + octets->length, bytes, length);
    octets->length += length;
}

/* The peer sends, unless it has said that it would not. */
static void peer_sends(struct fake_socket *peer, const void *bytes, size_t length)
{
    if (!peer->has_ended && !peer->is_reset)
        append(&peer->in, bytes, length);
}

[[maybe_unused]] static void peer_sends_message(struct fake_socket *peer, const void *message,
                                                size_t length)
{
    uint8_t prefix[2];
    store_u16(prefix, (uint16_t)length);
    peer_sends(peer, prefix, sizeof(prefix));
    peer_sends(peer, message, length);
}

/* Up to 64 octets of the input as they are, or as a message. */
[[maybe_unused]] static void peer_sends_anything(struct fake_socket *peer)
{
    const bool is_framed = choose_one_in(2);
    size_t length = choose(64);
    const size_t left = (size_t)(input_end - input);
    length = length < left ? length : left;
    if (is_framed)
        peer_sends_message(peer, input, length);
    else
        peer_sends(peer, input, length);
    input += length;
}

[[maybe_unused]] static void peer_resets(struct fake_socket *peer)
{
    if (peer->is_reset)
        return;
    peer->is_reset = true;
    peer->error = ECONNRESET;
}

static void kernel_begin(const uint8_t *data, size_t size)
{
    input = data;
    input_end = data + size;
    socket_count = 0;
    clock_ns = 1000 * NANOSECONDS_PER_SECOND;
}

/* Whatever was opened has been closed. */
static void kernel_end(void)
{
    for (size_t i = 0; i < socket_count; i++) {
        assert(!sockets[i].is_open && !sockets[i].source);
        free(sockets[i].in.bytes);
        free(sockets[i].out.bytes);
    }
}

/* --- epoll and the clock --- */

int __wrap_epoll_create1(int flags);
int __wrap_epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event);
int __wrap_epoll_wait(int epoll_fd, struct epoll_event *events, int max, int timeout_ms);
int __wrap_eventfd(unsigned count, int flags);
int __real_clock_gettime(clockid_t clock, struct timespec *time);
int __wrap_clock_gettime(clockid_t clock, struct timespec *time);

int __wrap_epoll_create1(int flags)
{
    (void)flags;
    return FD_EPOLL;
}

int __wrap_eventfd(unsigned count, int flags)
{
    (void)count;
    (void)flags;
    return FD_WAKE;
}

int __wrap_epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event)
{
    assert(epoll_fd == FD_EPOLL);
    if (fd == FD_WAKE)
        return 0;
    struct fake_socket *target = socket_of(fd);
    assert(target && (operation == EPOLL_CTL_ADD) == !target->source);
    target->source = operation == EPOLL_CTL_DEL ? NULL : event->data.ptr;
    target->watched = operation == EPOLL_CTL_DEL ? 0 : event->events;
    return 0;
}

/* Before a turn: some of what is on its way arrives, some room is made. */
static void move(struct fake_socket *target)
{
    if (target->is_silent)
        return;
    if (target->arrived < target->in.length)
        target->arrived += choose_part(target->in.length - target->arrived);
    if (target->is_full && !choose_one_in(4))
        target->is_full = false;
    if (target->is_connecting && !choose_one_in(8))
        target->is_connecting = false;
}

/* The peer's FIN has arrived. */
static bool is_at_end(const struct fake_socket *target)
{
    return target->has_ended && target->arrived == target->in.length;
}

static uint32_t readiness(const struct fake_socket *target)
{
    if (target->is_connecting)
        return 0;
    uint32_t events = 0;
    /* What TLS has decrypted is no longer the kernel's to announce. */
    if (target->arrived > target->taken + target->tls_pending || is_at_end(target) ||
        target->has_control)
        events |= EPOLLIN;
    if (!target->is_full)
        events |= EPOLLOUT;
    if (target->is_reset || target->error)
        events |= EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP;
    return events;
}

int __wrap_epoll_wait(int epoll_fd, struct epoll_event *events, int max, int timeout_ms)
{
    int count = 0;
    assert(epoll_fd == FD_EPOLL);
    for (size_t i = 0; i < socket_count && count < max; i++) {
        struct fake_socket *target = &sockets[i];
        if (!target->source)
            continue;
        move(target);
        const uint32_t ready = readiness(target) & (target->watched | EPOLLERR | EPOLLHUP);
        if (ready)
            events[count++] = (struct epoll_event){.events = ready, .data.ptr = target->source};
    }
    has_waited = count == 0 && timeout_ms > 0;
    if (has_waited)
        clock_ns += (uint64_t)timeout_ms * NANOSECONDS_PER_MILLISECOND;
    return count;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *time)
{
    if (clock != CLOCK_BOOTTIME)
        return __real_clock_gettime(clock, time);
    time->tv_sec = (time_t)(clock_ns / NANOSECONDS_PER_SECOND);
    time->tv_nsec = (long)(clock_ns % NANOSECONDS_PER_SECOND);
    return 0;
}

/* --- System calls of a plain socket --- */

ssize_t __real_recv(int fd, void *buffer, size_t size, int flags);
ssize_t __wrap_recv(int fd, void *buffer, size_t size, int flags);
ssize_t __real_send(int fd, const void *bytes, size_t size, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t size, int flags);
int __real_shutdown(int fd, int how);
int __wrap_shutdown(int fd, int how);
int __real_close(int fd);
int __wrap_close(int fd);
enum status __wrap_socket_connect(const struct address *address, uint64_t user_timeout_ns,
                                  int *out);
int __wrap_socket_error(int fd);

static ssize_t fail_with(int error)
{
    errno = error;
    return -1;
}

ssize_t __wrap_recv(int fd, void *buffer, size_t size, int flags)
{
    struct fake_socket *target = socket_of(fd);
    if (!target)
        return __real_recv(fd, buffer, size, flags);
    size_t length = target->arrived - target->taken;
    if (flags & MSG_TRUNC) {
        target->taken += length;
        return (ssize_t)length;
    }
    if (length == 0 && target->error)
        return fail_with(__wrap_socket_error(fd));
    if (length == 0 && (target->is_reset || is_at_end(target)))
        return 0;
    length = choose_part(length < size ? length : size);
    if (length == 0)
        return fail_with(choose_one_in(2) ? EINTR : EAGAIN);
    memcpy(buffer, target->in.bytes + target->taken, length);
    target->taken += length;
    return (ssize_t)length;
}

/* Takes some of `size` octets; 0 when it is blocked from now on. */
static size_t take_octets(struct fake_socket *target, const void *bytes, size_t size)
{
    if (target->is_full)
        return 0;
    const size_t length = choose_part(size);
    target->is_full = length < size;
    append(&target->out, bytes, length);
    return length;
}

ssize_t __wrap_send(int fd, const void *bytes, size_t size, int flags)
{
    struct fake_socket *target = socket_of(fd);
    if (!target)
        return __real_send(fd, bytes, size, flags);
    assert(flags & MSG_NOSIGNAL && !target->is_shut);
    if (target->error)
        return fail_with(__wrap_socket_error(fd));
    if (target->is_reset)
        return fail_with(EPIPE);
    const size_t length = take_octets(target, bytes, size);
    return length > 0 ? (ssize_t)length : fail_with(choose_one_in(2) ? EINTR : EAGAIN);
}

int __wrap_shutdown(int fd, int how)
{
    struct fake_socket *target = socket_of(fd);
    if (!target)
        return __real_shutdown(fd, how);
    target->is_shut = true;
    return 0;
}

int __wrap_close(int fd)
{
    if (fd == FD_EPOLL || fd == FD_WAKE)
        return 0;
    struct fake_socket *target = socket_of(fd);
    if (!target)
        return __real_close(fd);
    assert(!target->source);
    target->is_open = false;
    return 0;
}

enum status __wrap_socket_connect(const struct address *address, uint64_t user_timeout_ns, int *out)
{
    assert(address_port(address) != 0 && user_timeout_ns > 0);
    const bool is_short = socket_count == SOCKETS_MAX;
    if (is_short || choose_one_in(16)) {
        errno = is_short || choose_one_in(2) ? EMFILE : ENETUNREACH;
        return STATUS_SYSTEM;
    }
    *out = socket_open();
    struct fake_socket *target = socket_of(*out);
    target->is_connecting = true;
    target->error = choose_one_in(16) ? ECONNREFUSED : 0;
    return STATUS_OK;
}

int __wrap_socket_error(int fd)
{
    struct fake_socket *target = socket_of(fd);
    const int error = target->error;
    target->error = 0;
    return error;
}

/* --- In place of net/tls.c: records without any secret --- */

struct tls {
    int fd;
};

struct tls_client {
    bool has_name;
};

enum status tls_client_open(const struct upstream_config *upstream, const struct tls_trust *trust,
                            struct tls_client **out)
{
    (void)trust;
    struct tls_client *client = malloc(sizeof(*client));
    if (!client)
        return STATUS_SYSTEM;
    client->has_name = upstream->name != NULL;
    *out = client;
    return STATUS_OK;
}

void tls_client_close(struct tls_client *client)
{
    free(client);
}

enum status tls_open(struct tls_client *client, int fd, struct tls **out)
{
    assert(client && socket_of(fd));
    struct tls *tls = malloc(sizeof(*tls));
    if (!tls)
        return STATUS_SYSTEM;
    tls->fd = fd;
    *out = tls;
    return STATUS_OK;
}

void tls_close(struct tls *tls)
{
    free(tls);
}

static enum status tls_broken(struct fake_socket *target, enum failure *failure)
{
    *failure = target->error ? socket_failure(target->error) : FAILURE_RESET;
    target->error = 0;
    return STATUS_CLOSED;
}

/* What TLS has to say to the peer before it can go on; false when it is blocked. The peer answers
 * in time, so that who waits for it is called again. */
static bool tls_talk(struct fake_socket *target)
{
    target->has_control = false;
    if (target->is_reset) /* what has arrived can still be read */
        return true;
    target->tls_wants_write = target->tls_must_send && target->is_full;
    if (target->tls_wants_write)
        return false;
    target->tls_must_send = choose_one_in(16);
    if (target->tls_must_send) {
        target->tls_wants_write = true;
        target->is_full = true;
        return false;
    }
    if (choose_one_in(16)) {
        target->has_control = !target->is_silent;
        return false;
    }
    return true;
}

enum status tls_handshake(struct tls *tls, enum failure *failure)
{
    struct fake_socket *target = socket_of(tls->fd);
    assert(!target->is_connecting && !target->tls_is_open);
    if (target->is_reset || target->error)
        return tls_broken(target, failure);
    if (target->has_ended) {
        *failure = FAILURE_CLOSED;
        return STATUS_CLOSED;
    }
    if (target->is_silent) {
        target->taken = target->arrived; /* for TLS part of the handshake, which does not end */
        target->has_control = target->tls_wants_write = false;
        return STATUS_AGAIN;
    }
    if (!tls_talk(target))
        return STATUS_AGAIN;
    if (choose_one_in(16)) {
        *failure = FAILURE_TLS;
        return STATUS_CLOSED;
    }
    target->tls_is_open = true;
    return STATUS_OK;
}

enum status tls_read(struct tls *tls, uint8_t *buffer, size_t size, size_t *length,
                     enum failure *failure)
{
    struct fake_socket *target = socket_of(tls->fd);
    assert(target->tls_is_open && size > 0);
    const size_t arrived = target->arrived - target->taken;
    if (target->tls_pending == 0) {
        if (arrived == 0 && (target->is_reset || target->error))
            return tls_broken(target, failure);
        if (arrived == 0 && is_at_end(target)) {
            *failure = FAILURE_CLOSED;
            return STATUS_CLOSED;
        }
        if (!tls_talk(target) || arrived == 0)
            return STATUS_AGAIN;
        target->tls_pending = choose_part(arrived < RECORD_MAX ? arrived : RECORD_MAX);
        if (target->tls_pending == 0)
            return STATUS_AGAIN;
    }
    *length = choose_part(target->tls_pending < size ? target->tls_pending : size);
    *length = *length > 0 ? *length : 1; /* record by record, however many have been read */
    memcpy(buffer, target->in.bytes + target->taken, *length);
    target->taken += *length;
    target->tls_pending -= *length;
    return STATUS_OK;
}

enum status tls_write(struct tls *tls, const uint8_t *bytes, size_t size, size_t *length,
                      enum failure *failure)
{
    struct fake_socket *target = socket_of(tls->fd);
    assert(target->tls_is_open && size > 0); /* nothing leaves before the handshake (FAULTS E1) */
    if (target->is_reset || target->error)
        return tls_broken(target, failure);
    if (!tls_talk(target))
        return STATUS_AGAIN;
    *length = take_octets(target, bytes, size < RECORD_MAX ? size : RECORD_MAX);
    target->tls_wants_write = *length == 0;
    if (*length > 0)
        target->is_full = false; /* the rest is another record */
    return *length > 0 ? STATUS_OK : STATUS_AGAIN;
}

bool tls_wants_write(const struct tls *tls)
{
    return socket_of(tls->fd)->tls_wants_write;
}

bool tls_has_pending(const struct tls *tls)
{
    return socket_of(tls->fd)->tls_pending > 0;
}

void tls_facts(const struct tls *tls, struct tls_facts *out)
{
    (void)tls;
    *out = (struct tls_facts){.version = "TLSv1.3", .cipher = "", .alpn_dot = true};
}

const char *tls_error_text(const struct tls *tls)
{
    (void)tls;
    return "";
}

#endif
