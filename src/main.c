// SPDX-License-Identifier: Apache-2.0
/* The program: arguments, configuration, start, wait, reload, drain.
 *
 * Everything that can fail is tried before the first worker starts, so nothing is ever half
 * started. Thread: main. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/numbers.h"
#include "base/siphash.h"
#include "cache/cache.h"
#include "config/options.h"
#include "control/admin.h"
#include "control/probe.h"
#include "control/reload.h"
#include "control/sockets.h"
#include "control/trusts.h"
#include "net/loop.h"
#include "observe/log.h"
#include "observe/metrics.h"
#include "upstream/admission.h"
#include "worker.h"

enum exit_status { EXIT_CLEAN = 0, EXIT_CONFIGURATION = 1, EXIT_START = 2 };

/* A worker without a finished turn for this long is stuck: no turn waits over a second. */
#define WATCHDOG_NS (5 * NANOSECONDS_PER_SECOND)

/* It only goes forward: enter_stage. */
enum stage { STAGE_SERVING, STAGE_LAME_DUCK, STAGE_DRAINING };

/* The one server of the process; admin's callbacks and the workers' report take no argument. */
static struct server {
    const struct config *config; /* of the start */
    struct reload reload;        /* has the trusts, too */
    struct cache *cache;
    struct metrics *metrics[CONFIG_WORKERS_MAX];
    struct admission admissions[CONFIG_UPSTREAM_SLOTS];
    struct worker *workers[CONFIG_WORKERS_MAX];
    size_t started; /* workers whose thread runs */
    struct admin *admin;
    int signal_fd;
    struct log_limit signal_limit;
    int news_fd;                 /* eventfd: a worker has ended, or taken what it was told */
    struct siphash_key self_key; /* by which this process recognizes its own questions */
    time_t start_time;
    enum stage stage;
    uint64_t drain_at_ns; /* lame duck: when the drain begins, on loop_clock */
} server = {.signal_fd = -1, .news_fd = -1};

/* --- What admin asks for --- */

static void print_metrics(FILE *out)
{
    assert(out && server.config);
    const struct snapshot *snapshot = reload_snapshot(&server.reload);
    const char *labels[CONFIG_UPSTREAM_SLOTS] = {NULL};
    for (size_t i = 0; i < snapshot->upstream_count; i++)
        labels[snapshot->upstreams[i].slot] = snapshot->upstreams[i].label;
    struct metrics_view view = {
        .workers = server.metrics,
        .worker_count = server.config->workers,
        .upstream_labels = labels,
        .upstream_slots = CONFIG_UPSTREAM_SLOTS,
        .log_dropped = log_dropped(),
        .start_time_s = (uint64_t)server.start_time,
        .reload_ok = !server.reload.has_failed,
        .reload_time_s = server.reload.ended_s,
        .reload_generation = server.reload.generation,
        .reload_left = server.reload.left,
    };
    if (server.cache)
        cache_usage(server.cache, &view.cache_bytes, &view.cache_entries);
    metrics_print(out, &view);
}

static bool is_healthy(void)
{
    assert(server.config && server.started <= server.config->workers);
    const uint64_t now = loop_clock();
    for (size_t i = 0; i < server.started; i++)
        if (now - worker_last_turn_ns(server.workers[i]) > WATCHDOG_NS)
            return false;
    return server.started == server.config->workers;
}

static bool is_ready(void)
{
    return is_healthy() && server.stage == STAGE_SERVING;
}

static const struct admin_source admin_source = {
    .print_metrics = print_metrics,
    .is_healthy = is_healthy,
    .is_ready = is_ready,
};

/* --- Start --- */

static void on_worker_news(void)
{
    /* It fails only when the counter is full, and then main is woken anyway. */
    (void)eventfd_write(server.news_fd, 1);
}

/* A standard descriptor that the parent has closed would be taken by the first socket, and log
 * lines would go there (FAULTS J6). */
static void reserve_standard_descriptors(void)
{
    int fd = -1;
    do
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

/* As many descriptors as this process may have: one for each client and connection. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
            log_event(LOG_LEVEL_WARNING, "descriptor_limit", "cause", strerror(errno), NULL);
    }
}

/* What ends a process by default and is no fault of its own: whoever sends it, here it is read from
 * a descriptor (FAULTS J13). Those of the terminal's job control do as always. */
static sigset_t held_signals(void)
{
    static const int left_alone[] = {SIGSEGV,  SIGBUS,  SIGFPE,  SIGILL,  SIGTRAP,
                                     SIGABRT,  SIGSYS,  SIGCHLD, SIGURG,  SIGCONT,
                                     SIGWINCH, SIGTSTP, SIGTTIN, SIGTTOU, SIGPIPE};
    sigset_t signals;
    sigfillset(&signals);
    for (size_t i = 0; i < sizeof(left_alone) / sizeof(left_alone[0]); i++)
        sigdelset(&signals, left_alone[i]);
    return signals;
}

static enum status open_signals(void)
{
    assert(server.signal_fd == -1 && server.news_fd == -1);
    const sigset_t signals = held_signals();
    server.signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    server.news_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return server.signal_fd < 0 || server.news_fd < 0 ? STATUS_SYSTEM : STATUS_OK;
}

static enum status open_worker(const struct config *config, const struct sockets *sockets,
                               size_t index)
{
    assert(index < CONFIG_WORKERS_MAX && !server.workers[index] && !server.metrics[index]);
    server.metrics[index] = metrics_open(CONFIG_UPSTREAM_SLOTS);
    if (!server.metrics[index])
        return STATUS_FULL;
    const struct worker_settings settings = {
        .config = config,
        .cache = server.cache,
        .metrics = server.metrics[index],
        .self_key = &server.self_key,
        .admissions = server.admissions,
        .udp_fds = sockets_udp(sockets, index),
        .tcp_fds = sockets_tcp(sockets, index),
        .on_news = on_worker_news,
    };
    return worker_open(&settings, &server.workers[index]);
}

static enum status open_admin(const struct config *config)
{
    assert(!server.admin);
    if (!config->admin.enabled)
        return STATUS_OK;
    const enum status status = admin_open(
        &config->admin.address, config->listen_freebind == TOGGLE_ON, &admin_source, &server.admin);
    if (status != STATUS_OK) {
        char text[ADDRESS_TEXT_SIZE];
        fprintf(stderr,
                "dnsproxy: cannot listen on admin address %s: %s; choose another with --admin, or "
                "--admin off\n",
                address_format(&config->admin.address, text), strerror(errno));
    }
    return status;
}

static bool start_failed(const char *what)
{
    assert(what);
    fprintf(stderr, "dnsproxy: cannot start: %s: %s\n", what, strerror(errno));
    return false;
}

static bool open_parts(const struct config *config, const struct sockets *sockets)
{
    if (open_admin(config) != STATUS_OK)
        return false;
    if (config->cache_size_bytes > 0 &&
        cache_open(config->cache_size_bytes, &config->snapshot.cache, &server.cache) != STATUS_OK)
        return start_failed("cache (a smaller --cache-size may help)");
    for (size_t i = 0; i < CONFIG_UPSTREAM_SLOTS; i++)
        server.admissions[i].workers = config->workers;
    for (size_t i = 0; i < config->workers; i++)
        if (open_worker(config, sockets, i) != STATUS_OK)
            return start_failed("worker");
    return true;
}

/* What all that is there once can occupy: measured, with the system's authorities. */
#define PROGRAM_SIZE ((uint64_t)24 << 20)

static uint64_t of_workers(const struct worker_memory *one)
{
    assert(one && server.config);
    return server.config->workers *
           (uint64_t)(one->queries + one->listeners + one->tcp_output + one->upstreams);
}

/* With these upstreams. */
static uint64_t memory_ceiling(const struct snapshot *snapshot)
{
    const struct worker_memory memory = worker_memory(server.workers[0], snapshot);
    return PROGRAM_SIZE + server.config->cache_size_bytes + of_workers(&memory);
}

static void log_start(const struct config *config, const struct sockets *sockets)
{
    assert(server.started == config->workers && server.stage == STAGE_SERVING);
    char workers[16];
    char ceiling[32];
    snprintf(workers, sizeof(workers), "%" PRIu32, config->workers);
    snprintf(ceiling, sizeof(ceiling), "%" PRIu64, memory_ceiling(&config->snapshot));
    for (size_t i = 0; i < config->listener_count; i++) {
        const struct listener_config *listener = &config->listeners[i];
        if (!sockets_is_bound(sockets, i))
            continue;
        char address[ADDRESS_TEXT_SIZE];
        log_event(LOG_LEVEL_INFO, "listening", "address",
                  address_format(&listener->address, address), "transports",
                  !listener->tcp ? "udp" : (!listener->udp ? "tcp" : "udp,tcp"), NULL);
    }
    for (size_t i = 0; i < config->snapshot.upstream_count; i++)
        log_event(LOG_LEVEL_INFO, "upstream", "upstream", config->snapshot.upstreams[i].label,
                  NULL);
    log_event(LOG_LEVEL_INFO, "started", "version", DNSPROXY_VERSION, "workers", workers,
              "strategy", strategy_name(config->snapshot.strategy), "memory_ceiling_bytes", ceiling,
              NULL);
}

static bool start_workers(const struct config *config)
{
    assert(server.started == 0);
    if (log_open(config->snapshot.log_level, config->log_format) != STATUS_OK)
        return start_failed("log");
    for (; server.started < config->workers; server.started++)
        if (worker_start(server.workers[server.started]) != STATUS_OK)
            return start_failed("thread");
    return true;
}

/* Opens everything and starts the workers. Says on stderr what failed. */
static bool start(const struct config *config)
{
    struct sockets *sockets = NULL;
    raise_descriptor_limit();
    if (sockets_open(config, &sockets) != STATUS_OK)
        return false;
    const bool is_started = open_parts(config, sockets) && start_workers(config);
    if (is_started)
        log_start(config, sockets);
    sockets_release(sockets);
    return is_started;
}

/* --- Reload --- */

/* Nobody knows a new upstream yet, so what is known of its slot can be made new for it. */
static void hand_out(const struct snapshot *next, const struct snapshot *former)
{
    assert(server.started > 0);
    log_set_level(next->log_level);
    if (server.cache)
        cache_set_limits(server.cache, &next->cache);
    const upstream_set added = upstreams_slots(next) & ~upstreams_slots(former);
    for (size_t slot = 0; slot < CONFIG_UPSTREAM_SLOTS; slot++)
        if (added & upstream_bit(slot))
            server.admissions[slot] = (struct admission){.workers = server.config->workers};
    for (size_t i = 0; i < server.started; i++)
        worker_reload(server.workers[i], next);
}

static bool is_taken(void)
{
    for (size_t i = 0; i < server.started; i++)
        if (!worker_has_reloaded(server.workers[i]))
            return false;
    return true;
}

static const struct reload_events reload_events = {
    .hand_out = hand_out, .is_taken = is_taken, .ceiling = memory_ceiling};

/* --- Wait and drain --- */

static size_t count_stopped(void)
{
    size_t count = 0;
    for (size_t i = 0; i < server.started; i++)
        count += worker_has_stopped(server.workers[i]);
    return count;
}

static void enter_stage(enum stage stage)
{
    assert(stage > server.stage);
    server.stage = stage;
}

static void begin_drain(const char *why)
{
    assert(why);
    log_event(LOG_LEVEL_INFO, "draining", "cause", why, NULL);
    if (server.reload.is_asked)
        log_event(LOG_LEVEL_WARNING, "not_reloaded", "cause", "the daemon is ending", NULL);
    enter_stage(STAGE_DRAINING);
    for (size_t i = 0; i < server.started; i++)
        worker_drain(server.workers[i]);
}

/* Whoever sends queries here shall learn from /ready that it is over, and go elsewhere, while they
 * are still answered (FAULTS J14). */
static void begin_lame_duck(const char *why)
{
    assert(server.stage == STAGE_SERVING);
    const uint64_t lame_duck_ns = reload_snapshot(&server.reload)->timeouts.lame_duck_ns;
    char duration_ms[32];
    snprintf(duration_ms, sizeof(duration_ms), "%" PRIu64,
             lame_duck_ns / NANOSECONDS_PER_MILLISECOND);
    log_event(LOG_LEVEL_INFO, "lame_duck", "cause", why, "duration_ms", duration_ms, NULL);
    enter_stage(STAGE_LAME_DUCK);
    server.drain_at_ns = loop_clock() + lame_duck_ns;
}

/* The first signal drains, the second ends at once (FAULTS J2). */
static void on_stop_signal(const char *name)
{
    if (server.stage != STAGE_SERVING) {
        log_event(LOG_LEVEL_WARNING, "stopped", "cause", "second signal", NULL);
        log_close();
        _exit(EXIT_CLEAN);
    }
    if (reload_snapshot(&server.reload)->timeouts.lame_duck_ns > 0)
        begin_lame_duck(name);
    else
        begin_drain(name);
}

static void on_other_signal(int number)
{
    if (number == SIGHUP && server.stage != STAGE_DRAINING)
        reload_ask(&server.reload);
    else
        log_event_limited(&server.signal_limit, loop_clock(), LOG_LEVEL_WARNING, "signal_ignored",
                          "signal", strsignal(number), NULL);
}

static void on_signal(void)
{
    struct signalfd_siginfo info;
    while (read(server.signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        const int number = (int)info.ssi_signo;
        if (number == SIGTERM || number == SIGINT)
            on_stop_signal(strsignal(number));
        else
            on_other_signal(number);
    }
}

static void on_news(int *exit_status)
{
    eventfd_t count; /* read, else poll would return at once for ever */
    (void)eventfd_read(server.news_fd, &count);
    if (server.stage == STAGE_DRAINING || count_stopped() == 0)
        return;
    *exit_status = EXIT_START;
    begin_drain("a worker failed");
}

/* DEADLINE_NEVER in the other stages. */
static uint64_t lame_duck_left_ns(void)
{
    if (server.stage != STAGE_LAME_DUCK)
        return DEADLINE_NEVER;
    const uint64_t now = loop_clock();
    return server.drain_at_ns > now ? server.drain_at_ns - now : 0;
}

/* What admin and a reload have to do; the nanoseconds until they have more at the latest. */
static uint64_t run_parts(void)
{
    const uint64_t admin_ns = server.admin ? admin_run(server.admin) : DEADLINE_NEVER;
    if (server.stage == STAGE_DRAINING)
        return admin_ns;
    return least_of(admin_ns, reload_run(&server.reload, loop_clock()));
}

/* Until there is work for them or the lame duck's time is over, at most a second. */
static int poll_timeout_ms(uint64_t parts_ns)
{
    const uint64_t wait_ms = least_of(parts_ns, lame_duck_left_ns()) / NANOSECONDS_PER_MILLISECOND;
    return wait_ms < 1000 ? (int)wait_ms + 1 : 1000;
}

/* Until every worker has ended. Returns the exit status. */
static int wait_for_end(void)
{
    assert(server.signal_fd >= 0 && server.news_fd >= 0 && server.started > 0);
    int exit_status = EXIT_CLEAN;
    while (count_stopped() < server.started) {
        struct pollfd ready[] = {
            {.fd = server.signal_fd, .events = POLLIN},
            {.fd = server.news_fd, .events = POLLIN},
            {.fd = log_descriptor(), .events = POLLIN},
            {.fd = server.admin ? admin_descriptor(server.admin) : -1, .events = POLLIN},
        };
        const uint64_t parts_ns = run_parts();
        (void)poll(ready, sizeof(ready) / sizeof(ready[0]), poll_timeout_ms(parts_ns));
        log_drain();
        if (ready[0].revents & POLLIN)
            on_signal();
        if (ready[1].revents & POLLIN)
            on_news(&exit_status);
        if (lame_duck_left_ns() == 0)
            begin_drain("timeouts.lame-duck is over");
    }
    return exit_status;
}

static void stop(void)
{
    admin_close(server.admin);
    for (size_t i = 0; i < CONFIG_WORKERS_MAX; i++) {
        worker_close(server.workers[i]);
        metrics_close(server.metrics[i]);
    }
    reload_close(&server.reload);
    cache_close(server.cache);
    if (server.started > 0)
        log_event(LOG_LEVEL_INFO, "stopped", NULL);
    log_close();
    if (server.signal_fd >= 0)
        close(server.signal_fd);
    if (server.news_fd >= 0)
        close(server.news_fd);
}

static int serve(int argc, char *const argv[], struct config *config)
{
    int exit_status = EXIT_START;
    struct trusts *trusts = NULL;
    server.config = config;
    server.start_time = time(NULL);
    server.self_key = siphash_random_key();
    if (open_signals() != STATUS_OK) {
        start_failed("signals");
        return EXIT_START;
    }
    if (trusts_open(&config->snapshot, NULL, stderr, &trusts) != STATUS_OK)
        return EXIT_CONFIGURATION;
    reload_init(&server.reload, argc, argv, config, trusts, &reload_events);
    if (start(config))
        exit_status = wait_for_end();
    stop();
    return exit_status;
}

/* --- Check --- */

static void print_part(const char *part, uint64_t size, const char *of)
{
    printf("  %-12s %8.1f MiB%s%s\n", part, (double)size / (1 << 20), *of ? "  " : "", of);
}

/* The same sum as in the log of the start. */
static void print_memory(const struct config *config, const struct worker_memory *one)
{
    const uint64_t workers = config->workers;
    printf("memory: at most %.1f MiB\n",
           (double)(PROGRAM_SIZE + config->cache_size_bytes + of_workers(one)) / (1 << 20));
    print_part("program", PROGRAM_SIZE, "");
    print_part("cache", config->cache_size_bytes, "cache.size");
    print_part("queries", workers * one->queries, "limits.queries of each worker");
    print_part("listeners", workers * one->listeners, "limits.tcp-clients of each worker");
    print_part("tcp output", workers * one->tcp_output, "limits.tcp-memory of each worker");
    print_part("upstreams", workers * one->upstreams,
               "limits.upstream-connections to each, of each worker");
    printf("and in the kernel, for sockets of clients, at most %.1f MiB\n",
           (double)(workers * one->in_kernel) / (1 << 20));
}

/* Opens a worker without sockets to see what it can occupy. */
static enum status measure_worker(const struct config *config, struct worker_memory *out)
{
    int none[CONFIG_LISTENERS_MAX];
    struct worker *worker = NULL;
    for (size_t i = 0; i < CONFIG_LISTENERS_MAX; i++)
        none[i] = -1;
    struct metrics *metrics = metrics_open(CONFIG_UPSTREAM_SLOTS);
    if (!metrics)
        return STATUS_FULL;
    const struct worker_settings settings = {
        .config = config,
        .metrics = metrics,
        .udp_fds = none,
        .tcp_fds = none,
        .on_news = on_worker_news,
    };
    const enum status status = worker_open(&settings, &worker);
    if (status == STATUS_OK)
        *out = worker_memory(worker, &config->snapshot);
    worker_close(worker);
    metrics_close(metrics);
    return status;
}

static int check(struct config *config)
{
    struct worker_memory memory;
    struct trusts *trusts = NULL;
    server.config = config;
    if (trusts_open(&config->snapshot, NULL, stderr, &trusts) != STATUS_OK)
        return EXIT_CONFIGURATION;
    const enum status status = measure_worker(config, &memory);
    trusts_close(trusts);
    if (status != STATUS_OK) {
        start_failed("worker");
        return EXIT_START;
    }
    printf("the configuration is valid: %zu listeners, %zu upstreams\n", config->listener_count,
           config->snapshot.upstream_count);
    print_memory(config, &memory);
    return EXIT_CLEAN;
}

static int run(enum command command, int argc, char *const argv[], struct config *config)
{
    switch (command) {
    case COMMAND_HELP:
        options_print_help(stdout);
        return EXIT_CLEAN;
    case COMMAND_VERSION:
        printf("dnsproxy %s\n", DNSPROXY_VERSION);
        return EXIT_CLEAN;
    case COMMAND_CHECK:
        return check(config);
    case COMMAND_PROBE:
        return probe_run(config, stdout);
    case COMMAND_HEALTH:
        return admin_health(config->admin.enabled ? &config->admin.address : NULL);
    case COMMAND_SERVE:
        return serve(argc, argv, config);
    }
    return EXIT_CONFIGURATION;
}

int main(int argc, char *argv[])
{
    enum command command = COMMAND_SERVE;
    struct config *config = NULL;
    const sigset_t held = held_signals();
    sigset_t early = held;
    sigset_t inherited;
    /* Writing to a client that has gone is an ordinary event, not the end of the process. */
    signal(SIGPIPE, SIG_IGN);
    /* First: until it is read, a signal to the daemon waits, also when the parent had it ignored.
     * A configuration that hangs (a pipe, a file system that is away) can be left by TERM and INT,
     * but as process 1 of a container, where they would be lost. */
    if (getpid() != 1) {
        sigdelset(&early, SIGTERM);
        sigdelset(&early, SIGINT);
    }
    pthread_sigmask(SIG_BLOCK, &early, &inherited);
    reserve_standard_descriptors();
    if (options_load(argc, argv, stderr, &command, &config) != STATUS_OK)
        return EXIT_CONFIGURATION;
    pthread_sigmask(SIG_SETMASK, command == COMMAND_SERVE ? &held : &inherited, NULL);
    const int exit_status = run(command, argc, argv, config);
    config_free(config);
    return exit_status;
}
