// SPDX-License-Identifier: Apache-2.0
/* Changes of the network: which messages tell of one, and that the kernel's reach us. */
#include "test.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <net/if.h>

#include "net/link.h"

static size_t put(uint8_t *at, uint16_t type, uint32_t length)
{
    const struct nlmsghdr header = {.nlmsg_len = length, .nlmsg_type = type};
    memcpy(at, &header, sizeof header);
    return NLMSG_ALIGN(length);
}

static void links_addresses_and_routes_are_changes(void **state)
{
    static const uint16_t changes[] = {RTM_NEWLINK, RTM_DELLINK,  RTM_NEWADDR,
                                       RTM_DELADDR, RTM_NEWROUTE, RTM_DELROUTE};
    uint8_t bytes[64] = {0};
    (void)state;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++)
        assert_true(link_tells_change(bytes, put(bytes, changes[i], 32)));
    assert_false(link_tells_change(bytes, put(bytes, RTM_NEWNEIGH, 32)));
    assert_false(link_tells_change(bytes, put(bytes, NLMSG_DONE, 16)));
}

static void a_change_behind_other_messages_is_found(void **state)
{
    uint8_t bytes[96] = {0};
    (void)state;
    size_t length = put(bytes, RTM_NEWNEIGH, 29); /* padded to 32 */
    length += put(bytes + length, RTM_DELADDR, 24);
    assert_true(link_tells_change(bytes, length));
}

static void lengths_that_lie_end_the_walk(void **state)
{
    uint8_t bytes[64] = {0};
    static const uint32_t lies[] = {0, 1, 15, 64, 65, 4096, UINT32_MAX};
    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        (void)put(bytes, RTM_NEWNEIGH, lies[i]);
        assert_false(link_tells_change(bytes, 40));
    }
    for (size_t length = 0; length < sizeof(struct nlmsghdr); length++) {
        (void)put(bytes, RTM_NEWLINK, 32);
        assert_false(link_tells_change(bytes, length));
    }
}

static int changes;

static void count(struct link *link)
{
    (void)link;
    changes++;
}

/* In a network of its own, where there is nothing but a loopback link that is down. */
static int watch_a_link_come_up(void)
{
    struct loop loop;
    struct link link;
    struct ifreq request = {.ifr_name = "lo"};
    if (loop_open(&loop) != STATUS_OK || link_open(&link, &loop, count) != STATUS_OK)
        return 2;
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (ioctl(fd, SIOCGIFFLAGS, &request) == -1)
        return 2;
    request.ifr_flags |= IFF_UP;
    if (ioctl(fd, SIOCSIFFLAGS, &request) == -1)
        return 2;
    close(fd);
    for (int turn = 0; turn < 20 && changes == 0; turn++)
        if (!loop_turn(&loop, 100 * NANOSECONDS_PER_MILLISECOND) || link_has_slept(&link))
            return 2;
    link_close(&link);
    loop_close(&loop);
    return changes == 1 ? 0 : 1; /* an address and routes came with it: one change */
}

static void J8_kernel_tells_of_a_link_that_comes_up(void **state)
{
    (void)state;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 || unshare(CLONE_NEWNET) == 0
                  ? watch_a_link_come_up()
                  : 77);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip(); /* no namespaces here */
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void J8_sleep_is_told_once_and_a_long_turn_is_none(void **state)
{
    (void)state;
    struct loop loop;
    struct link link;
    assert_true(loop_open(&loop) == STATUS_OK);
    (void)link_open(&link, &loop, count);
    assert_false(link_has_slept(&link));
    loop.now += 60 * NANOSECONDS_PER_SECOND; /* a debugger; both clocks counted on */
    assert_false(link_has_slept(&link));
    loop.now += 60 * NANOSECONDS_PER_SECOND;
    link.slept_ns -= 30 * NANOSECONDS_PER_SECOND; /* as if that had been all before this turn */
    assert_true(link_has_slept(&link));
    assert_false(link_has_slept(&link));
    link_close(&link);
    loop_close(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(links_addresses_and_routes_are_changes),
        cmocka_unit_test(a_change_behind_other_messages_is_found),
        cmocka_unit_test(lengths_that_lie_end_the_walk),
        cmocka_unit_test(J8_kernel_tells_of_a_link_that_comes_up),
        cmocka_unit_test(J8_sleep_is_told_once_and_a_long_turn_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
