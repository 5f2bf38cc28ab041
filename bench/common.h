// SPDX-License-Identifier: Apache-2.0
/* What the benchmark's tools share: giving up, the clock, addresses, and the few bytes of DNS that
 * they touch. The tools measure the daemon, so they use none of its code.
 *
 * RFC: 1035 4.1 (message, question, record), 4.1.4 (compression). */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum {
    BATCH_LIMIT = 64, /* datagrams a system call: enough to make its own cost vanish */
    HEADER_LENGTH = 12,
    ANSWER_LENGTH = 16,
    SOCKET_BUFFER_SIZE = 8 << 20, /* so that a burst of a whole run's windows is never dropped */
};

/* NOERROR's one record: the question's name, A, IN, TTL 300, 192.0.2.1. */
static const uint8_t ANSWER_RECORD[ANSWER_LENGTH] = {0xc0, 12,   0, 1, 0,   1, 0, 0,
                                                     0x01, 0x2c, 0, 4, 192, 0, 2, 1};

_Noreturn static inline void fatal(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

_Noreturn static inline void fatal_usage(const char *text)
{
    fprintf(stderr, "%s\n", text);
    exit(2);
}

static inline uint64_t clock_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1'000'000'000 + (uint64_t)time.tv_nsec;
}

static inline uint16_t read16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline void write16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* Where the question of a query with exactly one ends; 0 when there is no such question. */
static inline size_t question_end(const uint8_t *message, size_t length)
{
    size_t at = HEADER_LENGTH;
    if (length < HEADER_LENGTH || read16(message + 4) != 1) {
        return 0;
    }
    while (at < length && message[at] != 0) {
        if (message[at] > 63) {
            return 0;
        }
        at += message[at] + 1;
    }
    return at + 5 <= length ? at + 5 : 0;
}

struct endpoint {
    struct sockaddr_storage address;
    socklen_t length;
};

static inline struct endpoint parse_endpoint(const char *host, const char *port)
{
    struct endpoint endpoint = {};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&endpoint.address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&endpoint.address;
    char *end;
    unsigned long number = strtoul(port, &end, 10);
    if (*port == 0 || *end != 0 || number > UINT16_MAX) {
        fatal_usage("not a port");
    }
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)number);
        endpoint.length = sizeof *v4;
    } else if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)number);
        endpoint.length = sizeof *v6;
    } else {
        fatal_usage("not an address");
    }
    return endpoint;
}

/* The limits of the system hold unless the tool runs as root. */
static inline void enlarge_buffers(int fd)
{
    int size = SOCKET_BUFFER_SIZE;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) != 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    }
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) != 0) {
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    }
}

/* `flags`: SOCK_NONBLOCK or 0. */
static inline int bind_udp(const struct endpoint *endpoint, int flags)
{
    int fd = socket(endpoint->address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | flags, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&endpoint->address, endpoint->length) != 0) {
        fatal("UDP socket");
    }
    enlarge_buffers(fd);
    return fd;
}

#endif
