// SPDX-License-Identifier: Apache-2.0
/* DNS over UDP: datagrams in by recvmmsg, replies out by sendmmsg, both in batches.
 *
 * A datagram stays in the batch that it came in; its query keeps a parsed copy. Replies gather in a
 * second batch, packed one behind the other, until the turn ends or the batch is full. A reply that
 * the kernel will not take is lost and counted: UDP clients ask again, and nothing here may wait.
 *
 * Busy: the kernel calls epoll back for each datagram that leaves a watched socket, which costs as
 * much as parsing and finding the answer. So while whole batches wait the socket is not watched but
 * read in every turn, until a turn finds nothing; docs/performance.md has the figures. So it is,
 * too, while the loop cannot serve all that is ready in one turn: its clients need not wait until
 * hundreds of TCP clients have had theirs (FAULTS K5).
 *
 * Thread: one worker. Owner: the worker, from open to close.
 * RFC: 1035 4.2.1, 8085 5.1.1 (reply from the address that was asked), 6891 6.2. */
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "listen/listen.h"
#include "net/socket.h"
#include "observe/log.h"

enum {
    BATCH = 64,
    BATCHES_PER_TURN = 4,  /* then the other descriptors have theirs */
    BATCHES_AT_STOP = 256, /* more than the longest receive queue holds */
    TURNS_PER_COUNT = 64,  /* of what the kernel had no room for */
    DATAGRAM_MAX = 4096, /* a longer one is cut, and its query rejected or read as far as it goes */
    /* Not a multiple of 4096: else all datagrams of a batch compete for the same cache lines. */
    DATAGRAM_STRIDE = DATAGRAM_MAX + 64,
    REPLIES_SIZE = BATCH * 1232, /* more than one flush a turn only when replies are long */
    PORTS = 65536,
};
static_assert((int)REPLIES_SIZE >= (int)DATAGRAM_MAX, "the longest reply fits into an empty batch");

union control {
    struct cmsghdr alignment;
    uint8_t bytes[CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

struct batch {
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    struct address peers[BATCH];
    union control controls[BATCH];
};

struct udp_listener {
    struct resolver *resolver;
    struct loop_source source; /* its fd is -1 while busy */
    struct loop_task busy;
    struct loop_task flush;
    int fd;
    uint32_t turns;
    uint32_t overflow; /* as the kernel counts, when it was last asked */
    struct log_limit overflow_limit;
    bool is_wildcard; /* several addresses: replies tell which one they come from */
    uint64_t refused_ports[PORTS / 64];
    struct batch queries;
    struct batch replies;
    size_t reply_count;
    size_t reply_bytes_used;
    uint8_t query_bytes[BATCH][DATAGRAM_STRIDE];
    uint8_t reply_bytes[REPLIES_SIZE];
};

/* --- Receiving --- */

static bool port_is_refused(const struct udp_listener *listener, uint16_t port)
{
    return listener->refused_ports[port / 64] >> (port % 64) & 1;
}

static void refuse_port(struct udp_listener *listener, uint16_t port)
{
    listener->refused_ports[port / 64] |= UINT64_C(1) << (port % 64);
}

static void read_pktinfo_v4(const struct cmsghdr *control, struct origin *origin)
{
    struct in_pktinfo info;
    memcpy(&info, CMSG_DATA(control), sizeof(info));
    origin->local.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = info.ipi_spec_dst};
}

static void read_pktinfo_v6(const struct cmsghdr *control, struct origin *origin)
{
    struct in6_pktinfo info;
    memcpy(&info, CMSG_DATA(control), sizeof(info));
    if (IN6_IS_ADDR_MULTICAST(&info.ipi6_addr))
        return; /* not an address that can send: the kernel chooses */
    origin->local.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = info.ipi6_addr};
    if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
        origin->interface = info.ipi6_ifindex;
}

static void read_local_address(struct msghdr *header, struct origin *origin)
{
    for (struct cmsghdr *control = CMSG_FIRSTHDR(header); control;
         control = CMSG_NXTHDR(header, control)) {
        if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO)
            read_pktinfo_v4(control, origin);
        else if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_PKTINFO)
            read_pktinfo_v6(control, origin);
    }
}

static void send_reply(struct query *query, const uint8_t *reply, size_t length);

static const struct transport udp_transport = {.is_datagram = true, .send = send_reply};

/* The query in the `index`-th datagram of the batch, NULL when it has ended already. */
static struct query *accept_query(struct udp_listener *listener, size_t index)
{
    struct resolver *resolver = listener->resolver;
    struct mmsghdr *message = &listener->queries.messages[index];
    struct origin origin = {
        .transport = &udp_transport,
        .listener = listener,
        .client = listener->queries.peers[index],
    };
    if (port_is_refused(listener, address_port(&origin.client))) {
        metric_add(&resolver->metrics->dropped_source_port, 1);
        return NULL;
    }
    if (listener->is_wildcard)
        read_local_address(&message->msg_hdr, &origin);
    return query_accept(resolver, &origin, listener->query_bytes[index], message->msg_len);
}

/* The datagrams from `first` on, as many as may be in hand at once. */
static void begin_queries(struct udp_listener *listener, size_t first, size_t end)
{
    struct resolver *resolver = listener->resolver;
    struct query *queries[QUERIES_IN_HAND_MAX];
    size_t count = 0;
    assert(end - first <= QUERIES_IN_HAND_MAX);
    for (size_t i = first; i < end; i++) {
        struct query *query = accept_query(listener, i);
        if (query)
            queries[count++] = query;
    }
    for (size_t i = 0; i < count; i++)
        (void)query_resolve(resolver, queries[i], NULL);
}

/* The kernel writes the lengths of what it gave; they say the room again. */
static void reset_query_slot(struct udp_listener *listener, size_t index)
{
    struct msghdr *header = &listener->queries.messages[index].msg_hdr;
    header->msg_namelen = sizeof(struct address);
    header->msg_controllen = listener->is_wildcard ? sizeof(union control) : 0;
}

/* The datagrams taken, 0 when none waits. */
static size_t receive_batch(struct udp_listener *listener)
{
    const int received = recvmmsg(listener->fd, listener->queries.messages, BATCH, 0, NULL);
    if (received <= 0)
        return 0; /* nothing there, or an ICMP error, which is consumed by this (FAULTS A16) */
    const size_t count = (size_t)received;
    metric_add(&listener->resolver->metrics->queries_udp, count);
    for (size_t i = 0; i < count; i += QUERIES_IN_HAND_MAX)
        begin_queries(listener, i,
                      i + QUERIES_IN_HAND_MAX < count ? i + QUERIES_IN_HAND_MAX : count);
    for (size_t i = 0; i < count; i++)
        reset_query_slot(listener, i);
    return count;
}

/* The kernel's receive queue was full: those queries never came here, and their clients wait. */
static void count_overflow(struct udp_listener *listener)
{
    const struct resolver *resolver = listener->resolver;
    const uint32_t overflow = socket_overflow(listener->fd, listener->overflow);
    if (overflow == listener->overflow)
        return;
    metric_add(&resolver->metrics->dropped_overflow, overflow - listener->overflow);
    listener->overflow = overflow;
    log_event_limited(&listener->overflow_limit, resolver->loop->now, LOG_LEVEL_WARNING,
                      "udp_queue_full", "cause",
                      "queries came faster than they were read; the queue is 4 MiB, or "
                      "net.core.rmem_max if that is less",
                      NULL);
}

/* What a turn takes: the datagrams, up to a bound. */
static size_t receive_for_this_turn(struct udp_listener *listener)
{
    size_t total = 0;
    const struct loop *loop = listener->resolver->loop;
    for (size_t batches = 0; batches < BATCHES_PER_TURN; batches++) {
        const size_t received = receive_batch(listener);
        total += received;
        if (received < BATCH || loop_is_spent(loop))
            break;
    }
    /* Nothing left: a burst may be over, and shall be accounted for. */
    if (total == 0 || ++listener->turns % TURNS_PER_COUNT == 0)
        count_overflow(listener);
    return total;
}

static void on_ready(struct loop_source *source, uint32_t events)
{
    (void)events;
    struct udp_listener *listener = CONTAINER_OF(source, struct udp_listener, source);
    struct loop *loop = listener->resolver->loop;
    if (receive_for_this_turn(listener) < BATCH && !loop_is_behind(loop))
        return;
    loop_remove(loop, &listener->source);
    loop_defer(loop, &listener->busy, LOOP_NEXT_TURN);
}

/* Should the kernel refuse to watch it, being busy is the way to go on. */
static void on_busy(struct loop_task *task)
{
    struct udp_listener *listener = CONTAINER_OF(task, struct udp_listener, busy);
    assert(listener->source.fd == -1);
    struct loop *loop = listener->resolver->loop;
    if (receive_for_this_turn(listener) > 0 || loop_is_behind(loop) ||
        loop_add(loop, &listener->source, listener->fd, EPOLLIN) != STATUS_OK)
        loop_defer(loop, &listener->busy, LOOP_NEXT_TURN);
}

/* --- Sending --- */

static void flush_replies(struct udp_listener *listener)
{
    struct mmsghdr *next = listener->replies.messages;
    size_t left = listener->reply_count;
    assert(left <= BATCH && listener->reply_bytes_used <= REPLIES_SIZE);
    while (left > 0) {
        const int sent = sendmmsg(listener->fd, next, (unsigned int)left, MSG_NOSIGNAL);
        size_t done = sent > 0 ? (size_t)sent : 0;
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0) {
            /* A full socket takes none of the rest; any other error is about this one alone. */
            done = errno == EAGAIN ? left : 1;
            metric_add(&listener->resolver->metrics->dropped_send, done);
        }
        next += done;
        left -= done;
    }
    listener->reply_count = 0;
    listener->reply_bytes_used = 0;
}

static void on_flush(struct loop_task *task)
{
    flush_replies(CONTAINER_OF(task, struct udp_listener, flush));
}

/* Says in `header` that the datagram leaves from the address the query was sent to (FAULTS A15). */
static void set_source(struct msghdr *header, union control *control, const struct origin *origin)
{
    *control = (union control){0};
    header->msg_control = control;
    if (origin->local.any.sa_family == AF_INET) {
        const struct in_pktinfo info = {.ipi_spec_dst = origin->local.v4.sin_addr};
        header->msg_controllen = CMSG_SPACE(sizeof(info));
        struct cmsghdr *first = CMSG_FIRSTHDR(header);
        first->cmsg_level = IPPROTO_IP;
        first->cmsg_type = IP_PKTINFO;
        first->cmsg_len = CMSG_LEN(sizeof(info));
        memcpy(CMSG_DATA(first), &info, sizeof(info));
        return;
    }
    assert(origin->local.any.sa_family == AF_INET6);
    const struct in6_pktinfo info = {.ipi6_addr = origin->local.v6.sin6_addr,
                                     .ipi6_ifindex = origin->interface};
    header->msg_controllen = CMSG_SPACE(sizeof(info));
    struct cmsghdr *first = CMSG_FIRSTHDR(header);
    first->cmsg_level = IPPROTO_IPV6;
    first->cmsg_type = IPV6_PKTINFO;
    first->cmsg_len = CMSG_LEN(sizeof(info));
    memcpy(CMSG_DATA(first), &info, sizeof(info));
}

static void send_reply(struct query *query, const uint8_t *reply, size_t length)
{
    struct udp_listener *listener = query->origin.listener;
    const struct origin *origin = &query->origin;
    assert(length >= DNS_HEADER_SIZE && length <= DATAGRAM_MAX);
    if (listener->reply_count == BATCH || REPLIES_SIZE - listener->reply_bytes_used < length)
        flush_replies(listener);

    const size_t index = listener->reply_count++;
    struct batch *replies = &listener->replies;
    uint8_t *bytes = listener->reply_bytes + listener->reply_bytes_used;
    memcpy(bytes, reply, length);
    listener->reply_bytes_used += length;

    struct msghdr *header = &replies->messages[index].msg_hdr;
    replies->parts[index] = (struct iovec){.iov_base = bytes, .iov_len = length};
    replies->peers[index] = origin->client;
    header->msg_namelen = address_length(&origin->client);
    header->msg_control = NULL;
    header->msg_controllen = 0;
    if (origin->local.any.sa_family != AF_UNSPEC)
        set_source(header, &replies->controls[index], origin);
    loop_defer(listener->resolver->loop, &listener->flush, LOOP_FLUSH);
}

/* --- From open to close --- */

static void prepare_batches(struct udp_listener *listener)
{
    for (size_t i = 0; i < BATCH; i++) {
        struct batch *queries = &listener->queries;
        queries->parts[i] =
            (struct iovec){.iov_base = listener->query_bytes[i], .iov_len = DATAGRAM_MAX};
        queries->messages[i].msg_hdr = (struct msghdr){
            .msg_name = &queries->peers[i],
            .msg_iov = &queries->parts[i],
            .msg_iovlen = 1,
            .msg_control = listener->is_wildcard ? &queries->controls[i] : NULL,
        };
        reset_query_slot(listener, i);
        listener->replies.messages[i].msg_hdr = (struct msghdr){
            .msg_name = &listener->replies.peers[i],
            .msg_iov = &listener->replies.parts[i],
            .msg_iovlen = 1,
        };
    }
}

void udp_reload(struct udp_listener *listener)
{
    const struct snapshot *snapshot = listener->resolver->snapshot;
    memset(listener->refused_ports, 0, sizeof(listener->refused_ports));
    refuse_port(listener, 0); /* no reply could be sent there */
    for (size_t i = 0; i < snapshot->refused_source_port_count; i++)
        refuse_port(listener, snapshot->refused_source_ports[i]);
}

enum status udp_open(struct resolver *resolver, int fd, const struct address *address,
                     struct udp_listener **out)
{
    assert(resolver->snapshot && resolver->loop && out);
    assert(address);
    assert(fd >= 0);
    /* Large, so pages of its own: those of a quiet listener are never touched. */
    struct udp_listener *listener = calloc(1, sizeof(*listener));
    if (!listener)
        return STATUS_SYSTEM;
    listener->resolver = resolver;
    listener->fd = fd;
    listener->is_wildcard = address_is_any(address);
    listener->source = (struct loop_source){.fd = -1, .on_ready = on_ready};
    loop_task_init(&listener->busy, on_busy);
    loop_task_init(&listener->flush, on_flush);
    udp_reload(listener);
    prepare_batches(listener);
    if (loop_add(resolver->loop, &listener->source, fd, EPOLLIN) != STATUS_OK) {
        free(listener);
        return STATUS_SYSTEM;
    }
    *out = listener;
    return STATUS_OK;
}

size_t udp_ceiling(void)
{
    return sizeof(struct udp_listener);
}

void udp_stop(struct udp_listener *listener)
{
    assert(listener->fd >= 0);
    /* What the kernel has taken is not lost, and who comes later learns of it (FAULTS J14). */
    socket_close_door(listener->fd);
    for (size_t batches = 0; batches < BATCHES_AT_STOP && receive_batch(listener) > 0; batches++)
        continue;
    loop_cancel_task(&listener->busy);
    loop_remove(listener->resolver->loop, &listener->source);
}

void udp_close(struct udp_listener *listener)
{
    if (!listener)
        return;
    loop_remove(listener->resolver->loop, &listener->source);
    loop_cancel_task(&listener->busy);
    loop_cancel_task(&listener->flush);
    flush_replies(listener);
    close(listener->fd);
    free(listener);
}
