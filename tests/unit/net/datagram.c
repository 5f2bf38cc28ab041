// SPDX-License-Identifier: Apache-2.0
/* One datagram to one server, and what comes back. */
#include "net/datagram.h"

#include "loop_fixture.h"

struct asker {
    struct datagram datagram;
    unsigned heard;
    unsigned failed;
    enum failure failure;
    char text[64];
    bool closes;
};

static void on_message(struct datagram *datagram, const uint8_t *bytes, size_t length)
{
    struct asker *asker = CONTAINER_OF(datagram, struct asker, datagram);
    asker->heard++;
    assert_true(length < sizeof(asker->text));
    memcpy(asker->text, bytes, length);
    asker->text[length] = '\0';
    if (asker->closes)
        datagram_close(datagram);
}

static void on_failed(struct datagram *datagram, enum failure failure)
{
    struct asker *asker = CONTAINER_OF(datagram, struct asker, datagram);
    assert_null(datagram->loop);
    asker->failed++;
    asker->failure = failure;
}

static struct asker new_asker(void)
{
    return (struct asker){.datagram = {.on_message = on_message, .on_failed = on_failed}};
}

static int server_on_loopback(struct address *address)
{
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    *address = any_port("127.0.0.1");
    assert_int_equal(bind(fd, &address->any, address_length(address)), 0);
    *address = bound_address(fd);
    return fd;
}

/* Receives "ask" and gives the address it came from. */
static struct address receive(int server)
{
    char text[8];
    struct address client = {0};
    socklen_t length = sizeof client;
    wait_for(server, POLLIN);
    assert_int_equal(recvfrom(server, text, sizeof text, 0, &client.any, &length), 3);
    assert_memory_equal(text, "ask", 3);
    return client;
}

static void reply(int server, const struct address *client, const char *text)
{
    assert_int_equal(sendto(server, text, strlen(text), 0, &client->any, address_length(client)),
                     strlen(text));
}

static enum status ask(struct asker *asker, const struct address *server)
{
    return datagram_send(&asker->datagram, &loop, server, (const uint8_t *)"ask", 3,
                         &asker->failure);
}

static void an_answer_comes_and_more_until_it_is_closed(void **state)
{
    (void)state;
    struct address address;
    struct asker asker = new_asker();
    const int server = server_on_loopback(&address);
    assert_int_equal(ask(&asker, &address), STATUS_OK);
    const struct address client = receive(server);
    reply(server, &client, "one");
    reply(server, &client, "");
    reply(server, &client, "two");
    while (asker.heard < 3)
        assert_true(loop_turn(&loop, NANOSECONDS_PER_SECOND));
    assert_string_equal(asker.text, "two");
    asker.closes = true;
    reply(server, &client, "three");
    reply(server, &client, "four");
    while (asker.heard < 4)
        assert_true(loop_turn(&loop, NANOSECONDS_PER_SECOND));
    assert_true(loop_turn(&loop, 0));
    assert_int_equal(asker.heard, 4);
    datagram_close(&asker.datagram); /* harmless */
    close(server);
}

static void RFC_5452_ports_differ_and_strangers_are_not_heard(void **state)
{
    (void)state;
    struct address address;
    struct address stranger_address;
    struct asker askers[8];
    uint16_t ports[8];
    const int server = server_on_loopback(&address);
    const int stranger = server_on_loopback(&stranger_address);
    for (size_t i = 0; i < 8; i++) {
        askers[i] = new_asker();
        assert_int_equal(ask(&askers[i], &address), STATUS_OK);
        const struct address client = receive(server);
        ports[i] = address_port(&client);
        for (size_t j = 0; j < i; j++)
            assert_int_not_equal(ports[i], ports[j]);
        reply(stranger, &client, "lie");
        reply(server, &client, "yes");
    }
    for (size_t i = 0; i < 8; i++) {
        while (askers[i].heard == 0)
            assert_true(loop_turn(&loop, NANOSECONDS_PER_SECOND));
        assert_string_equal(askers[i].text, "yes");
        assert_int_equal(askers[i].heard, 1);
        datagram_close(&askers[i].datagram);
    }
    close(server);
    close(stranger);
}

static void what_is_sent_again_comes_from_the_same_port(void **state)
{
    (void)state;
    struct address address;
    struct asker asker = new_asker();
    const int server = server_on_loopback(&address);
    assert_int_equal(ask(&asker, &address), STATUS_OK);
    const struct address first = receive(server);
    datagram_repeat(&asker.datagram, (const uint8_t *)"ask", 3);
    const struct address second = receive(server);
    assert_true(address_equal(&first, &second));
    datagram_close(&asker.datagram);
    close(server);
}

static void a_port_without_a_server_is_told(void **state)
{
    (void)state;
    struct address address;
    struct asker asker = new_asker();
    close(server_on_loopback(&address));
    assert_int_equal(ask(&asker, &address), STATUS_OK);
    while (asker.failed == 0)
        assert_true(loop_turn(&loop, NANOSECONDS_PER_SECOND));
    assert_int_equal(asker.failure, FAILURE_REFUSED_CONNECTION);
}

static void what_cannot_be_sent_fails_at_once(void **state)
{
    (void)state;
    struct asker asker = new_asker();
    struct address broadcast = any_port("255.255.255.255");
    broadcast.v4.sin_port = htons(53);
    assert_int_equal(ask(&asker, &broadcast), STATUS_SYSTEM);
    assert_int_equal(asker.failure, FAILURE_UNREACHABLE);
    struct address address;
    const int server = server_on_loopback(&address);
    const int epoll_fd = loop.epoll_fd;
    loop.epoll_fd = -1;
    assert_int_equal(ask(&asker, &address), STATUS_SYSTEM);
    loop.epoll_fd = epoll_fd;
    assert_null(asker.datagram.loop);
    close(server);
}

static void a_flood_leaves_time_for_others(void **state)
{
    (void)state;
    struct address address;
    struct asker asker = new_asker();
    const int server = server_on_loopback(&address);
    assert_int_equal(ask(&asker, &address), STATUS_OK);
    const struct address client = receive(server);
    for (unsigned i = 0; i < 40; i++)
        reply(server, &client, "flood");
    assert_true(loop_turn(&loop, NANOSECONDS_PER_SECOND));
    assert_in_range(asker.heard, 1, 16);
    while (asker.heard < 40)
        assert_true(loop_turn(&loop, NANOSECONDS_PER_SECOND));
    datagram_close(&asker.datagram);
    close(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_answer_comes_and_more_until_it_is_closed),
        TEST(RFC_5452_ports_differ_and_strangers_are_not_heard),
        TEST(what_is_sent_again_comes_from_the_same_port),
        TEST(a_port_without_a_server_is_told),
        TEST(what_cannot_be_sent_fails_at_once),
        TEST(a_flood_leaves_time_for_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
