// SPDX-License-Identifier: Apache-2.0
/* In place of net/tls.c: a greeting that tells who is asked for and which ticket is offered, a
 * verdict, then plain bytes. What matters to the stream above is as in OpenSSL: bytes wait inside
 * that epoll does not announce, reads may have to write first and writes to read, and nothing is
 * written before the verdict. */
#include "net/tls.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/socket.h"
#include "sim.h"

enum { GREETING_LENGTH = 3, RECORD_MAX = 2048 };

struct tls_client {
    uint8_t name;
    uint8_t ticket; /* the name of who gave it, 0: none */
};

struct tls {
    struct tls_client *client;
    int fd;
    bool is_authenticated;
    bool is_resumed;
    bool wants_write;
    bool must_read_first; /* a write waits for a nudge */
    size_t greeted;
    uint8_t greeting[GREETING_LENGTH];
    uint8_t bytes[RECORD_MAX];
    size_t start;
    size_t end;
};

enum status tls_client_open(const struct upstream_config *upstream, const struct tls_trust *trust,
                            struct tls_client **out)
{
    (void)trust;
    assert(upstream->name);
    struct tls_client *client = calloc(1, sizeof(*client));
    if (!client)
        return STATUS_SYSTEM;
    client->name = (uint8_t)upstream->name[0];
    *out = client;
    return STATUS_OK;
}

void tls_client_close(struct tls_client *client)
{
    free(client);
}

enum status tls_open(struct tls_client *client, int fd, struct tls **out)
{
    struct tls *tls = malloc(sizeof(*tls));
    if (!tls)
        return STATUS_SYSTEM;
    *tls = (struct tls){.client = client, .fd = fd};
    tls->greeting[0] = 'H';
    tls->greeting[1] = client->name;
    tls->greeting[2] = client->ticket;
    tls->is_resumed = client->ticket != 0;
    client->ticket = 0; /* a ticket is used once */
    *out = tls;
    return STATUS_OK;
}

void tls_close(struct tls *tls)
{
    free(tls);
}

static enum status failed(ssize_t result, enum failure *failure)
{
    if (result == -1 && errno == EAGAIN)
        return STATUS_AGAIN;
    *failure = result == 0 ? FAILURE_CLOSED : socket_failure(errno);
    return STATUS_CLOSED;
}

/* STATUS_OK when bytes wait inside. */
static enum status fill(struct tls *tls, enum failure *failure)
{
    if (net_take_nudge(tls->fd))
        tls->must_read_first = false;
    if (tls->start < tls->end)
        return STATUS_OK;
    tls->wants_write = false;
    const ssize_t received = recv(tls->fd, tls->bytes, sizeof(tls->bytes), 0);
    if (received <= 0)
        return failed(received, failure);
    tls->start = 0;
    tls->end = (size_t)received;
    return STATUS_OK;
}

static enum status greet(struct tls *tls, enum failure *failure)
{
    while (tls->greeted < GREETING_LENGTH) {
        tls->wants_write = true;
        const ssize_t sent = send(tls->fd, tls->greeting + tls->greeted,
                                  GREETING_LENGTH - tls->greeted, MSG_NOSIGNAL);
        if (sent == -1)
            return failed(sent, failure);
        tls->greeted += (size_t)sent;
    }
    return STATUS_OK;
}

enum status tls_handshake(struct tls *tls, enum failure *failure)
{
    TRY(greet(tls, failure));
    TRY(fill(tls, failure));
    switch (tls->bytes[tls->start++]) {
    case 'O':
        tls->is_authenticated = true;
        tls->client->ticket = tls->client->name;
        return STATUS_OK;
    case 'N':
        *failure = FAILURE_CERTIFICATE_NAME;
        return STATUS_CLOSED;
    default:
        *failure = FAILURE_TLS;
        return STATUS_CLOSED;
    }
}

enum status tls_read(struct tls *tls, uint8_t *buffer, size_t size, size_t *length,
                     enum failure *failure)
{
    assert(tls->is_authenticated && size > 0);
    if (tls->start == tls->end && fault_happens(FAULT_TLS_TURNS)) {
        tls->wants_write = true;
        return STATUS_AGAIN;
    }
    TRY(fill(tls, failure));
    const size_t held = tls->end - tls->start;
    *length = size < held ? size : held;
    if (*length > 1 && fault_happens(FAULT_SPLIT)) /* the end of a record */
        *length = random_between(1, *length);
    memcpy(buffer, tls->bytes + tls->start, *length);
    tls->start += *length;
    return STATUS_OK;
}

enum status tls_write(struct tls *tls, const uint8_t *bytes, size_t size, size_t *length,
                      enum failure *failure)
{
    if (!tls->is_authenticated)
        sim_fail("bytes before the upstream is authenticated (E1)");
    if (net_take_nudge(tls->fd))
        tls->must_read_first = false;
    if (!tls->must_read_first && fault_happens(FAULT_TLS_TURNS)) {
        tls->must_read_first = true;
        net_nudge(tls->fd);
    }
    tls->wants_write = !tls->must_read_first;
    if (tls->must_read_first)
        return STATUS_AGAIN;
    const ssize_t sent = send(tls->fd, bytes, size, MSG_NOSIGNAL);
    if (sent == -1)
        return failed(sent, failure);
    tls->wants_write = false;
    *length = (size_t)sent;
    return STATUS_OK;
}

bool tls_wants_write(const struct tls *tls)
{
    return tls->wants_write;
}

bool tls_has_pending(const struct tls *tls)
{
    return tls->start < tls->end;
}

void tls_facts(const struct tls *tls, struct tls_facts *out)
{
    *out = (struct tls_facts){.version = "TLSv1.3", .cipher = "", .resumed = tls->is_resumed};
}

const char *tls_error_text(const struct tls *tls)
{
    (void)tls;
    return "";
}
