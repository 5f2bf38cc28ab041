// SPDX-License-Identifier: Apache-2.0
/* The kernel that the product runs on: a clock that moves when the loop waits, epoll, TCP links to
 * the scripted upstreams, and memory that may be short. The linker sends the product's system calls
 * here (--wrap, in tests/meson.build).
 *
 * A link has two directions. Bytes are in flight as events of the one timeline; in each direction
 * they arrive in order, as TCP has it. What is sent and has not been acknowledged fills the window,
 * and a full window blocks. Everything that the product could see of Linux is as Linux does it:
 * what came before a reset can still be read, an error is told once, EPIPE follows.
 *
 * Owner: each link lives until the run ends, since events may still name it. */
#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "sim.h"

enum {
    FD_BASE = 1000, /* so that descriptors of ours and of the real kernel never meet */
    DESCRIPTORS_MAX = 256,
    WINDOW = 16384,
    WINDOW_SMALL = 200,
    INBOX_MAX = 32 << 20,
    TURNS_MAX = 200000, /* no run comes near: who gets there spins */
};

/* --- Memory --- */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void __real_free(void *memory);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void __wrap_free(void *memory);

static size_t live_allocations;
static bool allocations_may_fail;

void *sim_allocate(size_t size)
{
    void *memory = __real_calloc(1, size);
    if (!memory)
        abort();
    return memory;
}

void sim_release(void *memory)
{
    __real_free(memory);
}

void net_allow_failing_allocations(bool allowed)
{
    allocations_may_fail = allowed;
}

static void *count_allocation(void *memory)
{
    live_allocations += memory != NULL;
    return memory;
}

void *__wrap_malloc(size_t size)
{
    if (allocations_may_fail && fault_happens(FAULT_ALLOCATION))
        return NULL;
    return count_allocation(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
    if (allocations_may_fail && fault_happens(FAULT_ALLOCATION))
        return NULL;
    return count_allocation(__real_calloc(count, size));
}

void __wrap_free(void *memory)
{
    live_allocations -= memory != NULL;
    __real_free(memory);
}

/* --- The timeline --- */

struct event {
    uint64_t at_ns;
    uint64_t order; /* events of one moment happen as they were scheduled */
    event_run *run;
    void *subject;
    size_t length;
    uint8_t bytes[];
};

static struct {
    uint64_t now;
    uint64_t turns;
    uint64_t last_jump;
    uint64_t next_order;
    struct event **heap; /* the earliest first */
    size_t count;
    size_t capacity;
} timeline;

uint64_t net_now(void)
{
    return timeline.now;
}

uint64_t net_turns(void)
{
    return timeline.turns;
}

uint64_t net_last_jump(void)
{
    return timeline.last_jump;
}

static bool is_before(const struct event *a, const struct event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void grow_heap(void)
{
    const size_t capacity = timeline.capacity ? timeline.capacity * 2 : 256;
    struct event **heap = sim_allocate(capacity * sizeof(*heap));
    if (timeline.count > 0)
        memcpy(heap, timeline.heap, timeline.count * sizeof(*heap));
    sim_release(timeline.heap);
    timeline.heap = heap;
    timeline.capacity = capacity;
}

void net_schedule(uint64_t after_ns, event_run *run, void *subject, const uint8_t *bytes,
                  size_t length)
{
    struct event *event = sim_allocate(sizeof(*event) + length);
    *event = (struct event){.at_ns = timeline.now + after_ns,
                            .order = timeline.next_order++,
                            .run = run,
                            .subject = subject,
                            .length = length};
    if (length > 0)
        memcpy(event->bytes, bytes, length);
    if (timeline.count == timeline.capacity)
        grow_heap();
    size_t i = timeline.count++;
    for (; i > 0 && is_before(event, timeline.heap[(i - 1) / 2]); i = (i - 1) / 2)
        timeline.heap[i] = timeline.heap[(i - 1) / 2];
    timeline.heap[i] = event;
}

static struct event *take_first_event(void)
{
    struct event *first = timeline.heap[0];
    struct event *last = timeline.heap[--timeline.count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < timeline.count; i = child) {
        if (child + 1 < timeline.count && is_before(timeline.heap[child + 1], timeline.heap[child]))
            child++;
        if (!is_before(timeline.heap[child], last))
            break;
        timeline.heap[i] = timeline.heap[child];
    }
    timeline.heap[i] = last;
    return first;
}

static void run_due_events(void)
{
    while (timeline.count > 0 && timeline.heap[0]->at_ns <= timeline.now) {
        struct event *event = take_first_event();
        event->run(event->subject, event->bytes, event->length);
        sim_release(event);
    }
}

/* --- Descriptors and links --- */

enum link_state { LINK_NEW, LINK_CONNECTING, LINK_OPEN, LINK_BROKEN };

struct link {
    struct link *next; /* of all links of the run */
    enum link_state state;
    size_t upstream;
    struct conversation *conversation; /* NULL until it is accepted */
    bool is_closed;                    /* by the product */
    bool has_left;                     /* closed by the upstream */
    bool is_stalled;
    bool has_timer; /* TCP_USER_TIMEOUT runs */
    bool has_shut_down;
    int error; /* what SO_ERROR tells, once */
    uint64_t user_timeout_ns;
    /* To the product. */
    uint8_t *inbox;
    size_t inbox_start;
    size_t inbox_end;
    size_t inbox_size;
    bool has_ended;
    uint64_t heard_ns; /* when bytes last came */
    bool is_nudged;
    uint64_t last_arrival_in_ns;
    /* From the product. */
    size_t window;
    size_t unacknowledged;
    uint64_t blocked_ns; /* since when bytes wait for an acknowledgement that never comes */
    uint64_t last_arrival_out_ns;
};

enum descriptor_kind { FREE, EPOLL, WAKE, BELL, SOCKET, ROUTE };

static struct descriptor {
    enum descriptor_kind kind;
    struct link *link;
    size_t route; /* of a datagram socket: the upstream that it is connected to */
    uint64_t wakes;
    bool (*is_ringing)(void);
    bool is_watched;
    uint32_t events;
    void *data;
} descriptors[DESCRIPTORS_MAX];

static struct link *links;

static struct descriptor *descriptor_of(int fd)
{
    if (fd < FD_BASE || fd >= FD_BASE + DESCRIPTORS_MAX || descriptors[fd - FD_BASE].kind == FREE)
        sim_fail("descriptor %d is not open", fd);
    return &descriptors[fd - FD_BASE];
}

static struct link *link_of(int fd)
{
    struct descriptor *descriptor = descriptor_of(fd);
    if (descriptor->kind != SOCKET)
        sim_fail("descriptor %d is no socket", fd);
    return descriptor->link;
}

static int open_descriptor(enum descriptor_kind kind)
{
    for (int i = 0; i < DESCRIPTORS_MAX; i++) {
        if (descriptors[i].kind != FREE)
            continue;
        descriptors[i] = (struct descriptor){.kind = kind};
        return FD_BASE + i;
    }
    sim_fail("the product has opened %d descriptors", DESCRIPTORS_MAX);
}

int net_open_bell(bool (*is_ringing)(void))
{
    const int fd = open_descriptor(BELL);
    descriptor_of(fd)->is_ringing = is_ringing;
    return fd;
}

uint64_t net_last_heard(int fd)
{
    return link_of(fd)->heard_ns;
}

uint64_t net_blocked_since(int fd)
{
    return link_of(fd)->blocked_ns;
}

size_t net_open_links(void)
{
    size_t count = 0;
    for (int i = 0; i < DESCRIPTORS_MAX; i++)
        count += descriptors[i].kind == SOCKET;
    return count;
}

void net_reset(void)
{
    while (timeline.count > 0)
        sim_release(take_first_event());
    while (links) {
        struct link *link = links;
        links = link->next;
        sim_release(link->inbox);
        sim_release(link);
    }
    sim_release(timeline.heap);
    memset(&timeline, 0, sizeof(timeline));
    timeline.now = NET_START_NS;
    memset(descriptors, 0, sizeof(descriptors));
    allocations_may_fail = false;
    live_allocations = 0;
}

void net_check_closed(void)
{
    for (int i = 0; i < DESCRIPTORS_MAX; i++)
        if (descriptors[i].kind != FREE && descriptors[i].kind != BELL)
            sim_fail("a descriptor was left open (kind %d)", (int)descriptors[i].kind);
    if (live_allocations != 0)
        sim_fail("%zu allocations were not freed", live_allocations);
}

/* --- From the upstream to us --- */

static void arrive_here(void *subject, const uint8_t *bytes, size_t length)
{
    struct link *link = subject;
    if (link->is_closed || link->is_stalled || link->state != LINK_OPEN)
        return;
    if (link->inbox_end + length > link->inbox_size) {
        const size_t kept = link->inbox_end - link->inbox_start;
        const size_t size = (kept + length) * 2;
        if (size > INBOX_MAX)
            sim_fail("an upstream's bytes are not read");
        uint8_t *inbox = sim_allocate(size);
        if (kept > 0)
            memcpy(inbox, link->inbox + link->inbox_start, kept);
        sim_release(link->inbox);
        link->inbox = inbox;
        link->inbox_size = size;
        link->inbox_start = 0;
        link->inbox_end = kept;
    }
    link->heard_ns = timeline.now;
    memcpy(link->inbox + link->inbox_end, bytes, length);
    link->inbox_end += length;
}

static void end_here(void *subject, const uint8_t *bytes, size_t length)
{
    struct link *link = subject;
    (void)bytes;
    (void)length;
    if (!link->is_stalled && link->state == LINK_OPEN)
        link->has_ended = true;
}

static void break_link(struct link *link, int error)
{
    if (link->state == LINK_BROKEN || link->is_closed)
        return;
    sim_tell("link to %zu breaks: %s", link->upstream, strerrorname_np(error));
    link->state = LINK_BROKEN;
    link->error = error;
}

static void reset_here(void *subject, const uint8_t *bytes, size_t length)
{
    struct link *link = subject;
    (void)bytes;
    (void)length;
    if (!link->is_stalled)
        break_link(link, ECONNRESET);
}

static uint64_t travel_ns(const struct link *link)
{
    uint64_t travel = plan.latency_ns * (1 + link->upstream) + random_below(MILLISECONDS(1) / 4);
    if (fault_happens(FAULT_DELAY))
        travel += random_below(MILLISECONDS(link->upstream == plan.healthy ? 20 : 500));
    return travel;
}

/* When what is sent now arrives: not before what was sent earlier. */
static uint64_t arrival_after_ns(const struct link *link, uint64_t *last_ns)
{
    const uint64_t arrival = timeline.now + travel_ns(link);
    if (arrival > *last_ns)
        *last_ns = arrival;
    return *last_ns - timeline.now;
}

void link_send(struct link *link, const uint8_t *bytes, size_t length)
{
    while (length > 0) {
        size_t piece = length;
        if (fault_happens(FAULT_SPLIT))
            piece = random_between(1, length < 20 ? length : 20);
        net_schedule(arrival_after_ns(link, &link->last_arrival_in_ns), arrive_here, link, bytes,
                     piece);
        bytes += piece;
        length -= piece;
    }
}

void link_end(struct link *link)
{
    link->has_left = true;
    net_schedule(arrival_after_ns(link, &link->last_arrival_in_ns), end_here, link, NULL, 0);
}

void link_reset(struct link *link)
{
    link->has_left = true;
    net_schedule(arrival_after_ns(link, &link->last_arrival_in_ns), reset_here, link, NULL, 0);
}

void link_stall(struct link *link)
{
    link->is_stalled = true;
}

static void nudge(void *subject, const uint8_t *bytes, size_t length)
{
    struct link *link = subject;
    (void)bytes;
    (void)length;
    link->is_nudged = true;
}

void net_nudge(int fd)
{
    net_schedule(random_below(MILLISECONDS(20)), nudge, link_of(fd), NULL, 0);
}

bool net_take_nudge(int fd)
{
    struct link *link = link_of(fd);
    const bool was_nudged = link->is_nudged;
    link->is_nudged = false;
    return was_nudged;
}

/* --- From us to the upstream --- */

static void acknowledge(void *subject, const uint8_t *bytes, size_t length)
{
    struct link *link = subject;
    (void)length;
    size_t acknowledged;
    memcpy(&acknowledged, bytes, sizeof(acknowledged));
    link->unacknowledged -= acknowledged;
}

/* TCP_USER_TIMEOUT: nobody acknowledges. */
static void give_up(void *subject, const uint8_t *bytes, size_t length)
{
    (void)bytes;
    (void)length;
    break_link(subject, ETIMEDOUT);
}

static void arrive_there(void *subject, const uint8_t *bytes, size_t length)
{
    struct link *link = subject;
    if (link->is_stalled) {
        if (!link->has_timer && !link->is_closed)
            net_schedule(link->user_timeout_ns, give_up, link, NULL, 0);
        if (!link->has_timer)
            link->blocked_ns = timeline.now;
        link->has_timer = true;
        return;
    }
    if (link->has_left) {
        reset_here(link, NULL, 0);
        return;
    }
    const uint64_t delay_ns =
        fault_happens_at(FAULT_SLOW_READER, link->upstream) ? random_below(MILLISECONDS(300)) : 0;
    net_schedule(delay_ns, acknowledge, link, (const uint8_t *)&length, sizeof(length));
    upstream_receive(link->conversation, bytes, length);
}

static void leave_there(void *subject, const uint8_t *bytes, size_t length)
{
    struct link *link = subject;
    (void)bytes;
    (void)length;
    if (link->conversation && !link->is_stalled)
        upstream_peer_closed(link->conversation);
}

/* --- Sockets --- */

int __wrap_socket(int domain, int type, int protocol);
int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t length);
int __wrap_getsockopt(int fd, int level, int option, void *value, socklen_t *length);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t length);
int __wrap_getsockname(int fd, struct sockaddr *address, socklen_t *length);
int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_shutdown(int fd, int how);
int __wrap_close(int fd);
int __real_close(int fd);
ssize_t __wrap_recv(int fd, void *buffer, size_t size, int flags);
ssize_t __wrap_send(int fd, const void *buffer, size_t size, int flags);

int __wrap_socket(int domain, int type, int protocol)
{
    assert(domain == AF_INET && type & SOCK_NONBLOCK && type & SOCK_CLOEXEC && protocol == 0);
    if (fault_happens(FAULT_DESCRIPTORS)) {
        errno = EMFILE;
        return -1;
    }
    if (type & SOCK_DGRAM && !(type & SOCK_STREAM))
        return open_descriptor(ROUTE);
    struct link *link = sim_allocate(sizeof(*link));
    link->next = links;
    links = link;
    const int fd = open_descriptor(SOCKET);
    descriptor_of(fd)->link = link;
    return fd;
}

int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
    struct link *link = link_of(fd);
    assert(length == sizeof(int));
    if (level == IPPROTO_TCP && option == TCP_USER_TIMEOUT)
        link->user_timeout_ns = MILLISECONDS(*(const int *)value);
    return 0;
}

int __wrap_getsockopt(int fd, int level, int option, void *value, socklen_t *length)
{
    struct link *link = link_of(fd);
    assert(level == SOL_SOCKET && option == SO_ERROR && *length == sizeof(int));
    *(int *)value = link->error;
    link->error = 0;
    return 0;
}

static void connected(void *subject, const uint8_t *bytes, size_t length)
{
    struct link *link = subject;
    (void)bytes;
    (void)length;
    if (link->is_closed)
        return;
    link->state = LINK_OPEN;
    link->conversation = upstream_accept(link->upstream, link);
}

static void refused(void *subject, const uint8_t *bytes, size_t length)
{
    (void)bytes;
    (void)length;
    break_link(subject, ECONNREFUSED);
}

/* Which upstream has this address. */
static size_t upstream_at(const struct sockaddr *address, socklen_t length)
{
    assert(length == sizeof(struct sockaddr_in));
    const uint16_t port = ntohs(((const struct sockaddr_in *)(const void *)address)->sin_port);
    const size_t upstream = (size_t)port - SIM_PORT_BASE;
    assert(upstream < plan.upstream_count);
    return upstream;
}

/* A datagram socket is a look at the routes: nothing is ever sent on it. */
static int connect_route(struct descriptor *descriptor, size_t upstream)
{
    descriptor->route = upstream;
    if (upstream_source(upstream) != 0)
        return 0;
    errno = ENETUNREACH;
    return -1;
}

int __wrap_getsockname(int fd, struct sockaddr *address, socklen_t *length)
{
    const struct descriptor *descriptor = descriptor_of(fd);
    assert(descriptor->kind == ROUTE && *length >= sizeof(struct sockaddr_in));
    *length = sizeof(struct sockaddr_in);
    *(struct sockaddr_in *)(void *)address =
        (struct sockaddr_in){.sin_family = AF_INET,
                             .sin_port = htons(40000),
                             .sin_addr.s_addr = htonl(upstream_source(descriptor->route))};
    return 0;
}

int __wrap_connect(int fd, const struct sockaddr *address, socklen_t length)
{
    const size_t upstream = upstream_at(address, length);
    if (descriptor_of(fd)->kind == ROUTE)
        return connect_route(descriptor_of(fd), upstream);
    struct link *link = link_of(fd);
    uint64_t after_ns = 0;
    assert(link->state == LINK_NEW);
    link->upstream = upstream;
    link->state = LINK_CONNECTING;
    const bool is_slow = has_fault(FAULT_SLOW_READER) && link->upstream != plan.healthy;
    link->window = is_slow ? WINDOW_SMALL : WINDOW;
    const enum connect_end end = upstream_connect(link->upstream, &after_ns);
    after_ns += 2 * travel_ns(link);
    sim_tell("connect to %zu: %d", link->upstream, (int)end);
    if (end == CONNECT_UNREACHABLE) {
        errno = ENETUNREACH;
        return -1;
    }
    if (end == CONNECT_DONE)
        net_schedule(after_ns, connected, link, NULL, 0);
    else if (end == CONNECT_REFUSED)
        net_schedule(after_ns, refused, link, NULL, 0);
    errno = EINPROGRESS;
    return -1;
}

/* SIOCOUTQ: the octets that have not been acknowledged. */
int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    assert(request == SIOCOUTQ);
    va_start(arguments, request);
    *va_arg(arguments, int *) = (int)link_of(fd)->unacknowledged;
    va_end(arguments);
    return 0;
}

int __wrap_shutdown(int fd, int how)
{
    assert(how == SHUT_WR);
    link_of(fd)->has_shut_down = true;
    return 0;
}

int __wrap_close(int fd)
{
    if (fd < FD_BASE)
        return __real_close(fd);
    struct descriptor *descriptor = descriptor_of(fd);
    if (descriptor->kind == SOCKET) {
        struct link *link = descriptor->link;
        link->is_closed = true;
        net_schedule(arrival_after_ns(link, &link->last_arrival_out_ns), leave_there, link, NULL,
                     0);
    }
    *descriptor = (struct descriptor){0};
    return 0;
}

/* Linux tells an error once, on whatever call comes first. */
static int take_error(struct link *link, int otherwise)
{
    const int error = link->error ? link->error : otherwise;
    link->error = 0;
    return error;
}

ssize_t __wrap_recv(int fd, void *buffer, size_t size, int flags)
{
    struct link *link = link_of(fd);
    const size_t held = link->inbox_end - link->inbox_start;
    if (held == 0) {
        if (link->state == LINK_BROKEN && link->error) {
            errno = take_error(link, 0);
            return -1;
        }
        if (link->has_ended || link->state == LINK_BROKEN)
            return 0;
        errno = EAGAIN;
        return -1;
    }
    size_t length = size < held ? size : held;
    if (length > 1 && fault_happens(FAULT_SPLIT))
        length = random_between(1, length < 9 ? length : 9);
    if (!(flags & MSG_TRUNC))
        memcpy(buffer, link->inbox + link->inbox_start, length);
    link->inbox_start += length;
    return (ssize_t)length;
}

ssize_t __wrap_send(int fd, const void *buffer, size_t size, int flags)
{
    struct link *link = link_of(fd);
    assert(flags & MSG_NOSIGNAL && size > 0);
    if (link->state != LINK_OPEN) {
        errno = take_error(link, EPIPE);
        return -1;
    }
    if (link->unacknowledged >= link->window) {
        errno = EAGAIN;
        return -1;
    }
    const size_t room = link->window - link->unacknowledged;
    size_t length = size < room ? size : room;
    if (length > 1 && fault_happens(FAULT_SPLIT))
        length = random_between(1, length < 40 ? length : 40);
    link->unacknowledged += length;
    net_schedule(arrival_after_ns(link, &link->last_arrival_out_ns), arrive_there, link, buffer,
                 length);
    return (ssize_t)length;
}

/* --- epoll --- */

int __wrap_epoll_create1(int flags);
int __wrap_epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event);
int __wrap_epoll_wait(int epoll_fd, struct epoll_event *events, int size, int timeout_ms);
int __wrap_eventfd(unsigned count, int flags);
int __wrap_eventfd_read(int fd, eventfd_t *value);
int __wrap_eventfd_write(int fd, eventfd_t value);
int __wrap_clock_gettime(clockid_t clock, struct timespec *time);
ssize_t __wrap_getrandom(void *buffer, size_t size, unsigned flags);

int __wrap_epoll_create1(int flags)
{
    assert(flags == EPOLL_CLOEXEC);
    return open_descriptor(EPOLL);
}

int __wrap_eventfd(unsigned count, int flags)
{
    assert(count == 0 && flags & EFD_NONBLOCK);
    return open_descriptor(WAKE);
}

int __wrap_eventfd_read(int fd, eventfd_t *value)
{
    *value = descriptor_of(fd)->wakes;
    descriptor_of(fd)->wakes = 0;
    return 0;
}

int __wrap_eventfd_write(int fd, eventfd_t value)
{
    descriptor_of(fd)->wakes += value;
    return 0;
}

int __wrap_epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event)
{
    struct descriptor *descriptor = descriptor_of(fd);
    assert(descriptor_of(epoll_fd)->kind == EPOLL);
    if (descriptor->is_watched != (operation != EPOLL_CTL_ADD))
        sim_fail("epoll_ctl %d of descriptor %d out of turn", operation, fd);
    if (operation != EPOLL_CTL_DEL && descriptor->kind == SOCKET &&
        fault_happens(FAULT_DESCRIPTORS)) {
        errno = ENOMEM;
        return -1;
    }
    descriptor->is_watched = operation != EPOLL_CTL_DEL;
    descriptor->events = event ? event->events : 0;
    descriptor->data = event ? event->data.ptr : NULL;
    return 0;
}

static uint32_t ready_events_of_link(const struct link *link)
{
    uint32_t ready = 0;
    if (link->inbox_end > link->inbox_start || link->has_ended || link->is_nudged)
        ready |= EPOLLIN;
    if (link->state == LINK_OPEN && link->unacknowledged < link->window)
        ready |= EPOLLOUT;
    if (link->state == LINK_BROKEN)
        ready |= EPOLLIN | EPOLLOUT | EPOLLHUP | (link->error ? EPOLLERR : 0);
    if (link->has_ended && link->has_shut_down)
        ready |= EPOLLHUP;
    return ready;
}

static uint32_t ready_events(const struct descriptor *descriptor)
{
    switch (descriptor->kind) {
    case WAKE:
        return descriptor->wakes > 0 ? EPOLLIN : 0;
    case BELL:
        return descriptor->is_ringing() ? EPOLLIN : 0;
    case SOCKET:
        return ready_events_of_link(descriptor->link);
    case FREE:
    case EPOLL:
    case ROUTE:
        break;
    }
    return 0;
}

/* From a random place on: no order among descriptors is promised. */
static int collect_ready(struct epoll_event *events, int size)
{
    int count = 0;
    const size_t first = random_below(DESCRIPTORS_MAX);
    for (size_t i = 0; i < DESCRIPTORS_MAX && count < size; i++) {
        const struct descriptor *descriptor = &descriptors[(first + i) % DESCRIPTORS_MAX];
        if (!descriptor->is_watched)
            continue;
        const uint32_t asked = descriptor->events | EPOLLERR | EPOLLHUP;
        const uint32_t ready = ready_events(descriptor) & asked;
        if (ready)
            events[count++] = (struct epoll_event){.events = ready, .data.ptr = descriptor->data};
    }
    return count;
}

/* What a turn itself costs, and now and then a sleep of the whole machine. */
static void let_time_pass(void)
{
    timeline.now += random_below(MILLISECONDS(1) / 50);
    if (random_below(100) < 2 && fault_happens(FAULT_CLOCK_JUMP)) {
        timeline.now += random_below(MILLISECONDS(20000));
        timeline.last_jump = timeline.now;
        sim_tell("the machine has slept");
    }
}

int __wrap_epoll_wait(int epoll_fd, struct epoll_event *events, int size, int timeout_ms)
{
    assert(descriptor_of(epoll_fd)->kind == EPOLL && timeout_ms >= 0);
    world_check_turn();
    if (++timeline.turns > TURNS_MAX)
        sim_fail("%d turns: the loop spins", TURNS_MAX);
    const uint64_t until = timeline.now + MILLISECONDS(timeout_ms);
    int count;
    for (;;) {
        run_due_events();
        count = collect_ready(events, size);
        if (count > 0 || timeline.now >= until)
            break;
        timeline.now =
            timeline.count > 0 && timeline.heap[0]->at_ns < until ? timeline.heap[0]->at_ns : until;
    }
    let_time_pass();
    if (fault_happens(FAULT_SIGNAL)) {
        errno = EINTR;
        return -1;
    }
    return count;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *time)
{
    (void)clock;
    *time = (struct timespec){.tv_sec = (time_t)(timeline.now / NANOSECONDS_PER_SECOND),
                              .tv_nsec = (long)(timeline.now % NANOSECONDS_PER_SECOND)};
    return 0;
}

ssize_t __wrap_getrandom(void *buffer, size_t size, unsigned flags)
{
    (void)flags;
    uint8_t *bytes = buffer;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)random_below(256);
    return (ssize_t)size;
}
