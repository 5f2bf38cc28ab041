// SPDX-License-Identifier: Apache-2.0
/* A long link: what is sent into it comes out at the other end so much later, whatever it is: each
 * octet, and each handshake, close and reset of TCP, too.
 *
 * `delay MS NAME PID` makes two network interfaces, NAME in the network namespace that it is
 * started in and "far" in that of the process PID, prints `ready`, and carries packets between them
 * until SIGTERM, MS one way. The kernel can do the same (netem), but not every kernel does. */
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common.h"

enum {
    PACKET_SIZE = 2048,    /* more than the 1,500 that an interface sends at once */
    PACKET_LIMIT = 1 << 13 /* on their way; more are lost, as on any link */
};

struct packet {
    uint64_t due_ns;
    size_t length;
    uint8_t bytes[PACKET_SIZE];
};

/* One direction. */
struct way {
    int from;
    int to;
    size_t first; /* in the ring */
    size_t count;
    struct packet packets[PACKET_LIMIT];
};

static int open_interface(const char *name)
{
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) != 0)
        fatal("/dev/net/tun");
    return fd;
}

static void enter_network_of(const char *pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/ns/net", pid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) != 0)
        fatal(path);
    close(fd);
}

static void take_packets(struct way *way, uint64_t due_ns)
{
    static uint8_t lost[PACKET_SIZE];
    for (;;) {
        struct packet *packet = &way->packets[(way->first + way->count) % PACKET_LIMIT];
        const bool has_room = way->count < PACKET_LIMIT;
        const ssize_t length = read(way->from, has_room ? packet->bytes : lost, PACKET_SIZE);
        if (length <= 0)
            return;
        if (has_room) {
            packet->due_ns = due_ns;
            packet->length = (size_t)length;
            way->count++;
        }
    }
}

/* A packet that the interface does not take is lost: it may be down. Returns when the next is due.
 */
static uint64_t deliver(struct way *way, uint64_t now_ns)
{
    for (; way->count > 0; way->count--) {
        const struct packet *packet = &way->packets[way->first];
        if (packet->due_ns > now_ns)
            return packet->due_ns;
        (void)!write(way->to, packet->bytes, packet->length);
        way->first = (way->first + 1) % PACKET_LIMIT;
    }
    return UINT64_MAX;
}

static void turn(struct way *there, struct way *back, uint64_t delay_ns)
{
    struct pollfd ends[] = {{.fd = there->from, .events = POLLIN},
                            {.fd = back->from, .events = POLLIN}};
    const uint64_t now_ns = clock_ns();
    const uint64_t due_ns[] = {deliver(there, now_ns), deliver(back, now_ns)};
    const uint64_t next_ns = due_ns[0] < due_ns[1] ? due_ns[0] : due_ns[1];
    const uint64_t rest_ns = next_ns - now_ns;
    const struct timespec wait = {.tv_sec = (time_t)(rest_ns / 1'000'000'000),
                                  .tv_nsec = (long)(rest_ns % 1'000'000'000)};
    if (ppoll(ends, 2, next_ns == UINT64_MAX ? NULL : &wait, NULL) <= 0)
        return;
    take_packets(there, clock_ns() + delay_ns);
    take_packets(back, clock_ns() + delay_ns);
}

int main(int count, char **words)
{
    static struct way there, back;
    if (count != 4)
        fatal_usage("usage: delay MS NAME PID");
    const uint64_t delay_ns = strtoull(words[1], NULL, 10) * 1'000'000;
    there.from = back.to = open_interface(words[2]);
    enter_network_of(words[3]);
    back.from = there.to = open_interface("far");
    prctl(PR_SET_TIMERSLACK, 1); /* ns */
    puts("ready");
    fflush(stdout);
    for (;;)
        turn(&there, &back, delay_ns);
}
