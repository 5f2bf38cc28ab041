// SPDX-License-Identifier: Apache-2.0
/* I2: each allocation between a client's query and the upstream's stream fails once, from the
 * opening of the cache to the last answer. What does not open leaves nothing behind; what runs
 * gives each query one reply, at worst SERVFAIL, and is as good as new for the next.
 *
 * The kernel is the one that the fuzzer plays, here with nothing chosen: everything moves at once.
 */
#include "test.h"

#include <sys/mman.h>

#include "fake_kernel.h"
#include "query/resolve.h"
#include "upstream/upstream.h"

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__real_mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset);

enum { UPSTREAMS = 2, QUERIES = 12, ALLOCATIONS_MAX = 1000, TURNS_MAX = 10000 };

static long allocations_left; /* until one fails; 0: none will */

static bool fails_now(void)
{
    return allocations_left > 0 && --allocations_left == 0;
}

void *__wrap_malloc(size_t size)
{
    return fails_now() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails_now() ? NULL : __real_calloc(count, size);
}

void *__wrap_mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    if (!fails_now())
        return __real_mmap64(address, length, protection, flags, fd, offset);
    errno = ENOMEM;
    return MAP_FAILED;
}

/* --- The daemon, without listeners --- */

static struct config config;
static struct loop loop;
static struct metrics *metrics;
static struct cache *cache;
static struct group *group;
static struct resolver *resolver;

static unsigned reply_count;
static unsigned good_count;
static size_t heard[SOCKETS_MAX]; /* octets of each connection that its upstream has answered */

static void count_reply(struct query *query, const uint8_t *reply, size_t length)
{
    (void)query;
    assert_true(length >= DNS_HEADER_SIZE);
    const unsigned rcode = load_u16(reply + 2) & DNS_RCODE_MASK;
    assert_true(rcode == RCODE_NOERROR || rcode == RCODE_SERVFAIL);
    reply_count++;
    good_count += rcode == RCODE_NOERROR;
}

static const struct transport transport = {.is_datagram = true, .send = count_reply};

static int configure(void **state)
{
    static char label[] = "upstream";
    (void)state;
    config =
        (struct config){.snapshot = {.upstream_count = UPSTREAMS, .strategy = STRATEGY_ORDERED}};
    for (size_t i = 0; i < UPSTREAMS; i++) {
        config.snapshot.upstreams[i] =
            (struct upstream_config){.slot = i, .label = label, .name = label, .weight = 1};
        assert_int_equal(address_parse("192.0.2.1:853", 0, &config.snapshot.upstreams[i].address),
                         STATUS_OK);
    }
    config.limits.queries = QUERIES;
    config.limits.upstream_requests = 4;
    config.limits.upstream_connections = 2;
    config.snapshot.limits.udp_reply_size = 1232;
    config.snapshot.timeouts.query_ns = 4 * NANOSECONDS_PER_SECOND;
    config.snapshot.timeouts.connect_ns = NANOSECONDS_PER_SECOND;
    config.snapshot.timeouts.handshake_ns = NANOSECONDS_PER_SECOND;
    config.snapshot.timeouts.request_ns = NANOSECONDS_PER_SECOND;
    config.snapshot.timeouts.idle_ns = 30 * NANOSECONDS_PER_SECOND;
    assert_int_equal(prefix_parse("127.0.0.0/8", &config.snapshot.allow[0]), STATUS_OK);
    config.snapshot.allow_count = 1;
    return 0;
}

/* Opens in the order of main and worker; false when something did not open. */
static bool open_all(void)
{
    static struct resolver room;
    const struct cache_limits limits = {.ttl_max_s = 3600};
    metrics = metrics_open(UPSTREAMS);
    if (!metrics || cache_open(CACHE_SIZE_MIN, &limits, &cache) != STATUS_OK)
        return false;
    const struct group_settings settings = {.config = &config, .loop = &loop, .metrics = metrics};
    if (group_open(&settings, &group) != STATUS_OK)
        return false;
    room = (struct resolver){
        .config = &config, .loop = &loop, .metrics = metrics, .cache = cache, .group = group};
    resolver = &room;
    return resolver_open(resolver) == STATUS_OK;
}

static void close_all(void)
{
    if (resolver) {
        resolver_abort(resolver);
        assert_int_equal(resolver->queries.in_use, 0);
        assert_int_equal(resolver->lookups.in_use, 0);
        resolver_close(resolver);
    }
    group_close(group);
    cache_close(cache);
    metrics_close(metrics);
    resolver = NULL;
    group = NULL;
    cache = NULL;
    metrics = NULL;
}

/* --- Clients and upstreams --- */

static void ask(unsigned number)
{
    uint8_t message[64];
    struct writer writer = writer_over(message, sizeof message);
    write_u16(&writer, (uint16_t)number);
    write_u16(&writer, DNS_FLAG_RD);
    write_u32(&writer, 1 << 16);
    write_u32(&writer, 0);
    write_u8(&writer, 1);
    write_u8(&writer, (uint8_t)('a' + number));
    write_u8(&writer, 0);
    write_u16(&writer, TYPE_A);
    write_u16(&writer, CLASS_IN);
    struct origin origin = {.transport = &transport};
    assert_int_equal(address_parse("127.0.0.1:5000", 0, &origin.client), STATUS_OK);
    assert_int_equal(query_begin(resolver, &origin, message, writer_length(&writer), NULL),
                     STATUS_OK);
}

/* Every upstream answers everything that it has heard and not yet answered, in order. */
static void answer_all(void)
{
    for (size_t i = 0; i < socket_count; i++) {
        struct fake_socket *peer = &sockets[i];
        while (peer->is_open && heard[i] < peer->out.length) {
            uint8_t answer[DNS_HEADER_SIZE + 3 + 4 + 16];
            const uint8_t *query = peer->out.bytes + heard[i] + 2;
            memcpy(answer, query, DNS_HEADER_SIZE + 3 + 4);
            memcpy(answer + DNS_HEADER_SIZE + 3 + 4, "\xc0\x0c\0\1\0\1\0\0\1\0\0\4\xc0\0\2\1", 16);
            store_u16(answer + 2, DNS_FLAG_QR | DNS_FLAG_RD | DNS_FLAG_RA);
            store_u16(answer + 6, 1);
            store_u16(answer + 10, 0);
            heard[i] += 2 + (size_t)load_u16(peer->out.bytes + heard[i]);
            peer_sends_message(peer, answer, sizeof answer);
        }
    }
}

/* Each query that was asked has its reply within its time. */
static void run_until_replied(unsigned count)
{
    const uint64_t end_ns = loop.now + config.snapshot.timeouts.query_ns;
    for (unsigned turns = 0; reply_count < count; turns++) {
        assert_true(turns < TURNS_MAX && loop.now < end_ns);
        assert_true(loop_turn(&loop, 10 * NANOSECONDS_PER_MILLISECOND));
        answer_all();
    }
    assert_int_equal(reply_count, count);
}

/* True when all went well, as it must when nothing failed. */
static bool whole_life(void)
{
    reply_count = good_count = 0;
    memset(heard, 0, sizeof heard);
    kernel_begin(NULL, 0);
    assert_int_equal(loop_open(&loop), STATUS_OK);
    const bool is_open = open_all();
    bool is_good = false;
    if (is_open) {
        for (unsigned i = 0; i < QUERIES - 2; i++)
            ask(i);
        run_until_replied(QUERIES - 2);
        is_good = good_count == QUERIES - 2;
        const bool has_failed = allocations_left == 0;
        good_count = 0;
        ask(QUERIES - 2); /* with memory again, one like any other */
        ask(0);           /* most likely from the cache */
        run_until_replied(QUERIES);
        assert_true(!has_failed || good_count == 2);
        is_good = is_good && good_count == 2;
    }
    close_all();
    loop_close(&loop);
    kernel_end();
    return is_good;
}

static void I2_each_allocation_fails_once(void **state)
{
    (void)state;
    bool all_done = false;
    long first = 1;
    for (; !all_done && first < ALLOCATIONS_MAX; first++) {
        allocations_left = first;
        const bool is_good = whole_life();
        all_done = allocations_left > 0;
        assert_true(is_good || !all_done);
    }
    allocations_left = 0;
    assert_true(all_done && first > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(I2_each_allocation_fails_once, configure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
