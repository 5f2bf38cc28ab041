// SPDX-License-Identifier: Apache-2.0
/* The load generator: asks over UDP or pipelined TCP, checks every answer, measures latency.
 *
 * One thread on one core that must not be the bottleneck. All queries of a run have the same size,
 * so that a burst over UDP is one system call and one pass through the kernel (UDP_SEGMENT).
 *
 * Closed: every socket keeps `window` queries outstanding and refills when half of them are
 * answered, so that both sides work in batches. Open (--rate): queries leave on a schedule
 * whatever comes back, round over the sockets; with --scheduled latency counts from the time of the
 * schedule, so that what delays us is not hidden. What was asked on a TCP connection that the
 * server closes is lost, and a new one is opened.
 *
 * A greedy load is a closed one that takes all it can get until its time is over: it waits for the
 * server rather than to keep it busy, and opens a connection for each that is closed. A mute one
 * never reads what it asked for.
 *
 * Matching: the ID is an index into the socket's slots, shifted by a generation; an answer counts
 * when its slot is outstanding with that ID and its question is the one that was sent.
 * RFC: 1035 4.1 and 4.2.2. */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "histogram.h"
#include "names.h"

enum {
    BATCH = 64,
    SOCKETS_MAX = 512,
    SLOT_BITS = 10, /* the rest of the ID is the generation */
    WINDOW_MAX = 1 << SLOT_BITS,
    ANSWER_MAX = 1232,
    HEADER = 12,
    QUESTION = NAME_LENGTH + 4,
    OPT = 11,
    LENGTH_FIELD = 2,
    QUERY_MAX = LENGTH_FIELD + HEADER + QUESTION + OPT,
    STREAM_BUFFER = 1 << 17,
    MUTE_WINDOW = 4096,
    NAP_NS = 100000,             /* a tenth of what 1024 queries take the quickest server */
    NAP_OUTSTANDING = 4 * BATCH, /* fewer: a nap would leave the server idle */
    SWEEP_NS = 10000000,         /* the shortest time between two looks for unanswered queries */
    SWEEPS = 100,                /* looks within the timeout, if that is not too often */
};

static const uint64_t SECOND_NS = 1000000000;

struct slot {
    uint64_t sent_ns;
    uint64_t name;
    uint16_t generation;
    bool outstanding;
};

struct client {
    int fd;
    unsigned outstanding;
    unsigned free_count;
    uint16_t free_slots[WINDOW_MAX];
    struct slot slots[WINDOW_MAX];
    uint8_t *in; /* TCP: bytes of a message that is not whole yet */
    size_t in_length;
    uint8_t *out; /* TCP: what the socket did not take */
    size_t out_start, out_end;
};

static struct {
    struct sockaddr_in server;
    uint32_t source;      /* host order; 0: the kernel's choice */
    unsigned source_bits; /* fewer than 32: each query has a source of its own in the network */
    bool tcp, edns, scheduled, greedy, mute;
    unsigned sockets, window;
    uint64_t queries, duration_ns, timeout_ns;
    double rate; /* a second; 0: a closed load */
    const char *histogram_path;
    FILE *log;
    uint64_t log_over_ns;
} settings = {.source_bits = 32, .sockets = 16, .window = 64, .timeout_ns = 1000000000};

static struct {
    uint64_t sent, answered, lost, wrong, rcodes[16], empty;
    uint64_t begun_ns, last_answer_ns, worst_delay_ns;
    double cpu_before;
} counts;

static struct names names;
static struct histogram latencies;
static struct client *clients[SOCKETS_MAX];
static int epoll_fd;
static uint8_t query_template[QUERY_MAX];
static size_t query_size;

static void fail(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(2);
}

static uint64_t clock_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * SECOND_NS + (uint64_t)time.tv_nsec;
}

/* What became of each query, in the order of the ends: for figures that depend on when it was.
 * With --log-over-ms only of those that took longer or have no records. */
struct outcome {
    uint64_t sent_ns; /* of CLOCK_MONOTONIC */
    uint64_t took_ns;
    uint64_t rcode; /* or one of these */
};
enum { OUTCOME_EMPTY = 16, OUTCOME_LOST };

static void log_outcome(uint64_t sent_ns, uint64_t now, uint64_t rcode)
{
    const struct outcome outcome = {sent_ns, now - sent_ns, rcode};
    if (!settings.log || (rcode == 0 && outcome.took_ns < settings.log_over_ns))
        return;
    if (fwrite(&outcome, sizeof(outcome), 1, settings.log) != 1)
        fail("log");
}

/* --- Queries --- */

static void make_template(void)
{
    uint8_t *at = query_template;
    if (settings.tcp)
        at += LENGTH_FIELD;
    at[2] = 1; /* RD */
    at[5] = 1; /* QDCOUNT */
    at[11] = settings.edns;
    at += HEADER + NAME_LENGTH;
    at[1] = 1; /* A */
    at[3] = 1; /* IN */
    at += 4;
    if (settings.edns) {
        memcpy(at, (uint8_t[]){0, 0, 41, 1232 >> 8, 1232 & 255}, 5);
        at += OPT;
    }
    query_size = (size_t)(at - query_template);
    if (settings.tcp)
        query_template[1] = (uint8_t)(query_size - LENGTH_FIELD);
}

/* The next query of `client` into `out`; there must be a free slot. */
static void write_query(struct client *client, uint64_t now, uint8_t *out)
{
    assert(client->free_count > 0);
    const uint16_t index = client->free_slots[--client->free_count];
    struct slot *slot = &client->slots[index];
    slot->name = names_next(&names);
    slot->sent_ns = now;
    slot->outstanding = true;
    client->outstanding++;
    counts.sent++;
    memcpy(out, query_template, query_size);
    uint8_t *message = settings.tcp ? out + LENGTH_FIELD : out;
    const uint16_t id = (uint16_t)(slot->generation << SLOT_BITS | index);
    message[0] = (uint8_t)(id >> 8);
    message[1] = (uint8_t)id;
    names_write(&names, slot->name, message + HEADER);
}

static void free_slot(struct client *client, uint16_t index)
{
    client->slots[index].outstanding = false;
    client->slots[index].generation++;
    client->outstanding--;
    client->free_slots[client->free_count++] = index;
}

static void lose(struct client *client, uint16_t index, uint64_t now)
{
    counts.lost++;
    log_outcome(client->slots[index].sent_ns, now, OUTCOME_LOST);
    free_slot(client, index);
}

static bool is_done_sending(uint64_t now)
{
    if (settings.queries > 0)
        return counts.sent >= settings.queries;
    return now - counts.begun_ns >= settings.duration_ns;
}

static unsigned queries_left(void)
{
    if (settings.queries == 0)
        return WINDOW_MAX;
    const uint64_t left = settings.queries - counts.sent;
    return left < WINDOW_MAX ? (unsigned)left : WINDOW_MAX;
}

/* --- Connecting --- */

static bool is_forging(void)
{
    return settings.source_bits < 32;
}

/* Far from the one before, so that they are of different networks, too. */
static uint32_t next_source(void)
{
    static uint32_t count;
    return settings.source | (++count * UINT32_C(2654435769)) >> settings.source_bits;
}

static void set_options(int fd)
{
    const int size = settings.mute ? MUTE_WINDOW : 4 << 20, on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)); /* root only */
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    if (settings.tcp)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* Who forges sources hears what comes back to any of them. */
static int connect_from(uint32_t source)
{
    const struct sockaddr_in local = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(source)};
    const int fd = socket(AF_INET, settings.tcp ? SOCK_STREAM : SOCK_DGRAM, 0);
    if (fd == -1)
        fail("socket");
    set_options(fd);
    if (source && bind(fd, (const struct sockaddr *)&local, sizeof(local)) != 0)
        fail("bind");
    if (!is_forging() &&
        connect(fd, (struct sockaddr *)&settings.server, sizeof(settings.server)) != 0)
        fail("connect");
    return fd;
}

static void connect_client(struct client *client)
{
    client->fd = connect_from(is_forging() ? 0 : settings.source);
    (void)fcntl(client->fd, F_SETFL, O_NONBLOCK);
    client->in_length = client->out_start = client->out_end = 0;
    const uint32_t events = settings.mute ? EPOLLRDHUP : EPOLLIN;
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, client->fd, &event) != 0)
        fail("epoll_ctl");
}

/* The server closed the connection. */
static void connect_again(struct client *client)
{
    if (settings.rate == 0 && !settings.greedy) {
        fprintf(stderr, "load: the server closed a connection\n");
        exit(3);
    }
    close(client->fd);
    for (uint16_t i = 0; i < settings.window && client->outstanding > 0; i++)
        if (client->slots[i].outstanding)
            lose(client, i, clock_ns());
    connect_client(client);
}

/* --- Sending --- */

union control {
    struct cmsghdr header;
    uint8_t bytes[CMSG_SPACE(sizeof(uint16_t)) + CMSG_SPACE(sizeof(struct in_pktinfo))];
};

static void add_control(struct msghdr *message, union control *control, int level, int type,
                        const void *data, size_t length)
{
    struct cmsghdr *header = (struct cmsghdr *)(control->bytes + message->msg_controllen);
    *header =
        (struct cmsghdr){.cmsg_level = level, .cmsg_type = type, .cmsg_len = CMSG_LEN(length)};
    memcpy(CMSG_DATA(header), data, length);
    message->msg_control = control;
    message->msg_controllen += CMSG_SPACE(length);
}

static void forge_source(struct msghdr *message, union control *control)
{
    const struct in_pktinfo source = {.ipi_spec_dst.s_addr = htonl(next_source())};
    message->msg_name = &settings.server;
    message->msg_namelen = sizeof(settings.server);
    add_control(message, control, IPPROTO_IP, IP_PKTINFO, &source, sizeof(source));
}

static void send_burst_udp(struct client *client, unsigned count, uint64_t now)
{
    static uint8_t bytes[BATCH * QUERY_MAX];
    for (unsigned i = 0; i < count; i++)
        write_query(client, now, bytes + i * query_size);
    union control control = {0};
    struct iovec part = {.iov_base = bytes, .iov_len = count * query_size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (is_forging())
        forge_source(&message, &control);
    if (count > 1) {
        const uint16_t size = (uint16_t)query_size;
        add_control(&message, &control, SOL_UDP, UDP_SEGMENT, &size, sizeof(size));
    }
    if (sendmsg(client->fd, &message, 0) == -1 && errno != EAGAIN && errno != ECONNREFUSED)
        fail("send"); /* what the socket did not take counts as lost */
}

static void flush_tcp(struct client *client)
{
    while (client->out_start < client->out_end) {
        const ssize_t sent = send(client->fd, client->out + client->out_start,
                                  client->out_end - client->out_start, MSG_NOSIGNAL);
        if (sent == -1 && errno == EAGAIN)
            return;
        if (sent == -1) {
            connect_again(client);
            return;
        }
        client->out_start += (size_t)sent;
    }
    client->out_start = client->out_end = 0;
}

static void send_burst_tcp(struct client *client, unsigned count, uint64_t now)
{
    for (unsigned i = 0; i < count && client->out_end + query_size <= STREAM_BUFFER; i++) {
        write_query(client, now, client->out + client->out_end);
        client->out_end += query_size;
    }
    flush_tcp(client);
}

static void send_burst(struct client *client, unsigned count, uint64_t now)
{
    if (settings.tcp)
        send_burst_tcp(client, count, now);
    else
        send_burst_udp(client, count, now);
}

/* A closed load: up to the window, in bursts of half of it. */
static void refill(struct client *client, uint64_t now)
{
    if (is_done_sending(now) || client->outstanding * 2 > settings.window)
        return;
    unsigned count = settings.window - client->outstanding;
    if (count > queries_left())
        count = queries_left();
    while (count > 0) {
        const unsigned burst = count < BATCH ? count : BATCH;
        send_burst(client, burst, clock_ns()); /* `now` is older than the bursts before this one */
        count -= burst;
    }
}

/* --- Answers --- */

/* True when the question is octet for octet the one that was sent. */
static bool is_answer_to(const uint8_t *message, size_t length, uint64_t name)
{
    uint8_t expected[NAME_LENGTH];
    names_write(&names, name, expected);
    return length >= HEADER + QUESTION && message[4] == 0 && message[5] == 1 &&
           memcmp(message + HEADER, expected, NAME_LENGTH) == 0 &&
           memcmp(message + HEADER + NAME_LENGTH, "\0\1\0\1", 4) == 0;
}

static void take_answer(struct client *client, const uint8_t *message, size_t length, uint64_t now)
{
    const uint16_t id = (uint16_t)(length >= HEADER ? message[0] << 8 | message[1] : 0);
    const uint16_t index = id & (WINDOW_MAX - 1);
    struct slot *slot = &client->slots[index];
    const uint16_t expected = (uint16_t)(slot->generation << SLOT_BITS | index);
    if (length < HEADER || !(message[2] & 0x80) || !slot->outstanding || id != expected ||
        !is_answer_to(message, length, slot->name)) {
        counts.wrong++;
        return;
    }
    const unsigned rcode = message[3] & 15;
    counts.rcodes[rcode]++;
    const bool is_empty = rcode == 0 && !message[6] && !message[7];
    if (is_empty)
        counts.empty++;
    else if (rcode == 0)
        counts.answered++;
    log_outcome(slot->sent_ns, now, is_empty ? OUTCOME_EMPTY : rcode);
    counts.last_answer_ns = now;
    histogram_add(&latencies, now - slot->sent_ns);
    free_slot(client, index);
}

static void receive_udp(struct client *client)
{
    static uint8_t bytes[BATCH][ANSWER_MAX];
    static struct iovec parts[BATCH];
    static struct mmsghdr messages[BATCH];
    int received;
    do {
        for (size_t i = 0; i < BATCH; i++) {
            parts[i] = (struct iovec){.iov_base = bytes[i], .iov_len = ANSWER_MAX};
            messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
        }
        received = recvmmsg(client->fd, messages, BATCH, MSG_DONTWAIT, NULL);
        const uint64_t now = received > 0 ? clock_ns() : 0;
        for (int i = 0; i < received; i++)
            take_answer(client, bytes[i], messages[i].msg_len, now);
    } while (received == BATCH);
}

static void receive_tcp(struct client *client)
{
    for (;;) {
        const ssize_t received = recv(client->fd, client->in + client->in_length,
                                      STREAM_BUFFER - client->in_length, MSG_DONTWAIT);
        if (received == -1 && errno == EAGAIN)
            return;
        if (received <= 0) {
            connect_again(client);
            return;
        }
        client->in_length += (size_t)received;
        const uint64_t now = clock_ns();
        const uint8_t *at = client->in;
        const uint8_t *end = client->in + client->in_length;
        while (end - at >= LENGTH_FIELD && end - at - LENGTH_FIELD >= (at[0] << 8 | at[1])) {
            const size_t length = (size_t)(at[0] << 8 | at[1]);
            take_answer(client, at + LENGTH_FIELD, length, now);
            at += LENGTH_FIELD + length;
        }
        client->in_length = (size_t)(end - at);
        memmove(client->in, at, client->in_length);
    }
}

/* Gives up what is older than the timeout. */
static void sweep(uint64_t now)
{
    for (unsigned c = 0; c < settings.sockets; c++) {
        struct client *client = clients[c];
        for (uint16_t i = 0; i < settings.window && client->outstanding > 0; i++) {
            if (!client->slots[i].outstanding ||
                now - client->slots[i].sent_ns < settings.timeout_ns)
                continue;
            lose(client, i, now);
        }
    }
}

/* --- Running --- */

static unsigned outstanding(void)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < settings.sockets; i++)
        sum += clients[i]->outstanding;
    return sum;
}

/* True when there were any. */
static bool handle_events(int wait_ms)
{
    struct epoll_event events[SOCKETS_MAX];
    const int ready = epoll_wait(epoll_fd, events, SOCKETS_MAX, wait_ms);
    for (int i = 0; i < ready; i++) {
        struct client *client = events[i].data.ptr;
        if (settings.mute) {
            connect_again(client);
        } else if (settings.tcp) {
            flush_tcp(client);
            receive_tcp(client);
        } else {
            receive_udp(client);
        }
    }
    return ready > 0;
}

/* Sends all that the schedule has due, a query a socket in turn; when the next is due, in ns. */
static uint64_t send_due(uint64_t now)
{
    static unsigned turn;
    for (;;) {
        const uint64_t due =
            counts.begun_ns + (uint64_t)((double)counts.sent * 1e9 / settings.rate);
        if (due > now)
            return due - now;
        if (is_done_sending(now))
            return SWEEP_NS;
        if (now - due > counts.worst_delay_ns)
            counts.worst_delay_ns = now - due;
        struct client *client = clients[turn++ % settings.sockets];
        if (client->free_count == 0) {
            counts.sent++; /* the window is full of unanswered ones: this one is lost, too */
            counts.lost++;
            log_outcome(due, due, OUTCOME_LOST);
            continue;
        }
        send_burst(client, 1, settings.scheduled ? due : clock_ns());
    }
}

/* A nap instead of waiting for the sockets: who waits is woken at the expense of the server, the
 * more often the slower that is, and the server would be charged for our sleep. With few queries
 * outstanding the server would run dry meanwhile: then wait. */
static void wait_for_room(void)
{
    if (handle_events(0))
        return;
    if (outstanding() >= NAP_OUTSTANDING && !settings.greedy)
        (void)nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
    else
        (void)handle_events(SWEEP_NS / 1000000);
}

static void wait_for_ns(uint64_t wait_ns)
{
    const struct timespec wait = {.tv_nsec = (long)(wait_ns < SWEEP_NS ? wait_ns : SWEEP_NS)};
    struct pollfd ready = {.fd = epoll_fd, .events = POLLIN};
    (void)ppoll(&ready, 1, &wait, NULL);
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void run(void)
{
    counts.cpu_before = cpu_seconds();
    uint64_t now = counts.begun_ns = clock_ns();
    const uint64_t sweep_ns =
        settings.timeout_ns / SWEEPS > SWEEP_NS ? settings.timeout_ns / SWEEPS : SWEEP_NS;
    uint64_t next_sweep = now + sweep_ns;
    while (!is_done_sending(now) || (outstanding() > 0 && !settings.greedy)) {
        if (settings.rate > 0) {
            wait_for_ns(send_due(now));
            (void)handle_events(0);
        } else {
            for (unsigned i = 0; i < settings.sockets; i++)
                refill(clients[i], now);
            wait_for_room();
        }
        now = clock_ns();
        if (now >= next_sweep) {
            sweep(now);
            next_sweep = now + sweep_ns;
        }
    }
}

static struct client *open_client(void)
{
    struct client *client = calloc(1, sizeof(*client));
    if (settings.tcp) {
        client->in = malloc(STREAM_BUFFER);
        client->out = malloc(STREAM_BUFFER);
    }
    client->free_count = settings.window;
    for (unsigned i = 0; i < settings.window; i++)
        client->free_slots[i] = (uint16_t)(settings.window - 1 - i);
    connect_client(client);
    return client;
}

/* --- Idle TCP clients --- */

/* Each asks once and has its answer, and then does nothing until our stdin ends. */
static void hold_idle(unsigned count)
{
    const struct rlimit descriptors = {count + 64, count + 64};
    static struct client client = {.free_count = 1};
    uint8_t bytes[ANSWER_MAX];
    if (setrlimit(RLIMIT_NOFILE, &descriptors) != 0)
        fail("descriptors");
    for (unsigned i = 0; i < count; i++) {
        client.fd = connect_from((127u << 24 | 1u << 8) + 1 + i % 250);
        write_query(&client, 0, bytes);
        if (send(client.fd, bytes, query_size, 0) != (ssize_t)query_size ||
            recv(client.fd, bytes, sizeof(bytes), 0) <= LENGTH_FIELD)
            fail("idle query");
        free_slot(&client, 0);
    }
    printf("ready %u\n", count);
    fflush(stdout);
    while (read(STDIN_FILENO, bytes, sizeof(bytes)) > 0)
        ;
}

/* --- Report --- */

static void report(void)
{
    const double cpu = cpu_seconds() - counts.cpu_before;
    const uint64_t end_ns = counts.last_answer_ns ? counts.last_answer_ns : clock_ns();
    const double seconds = (double)(end_ns - counts.begun_ns) / 1e9;
    printf("{\"sent\": %lu, \"answered\": %lu, \"empty\": %lu, \"lost\": %lu, \"wrong\": %lu, "
           "\"rcodes\": [",
           counts.sent, counts.answered, counts.empty, counts.lost, counts.wrong);
    for (int i = 0; i < 16; i++)
        printf("%s%lu", i ? ", " : "", counts.rcodes[i]);
    printf("], \"seconds\": %.6f, \"qps\": %.1f, \"cpu_seconds\": %.6f, "
           "\"worst_send_delay_us\": %.1f, \"latency_us\": {",
           seconds, seconds > 0 ? (double)counts.answered / seconds : 0, cpu,
           (double)counts.worst_delay_ns / 1e3);
    histogram_print(&latencies, stdout);
    puts("}}");
    if (settings.histogram_path && !histogram_write(&latencies, settings.histogram_path))
        fail(settings.histogram_path);
    if (settings.log && fclose(settings.log) != 0)
        fail("log");
}

static void usage(void)
{
    fputs(
        "usage: load --server ADDRESS:PORT --names KIND (--queries N | --seconds S) [--tcp] "
        "[--edns]\n"
        "            [--sockets 16] [--window 64] [--rate QPS [--scheduled] | --greedy | --mute]\n"
        "            [--source ADDRESS[/BITS]] [--seed N] [--timeout-ms 1000]\n"
        "            [--histogram FILE] [--log FILE [--log-over-ms N]]\n"
        "       load --server ADDRESS:PORT --names KIND --idle N\n"
        "       load --names KIND --queries N [--seed N] --print-names\n"
        "KIND: hot:COUNT[:TAG[:DEED]]   unique:TAG[:DEED]   zipf:COUNT:EXPONENT\n",
        stderr);
    exit(1);
}

static bool parse_server(const char *text)
{
    char address[64];
    unsigned port;
    settings.server.sin_family = AF_INET;
    if (sscanf(text, "%63[0-9.]:%u", address, &port) != 2 || port > 65535)
        return false;
    settings.server.sin_port = htons((uint16_t)port);
    return inet_pton(AF_INET, address, &settings.server.sin_addr) == 1;
}

/* With the bits of a network: each query (over UDP) leaves from another address of it. */
static bool parse_source(const char *text)
{
    char address[64];
    struct in_addr source;
    const int found = sscanf(text, "%63[0-9.]/%u", address, &settings.source_bits);
    if (found < 1 || settings.source_bits < 1 || settings.source_bits > 32 ||
        inet_pton(AF_INET, address, &source) != 1)
        return false;
    settings.source = ntohl(source.s_addr);
    return true;
}

int main(int count, char **arguments)
{
    static const struct option options[] = {
        {"server", 1, 0, 's'},  {"names", 1, 0, 'n'},       {"queries", 1, 0, 'q'},
        {"seconds", 1, 0, 'd'}, {"tcp", 0, 0, 't'},         {"edns", 0, 0, 'e'},
        {"sockets", 1, 0, 'S'}, {"window", 1, 0, 'w'},      {"rate", 1, 0, 'r'},
        {"seed", 1, 0, 'x'},    {"timeout-ms", 1, 0, 'T'},  {"histogram", 1, 0, 'c'},
        {"idle", 1, 0, 'i'},    {"print-names", 0, 0, 'p'}, {"scheduled", 0, 0, 'l'},
        {"log", 1, 0, 'o'},     {"log-over-ms", 1, 0, 'O'}, {"source", 1, 0, 'f'},
        {"greedy", 0, 0, 'g'},  {"mute", 0, 0, 'm'},        {0}};
    const char *kind = NULL;
    uint64_t seed = 1;
    unsigned idle = 0;
    bool print_names = false;
    for (int letter; (letter = getopt_long(count, arguments, "", options, NULL)) != -1;) {
        switch (letter) {
        case 's':
            if (!parse_server(optarg))
                usage();
            break;
        case 'n':
            kind = optarg;
            break;
        case 'q':
            settings.queries = strtoull(optarg, NULL, 10);
            break;
        case 'd':
            settings.duration_ns = (uint64_t)(strtod(optarg, NULL) * 1e9);
            break;
        case 't':
            settings.tcp = true;
            break;
        case 'e':
            settings.edns = true;
            break;
        case 'S':
            settings.sockets = (unsigned)atoi(optarg);
            break;
        case 'w':
            settings.window = (unsigned)atoi(optarg);
            break;
        case 'r':
            settings.rate = strtod(optarg, NULL);
            break;
        case 'x':
            seed = strtoull(optarg, NULL, 10);
            break;
        case 'T':
            settings.timeout_ns = strtoull(optarg, NULL, 10) * 1000000;
            break;
        case 'c':
            settings.histogram_path = optarg;
            break;
        case 'l':
            settings.scheduled = true;
            break;
        case 'o':
            if (!(settings.log = fopen(optarg, "w")))
                fail(optarg);
            break;
        case 'O':
            settings.log_over_ns = strtoull(optarg, NULL, 10) * 1000000;
            break;
        case 'i':
            idle = (unsigned)atoi(optarg);
            break;
        case 'p':
            print_names = true;
            break;
        case 'f':
            if (!parse_source(optarg))
                usage();
            break;
        case 'm':
            settings.mute = true;
            [[fallthrough]];
        case 'g':
            settings.greedy = true;
            break;
        default:
            usage();
        }
    }
    if (optind != count || !kind || !names_open(&names, kind, seed) || settings.sockets < 1 ||
        settings.sockets > SOCKETS_MAX || settings.window < 1 || settings.window > WINDOW_MAX)
        usage();
    if (print_names) {
        for (uint64_t i = 0; i < settings.queries; i++)
            printf("%lu\n", names_next(&names));
        return 0;
    }
    if (settings.server.sin_port == 0 || (!settings.queries && !settings.duration_ns && !idle))
        usage();
    settings.tcp = settings.tcp || idle > 0;
    if (is_forging() && settings.tcp)
        usage();
    make_template();
    if (idle > 0) {
        hold_idle(idle);
        return 0;
    }
    epoll_fd = epoll_create1(0);
    for (unsigned i = 0; i < settings.sockets; i++)
        clients[i] = open_client();
    (void)prctl(PR_SET_TIMERSLACK, 1000);
    run();
    report();
    return 0;
}
