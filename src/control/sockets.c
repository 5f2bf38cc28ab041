// SPDX-License-Identifier: Apache-2.0
/* Binds the listening sockets.   Thread: main.   Owner: see sockets.h. */
#include "control/sockets.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/socket.h"
#include "observe/log.h"

struct sockets {
    size_t listener_count;
    size_t worker_count;
    bool freebind;
    int descriptors[]; /* udp of each worker, then tcp of each worker; listener_count of each */
};

static const char *advice(int error)
{
    switch (error) {
    case EADDRINUSE:
        return "another program holds this port: stop it, or choose another with --listen";
    case EACCES:
    case EPERM:
        return "ports below 1024 need root or the capability NET_BIND_SERVICE";
    case EADDRNOTAVAIL:
        return "this machine does not have that address; if it will later, listen-freebind: on "
               "binds it now";
    case EAFNOSUPPORT:
        return "this machine does not speak that address family";
    default:
        return "see --listen";
    }
}

static enum status bind_all(struct sockets *sockets, const struct listener_config *listener,
                            size_t index)
{
    assert(index < sockets->listener_count && (listener->udp || listener->tcp));
    const bool freebind = sockets->freebind;
    if (listener->udp)
        TRY(socket_check_free(&listener->address, SOCK_DGRAM, freebind));
    if (listener->tcp)
        TRY(socket_check_free(&listener->address, SOCK_STREAM, freebind));
    for (size_t worker = 0; worker < sockets->worker_count; worker++) {
        int *udp = &sockets->descriptors[worker * sockets->listener_count + index];
        if (listener->udp)
            TRY(socket_bind_udp(&listener->address, freebind, udp));
        if (listener->tcp)
            TRY(socket_listen_tcp(&listener->address, freebind,
                                  udp + sockets->worker_count * sockets->listener_count));
    }
    return STATUS_OK;
}

/* Whether a default address may be left out: the machine has no such family, nobody asked for it.
 */
static bool may_skip(const struct listener_config *listener, int error)
{
    return listener->is_default && (error == EAFNOSUPPORT || error == EADDRNOTAVAIL);
}

static struct sockets *new_sockets(const struct config *config)
{
    assert(config->workers > 0);
    const size_t count = 2 * config->workers * config->listener_count;
    struct sockets *sockets = malloc(sizeof(*sockets) + count * sizeof(int));
    if (!sockets)
        return NULL;
    sockets->listener_count = config->listener_count;
    sockets->worker_count = config->workers;
    sockets->freebind = config->listen_freebind == TOGGLE_ON;
    for (size_t i = 0; i < count; i++)
        sockets->descriptors[i] = -1;
    return sockets;
}

enum status sockets_open(const struct config *config, struct sockets **out)
{
    assert(config->listener_count <= CONFIG_LISTENERS_MAX && out);
    struct sockets *sockets = new_sockets(config);
    if (!sockets)
        return STATUS_SYSTEM;
    size_t bound = 0;
    for (size_t i = 0; i < config->listener_count; i++) {
        const struct listener_config *listener = &config->listeners[i];
        char address[ADDRESS_TEXT_SIZE];
        address_format(&listener->address, address);
        if (bind_all(sockets, listener, i) == STATUS_OK) {
            bound++;
        } else if (may_skip(listener, errno)) {
            log_event(LOG_LEVEL_WARNING, "listener_skipped", "address", address, "cause",
                      strerror(errno), NULL);
        } else {
            fprintf(stderr, "dnsproxy: cannot listen on %s: %s; %s\n", address, strerror(errno),
                    advice(errno));
            goto fail;
        }
    }
    if (bound == 0) {
        fprintf(stderr, "dnsproxy: no address to listen on; give one with --listen\n");
        goto fail;
    }
    *out = sockets;
    return STATUS_OK;
fail:
    sockets_release(sockets); /* the process ends, and its descriptors with it */
    return STATUS_SYSTEM;
}

const int *sockets_udp(const struct sockets *sockets, size_t worker)
{
    assert(worker < 2 * sockets->worker_count);
    return &sockets->descriptors[worker * sockets->listener_count];
}

const int *sockets_tcp(const struct sockets *sockets, size_t worker)
{
    assert(worker < sockets->worker_count);
    return sockets_udp(sockets, sockets->worker_count + worker);
}

bool sockets_is_bound(const struct sockets *sockets, size_t listener)
{
    assert(listener < sockets->listener_count);
    return sockets_udp(sockets, 0)[listener] >= 0 || sockets_tcp(sockets, 0)[listener] >= 0;
}

void sockets_release(struct sockets *sockets)
{
    free(sockets);
}
