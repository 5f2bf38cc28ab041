// SPDX-License-Identifier: Apache-2.0
/* From a seed to a plan: which faults and how often, how many upstreams, which limits; and the
 * chance of the run itself.
 *
 * The plan is drawn from a generator of its own, so that a run with fewer queries or fewer faults
 * has the same upstreams, limits and first queries as the whole one. Both generators are splitmix64
 * (Vigna, 2015). */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "observe/log.h"
#include "sim.h"

const char *const fault_labels[FAULT_COUNT] = {
#define FAULT_LABEL(name, label, text) label,
    SIM_FAULTS(FAULT_LABEL)
#undef FAULT_LABEL
};

struct plan plan;
struct sim_options sim_options;
uint64_t fault_counts[FAULT_COUNT];

#define BIT(name) (UINT64_C(1) << FAULT_##name)

/* Nobody may lose an answer by these. */
static const uint64_t harmless_faults =
    BIT(SPLIT) | BIT(REORDER) | BIT(TLS_TURNS) | BIT(IDLE_CLOSE) | BIT(DUPLICATE) |
    BIT(UNSOLICITED) | BIT(WRONG_ID) | BIT(KEEPALIVE) | BIT(SMALL_CACHE) | BIT(SIGNAL) |
    BIT(NETWORK) | BIT(LEAVE) | BIT(HOSTILE_CLIENT) | BIT(BUSY) | BIT(HUGE) | BIT(RELOAD) |
    BIT(REPEAT) | BIT(LATE_READER);

static uint64_t plan_state;
static uint64_t run_state;
static uint64_t digest;

/* --- Chance --- */

static uint64_t next_random(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = *state;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t random_below(uint64_t bound)
{
    return (next_random(&run_state) >> 8) % bound;
}

uint64_t random_between(uint64_t low, uint64_t high)
{
    return low + random_below(high - low + 1);
}

uint64_t plan_below(uint64_t bound)
{
    return (next_random(&plan_state) >> 8) % bound;
}

static uint64_t plan_one_of(const uint64_t *values, size_t count)
{
    return values[plan_below(count)];
}

#define PLAN_ONE_OF(...)                         \
    plan_one_of((const uint64_t[]){__VA_ARGS__}, \
                sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

bool has_fault(enum fault fault)
{
    return plan.faults & UINT64_C(1) << fault;
}

bool fault_happens(enum fault fault)
{
    if (!has_fault(fault) || random_below(1000) >= plan.permille[fault])
        return false;
    fault_counts[fault]++;
    sim_tell("fault %s", fault_labels[fault]);
    return true;
}

bool fault_happens_at(enum fault fault, size_t index)
{
    return index != plan.healthy && fault_happens(fault);
}

bool has_only_harmless_faults_but(uint64_t harmful)
{
    return (plan.faults & ~harmless_faults & ~harmful) == 0;
}

/* --- The story --- */

void sim_tell(const char *format, ...)
{
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    for (int i = 0; i < length && (size_t)i < sizeof(line) - 1; i++)
        digest = (digest ^ (uint8_t)line[i]) * UINT64_C(0x100000001b3);
    digest += net_now();
    if (sim_options.verbose)
        fprintf(stderr, "%10.3f ms  %s\n", (double)(net_now() - NET_START_NS) / 1e6, line);
}

uint64_t sim_digest(void)
{
    return digest;
}

void sim_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "sim: at %.3f ms: ", (double)(net_now() - NET_START_NS) / 1e6);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    fflush(NULL);
    _Exit(3);
}

/* In place of observe/log.c. */
void log_event(enum log_level level, const char *event, ...)
{
    (void)level;
    sim_tell("log %s", event);
}

void log_event_limited(struct log_limit *limit, uint64_t now, enum log_level level,
                       const char *event, ...)
{
    (void)limit;
    (void)now;
    (void)level;
    sim_tell("log %s", event);
}

/* --- The plan --- */

/* Faults that are the product's own want, not an upstream's: a healthy upstream does not help. */
static const uint64_t local_faults = BIT(SMALL_LIMITS) | BIT(ODD_TIMEOUTS) | BIT(ALLOCATION) |
                                     BIT(DESCRIPTORS) | BIT(CLOCK_JUMP) | BIT(ABRUPT_END);

/* Half of the time it is one of the last, which are about who pays for whom. */
static uint64_t draw_one_fault(void)
{
    uint64_t faults = (UINT64_C(1) << FAULT_COUNT) - 1;
    if (plan_below(2))
        faults &= ~(BIT(CLOSES_ON_A_NAME) - 1);
    for (uint64_t i = plan_below((uint64_t)__builtin_popcountll(faults)); i > 0; i--)
        faults &= faults - 1;
    return faults & -faults;
}

/* A third of the runs has one harmful fault among harmless ones, so that what may come of that one
 * can be told exactly; the others have few or many of all. Those that are named take the place of
 * that one in all runs. */
static void draw_faults(void)
{
    const uint64_t density = PLAN_ONE_OF(3, 10, 20, 35, 60);
    const bool is_pure = plan_below(3) == 0;
    const uint64_t chosen = draw_one_fault();
    for (size_t i = 0; i < FAULT_COUNT; i++) {
        const bool is_on = plan_below(100) < density;
        plan.permille[i] = (uint16_t)PLAN_ONE_OF(5, 20, 60, 200, 500);
        if (is_on)
            plan.faults |= UINT64_C(1) << i;
    }
    if (sim_options.faults)
        plan.faults = (plan.faults & harmless_faults) | sim_options.faults;
    else if (is_pure)
        plan.faults = (plan.faults & harmless_faults) | chosen;
    if (plan.healthy != SIZE_MAX)
        plan.faults &= ~local_faults;
    /* A lookup rightly gives up when two upstreams have answered with an error. */
    if (plan.healthy != SIZE_MAX && plan.upstream_count > 2)
        plan.faults &= ~(BIT(ERROR_RCODE) | BIT(TRUNCATED));
    plan.faults &= ~sim_options.without;
}

static void draw_limits(struct config *config)
{
    config->limits.queries = 1024;
    config->limits.upstream_requests = (uint32_t)PLAN_ONE_OF(64, 100, 128);
    config->limits.upstream_connections = (uint32_t)PLAN_ONE_OF(4, 8);
    const uint32_t queries = (uint32_t)PLAN_ONE_OF(1, 4, 20, 60);
    const uint32_t requests = (uint32_t)PLAN_ONE_OF(1, 2, 3, 8, 17);
    const uint32_t connections = (uint32_t)PLAN_ONE_OF(1, 2, 3);
    const uint32_t of_client = (uint32_t)PLAN_ONE_OF(0, 1, 3, 10);
    if (has_fault(FAULT_SMALL_LIMITS)) {
        config->limits.queries = queries;
        config->limits.upstream_requests = requests;
        config->limits.upstream_connections = connections;
        config->snapshot.limits.udp_queries_per_address = of_client;
    }
    config->snapshot.limits.udp_reply_size = (uint16_t)PLAN_ONE_OF(512, 1232, 4096);
    config->limits.tcp_memory_bytes = PLAN_ONE_OF(1, 100, 10000) << 10;
}

static void draw_timeouts(struct config *config)
{
    config->snapshot.timeouts.query_ns = MILLISECONDS(4000);
    config->snapshot.timeouts.connect_ns = MILLISECONDS(1000);
    config->snapshot.timeouts.handshake_ns = MILLISECONDS(1500);
    config->snapshot.timeouts.request_ns = MILLISECONDS(1500);
    config->snapshot.timeouts.park_ns = MILLISECONDS(3000);
    config->snapshot.timeouts.idle_ns = MILLISECONDS(PLAN_ONE_OF(200, 2000, 30000));
    config->snapshot.timeouts.tcp_idle_ns = MILLISECONDS(10000);
    uint64_t *const odd[] = {
        &config->snapshot.timeouts.query_ns,     &config->snapshot.timeouts.connect_ns,
        &config->snapshot.timeouts.handshake_ns, &config->snapshot.timeouts.request_ns,
        &config->snapshot.timeouts.idle_ns,      &config->snapshot.timeouts.park_ns};
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        const uint64_t timeout_ns = MILLISECONDS(PLAN_ONE_OF(30, 100, 300, 2000, 20000));
        if (has_fault(FAULT_ODD_TIMEOUTS))
            *odd[i] = timeout_ns;
    }
}

static void draw_upstreams(struct config *config)
{
    static char names[SIM_UPSTREAMS_MAX][8] = {"0.up", "1.up", "2.up", "3.up"};
    config->snapshot.upstream_count = plan.upstream_count;
    for (size_t i = 0; i < plan.upstream_count; i++) {
        struct upstream_config *upstream = &config->snapshot.upstreams[i];
        upstream->slot = i;
        upstream->label = names[i];
        upstream->name = names[i];
        upstream->weight = (uint32_t)(1 + plan_below(3));
        upstream->address.v4 = (struct sockaddr_in){
            .sin_family = AF_INET,
            .sin_port = htons((uint16_t)(SIM_PORT_BASE + i)),
            .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        };
    }
}

static void draw_config(struct config *config)
{
    draw_limits(config);
    draw_timeouts(config);
    draw_upstreams(config);
    config->snapshot.strategy = (enum strategy)plan_below(4);
    config->cache_size_bytes = has_fault(FAULT_SMALL_CACHE) ? 65536 : 4 << 20;
    config->snapshot.cache.stale_max_s = (uint32_t)PLAN_ONE_OF(0, 2, 60, 86400);
    config->snapshot.cache.refresh = plan_below(2) ? TOGGLE_ON : TOGGLE_OFF;
    config->snapshot.cache.ttl_max_s = 86400;
    config->snapshot.cache.negative_ttl_max_s = 3600;
    config->snapshot.log_level = LOG_LEVEL_INFO;
    config->snapshot.allow[0] =
        (struct prefix){.bits = {0, UINT64_C(0xffff) << 32}, .length = 96}; /* IPv4 */
    config->snapshot.allow_count = 1;
}

enum { HEALTHY_AMONG_MAX = 3 };

static void draw_upstream_count(void)
{
    plan.upstream_count = 1 + plan_below(SIM_UPSTREAMS_MAX);
    plan.healthy = SIZE_MAX;
    if (plan_below(3) > 0)
        return;
    plan.upstream_count = 1 + plan_below(HEALTHY_AMONG_MAX);
    plan.healthy = plan_below(plan.upstream_count);
}

void plan_draw(const struct sim_options *options)
{
    sim_options = *options;
    plan = (struct plan){0};
    plan_state = options->seed;
    run_state = ~options->seed;
    digest = 0;
    draw_upstream_count();
    draw_faults();
    plan.queries = (uint32_t)PLAN_ONE_OF(3, 20, 60, 120, 250);
    plan.names = (uint32_t)PLAN_ONE_OF(1, 4, 30, 1000);
    plan.duration_ns = MILLISECONDS(PLAN_ONE_OF(20, 1000, 6000, 15000, 60000));
    plan.latency_ns = MILLISECONDS(PLAN_ONE_OF(0, 1, 5, 40));
    plan.has_cache = plan_below(4) > 0;
    plan.has_self_check = plan_below(2);
    draw_config(&plan.config);
    fault_counts[FAULT_HUGE] += has_fault(FAULT_HUGE);
    fault_counts[FAULT_SMALL_LIMITS] += has_fault(FAULT_SMALL_LIMITS);
    fault_counts[FAULT_ODD_TIMEOUTS] += has_fault(FAULT_ODD_TIMEOUTS);
    fault_counts[FAULT_SMALL_CACHE] += has_fault(FAULT_SMALL_CACHE) && plan.has_cache;
    if (plan.queries > options->queries_max)
        plan.queries = options->queries_max;
}

void plan_print(void)
{
    fprintf(stderr, "sim: seed %llu: %zu upstreams", (unsigned long long)sim_options.seed,
            plan.upstream_count);
    if (plan.healthy != SIZE_MAX)
        fprintf(stderr, " (%zu healthy)", plan.healthy);
    fprintf(stderr, ", %u queries for %u names in %llu ms%s; faults:", plan.queries, plan.names,
            (unsigned long long)(plan.duration_ns / NANOSECONDS_PER_MILLISECOND),
            plan.has_cache ? "" : ", no cache");
    for (size_t i = 0; i < FAULT_COUNT; i++)
        if (has_fault((enum fault)i))
            fprintf(stderr, " %s", fault_labels[i]);
    fputc('\n', stderr);
}
