// SPDX-License-Identifier: Apache-2.0
/* Upstreams that are host names: lookups through others and through bootstrap servers, renewal,
 * moves; and the check for ourselves. Upstream 0 is "up0.example", a name; the others have
 * addresses.
 */
#include "fake_stream.h"

#include "dns/self_probe.h"

enum { PORT = 853, BOOTSTRAP_PORT = 53, FD = 77 };

static struct address address(const char *text)
{
    struct address address;
    assert_true(address_parse(text, PORT, &address) == STATUS_OK);
    return address;
}

static void assert_address(const struct address *actual, const char *expected)
{
    const struct address wanted = address(expected);
    assert_true(address_equal(actual, &wanted));
}

/* The first `count` upstreams are names, and there are `total`. */
static void name_upstreams(struct bench *bench, size_t count, size_t total)
{
    static char hosts[UPSTREAMS_MAX][16];
    bench->config.snapshot.upstream_count = total;
    for (size_t i = 0; i < count; i++) {
        snprintf(hosts[i], sizeof(hosts[i]), "up%zu.example", i);
        bench->config.snapshot.upstreams[i].host = hosts[i];
        bench->config.snapshot.upstreams[i].port = PORT;
        bench->config.snapshot.upstreams[i].address = (struct address){};
    }
}

static void add_bootstrap_server(struct bench *bench, const char *text)
{
    assert_true(address_parse(
                    text, BOOTSTRAP_PORT,
                    &bench->config.snapshot.bootstraps[bench->config.snapshot.bootstrap_count++]) ==
                STATUS_OK);
}

/* Opens the group and lets the first lookups begin. */
static void start(struct bench *bench)
{
    begin(bench);
    turn(bench, 1);
}

/* Of `total` upstreams the first is a name; the bootstrap servers are 192.0.2.53 and those after
 * it.
 */
static void start_named(struct bench *bench, size_t total, size_t servers)
{
    char text[16];
    name_upstreams(bench, 1, total);
    for (size_t i = 0; i < servers; i++) {
        snprintf(text, sizeof(text), "192.0.2.%zu", 53 + i);
        add_bootstrap_server(bench, text);
    }
    start(bench);
}

static size_t question_end(const uint8_t *message)
{
    size_t end = DNS_HEADER_SIZE;
    while (message[end])
        end += message[end] + 1u;
    return end + 1 + DNS_QUESTION_TAIL;
}

static uint16_t type_of(const uint8_t *message)
{
    return load_u16(message + question_end(message) - DNS_QUESTION_TAIL);
}

/* The answer to `query`: the addresses (separated by spaces) that are of the type asked for.
 * Returns its length. */
static size_t make_answer(const uint8_t *query, const char *addresses, uint32_t ttl_s,
                          enum rcode rcode, uint8_t out[static 512])
{
    const size_t end = question_end(query);
    const uint16_t type = type_of(query);
    char text[256];
    char *rest;
    struct writer writer = writer_over(out, 512);
    uint16_t count = 0;
    write_bytes(&writer, query, end);
    snprintf(text, sizeof(text), "%s", addresses);
    for (char *item = strtok_r(text, " ", &rest); item; item = strtok_r(NULL, " ", &rest)) {
        const struct address one = address(item);
        if ((one.any.sa_family == AF_INET) != (type == TYPE_A))
            continue;
        write_u16(&writer, 0xc00c);
        write_u16(&writer, type);
        write_u16(&writer, CLASS_IN);
        write_u32(&writer, ttl_s);
        write_u16(&writer, type == TYPE_A ? 4 : 16);
        if (type == TYPE_A)
            write_bytes(&writer, &one.v4.sin_addr, 4);
        else
            write_bytes(&writer, &one.v6.sin6_addr, 16);
        count++;
    }
    assert_false(writer.failed);
    store_u16(out + 2, (uint16_t)(DNS_FLAG_QR | DNS_FLAG_RD | DNS_FLAG_RA | rcode));
    store_u16(out + 6, count);
    store_u32(out + 8, 0);
    return writer_length(&writer);
}

static void datagram_arrives(size_t index, const uint8_t *bytes, size_t length)
{
    struct datagram *datagram = datagrams[index].datagram;
    assert_non_null(datagram);
    datagram->on_message(datagram, bytes, length);
    reap();
}

static void answer_datagram(size_t index, const char *addresses, uint32_t ttl_s)
{
    uint8_t message[512];
    datagram_arrives(index, message,
                     make_answer(datagrams[index].bytes, addresses, ttl_s, RCODE_NOERROR, message));
}

/* What it asks has to be asked over TCP. */
static void answer_truncated(size_t index)
{
    uint8_t message[512];
    const size_t length = make_answer(datagrams[index].bytes, "", 0, RCODE_NOERROR, message);
    message[2] |= 2;
    datagram_arrives(index, message, length);
}

static void refuse_datagram(size_t index)
{
    struct datagram *datagram = datagrams[index].datagram;
    datagram_close(datagram);
    datagram->on_failed(datagram, FAILURE_REFUSED_CONNECTION);
    reap();
}

static void answer_stream(size_t index, size_t written, const char *addresses, uint32_t ttl_s,
                          enum rcode rcode)
{
    uint8_t message[512];
    deliver(index, message,
            make_answer(streams[index].written[written], addresses, ttl_s, rcode, message));
}

static void race_won(size_t index, size_t address_index)
{
    struct race *race = races[index].race;
    assert_non_null(race);
    races[index].race = NULL;
    race->on_won(race, FD, address_index);
}

static void race_lost(size_t index, enum failure failure)
{
    struct race *race = races[index].race;
    assert_non_null(race);
    races[index].race = NULL;
    race->on_lost(race, failure);
    reap();
}

/* A name with these addresses from a bootstrap server, and a request on a connection to the first
 * of them, which is stream 0 by race 0. */
static void start_with(struct bench *bench, struct asked *one, const char *addresses,
                       uint32_t ttl_s)
{
    start_named(bench, 1, 1);
    answer_datagram(0, addresses, ttl_s);
    answer_datagram(1, addresses, ttl_s);
    ask(bench, one, "x");
    race_won(0, 0);
    make_ready(0);
    reap();
}

/* A query comes: it is sent, or begins a trial while nobody is up. */
static void query_comes(struct bench *bench, struct asked *one)
{
    asked_init(one, "x");
    (void)ask_again(bench, one);
}

static uint64_t lookups(const struct bench *bench, bool found)
{
    const struct upstream_metrics *metrics = &bench->metrics->upstreams[0];
    return metric_get(found ? &metrics->name_lookups_found : &metrics->name_lookups_failed);
}

/* --- Through others --- */

static void name_is_looked_up_through_the_other_upstream_at_start(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_named(bench, 2, 0);
    assert_int_equal(stream_count, 1);
    assert_int_equal(address_port(&streams[0].peer), 1001);
    make_ready(0);
    assert_int_equal(streams[0].written_count, 2);
    assert_int_equal(type_of(streams[0].written[0]), TYPE_AAAA);
    assert_int_equal(type_of(streams[0].written[1]), TYPE_A);
    assert_memory_equal(streams[0].written[0] + DNS_HEADER_SIZE, "\3up0\7example", 13);
    answer_stream(0, 0, "2001:db8::1 2001:db8::2", 300, RCODE_NOERROR);
    answer_stream(0, 1, "192.0.2.1", 300, RCODE_NOERROR);
    assert_int_equal(lookups(bench, true), 1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].addresses), 3);

    ask(bench, &one, "x"); /* does not wait for a handshake, but sees to it that there is one */
    assert_int_equal(one.request.upstream, 1);
    request_cancel(&one.request);
    assert_int_equal(race_count, 1);
    assert_int_equal(races[0].count, 3);
    assert_address(&races[0].addresses[0], "2001:db8::1"); /* RFC 8305 4 */
    assert_address(&races[0].addresses[1], "192.0.2.1");
    assert_address(&races[0].addresses[2], "2001:db8::2");
    race_won(0, 1);
    assert_true(streams[1].is_started);
    make_ready(1);
    ask(bench, &one, "x");
    assert_int_equal(one.request.upstream, 0);
    answer_written(1, 0, RCODE_NOERROR);
    assert_true(one.has_answer);
}

static void request_waits_for_the_lookup_and_is_then_sent(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    start_named(bench, 1, 1);
    begin_asking(bench, &one, "x"); /* stream 0 is the trial that finds out */
    assert_int_equal(race_count, 0);
    answer_datagram(0, "2001:db8::1", 300);
    assert_int_equal(race_count, 0);
    answer_datagram(1, "192.0.2.1", 300);
    assert_int_equal(race_count, 1);
    race_won(0, 0);
    make_ready(0);
    turn(bench, 0);
    answer_written(0, 0, RCODE_NOERROR);
    assert_true(one.has_answer);
}

/* Who is being asked may answer, whatever the configuration says by then. */
static void J1_lookup_goes_on_with_other_bootstrap_servers(void **state)
{
    struct bench *bench = *state;
    static struct snapshot next;
    start_named(bench, 1, 3);
    turn(bench, 500);
    turn(bench, 500); /* the third server is asked */
    assert_int_equal(datagram_count, 6);
    next = bench->config.snapshot;
    next.bootstrap_count = 1;
    assert_true(group_reload(bench->group, &next) == 0);
    turn(bench, 500);
    assert_int_equal(datagram_count, 8);
    assert_true(address_equal(&datagrams[6].peer, &next.bootstraps[0]));
    answer_datagram(6, "192.0.2.1", 300);
    answer_datagram(7, "192.0.2.1", 300);
    assert_int_equal(lookups(bench, true), 1);
}

static void J1_lookup_fails_when_no_bootstrap_server_is_left(void **state)
{
    struct bench *bench = *state;
    static struct snapshot next;
    start_named(bench, 1, 1);
    next = bench->config.snapshot;
    next.bootstrap_count = 0;
    assert_true(group_reload(bench->group, &next) == 0);
    assert_int_equal(lookups(bench, false), 1);
    assert_null(datagrams[0].datagram);
}

/* What was begun goes on at who stays; who is new is not asked for it, nor who is no more. */
static void J1_lookup_through_an_upstream_that_is_removed_is_asked_again(void **state)
{
    struct bench *bench = *state;
    static struct snapshot next;
    start_named(bench, 3, 0);
    make_ready(0);
    assert_int_equal(streams[0].written_count, 2);
    next = bench->config.snapshot;
    next.upstream_count = 2;
    next.upstreams[1] = bench->config.snapshot.upstreams[2];
    assert_true(group_reload(bench->group, &next) == upstream_bit(1));
    peer_closes(0, FAILURE_CLOSED);
    reap();
    assert_null(bench->group->slots[1]);
    assert_int_equal(stream_count, 2);
    make_ready(1);
    answer_stream(1, 0, "2001:db8::1", 300, RCODE_NOERROR);
    answer_stream(1, 1, "192.0.2.1", 300, RCODE_NOERROR);
    assert_int_equal(lookups(bench, true), 1);
}

/* However its connections end: its name is of no use any more. */
static void J1_name_of_a_removed_upstream_is_not_looked_up(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    static struct snapshot next;
    start_with(bench, &one, "192.0.2.1", 300);
    answer_written(0, 0, RCODE_NOERROR);
    turn(bench, 10000);
    ask(bench, &one, "silent");
    const size_t before = datagram_count + stream_count;
    next = bench->config.snapshot;
    next.upstreams[0] = bench->config.snapshot.upstreams[1];
    (void)group_reload(bench->group, &next);
    struct upstream *upstream = bench->group->slots[0];
    assert_non_null(upstream->name);
    name_failed(upstream->name, &upstream->path.snapshot->bootstraps[0]);
    name_network_changed(upstream->name);
    turn(bench, 0);
    assert_int_equal(datagram_count + stream_count, before);
    request_cancel(&one.request);
}

static void queries_go_to_others_while_a_name_is_unknown(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_named(bench, 2, 0);
    ask(bench, &one, "x");
    assert_int_equal(one.request.upstream, 1);
    request_cancel(&one.request);
    make_ready(0);
    answer_stream(0, 0, "", 300, RCODE_NOERROR);
    assert_int_equal(race_count, 0);
    answer_stream(0, 1, "192.0.2.1", 300, RCODE_NOERROR);
    assert_int_equal(race_count, 1); /* the query has begun a trial */
    race_won(0, 0);
    make_ready(1);
    ask(bench, &one, "x");
    assert_int_equal(one.request.upstream, 0);
    request_cancel(&one.request);
}

static void names_do_not_wait_for_each_other(void **state)
{
    struct bench *bench = *state;
    name_upstreams(bench, 2, 3);
    start(bench);
    /* Neither is asked for the other: both ask the third. */
    assert_int_equal(stream_count, 1);
    make_ready(0);
    assert_int_equal(streams[0].written_count, 4);
    answer_stream(0, 0, "", 300, RCODE_NXDOMAIN);
    answer_stream(0, 1, "", 300, RCODE_NXDOMAIN);
    assert_int_equal(lookups(bench, false), 1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 0);
    assert_int_equal(metric_get(&bench->metrics->upstreams[1].up), 0);
    answer_stream(0, 2, "", 300, RCODE_NOERROR);
    answer_stream(0, 3, "192.0.2.1", 300, RCODE_NOERROR);
    assert_int_equal(metric_get(&bench->metrics->upstreams[1].addresses), 1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[1].up), 1);
}

static void a_resolved_name_looks_up_the_others(void **state)
{
    struct bench *bench = *state;
    name_upstreams(bench, 2, 2);
    add_bootstrap_server(bench, "192.0.2.53");
    start(bench);
    assert_int_equal(datagram_count, 4);
    answer_datagram(2, "", 300);
    answer_datagram(3, "192.0.2.2", 300); /* the second name */
    refuse_datagram(0);
    refuse_datagram(1);
    assert_int_equal(lookups(bench, false), 1);
    turn(bench, 500);
    assert_int_equal(race_count, 1);
    assert_address(&races[0].addresses[0], "192.0.2.2");
    race_won(0, 0);
    make_ready(0);
    answer_stream(0, 0, "", 300, RCODE_NOERROR);
    answer_stream(0, 1, "192.0.2.1", 300, RCODE_NOERROR);
    assert_int_equal(lookups(bench, true), 1);
}

static void what_an_upstream_does_not_answer_is_asked_of_the_bootstrap(void **state)
{
    struct bench *bench = *state;
    start_named(bench, 2, 1);
    make_ready(0);
    answer_stream(0, 0, "", 300, RCODE_NXDOMAIN);
    assert_int_equal(datagram_count, 1);
    answer_datagram(0, "2001:db8::1", 300);
    peer_closes(0, FAILURE_RESET);
    assert_int_equal(datagram_count, 1); /* the other one is tried again there first */
    for (size_t i = 1; datagram_count == 1; i++) {
        assert_in_range(i, 1, 3); /* the close was no failure; two more are down */
        peer_closes(i, FAILURE_REFUSED_CONNECTION);
    }
    assert_int_equal(datagram_count, 2);
    answer_datagram(1, "192.0.2.1", 300);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].addresses), 2);
}

static void a_slow_upstream_is_overtaken_by_the_bootstrap(void **state)
{
    struct bench *bench = *state;
    start_named(bench, 2, 1);
    make_ready(0);
    turn(bench, 1400);
    assert_int_equal(datagram_count, 0);
    turn(bench, 200);
    assert_int_equal(datagram_count, 2);
    answer_datagram(0, "", 300);
    answer_datagram(1, "192.0.2.1", 300);
    assert_int_equal(lookups(bench, true), 1);
}

/* Upstream 1, on stream 0, answers our probes alone, for `ms`. */
static void hang_for(struct bench *bench, unsigned ms)
{
    is_acknowledged = true;
    for (; ms > 0; ms -= 100) {
        const size_t written = streams[0].written_count;
        turn(bench, 100);
        if (streams[0].stream && streams[0].written_count > written)
            answer_written(0, written, RCODE_NOERROR);
    }
}

static void F20_an_upstream_that_does_not_answer_a_lookup_is_left_for_another(void **state)
{
    struct bench *bench = *state;
    start_named(bench, 4, 0);
    make_ready(0);
    hang_for(bench, 1400);
    assert_int_equal(stream_count, 1);
    hang_for(bench, 200);
    assert_int_equal(stream_count, 2);
    make_ready(1);
    assert_int_equal(streams[1].written_count, 2);
    answer_stream(1, 0, "", 300, RCODE_NOERROR);
    hang_for(bench, 1500); /* the other question has bad luck again */
    assert_int_equal(stream_count, 3);
    make_ready(2);
    answer_stream(2, 0, "192.0.2.1", 300, RCODE_NOERROR);
    assert_int_equal(lookups(bench, true), 1);
}

static void F20_another_upstream_is_asked_before_the_bootstrap(void **state)
{
    struct bench *bench = *state;
    start_named(bench, 4, 1);
    make_ready(0);
    hang_for(bench, 1600);
    assert_int_equal(datagram_count, 0); /* in clear text */
    make_ready(1);
    answer_stream(1, 0, "", 300, RCODE_NOERROR);
    hang_for(bench, 1500);
    assert_int_equal(stream_count, 2);
    assert_int_equal(datagram_count, 1);
    answer_datagram(0, "192.0.2.1", 300);
    assert_int_equal(lookups(bench, true), 1);
}

static void an_upstream_that_is_alone_and_slow_is_waited_for(void **state)
{
    struct bench *bench = *state;
    start_named(bench, 2, 0);
    make_ready(0);
    hang_for(bench, 3000);
    answer_stream(0, 0, "", 300, RCODE_NOERROR);
    answer_stream(0, 1, "192.0.2.1", 300, RCODE_NOERROR);
    assert_int_equal(lookups(bench, true), 1);
    assert_int_equal(stream_count, 1);
}

/* --- Traffic, and changes of the network --- */

static void a_name_that_becomes_known_gets_its_connection_before_it_is_needed(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    bench->keeps_standby = true;
    start_named(bench, 2, 0);
    ask(bench, &one, "x");
    make_ready(0);
    assert_int_equal(race_count, 0);
    answer_stream(0, 0, "", 300, RCODE_NOERROR);
    answer_stream(0, 1, "192.0.2.1", 300, RCODE_NOERROR);
    assert_int_equal(race_count, 1);
    request_cancel(&one.request);
}

static void lookups_are_no_traffic(void **state)
{
    struct bench *bench = *state;
    bench->keeps_standby = true;
    start_named(bench, 3, 0);
    make_ready(0);
    answer_stream(0, 0, "", 300, RCODE_NOERROR);
    answer_stream(0, 1, "192.0.2.1", 300, RCODE_NOERROR);
    assert_int_equal(stream_count, 1); /* the one that they went through */
}

static void J8_a_name_is_looked_up_when_the_network_is_back(void **state)
{
    struct bench *bench = *state;
    name_upstreams(bench, 1, 1);
    add_bootstrap_server(bench, "192.0.2.53");
    refuse_datagrams = FAILURE_UNREACHABLE;
    has_no_route = true;
    start(bench);
    for (unsigned i = 0; i < 60; i++)
        turn(bench, 1000);
    uint64_t failed;
    do { /* a lookup of this moment would not be repeated at once */
        failed = lookups(bench, false);
        turn(bench, 1000);
    } while (lookups(bench, false) != failed);
    refuse_datagrams = FAILURE_NONE;
    has_no_route = false;
    group_network_changed(bench->group);
    reap();
    answer_datagram(0, "", 300);
    answer_datagram(1, "192.0.2.1", 300);
    assert_int_equal(lookups(bench, true), 1);
    assert_int_equal(lookups(bench, false), failed);
}

static void J8_a_change_elsewhere_leaves_the_connections_of_a_name(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_named(bench, 1, 1);
    answer_datagram(0, "2001:db8::1", 300);
    answer_datagram(1, "192.0.2.1", 300);
    group_network_changed(bench->group);
    ask(bench, &one, "x");
    group_network_changed(bench->group);
    race_won(0, 1); /* of the other family, so our address towards it is another */
    make_ready(0);
    group_network_changed(bench->group);
    reap();
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].network_changes), 0);
    answer_written(0, 0, RCODE_NOERROR);
    assert_true(one.has_answer);
    ask(bench, &one, "x");
    route++;
    group_network_changed(bench->group);
    reap();
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].network_changes), 1);
    assert_int_equal(one.failure, FAILURE_NETWORK_CHANGED);
}

static void J8_a_change_in_the_midst_of_a_handshake_is_no_fault_of_the_address(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_named(bench, 1, 1);
    answer_datagram(0, "2001:db8::1", 300);
    answer_datagram(1, "192.0.2.1", 300);
    ask(bench, &one, "x");
    race_won(0, 0);
    streams[0].stream->handler->on_connected(streams[0].stream);
    route++;
    group_network_changed(bench->group);
    reap();
    assert_int_equal(one.failure, FAILURE_NETWORK_CHANGED);
    ask(bench, &one, "x");
    assert_address(&races[1].addresses[0], "2001:db8::1");
    request_cancel(&one.request);
}

static void J8_a_way_to_another_address_is_tried_at_once(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_named(bench, 2, 1);
    make_ready(0);
    answer_stream(0, 0, "2001:db8::1", 3600, RCODE_NOERROR);
    answer_stream(0, 1, "192.0.2.1", 3600, RCODE_NOERROR);
    for (unsigned i = 0; i < 10; i++) /* its back-off grows */
        path_failed(&bench->group->slots[0]->path, FAILURE_UNREACHABLE, "");
    ask(bench, &one, "x");
    assert_int_equal(one.request.upstream, 1);
    assert_int_equal(race_count, 0);
    group_network_changed(bench->group); /* that to its first address has not changed */
    reap();
    assert_int_equal(race_count, 1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].network_changes), 0);
    request_cancel(&one.request);
}

static void I1_want_of_descriptors_is_not_the_fault_of_a_name(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_named(bench, 1, 1);
    answer_datagram(0, "", 3600);
    answer_datagram(1, "192.0.2.1 192.0.2.2", 3600);
    for (size_t i = 0; i < 4; i += 2) { /* twice in a row */
        ask(bench, &one, "x");
        race_lost(i, FAILURE_LOCAL);
        assert_int_equal(one.failure, FAILURE_LOCAL);
        assert_int_equal(one.attempts.once, 1); /* it counts as an attempt: no more than two */
        ask(bench, &one, "x");
        race_won(i + 1, 0);
        peer_closes(i + 1, FAILURE_LOCAL);
        assert_address(&races[i + 1].addresses[0], "192.0.2.1");
    }
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].failures[FAILURE_LOCAL]), 4);
    turn(bench, 6000);
    assert_int_equal(datagram_count, 2); /* nor a reason to look it up again */
}

/* --- Bootstrap --- */

static void bootstrap_servers_take_turns_and_then_it_fails(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    name_upstreams(bench, 1, 1);
    add_bootstrap_server(bench, "192.0.2.53");
    add_bootstrap_server(bench, "[2001:db8::53]");
    start(bench);
    ask_in_vain(bench, &one);
    assert_int_equal(datagram_count, 2);
    assert_int_equal(datagrams[0].length, DNS_HEADER_SIZE + 13 + DNS_QUESTION_TAIL);
    assert_int_equal(load_u16(datagrams[0].bytes + 2), DNS_FLAG_RD);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(datagram_count, 2 + 2 * i);
        assert_int_equal(datagrams[2 * i].peer.any.sa_family, i % 2 == 0 ? AF_INET : AF_INET6);
        const unsigned patience = i < 2 ? 1 : 3; /* for those that may be far away */
        for (unsigned waits = 0; waits < patience; waits++) {
            assert_int_equal(datagrams[2 * i].repeats, waits);
            turn(bench, 500);
        }
    }
    assert_int_equal(datagram_count, 8);
    ask_in_vain(bench, &one);
    assert_int_equal(one.failure, FAILURE_NAME_LOOKUP);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 0);
    assert_string_equal(name_detail(bench->group->slots[0]->name),
                        "no answer from any bootstrap server");
}

static void a_bootstrap_server_that_is_far_away_is_waited_for(void **state)
{
    struct bench *bench = *state;
    start_named(bench, 1, 1);
    turn(bench, 500);
    assert_null(datagrams[0].datagram);
    turn(bench, 500);
    turn(bench, 200); /* 700 ms after it was asked again */
    answer_datagram(2, "", 300);
    turn(bench, 200);
    answer_datagram(3, "192.0.2.1", 300);
    assert_int_equal(lookups(bench, true), 1);
}

static void a_bootstrap_server_that_is_far_away_is_waited_for_over_TCP(void **state)
{
    struct bench *bench = *state;
    start_named(bench, 1, 1);
    answer_datagram(0, "", 300);
    answer_truncated(1);
    turn(bench, 500);
    turn(bench, 500); /* two round trips take longer: it is asked once more */
    assert_int_equal(datagram_count, 3);
    answer_truncated(2);
    turn(bench, 500);
    turn(bench, 500);
    turn(bench, 400);
    make_ready(1);
    answer_stream(1, 0, "192.0.2.1", 300, RCODE_NOERROR);
    assert_int_equal(lookups(bench, true), 1);
}

/* For clients the time of a query may be short; a lookup has the time it needs. */
static void a_short_time_for_queries_leaves_time_for_each_bootstrap_server(void **state)
{
    struct bench *bench = *state;
    bench->config.snapshot.timeouts.query_ns = 300 * NANOSECONDS_PER_MILLISECOND;
    bench->config.snapshot.timeouts.request_ns = 100 * NANOSECONDS_PER_MILLISECOND;
    start_named(bench, 1, 2);
    turn(bench, 300);
    turn(bench, 200);
    answer_datagram(2, "", 300);
    answer_datagram(3, "192.0.2.1", 300);
    assert_int_equal(lookups(bench, true), 1);
}

static void the_next_lookup_begins_with_another_bootstrap_server(void **state)
{
    struct bench *bench = *state;
    bench->config.snapshot.timeouts.query_ns = 300 * NANOSECONDS_PER_MILLISECOND;
    bench->config.snapshot.timeouts.request_ns = 100 * NANOSECONDS_PER_MILLISECOND;
    start_named(bench, 1, 2);
    while (lookups(bench, false) == 0)
        turn(bench, 500);
    assert_string_equal(name_detail(bench->group->slots[0]->name), "no answer in time");
    const size_t asked = datagram_count;
    turn(bench, 500);
    assert_int_equal(datagram_count, asked + 2);
    for (size_t i = 0; i < 2; i++)
        assert_false(address_equal(&datagrams[asked + i].peer, &datagrams[asked - 2 + i].peer));
}

static void a_slow_upstream_is_overtaken_though_queries_have_no_more_time(void **state)
{
    struct bench *bench = *state;
    bench->config.snapshot.timeouts.query_ns = bench->config.snapshot.timeouts.request_ns;
    start_named(bench, 2, 1);
    make_ready(0);
    for (unsigned i = 0; i < 16; i++)
        turn(bench, 100);
    assert_int_equal(datagram_count, 2);
    answer_datagram(0, "", 300);
    answer_datagram(1, "192.0.2.1", 300);
    assert_int_equal(lookups(bench, true), 1);
}

static void servers_that_all_refuse_are_not_asked_again_and_again(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    name_upstreams(bench, 1, 1);
    add_bootstrap_server(bench, "192.0.2.53");
    refuse_datagrams = FAILURE_UNREACHABLE; /* J9: before the network */
    start(bench);
    assert_int_equal(lookups(bench, false), 1);
    asked_init(&one, "x");
    assert_true(ask_again(bench, &one) == STATUS_NOT_FOUND);
    assert_int_equal(one.failure, FAILURE_NAME_LOOKUP);
    assert_int_equal(datagram_count, 0);
}

static void J9_first_query_after_the_network_is_back_finds_the_name(void **state)
{
    struct bench *bench = *state;
    struct asking one;
    name_upstreams(bench, 1, 1);
    add_bootstrap_server(bench, "192.0.2.53");
    refuse_datagrams = FAILURE_UNREACHABLE;
    start(bench);
    for (unsigned i = 0; i < 100; i++)
        turn(bench, 1000);
    assert_in_range(lookups(bench, false), 5, 15); /* the back-off has grown to half a minute */
    refuse_datagrams = FAILURE_NONE;
    begin_asking(bench, &one, "x");
    reap();
    answer_datagram(0, "", 300);
    answer_datagram(1, "192.0.2.1", 300);
    race_won(0, 0);
    make_ready(0);
    turn(bench, 0);
    answer_written(0, 0, RCODE_NOERROR);
    assert_true(one.has_answer);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 1);
}

static void J9_a_lookup_comes_back_by_itself(void **state)
{
    struct bench *bench = *state;
    name_upstreams(bench, 1, 1);
    add_bootstrap_server(bench, "192.0.2.53");
    refuse_datagrams = FAILURE_UNREACHABLE;
    start(bench);
    refuse_datagrams = FAILURE_NONE;
    turn(bench, 500);
    assert_int_equal(datagram_count, 2);
    answer_datagram(0, "", 300);
    answer_datagram(1, "192.0.2.1", 300);
    assert_int_equal(lookups(bench, true), 1);
}

static void RFC_5452_only_the_answer_to_the_question_counts(void **state)
{
    struct bench *bench = *state;
    uint8_t message[512];
    start_named(bench, 1, 1);
    size_t length = make_answer(datagrams[1].bytes, "192.0.2.66", 300, RCODE_NOERROR, message);
    message[0] ^= 1; /* another ID */
    datagram_arrives(1, message, length);
    length = make_answer(datagrams[1].bytes, "192.0.2.66", 300, RCODE_NOERROR, message);
    message[DNS_HEADER_SIZE + 1] ^= 1; /* another name */
    datagram_arrives(1, message, length);
    datagram_arrives(1, message, 11);
    datagram_arrives(1, message, 0);
    length = make_answer(datagrams[1].bytes, "192.0.2.66", 300, RCODE_NOERROR, message);
    message[2] = 1; /* QR=0 */
    datagram_arrives(1, message, length);
    answer_datagram(1, "192.0.2.1", 300);
    answer_datagram(0, "", 300);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].addresses), 1);
    struct address known[RACE_ADDRESSES_MAX];
    enum failure failure;
    assert_int_equal(group_upstream_addresses(bench->group, 0, known, &failure), 1);
    assert_address(&known[0], "192.0.2.1");
}

static void RFC_5452_guesses_make_it_ask_over_TCP(void **state)
{
    struct bench *bench = *state;
    uint8_t message[512];
    start_named(bench, 1, 1);
    const size_t length =
        make_answer(datagrams[1].bytes, "192.0.2.66", 300, RCODE_NOERROR, message);
    for (unsigned i = 1; i <= 9; i++) {
        store_u16(message, (uint16_t)(load_u16(datagrams[1].bytes) + i));
        datagram_arrives(1, message, length);
    }
    assert_null(datagrams[1].datagram);
    assert_int_equal(stream_count, 1);
    assert_int_equal(streams[0].written_count, 1);
    make_ready(0);
    answer_stream(0, 0, "192.0.2.1", 300, RCODE_NOERROR);
    answer_datagram(0, "", 300);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].addresses), 1);
}

static void RFC_7766_a_truncated_answer_is_fetched_over_TCP(void **state)
{
    struct bench *bench = *state;
    start_named(bench, 1, 1);
    for (size_t i = 0; i < 2; i++)
        answer_truncated(i);
    assert_int_equal(stream_count, 2);
    make_ready(0);
    make_ready(1);
    answer_stream(0, 0, "2001:db8::1", 300, RCODE_NOERROR);
    peer_closes(1, FAILURE_RESET); /* and there is no other server */
    assert_int_equal(lookups(bench, true), 1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].addresses), 1);
}

static void a_bootstrap_error_is_no_answer(void **state)
{
    struct bench *bench = *state;
    uint8_t message[512];
    start_named(bench, 1, 2);
    for (size_t i = 0; i < 2; i++)
        datagram_arrives(i, message,
                         make_answer(datagrams[i].bytes, "", 0, RCODE_SERVFAIL, message));
    assert_int_equal(datagram_count, 4);
    for (size_t i = 2; i < 4; i++)
        datagram_arrives(i, message,
                         make_answer(datagrams[i].bytes, "", 0, RCODE_REFUSED, message));
    assert_int_equal(datagram_count, 4);
    assert_int_equal(lookups(bench, false), 1);
}

static void addresses_that_are_nobodys_are_left_out(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_with(
        bench, &one,
        "2001:db8::1 fe80::1 ff02::1 ::ffff:192.0.2.9 0.0.0.1 224.0.0.1 169.254.1.1 192.0.2.1",
        300);
    assert_int_equal(races[0].count, 2);
    request_cancel(&one.request);
}

static void more_than_eight_addresses_are_cut(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_with(bench, &one,
               "192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5 192.0.2.6 192.0.2.7 192.0.2.8 "
               "192.0.2.9 2001:db8::1",
               300);
    assert_int_equal(races[0].count, RACE_ADDRESSES_MAX);
    assert_address(&races[0].addresses[0], "2001:db8::1");
    assert_address(&races[0].addresses[7], "192.0.2.7");
    request_cancel(&one.request);
}

static void RFC_2181_5_an_address_that_is_said_twice_is_one(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_with(bench, &one, "192.0.2.1 192.0.2.1 192.0.2.2 2001:db8::1 2001:db8::1", 3600);
    answer_written(0, 0, RCODE_NOERROR);
    peer_closes(0, FAILURE_CLOSED);
    ask(bench, &one, "x"); /* with an address that is preferred */
    assert_int_equal(races[1].count, 3);
    race_won(1, 0);
    peer_closes(1, FAILURE_TLS);
    ask(bench, &one, "x"); /* with one that has failed */
    assert_int_equal(races[2].count, 3);
    request_cancel(&one.request);
}

/* --- The two families --- */

static void RFC_8305_3_one_family_waits_50_ms_for_the_other(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_named(bench, 1, 1);
    ask_in_vain(bench, &one);
    answer_datagram(1, "192.0.2.1", 300);
    turn(bench, 49);
    assert_int_equal(race_count, 0);
    turn(bench, 1);
    assert_int_equal(race_count, 1);
    answer_datagram(0, "2001:db8::1", 300);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].addresses), 2);
    assert_int_equal(races[0].count, 1);
}

static void RFC_8305_the_winner_comes_first_next_time(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked two;
    start_named(bench, 1, 1);
    answer_datagram(0, "2001:db8::1", 3600);
    answer_datagram(1, "192.0.2.1", 3600);
    ask(bench, &one, "x");
    race_won(0, 1);
    make_ready(0);
    answer_written(0, 0, RCODE_NOERROR);
    peer_closes(0, FAILURE_CLOSED);
    ask(bench, &two, "x");
    assert_address(&races[1].addresses[0], "192.0.2.1");
    assert_address(&races[1].addresses[1], "2001:db8::1");
    race_won(1, 0);
    /* Its handshake fails: the other one is better now. */
    peer_closes(1, FAILURE_TLS);
    ask(bench, &two, "x");
    assert_address(&races[2].addresses[0], "2001:db8::1");
    assert_address(&races[2].addresses[1], "192.0.2.1");
    race_lost(2, FAILURE_UNREACHABLE);
    assert_int_equal(two.failure, FAILURE_UNREACHABLE);
}

/* The addresses of upstream 0 as the next race has them. */
static void assert_order(struct bench *bench, const char *expected)
{
    struct address known[RACE_ADDRESSES_MAX];
    enum failure failure;
    char text[RACE_ADDRESSES_MAX * ADDRESS_TEXT_SIZE] = "";
    const size_t count = group_upstream_addresses(bench->group, 0, known, &failure);
    for (size_t i = 0; i < count; i++) {
        char one[ADDRESS_TEXT_SIZE];
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s", i > 0 ? " " : "",
                 address_format(&known[i], one));
    }
    assert_string_equal(text, expected);
}

static void F20_an_address_that_connects_and_does_not_answer_is_left(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_with(bench, &one, "192.0.2.1 192.0.2.2", 3600);
    assert_order(bench, "192.0.2.1:853 192.0.2.2:853");
    turn(bench, 250);
    for (unsigned i = 0; i < 50 && one.done == 0; i++)
        turn(bench, 50);
    assert_int_equal(one.failure, FAILURE_REQUEST_TIMEOUT);
    assert_order(bench, "192.0.2.2:853 192.0.2.1:853");
    race_won(1, 0); /* it may have been the question: our own is asked there */
    make_ready(1);
    answer_written(1, 0, RCODE_NOERROR);
    ask(bench, &one, "x");
    answer_written(1, 1, RCODE_NOERROR);
    assert_true(one.has_answer);
    peer_closes(1, FAILURE_CLOSED);
    assert_order(bench, "192.0.2.2:853 192.0.2.1:853");
}

static void addresses_that_failed_are_tried_last_longest_ago_first(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_with(bench, &one, "2001:db8::1 192.0.2.1 2001:db8::2 192.0.2.2", 3600);
    answer_written(0, 0, RCODE_NOERROR);
    peer_closes(0, FAILURE_CLOSED);
    ask(bench, &one, "x");
    race_won(1, 0);
    peer_closes(1, FAILURE_TLS);
    assert_order(bench, "192.0.2.1:853 [2001:db8::2]:853 192.0.2.2:853 [2001:db8::1]:853");
    for (size_t i = 2; i < 5; i++) {
        turn(bench, 60 * 1000);
        query_comes(bench, &one);
        race_won(i, 0);
        peer_closes(i, FAILURE_TLS);
    }
    assert_order(bench, "[2001:db8::1]:853 192.0.2.1:853 [2001:db8::2]:853 192.0.2.2:853");
    turn(bench, 60 * 1000);
    ask_in_vain(bench, &one);
    race_won(5, 2); /* it is good, and the others have failed */
    make_ready(5);
    ask(bench, &one, "x");
    answer_written(5, 0, RCODE_NOERROR);
    peer_closes(5, FAILURE_CLOSED);
    assert_order(bench, "[2001:db8::2]:853 [2001:db8::1]:853 192.0.2.1:853 192.0.2.2:853");
}

static void no_more_failed_addresses_are_known_than_a_race_has(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    char text[32];
    start_named(bench, 1, 1);
    for (unsigned i = 0; i < 10; i++) { /* a name that moves all the time */
        snprintf(text, sizeof(text), "192.0.2.%u", i + 1);
        answer_datagram(2 * i, "", 5);
        answer_datagram(2 * i + 1, text, 5);
        query_comes(bench, &one);
        race_won(i, 0);
        peer_closes(i, FAILURE_TLS);
        turn(bench, 5000);
    }
    answer_datagram(20, "", 5);
    answer_datagram(21, "192.0.2.10 192.0.2.2 192.0.2.3", 5); /* the ninth before is forgotten */
    assert_order(bench, "192.0.2.2:853 192.0.2.3:853 192.0.2.10:853");
}

static void a_connect_that_takes_too_long_ends_the_race(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_named(bench, 1, 1);
    ask_in_vain(bench, &one);
    turn(bench, 400); /* of the lookup, which do not count */
    answer_datagram(0, "2001:db8::1", 300);
    answer_datagram(1, "192.0.2.1", 300);
    turn(bench, 999);
    assert_non_null(races[0].race);
    turn(bench, 1);
    assert_null(races[0].race);
    ask_in_vain(bench, &one);
    assert_int_equal(one.failure, FAILURE_CONNECT_TIMEOUT);
}

/* --- Renewal --- */

static void addresses_are_renewed_at_the_end_of_their_TTL(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_with(bench, &one, "192.0.2.1", 100);
    answer_written(0, 0, RCODE_NOERROR);
    turn(bench, 89 * 1000);
    assert_int_equal(datagram_count, 2);
    turn(bench, 11 * 1000);
    assert_int_equal(datagram_count, 4);
    assert_int_equal(lookups(bench, true), 1);
}

static void a_TTL_has_a_floor_and_a_cap(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_with(bench, &one, "192.0.2.1", 0);
    request_cancel(&one.request);
    turn(bench, 4400);
    assert_int_equal(datagram_count, 2);
    turn(bench, 600);
    assert_int_equal(datagram_count, 4);
    answer_datagram(2, "", 1000000);
    answer_datagram(3, "192.0.2.1", 1000000);
    turn(bench, 3600 * 9 / 10 * 1000 - 1);
    assert_int_equal(datagram_count, 4);
    turn(bench, 360 * 1000 + 1);
    assert_int_equal(datagram_count, 6);
}

static void J9_addresses_that_cannot_be_renewed_are_used_on(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_with(bench, &one, "192.0.2.1", 10);
    answer_written(0, 0, RCODE_NOERROR);
    peer_closes(0, FAILURE_CLOSED);
    refuse_datagrams = FAILURE_UNREACHABLE;
    turn(bench, 10 * 1000);
    assert_int_equal(lookups(bench, false), 1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 1);
    ask(bench, &one, "x");
    assert_address(&races[1].addresses[0], "192.0.2.1");
    race_won(1, 0);
    make_ready(1);
    answer_written(1, 0, RCODE_NOERROR);
    assert_true(one.has_answer);
    /* A name that is said to be gone is kept as well. */
    refuse_datagrams = FAILURE_NONE;
    turn(bench, 500);
    answer_datagram(2, "", 10);
    answer_datagram(3, "", 10);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].addresses), 1);
}

static void a_family_that_the_name_has_lost_is_forgotten(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_with(bench, &one, "192.0.2.1 2001:db8::1", 10);
    request_cancel(&one.request);
    turn(bench, 10 * 1000);
    answer_datagram(2, "", 10);
    answer_datagram(3, "192.0.2.1", 10);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].addresses), 1);
}

static void new_addresses_take_over_without_a_gap(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked two;
    start_with(bench, &one, "192.0.2.1", 10);
    answer_written(0, 0, RCODE_NOERROR);
    turn(bench, 10 * 1000);
    ask(bench, &two, "y");
    answer_datagram(2, "", 10);
    answer_datagram(3, "192.0.2.2", 10);
    assert_int_equal(race_count, 2); /* the new connection, while the old one serves */
    assert_address(&races[1].addresses[0], "192.0.2.2");
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].ready), 1);
    race_won(1, 0);
    make_ready(1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].draining), 1);
    assert_int_equal(two.done, 0);
    answer_written(0, 1, RCODE_NOERROR);
    assert_true(two.has_answer);
    assert_int_equal(ask(bench, &two, "z"), 1);
    request_cancel(&two.request);
}

static void connections_stay_when_the_new_address_is_dead(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_with(bench, &one, "192.0.2.1", 10);
    answer_written(0, 0, RCODE_NOERROR);
    turn(bench, 10 * 1000);
    answer_datagram(2, "", 10);
    answer_datagram(3, "192.0.2.2", 10);
    race_lost(1, FAILURE_REFUSED_CONNECTION);
    assert_int_equal(ask(bench, &one, "x"), 0);
    answer_written(0, 1, RCODE_NOERROR);
    assert_true(one.has_answer);
}

static void connections_stay_when_their_address_does(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_with(bench, &one, "192.0.2.1", 10);
    answer_written(0, 0, RCODE_NOERROR);
    turn(bench, 10 * 1000);
    answer_datagram(2, "", 10);
    answer_datagram(3, "192.0.2.2 192.0.2.1", 10);
    assert_int_equal(race_count, 1);
    assert_int_equal(ask(bench, &one, "x"), 0);
    request_cancel(&one.request);
}

static void a_connection_that_comes_to_an_old_address_is_replaced(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_named(bench, 1, 1);
    answer_datagram(0, "", 5);
    answer_datagram(1, "192.0.2.1", 5);
    turn(bench, 4400);
    ask(bench, &one, "x");
    race_won(0, 0);
    turn(bench, 600);
    answer_datagram(2, "", 300);
    answer_datagram(3, "192.0.2.2", 300);
    assert_int_equal(race_count, 1); /* nothing is ready yet that could be moved */
    make_ready(0);
    assert_int_equal(race_count, 2);
    assert_address(&races[1].addresses[0], "192.0.2.2");
    race_won(1, 0);
    make_ready(1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].draining), 1);
    answer_written(0, 0, RCODE_NOERROR);
    assert_true(one.has_answer);
    assert_int_equal(ask(bench, &one, "x"), 1);
    request_cancel(&one.request);
}

static void a_connection_that_comes_to_an_old_address_gives_way_to_a_new_one(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked two;
    bench->config.limits.upstream_requests = 1;
    start_named(bench, 1, 1);
    answer_datagram(0, "", 5);
    answer_datagram(1, "192.0.2.1", 5);
    turn(bench, 4400);
    ask(bench, &one, "x");
    race_won(0, 0);
    turn(bench, 600);
    answer_datagram(2, "", 300);
    answer_datagram(3, "192.0.2.2", 300);
    ask(bench, &two, "y");
    race_won(1, 0);
    make_ready(1);
    make_ready(0);
    assert_int_equal(race_count, 2);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].draining), 1);
    answer_written(0, 0, RCODE_NOERROR);
    answer_written(1, 0, RCODE_NOERROR);
    assert_true(one.has_answer && two.has_answer);
}

static void a_name_whose_addresses_fail_is_looked_up_before_its_time(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_named(bench, 1, 1);
    answer_datagram(0, "", 3000);
    answer_datagram(1, "192.0.2.1", 3000);
    ask(bench, &one, "x");
    race_lost(0, FAILURE_REFUSED_CONNECTION);
    assert_int_equal(datagram_count, 2); /* that was just now */
    turn(bench, 6000);
    ask(bench, &one, "x");
    race_lost(1, FAILURE_REFUSED_CONNECTION);
    turn(bench, 0);
    assert_int_equal(datagram_count, 4);
}

static void everything_may_end_in_the_midst_of_a_lookup(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    name_upstreams(bench, 2, 3);
    add_bootstrap_server(bench, "192.0.2.53");
    start(bench);
    ask(bench, &one, "x"); /* waits */
    make_ready(0);
    answer_stream(0, 0, "", 300, RCODE_NXDOMAIN);
    answer_truncated(0); /* over TCP */
    request_cancel(&one.request);
}

/* --- Upstreams that are ourselves --- */

static const struct siphash_key self_key = {1, 2};

/* The answer to the probe that is the `written`th message of a stream, as our listener gives it. */
static void answer_probe(size_t index, size_t written, const struct siphash_key *key)
{
    uint8_t message[512];
    const uint8_t *query = streams[index].written[written];
    const size_t end = question_end(query);
    struct question question = {.type = TYPE_TXT, .class = CLASS_IN};
    question.name_length = (uint8_t)(end - DNS_HEADER_SIZE - DNS_QUESTION_TAIL);
    memcpy(question.name, query + DNS_HEADER_SIZE, question.name_length);
    assert_int_equal(self_probe_is_ours(&self_key, &question), true);
    struct self_probe_answer probe;
    self_probe_make_answer(key, &question, &probe);
    memcpy(message, query, end);
    store_u16(message + 2, DNS_FLAG_QR | DNS_FLAG_RD | DNS_FLAG_RA);
    store_u16(message + 6, 1);
    store_u32(message + 8, 0);
    memcpy(message + end, probe.body, probe.answer.body_length);
    deliver(index, message, end + probe.answer.body_length);
}

static void start_with_self_check(struct bench *bench, size_t count)
{
    bench->self_key = &self_key;
    bench->config.snapshot.upstream_count = count;
    begin(bench);
}

static void G11_an_upstream_that_is_this_daemon_is_left_at_once(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    struct asked two;
    start_with_self_check(bench, 2);
    ask(bench, &one, "x");
    make_ready(0);
    assert_int_equal(streams[0].written_count, 2);
    answer_probe(0, 1, &self_key);
    assert_int_equal(one.failure, FAILURE_SELF);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 0);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].failures[FAILURE_SELF]), 1);
    ask(bench, &two, "x");
    assert_int_equal(two.request.upstream, 1);
    request_cancel(&two.request);
}

static void G11_who_is_ourselves_is_tried_again_slowly_and_without_queries(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_with_self_check(bench, 1);
    ask(bench, &one, "x");
    make_ready(0);
    answer_probe(0, 1, &self_key);
    for (unsigned i = 0; i < 44; i++) {
        turn(bench, 1000);
        assert_true(ask_again(bench, &one) == STATUS_NOT_FOUND);
        assert_int_equal(one.failure, FAILURE_SELF);
    }
    assert_int_equal(stream_count, 1);
    turn(bench, 31 * 1000);
    ask_in_vain(bench, &one);
    assert_int_equal(stream_count, 2);
    make_ready(1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 0); /* until it has answered */
    answer_probe(1, 0, &self_key);
    turn(bench, 75 * 1000);
    ask_in_vain(bench, &one);
    assert_int_equal(one.failure, FAILURE_SELF);
    make_ready(2);
    answer_written(2, 0, RCODE_NXDOMAIN);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 1);
}

static void G11_another_daemon_is_not_ourselves(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    const struct siphash_key another = {3, 4};
    start_with_self_check(bench, 1);
    ask(bench, &one, "x");
    make_ready(0);
    answer_probe(0, 1, &another);
    answer_written(0, 0, RCODE_NOERROR);
    assert_true(one.has_answer);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].requests), 1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].answers), 1);
    /* It is asked no more, until it has been down. */
    peer_closes(0, FAILURE_CLOSED);
    ask(bench, &one, "x");
    make_ready(1);
    assert_int_equal(streams[1].written_count, 1);
    peer_closes(1, FAILURE_PROTOCOL);
    ask(bench, &one, "x");
    turn(bench, 1000);
    assert_int_equal(one.failure, FAILURE_CONNECT_TIMEOUT);
    const size_t next = stream_count;
    for (unsigned i = 0; i < 10 && stream_count == next; i++) {
        turn(bench, 50);
        ask_in_vain(bench, &one);
    }
    make_ready(next);
    assert_int_equal(streams[next].written_count, 1);
}

static void G11_a_name_that_comes_to_lead_to_this_daemon_is_left(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    const struct siphash_key another = {3, 4};
    bench->self_key = &self_key;
    start_with(bench, &one, "192.0.2.1", 10);
    answer_written(0, 0, RCODE_NOERROR);
    answer_probe(0, 1, &another);
    turn(bench, 10 * 1000);
    answer_datagram(2, "", 10);
    answer_datagram(3, "192.0.2.2", 10);
    race_won(1, 0);
    make_ready(1);
    assert_int_equal(streams[1].written_count, 1);
    answer_probe(1, 0, &self_key);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].failures[FAILURE_SELF]), 1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 0);
}

/* The only upstream closes each connection that carries our own question, until none does. */
static void close_over_the_probe(struct bench *bench)
{
    struct asked one;
    start_with_self_check(bench, 1);
    for (size_t i = 0; i < 4; i++) {
        ask(bench, &one, "x");
        make_ready(i);
        answer_written(i, 0, RCODE_NOERROR);
        assert_int_equal(streams[i].written_count, i < 3 ? 2 : 1);
        peer_closes(i, FAILURE_CLOSED);
        assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 1);
    }
}

static void G11_an_upstream_that_closes_over_the_probe_is_not_lost(void **state)
{
    struct bench *bench = *state;
    close_over_the_probe(bench);
    for (size_t cause = 1; cause < FAILURE_COUNT; cause++)
        assert_int_equal(metric_get(&bench->metrics->upstreams[0].failures[cause]), 0);
}

static void G11_silence_about_the_probe_brings_nobody_back(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_with_self_check(bench, 1);
    ask(bench, &one, "x");
    make_ready(0);
    answer_written(0, 0, RCODE_NOERROR);
    path_failed(&bench->group->slots[0]->path, FAILURE_CONNECT_TIMEOUT, "");
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 0);
    turn(bench, 1500);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 0);
}

static void F20_the_answer_to_the_probe_ends_no_suspicion(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    const struct siphash_key another = {3, 4};
    start_with_self_check(bench, 1);
    ask(bench, &one, "x");
    make_ready(0);
    turn(bench, 300);
    assert_false(upstream_is_ready(bench->group->slots[0]));
    answer_probe(0, 1, &another);
    assert_false(upstream_is_ready(bench->group->slots[0]));
    answer_written(0, 0, RCODE_NOERROR);
    assert_true(upstream_is_ready(bench->group->slots[0]));
}

static void F20_an_answer_to_the_probe_that_comes_late_ends_no_suspicion(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    const struct siphash_key another = {3, 4};
    start_with_self_check(bench, 1);
    ask(bench, &one, "x");
    make_ready(0);
    turn(bench, 1500); /* the probe has been given up */
    assert_false(upstream_is_ready(bench->group->slots[0]));
    answer_probe(0, 1, &another);
    assert_false(upstream_is_ready(bench->group->slots[0]));
    answer_written(0, 0, RCODE_NOERROR);
    assert_true(upstream_is_ready(bench->group->slots[0]));
}

static void G11_silence_about_the_probe_is_no_fault(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    start_with_self_check(bench, 1);
    ask(bench, &one, "x");
    make_ready(0);
    answer_written(0, 0, RCODE_NOERROR);
    turn(bench, 1500);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].ready), 1);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].in_flight), 0);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 1);
    turn(bench, 30 * 1000); /* idle */
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].ready), 0);
}

/* It has had its three chances; but whoever is there after it was down may be us. */
static void G11_upstream_that_was_down_is_checked_again(void **state)
{
    struct bench *bench = *state;
    struct asked one;
    close_over_the_probe(bench);
    path_failed(&bench->group->slots[0]->path, FAILURE_CONNECT_TIMEOUT, "");
    turn(bench, 1000);
    ask_in_vain(bench, &one);
    make_ready(4);
    assert_int_equal(streams[4].written_count, 1); /* our own question */
    answer_written(4, 0, RCODE_NXDOMAIN);
    assert_int_equal(metric_get(&bench->metrics->upstreams[0].up), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(name_is_looked_up_through_the_other_upstream_at_start),
        TEST(request_waits_for_the_lookup_and_is_then_sent),
        TEST(J1_lookup_goes_on_with_other_bootstrap_servers),
        TEST(J1_lookup_fails_when_no_bootstrap_server_is_left),
        TEST(J1_lookup_through_an_upstream_that_is_removed_is_asked_again),
        TEST(J1_name_of_a_removed_upstream_is_not_looked_up),
        TEST(queries_go_to_others_while_a_name_is_unknown),
        TEST(names_do_not_wait_for_each_other),
        TEST(a_resolved_name_looks_up_the_others),
        TEST(what_an_upstream_does_not_answer_is_asked_of_the_bootstrap),
        TEST(a_slow_upstream_is_overtaken_by_the_bootstrap),
        TEST(F20_an_upstream_that_does_not_answer_a_lookup_is_left_for_another),
        TEST(F20_another_upstream_is_asked_before_the_bootstrap),
        TEST(an_upstream_that_is_alone_and_slow_is_waited_for),
        TEST(a_name_that_becomes_known_gets_its_connection_before_it_is_needed),
        TEST(lookups_are_no_traffic),
        TEST(J8_a_name_is_looked_up_when_the_network_is_back),
        TEST(J8_a_change_elsewhere_leaves_the_connections_of_a_name),
        TEST(J8_a_change_in_the_midst_of_a_handshake_is_no_fault_of_the_address),
        TEST(J8_a_way_to_another_address_is_tried_at_once),
        TEST(I1_want_of_descriptors_is_not_the_fault_of_a_name),
        TEST(bootstrap_servers_take_turns_and_then_it_fails),
        TEST(a_bootstrap_server_that_is_far_away_is_waited_for),
        TEST(a_bootstrap_server_that_is_far_away_is_waited_for_over_TCP),
        TEST(a_short_time_for_queries_leaves_time_for_each_bootstrap_server),
        TEST(the_next_lookup_begins_with_another_bootstrap_server),
        TEST(a_slow_upstream_is_overtaken_though_queries_have_no_more_time),
        TEST(servers_that_all_refuse_are_not_asked_again_and_again),
        TEST(J9_first_query_after_the_network_is_back_finds_the_name),
        TEST(J9_a_lookup_comes_back_by_itself),
        TEST(RFC_5452_only_the_answer_to_the_question_counts),
        TEST(RFC_5452_guesses_make_it_ask_over_TCP),
        TEST(RFC_7766_a_truncated_answer_is_fetched_over_TCP),
        TEST(a_bootstrap_error_is_no_answer),
        TEST(addresses_that_are_nobodys_are_left_out),
        TEST(more_than_eight_addresses_are_cut),
        TEST(RFC_2181_5_an_address_that_is_said_twice_is_one),
        TEST(RFC_8305_3_one_family_waits_50_ms_for_the_other),
        TEST(RFC_8305_the_winner_comes_first_next_time),
        TEST(F20_an_address_that_connects_and_does_not_answer_is_left),
        TEST(addresses_that_failed_are_tried_last_longest_ago_first),
        TEST(no_more_failed_addresses_are_known_than_a_race_has),
        TEST(a_connect_that_takes_too_long_ends_the_race),
        TEST(addresses_are_renewed_at_the_end_of_their_TTL),
        TEST(a_TTL_has_a_floor_and_a_cap),
        TEST(J9_addresses_that_cannot_be_renewed_are_used_on),
        TEST(a_family_that_the_name_has_lost_is_forgotten),
        TEST(new_addresses_take_over_without_a_gap),
        TEST(connections_stay_when_the_new_address_is_dead),
        TEST(connections_stay_when_their_address_does),
        TEST(a_connection_that_comes_to_an_old_address_is_replaced),
        TEST(a_connection_that_comes_to_an_old_address_gives_way_to_a_new_one),
        TEST(a_name_whose_addresses_fail_is_looked_up_before_its_time),
        TEST(everything_may_end_in_the_midst_of_a_lookup),
        TEST(G11_an_upstream_that_is_this_daemon_is_left_at_once),
        TEST(G11_who_is_ourselves_is_tried_again_slowly_and_without_queries),
        TEST(G11_another_daemon_is_not_ourselves),
        TEST(G11_a_name_that_comes_to_lead_to_this_daemon_is_left),
        TEST(G11_an_upstream_that_closes_over_the_probe_is_not_lost),
        TEST(G11_silence_about_the_probe_brings_nobody_back),
        TEST(F20_the_answer_to_the_probe_ends_no_suspicion),
        TEST(F20_an_answer_to_the_probe_that_comes_late_ends_no_suspicion),
        TEST(G11_upstream_that_was_down_is_checked_again),
        TEST(G11_silence_about_the_probe_is_no_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
