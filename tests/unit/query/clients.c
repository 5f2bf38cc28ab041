// SPDX-License-Identifier: Apache-2.0
/* What each client may take: connections, replies a second, datagrams that wait; and who gives way.
 */
#include "test.h"

#include <string.h>

#include "base/deadline.h"
#include "query/clients.h"

static const uint64_t start_ns = 5 * NANOSECONDS_PER_SECOND;

struct bench {
    struct config config;
    struct clients *clients;
};

static struct bench bench;

static int setup(void **state)
{
    (void)state;
    bench = (struct bench){0};
    bench.config.limits.tcp_clients = 10;
    bench.config.snapshot.limits.tcp_clients_per_address = 10;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    clients_close(bench.clients); /* asserts that all accounts are back */
    return 0;
}

/* Once the test has written its limits; again with another key. */
static void begin(void)
{
    clients_close(bench.clients);
    assert_int_equal(clients_open(&bench.config, &bench.clients), STATUS_OK);
}

static struct address address(const char *text)
{
    struct address parsed;
    assert_int_equal(address_parse(text, 5000, &parsed), STATUS_OK);
    return parsed;
}

/* --- Connections --- */

enum { SEATS_MAX = 64 };

static struct seat seats[SEATS_MAX]; /* without an account: free */
static struct seat *gave_way;        /* to the last that connected */

/* NULL: it is refused. */
static struct seat *connect_at(const char *text, uint64_t now)
{
    const struct address client = address(text);
    struct seat *seat = seats;
    while (seat->account)
        seat++;
    assert_true(seat < seats + SEATS_MAX);
    return clients_connect(bench.clients, seat, &client, now, &gave_way) ? seat : NULL;
}

static struct seat *connect_from(const char *text)
{
    return connect_at(text, start_ns);
}

static void B9_address_has_its_limit_and_others_theirs(void **state)
{
    (void)state;
    bench.config.snapshot.limits.tcp_clients_per_address = 2;
    begin();
    struct seat *first = connect_from("192.0.2.1");
    assert_non_null(first);
    struct seat *second = connect_from("192.0.2.1:6000");
    assert_ptr_equal(second->account, first->account);
    assert_null(connect_from("192.0.2.1"));
    struct seat *other = connect_from("192.0.2.2");
    assert_non_null(other);
    clients_disconnect(bench.clients, first);
    first = connect_from("192.0.2.1");
    assert_ptr_equal(first->account, second->account);
    assert_null(connect_from("::ffff:192.0.2.1"));
    clients_disconnect(bench.clients, first);
    clients_disconnect(bench.clients, first); /* does no harm */
    clients_disconnect(bench.clients, second);
    clients_disconnect(bench.clients, other);
}

static void B9_v6_counts_by_64(void **state)
{
    (void)state;
    bench.config.snapshot.limits.tcp_clients_per_address = 1;
    begin();
    struct seat *first = connect_from("2001:db8::1");
    assert_null(connect_from("2001:db8::2:0:0:1"));
    struct seat *other = connect_from("2001:db8:0:1::1");
    assert_non_null(other);
    clients_disconnect(bench.clients, first);
    clients_disconnect(bench.clients, other);
}

static bool is_held_back(const char *text, size_t waiting_count)
{
    const struct address client = address(text);
    return clients_holds_back(bench.clients, &client, waiting_count);
}

static void K5_last_eighth_of_the_places_is_not_for_streams_that_have_one(void **state)
{
    (void)state;
    bench.config.limits.queries = 80;
    begin();
    struct seat *seat = connect_from("192.0.2.1");
    for (size_t i = 0; i < 11; i++) {
        assert_false(is_held_back("192.0.2.1", 79));
        clients_begin_stream_query(seat, start_ns);
    }
    assert_true(is_held_back("192.0.2.1", 79));
    assert_true(is_held_back("192.0.2.1", 70));
    assert_false(is_held_back("192.0.2.1", 69));
    assert_false(is_held_back("192.0.2.2", 79));
    clients_end_stream_query(seat);
    assert_false(is_held_back("192.0.2.1", 79));
    for (size_t i = 0; i < 10; i++)
        clients_end_stream_query(seat);
    clients_disconnect(bench.clients, seat);
}

/* Two networks, or two suffixes, meet by chance, but not with three keys. */
static bool has_met;

static void expect(bool is_so)
{
    has_met = has_met || !is_so;
}

enum { LIMIT = 10 };

/* Disconnects all. */
static void let_all_hang_up(void)
{
    for (size_t i = 0; i < SEATS_MAX; i++)
        clients_disconnect(bench.clients, &seats[i]);
}

/* Hangs up who gives way to that newcomer, as the listener does. */
static struct seat *who_gives_way_to(const char *text)
{
    if (!connect_from(text))
        return NULL;
    clients_disconnect(bench.clients, gave_way);
    return gave_way;
}

static void connect_many(const char *text, size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_non_null(connect_from(text));
}

static void assert_holds_of_connections(void (*scenario)(void))
{
    has_met = true;
    for (int i = 0; i < 3 && has_met; i++) {
        has_met = false;
        begin();
        scenario();
        let_all_hang_up();
    }
    assert_false(has_met);
}

static void connect_until_full(void)
{
    connect_many("198.51.100.1", 4); /* the largest client, but not of the largest network */
    assert_null(gave_way);
    connect_many("192.0.2.2", 2);
    const struct seat *first = connect_from("192.0.2.1");
    connect_many("192.0.2.1", 2);
    connect_many("192.0.2.3", 1);
    expect(who_gives_way_to("203.0.113.1") == first && !first->account);
}

static void K5_B9_full_the_largest_network_and_in_it_the_largest_client_gives_way(void **state)
{
    (void)state;
    assert_holds_of_connections(connect_until_full);
}

static void connect_as_many(void)
{
    connect_many("198.51.100.1", 5);
    connect_many("192.0.2.1", 4);
    expect(!connect_from("198.51.100.1") && !connect_from("192.0.2.1"));
    for (int i = 0; i < 3; i++)
        expect(who_gives_way_to("203.0.113.1") != NULL);
    expect(!connect_from("203.0.113.1")); /* all have three now */
}

static void K5_B9_nobody_gives_way_to_who_would_have_more(void **state)
{
    (void)state;
    bench.config.limits.tcp_clients = 9;
    assert_holds_of_connections(connect_as_many);
}

static void K5_B9_the_longest_idle_gives_way_else_who_has_not_moved_for_200_ms(void **state)
{
    (void)state;
    const uint64_t ms = NANOSECONDS_PER_MILLISECOND;
    begin();
    connect_many("192.0.2.1", LIMIT);
    for (size_t i = 0; i < LIMIT; i++)
        clients_move(&seats[i], i == 7 || i == 4, start_ns + (i == 4 ? 0 : i) * ms);
    clients_move(&seats[7], true, start_ns + 50 * ms);
    assert_ptr_equal(who_gives_way_to("198.51.100.1"), &seats[4]);
    assert_ptr_equal(who_gives_way_to("198.51.100.2"), &seats[7]);
    const struct address newcomer = address("198.51.100.3");
    struct seat seat;
    assert_false(clients_connect(bench.clients, &seat, &newcomer, start_ns + 199 * ms, &gave_way));
    assert_true(clients_connect(bench.clients, &seat, &newcomer, start_ns + 200 * ms, &gave_way));
    assert_ptr_equal(gave_way, &seats[0]);
    clients_disconnect(bench.clients, &seat);
    let_all_hang_up();
}

static void K5_B9_connection_with_a_young_question_gives_way_last(void **state)
{
    (void)state;
    const uint64_t ms = NANOSECONDS_PER_MILLISECOND;
    begin();
    connect_many("192.0.2.1", LIMIT);
    for (size_t i = 0; i < LIMIT; i++) {
        clients_move(&seats[i], false, start_ns + i * ms);
        clients_begin_stream_query(&seats[i], start_ns + (i == 5 ? 0 : 150) * ms);
    }
    const struct address newcomer = address("198.51.100.1");
    struct seat seat;
    assert_true(clients_connect(bench.clients, &seat, &newcomer, start_ns + 300 * ms, &gave_way));
    assert_ptr_equal(gave_way, &seats[5]);
    clients_disconnect(bench.clients, &seat);
    for (size_t i = 0; i < LIMIT; i++)
        clients_end_stream_query(&seats[i]);
    clients_begin_stream_query(&seats[5], start_ns + 150 * ms);
    assert_true(clients_connect(bench.clients, &seat, &newcomer, start_ns + 300 * ms, &gave_way));
    assert_ptr_equal(gave_way, &seats[0]); /* all have one now */
    clients_end_stream_query(&seats[5]);
    clients_disconnect(bench.clients, &seat);
    let_all_hang_up();
}

static void charge(struct seat *seat, size_t bytes)
{
    clients_charge(bench.clients, seat, bytes);
}

static void charge_and_ask_who_has_most(void)
{
    struct seat *small = connect_from("198.51.100.1");
    struct seat *first = connect_from("192.0.2.1");
    struct seat *second = connect_from("192.0.2.1");
    struct seat *neighbour = connect_from("192.0.2.2");
    expect(!clients_most_charged(bench.clients));
    charge(small, 100);
    charge(first, 40);
    charge(second, 30);
    charge(neighbour, 50);
    expect(clients_most_charged(bench.clients) == first);
    clients_disconnect(bench.clients, first);
    expect(clients_most_charged(bench.clients) == small);
    charge(small, 10); /* in place of those before */
    expect(clients_most_charged(bench.clients) == neighbour);
    charge(neighbour, 0);
    expect(clients_most_charged(bench.clients) == second);
    charge(second, 0);
    charge(small, 0);
    expect(!clients_most_charged(bench.clients));
}

static void K6_output_is_charged_to_the_account(void **state)
{
    (void)state;
    assert_holds_of_connections(charge_and_ask_who_has_most);
}

/* --- Rates --- */

/* One connection after the other: true when its rate lets it in. */
static bool is_let_in(uint64_t now)
{
    struct seat *seat = connect_at("192.0.2.1", now);
    if (seat)
        clients_disconnect(bench.clients, seat);
    return seat != NULL;
}

static void one_second_comes_at_once_then_evenly(void **state)
{
    (void)state;
    bench.config.snapshot.limits.tcp_accept_rate = 10;
    begin();
    for (int i = 0; i < 10; i++)
        assert_true(is_let_in(start_ns));
    assert_false(is_let_in(start_ns));
    assert_false(is_let_in(start_ns + 99 * NANOSECONDS_PER_MILLISECOND));
    assert_true(is_let_in(start_ns + 100 * NANOSECONDS_PER_MILLISECOND));
    assert_false(is_let_in(start_ns + 100 * NANOSECONDS_PER_MILLISECOND));
}

static void what_is_refused_is_not_charged(void **state)
{
    (void)state;
    bench.config.snapshot.limits.tcp_accept_rate = 1;
    begin();
    assert_true(is_let_in(start_ns));
    for (int i = 0; i < 1000; i++)
        assert_false(is_let_in(start_ns + 1));
    assert_true(is_let_in(start_ns + NANOSECONDS_PER_SECOND));
}

static void silence_saves_up_one_second_only(void **state)
{
    (void)state;
    const uint64_t later = start_ns + 1000 * NANOSECONDS_PER_SECOND;
    bench.config.snapshot.limits.tcp_accept_rate = 2;
    begin();
    assert_true(is_let_in(start_ns));
    assert_true(is_let_in(later));
    assert_true(is_let_in(later));
    assert_false(is_let_in(later));
}

static void highest_rate_is_never_reached(void **state)
{
    (void)state;
    bench.config.snapshot.limits.tcp_accept_rate = UINT32_MAX;
    begin();
    for (int i = 0; i < 100000; i++)
        assert_true(is_let_in(start_ns));
}

/* True when the network of `b` has used up the rate of `a`. Two meet by chance, but not with ten
 * keys. */
static bool always_shares_rate(const char *a, const char *b)
{
    const struct address first = address(a), second = address(b);
    bool shares = true;
    for (int i = 0; i < 10 && shares; i++) {
        begin();
        assert_true(clients_may_reply(bench.clients, &first, start_ns));
        assert_false(clients_may_reply(bench.clients, &first, start_ns));
        shares = !clients_may_reply(bench.clients, &second, start_ns);
    }
    return shares;
}

static void A17_one_rate_for_each_v4_24_and_v6_56(void **state)
{
    (void)state;
    bench.config.limits.udp_rate = 1;
    assert_true(always_shares_rate("192.0.2.1", "192.0.2.255"));
    assert_false(always_shares_rate("192.0.2.1", "192.0.3.1"));
    assert_true(always_shares_rate("2001:db8:0:100::1", "2001:db8:0:1ff:1::1"));
    assert_false(always_shares_rate("2001:db8:0:100::1", "2001:db8:0:200::1"));
}

/* --- Datagrams that wait --- */

static bool enter(struct place *place, const char *text, size_t waiting_count)
{
    const struct address client = address(text);
    return clients_enter(bench.clients, place, &client, true, waiting_count);
}

static bool has_room_for(const struct address *client)
{
    struct place place;
    if (!clients_enter(bench.clients, &place, client, true, SIZE_MAX))
        return false;
    clients_leave(bench.clients, &place);
    return true;
}

/* Three of `text` may wait, of which one was not counted. */
static void fill(struct place places[static 2], const char *text)
{
    bench.config.snapshot.limits.udp_queries_per_address = 3;
    begin();
    for (size_t i = 0; i < 2; i++)
        assert_true(enter(&places[i], text, i + 1));
}

static void I5_room_is_what_has_not_left(void **state)
{
    (void)state;
    struct place places[2], more;
    fill(places, "192.0.2.1");
    assert_false(enter(&more, "192.0.2.1", 3));
    clients_leave(bench.clients, &places[0]);
    assert_true(enter(&more, "192.0.2.1", 3));
    assert_false(enter(&places[0], "192.0.2.1", 3));
}

/* Who has more than it may keeps that, and gets no more. */
static void J1_reload_changes_the_limits(void **state)
{
    (void)state;
    struct place places[2], more;
    static struct snapshot next;
    fill(places, "192.0.2.1");
    next = bench.config.snapshot;
    next.limits.udp_queries_per_address = 6;
    clients_reload(bench.clients, &next);
    assert_true(enter(&more, "192.0.2.1", 3));
    next.limits.udp_queries_per_address = 1;
    clients_reload(bench.clients, &next);
    clients_leave(bench.clients, &places[0]);
    assert_false(enter(&places[0], "192.0.2.1", 2));
    next.limits.udp_queries_per_address = 0;
    clients_reload(bench.clients, &next);
    assert_true(enter(&places[0], "192.0.2.1", 2));
    clients_leave(bench.clients, &places[0]);
    clients_leave(bench.clients, &places[1]);
    clients_leave(bench.clients, &more);
}

static void I5_an_address_is_an_ipv4_address_or_an_ipv6_64(void **state)
{
    (void)state;
    struct place places[2], more;
    fill(places, "192.0.2.1");
    assert_false(enter(&more, "192.0.2.1:6000", 3));
    assert_false(enter(&more, "::ffff:192.0.2.1", 3));
    fill(places, "2001:db8:1:2::1");
    assert_false(enter(&more, "2001:db8:1:2:ffff:ffff:ffff:ffff", 3));
}

/* Any two may meet by chance, but not often. */
static void I5_others_have_room(void **state)
{
    (void)state;
    enum { OTHERS = 1 << 16, MANY = OTHERS * 4 / PLACE_BUCKETS };
    struct place places[2];
    fill(places, "192.0.2.1");
    struct address other = address("10.0.0.0");
    int met = 0;
    for (uint32_t i = 0; i < OTHERS; i++) {
        other.v4.sin_addr.s_addr = htonl(0x0a000000 + i);
        met += !has_room_for(&other);
    }
    assert_in_range(met, 0, MANY);
    fill(places, "2001:db8::1");
    other = address("2001:db8:0:1::1");
    met = 0;
    for (uint32_t i = 1; i < OTHERS; i++) {
        other.v6.sin6_addr.s6_addr[6] = (uint8_t)(i >> 8);
        other.v6.sin6_addr.s6_addr[7] = (uint8_t)i;
        met += !has_room_for(&other);
    }
    assert_in_range(met, 0, MANY);
}

static void I5_the_host_itself_has_no_limit(void **state)
{
    (void)state;
    static const char *const own[] = {"127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1"};
    static const char *const others[] = {"128.0.0.1", "126.0.0.1", "::2", "0:0:0:1::1"};
    bench.config.snapshot.limits.udp_queries_per_address = 1;
    for (size_t i = 0; i < 4; i++) {
        struct place first, second;
        begin();
        assert_true(enter(&first, own[i], 1) && enter(&second, own[i], 2));
        assert_true(enter(&first, others[i], 3));
        assert_false(enter(&second, others[i], 4));
    }
}

/* Over TCP nobody can ask in the name of another. */
static void I5_streams_have_no_limit(void **state)
{
    (void)state;
    const struct address client = address("192.0.2.1");
    struct place place;
    bench.config.snapshot.limits.udp_queries_per_address = 1;
    begin();
    for (size_t i = 0; i < 10; i++)
        assert_true(clients_enter(bench.clients, &place, &client, false, i));
}

static void I5_half_may_wait_uncounted_and_zero_is_no_limit(void **state)
{
    (void)state;
    static const uint32_t limits[] = {1, 2, 3, 4096};
    for (size_t i = 0; i < 4; i++) {
        struct place place;
        uint32_t waiting = 0;
        bench.config.snapshot.limits.udp_queries_per_address = limits[i];
        begin();
        while (enter(&place, "192.0.2.1", waiting)) {
            assert_int_equal(place.counted == PLACE_UNCOUNTED, waiting < limits[i] / 2);
            waiting++;
        }
        assert_int_equal(waiting, limits[i]);
    }
    bench.config.snapshot.limits.udp_queries_per_address = 0;
    begin();
    for (size_t i = 0; i < 10; i++) {
        struct place place;
        assert_true(enter(&place, "192.0.2.1", SIZE_MAX - 1));
    }
}

/* --- Those that have waited for long --- */

enum { HELD_MAX = 128 };

static struct place held[HELD_MAX];
static size_t held_count;

/* One more of that client for NAME under test; gives its index. */
static size_t hold(const char *text, const char *name)
{
    const struct address client = address(text);
    struct question question = {.name_length = (uint8_t)(strlen(name) + 6)};
    assert_true(held_count < HELD_MAX);
    memcpy(question.name, name, strlen(name));
    memcpy(question.name + strlen(name), "\x04test", 6);
    assert_true(clients_enter(bench.clients, &held[held_count], &client, true, 0));
    clients_hold(bench.clients, &held[held_count], &client, &question);
    return held_count++;
}

static void begin_holding(void)
{
    bench.config.limits.queries = HELD_MAX;
    held_count = 0;
    begin();
}

static const struct place *choose_for(const char *text, bool is_datagram)
{
    const struct address newcomer = address(text);
    return clients_choose(bench.clients, &newcomer, is_datagram);
}

/* The index of the one that gives way; it is gone. */
static size_t give_way(void)
{
    const struct place *place = choose_for("203.0.113.1", true);
    assert_non_null(place);
    const size_t index = (size_t)(place - held);
    clients_leave(bench.clients, &held[index]);
    return index;
}

static void let_all_go(void)
{
    while (clients_has_held(bench.clients))
        give_way();
}

static void assert_holds(void (*scenario)(void))
{
    has_met = true;
    for (int i = 0; i < 3 && has_met; i++) {
        has_met = false;
        begin_holding();
        scenario();
        let_all_go();
    }
    assert_false(has_met);
}

static void hold_for_networks(void)
{
    hold("192.0.2.1", "\1a");
    hold("192.0.2.1", "\1b");
    const size_t first = hold("198.51.100.1", "\1a");
    hold("198.51.100.2", "\1a");
    hold("198.51.100.3", "\1a");
    expect(give_way() == first); /* three of them, though each has less */
    let_all_go();
    hold("2001:db8:0:100::1", "\1a");
    const size_t v6 = hold("2001:db8:0:200::1", "\1a");
    hold("2001:db8:0:2ff::1", "\1a");
    expect(give_way() == v6);
}

static void K5_of_the_largest_network_one_gives_way(void **state)
{
    (void)state;
    assert_holds(hold_for_networks);
}

static void K5_of_the_network_the_largest_client_gives_way(void **state)
{
    (void)state;
    begin_holding();
    hold("192.0.2.1", "\1a");
    const size_t first = hold("192.0.2.2", "\1a");
    hold("192.0.2.2:7000", "\1a");
    hold("192.0.2.3", "\1a");
    assert_int_equal(give_way(), first);
    assert_int_equal(give_way(), 0); /* then all are equal */
    let_all_go();
}

static void hold_for_suffixes(void)
{
    hold("192.0.2.1", "\1a\4slow");
    hold("192.0.2.1", "\1b\4good");
    const size_t first = hold("192.0.2.1", "\1a\4dead");
    const size_t second = hold("192.0.2.1", "\1b\4dead");
    hold("192.0.2.1", "\1c\4dead");
    expect(give_way() == first);
    expect(give_way() == second);
    expect(give_way() == 0);
}

static void K5_of_the_client_the_oldest_of_the_largest_suffix_gives_way(void **state)
{
    (void)state;
    assert_holds(hold_for_suffixes);
}

/* What others ask for makes no suffix of a client the larger one. */
static void hold_for_suffixes_of_two(void)
{
    for (size_t i = 0; i < 3; i++)
        hold("192.0.2.1", "\1a\4name");
    hold("192.0.2.2", "\1a\4name");
    const size_t first = hold("192.0.2.2", "\1b\5thing");
    hold("192.0.2.2", "\1c\5thing");
    hold("192.0.2.2", "\1d\5other");
    expect(give_way() == first);
}

static void K5_suffixes_are_counted_for_each_client(void **state)
{
    (void)state;
    assert_holds(hold_for_suffixes_of_two);
}

static void hold_for_streams(void)
{
    expect(!choose_for("192.0.2.1", true)); /* there is none */
    hold("192.0.2.1", "\1a");
    hold("192.0.2.1", "\1b");
    hold("198.51.100.1", "\1a");
    expect(!choose_for("192.0.2.1", false));
    expect(choose_for("192.0.2.1", true) == &held[0]); /* it would be lost else */
    expect(choose_for("198.51.100.1", false) == &held[0]);
    hold("198.51.100.1", "\1b");
    expect(!choose_for("198.51.100.1", false));
    expect(choose_for("198.51.100.2", false) != NULL);
}

static void K5_stream_gets_no_place_of_a_client_that_holds_no_more_than_its_own(void **state)
{
    (void)state;
    assert_holds(hold_for_streams);
}

static void K5_who_has_left_is_not_chosen(void **state)
{
    (void)state;
    begin_holding();
    assert_false(clients_has_held(bench.clients));
    const size_t first = hold("192.0.2.1", "\1a");
    const size_t second = hold("192.0.2.1", "\1a");
    hold("198.51.100.1", "\1a");
    clients_leave(bench.clients, &held[first]);
    clients_leave(bench.clients, &held[second]);
    assert_int_equal(give_way(), 2);
    assert_false(clients_has_held(bench.clients));
}

/* Both are of one account, which lives as long as either. */
static void K5_B9_account_is_one_for_connections_and_queries(void **state)
{
    (void)state;
    begin_holding();
    struct seat *seat = connect_from("192.0.2.1");
    const struct account *account = seat->account;
    hold("192.0.2.1", "\1a");
    clients_disconnect(bench.clients, seat);
    assert_ptr_equal(connect_from("192.0.2.1:6000")->account, account);
    let_all_go();
    assert_ptr_equal(connect_from("192.0.2.1")->account, account);
    let_all_hang_up();
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(J1_reload_changes_the_limits),
        TEST(B9_address_has_its_limit_and_others_theirs),
        TEST(B9_v6_counts_by_64),
        TEST(K5_B9_full_the_largest_network_and_in_it_the_largest_client_gives_way),
        TEST(K5_B9_nobody_gives_way_to_who_would_have_more),
        TEST(K5_B9_the_longest_idle_gives_way_else_who_has_not_moved_for_200_ms),
        TEST(K5_B9_connection_with_a_young_question_gives_way_last),
        TEST(K6_output_is_charged_to_the_account),
        TEST(K5_last_eighth_of_the_places_is_not_for_streams_that_have_one),
        TEST(one_second_comes_at_once_then_evenly),
        TEST(what_is_refused_is_not_charged),
        TEST(silence_saves_up_one_second_only),
        TEST(highest_rate_is_never_reached),
        TEST(A17_one_rate_for_each_v4_24_and_v6_56),
        TEST(I5_room_is_what_has_not_left),
        TEST(I5_an_address_is_an_ipv4_address_or_an_ipv6_64),
        TEST(I5_others_have_room),
        TEST(I5_the_host_itself_has_no_limit),
        TEST(I5_streams_have_no_limit),
        TEST(I5_half_may_wait_uncounted_and_zero_is_no_limit),
        TEST(K5_of_the_largest_network_one_gives_way),
        TEST(K5_of_the_network_the_largest_client_gives_way),
        TEST(K5_of_the_client_the_oldest_of_the_largest_suffix_gives_way),
        TEST(K5_suffixes_are_counted_for_each_client),
        TEST(K5_stream_gets_no_place_of_a_client_that_holds_no_more_than_its_own),
        TEST(K5_who_has_left_is_not_chosen),
        TEST(K5_B9_account_is_one_for_connections_and_queries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
