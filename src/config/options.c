// SPDX-License-Identifier: Apache-2.0
/* The option table: one row is one option, in every place where it can be given or is described.
 * And the order in which the places are read.
 *
 * A new option is a field of struct config and a row here; the command line, the environment, the
 * file, --help, the reference page and the manual page follow.
 *
 * Thread: main. */
#include "config/options.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/deadline.h"
#include "config/settings.h"

#define MILLISECONDS(count) ((count)*NANOSECONDS_PER_MILLISECOND)
#define SECONDS(count) ((count)*NANOSECONDS_PER_SECOND)
#define FIELD(name) \
    .offset = offsetof(struct config, name), .size = sizeof((struct config *)NULL)->name
#define LIST(count, limit) .offset = offsetof(struct config, count), .most = (limit)
#define NUMBER(name, kind, low, high) \
    FIELD(name), .set = set_number, .quantity = &(kind), .minimum = (low), .maximum = (high)
#define DURATION(name, low, high) .argument = "DURATION", NUMBER(name, DURATIONS, low, high)
#define COUNT(name, low, high) .argument = "N", NUMBER(name, COUNTS, low, high)

/* In the order of their enums. */
static const char *const STRATEGIES[] = {"fastest", "ordered", "weighted", "hash", NULL};
static const char *const LEVELS[] = {"error", "warning", "info", "debug", NULL};
static const char *const FORMATS[] = {"text", "json", NULL};

const char DEFAULT_CONFIG_FILE[] = "/etc/dnsproxy/dnsproxy.yaml";

// clang-format off
const struct option OPTIONS[] = {
    {.flag = "--config", .letter = 'c', .environment = "DNSPROXY_CONFIG", .argument = "FILE",
     .set = set_config_file,
     .help = "Read the configuration from FILE (YAML); without it from "
             "/etc/dnsproxy/dnsproxy.yaml, if that exists."},
    {.flag = "--listen", .letter = 'l', .key = "listen", .environment = "DNSPROXY_LISTEN",
     .argument = "ADDR", .default_text = DNSPROXY_DEFAULT_LISTEN,
     .set = add_listener, LIST(listener_count, CONFIG_LISTENERS_MAX), .differs = listeners_differ,
     .help = "Answer on this address: ADDRESS:PORT for UDP and TCP, udp://ADDRESS:PORT or "
             "tcp://ADDRESS:PORT for one of them; port 53 unless given."},
    {.key = "listen-freebind", .environment = "DNSPROXY_LISTEN_FREEBIND", .argument = "on|off",
     .default_text = "off", .set = set_toggle, FIELD(listen_freebind),
     .help = "Bind addresses, also that of admin, that the machine does not have yet, and answer "
             "there as soon as it has them (IP_FREEBIND)."},
    {.flag = "--upstream", .letter = 'u', .key = "upstreams", .environment = "DNSPROXY_UPSTREAM",
     .argument = "URL", .default_text = "cloudflare",
     .set = add_upstream, LIST(snapshot.upstream_count, CONFIG_UPSTREAMS_MAX),
     .help = "Ask this server: tls://ADDRESS[:PORT]#NAME, where NAME authenticates it and the port "
             "is 853 unless given; tls://HOST[:PORT], whose addresses are looked up; or a preset: "
             "cloudflare, google or quad9."},
    {.flag = "--bootstrap", .key = "bootstrap", .environment = "DNSPROXY_BOOTSTRAP",
     .argument = "ADDR", .set = add_bootstrap, LIST(snapshot.bootstrap_count, CONFIG_BOOTSTRAPS_MAX),
     .help = "Look up the host names of upstreams here when no other upstream can: ADDRESS[:PORT] "
             "of a plain DNS server. It is asked for these names alone, in clear text."},
    {.flag = "--strategy", .key = "strategy", .environment = "DNSPROXY_STRATEGY",
     .argument = "NAME", .default_text = "fastest",
     .set = set_choice, .choices = STRATEGIES, FIELD(snapshot.strategy),
     .help = "How to choose among the upstreams: fastest (measured), ordered (the first that is "
             "up), weighted (shares by weight) or hash (by the name asked for)."},
    {.flag = "--tls-ca", .key = "tls.ca", .environment = "DNSPROXY_TLS_CA", .argument = "FILE",
     .default_text = "system", .set = set_tls_ca, FIELD(snapshot.tls_ca_file),
     .help = "Trust the certificates in FILE (PEM) for upstreams; system is the system's store."},
    {.flag = "--workers", .key = "workers", .environment = "DNSPROXY_WORKERS", .argument = "N",
     .default_text = "auto", FIELD(workers), .set = set_workers,
     .quantity = &WORKER_COUNTS, .minimum = 1, .maximum = CONFIG_WORKERS_MAX,
     .help = "Threads that answer; auto is one for each CPU that this process may use (affinity "
             "and cgroup quota), at most 8: each has connections and tables of its own."},
    {.flag = "--cache-size", .key = "cache.size", .environment = "DNSPROXY_CACHE_SIZE",
     .argument = "SIZE", .default_text = "64MiB", .zero_is_off = true,
     NUMBER(cache_size_bytes, SIZES, UINT64_C(64) << 10, UINT64_C(1024) << 30),
     .help = "Memory for cached answers; 0 turns the cache off."},
    {.key = "cache.ttl-min", .environment = "DNSPROXY_CACHE_TTL_MIN",
     .default_text = "0s", DURATION(snapshot.cache.ttl_min_s, SECONDS(1), SECONDS(86400)),
     .divisor = SECONDS(1), .zero_is_off = true,
     .help = "Keep answers at least this long, whatever their TTL says."},
    {.key = "cache.ttl-max", .environment = "DNSPROXY_CACHE_TTL_MAX",
     .default_text = "1d", DURATION(snapshot.cache.ttl_max_s, SECONDS(1), SECONDS(7 * 86400)),
     .divisor = SECONDS(1),
     .help = "Keep answers at most this long."},
    {.key = "cache.negative-ttl-max", .environment = "DNSPROXY_CACHE_NEGATIVE_TTL_MAX",
     .default_text = "1h", DURATION(snapshot.cache.negative_ttl_max_s, SECONDS(1), SECONDS(7 * 86400)),
     .divisor = SECONDS(1),
     .help = "Keep answers that say that there is no such name or type at most this long."},
    {.key = "cache.max-stale", .environment = "DNSPROXY_CACHE_MAX_STALE",
     .default_text = "1d", DURATION(snapshot.cache.stale_max_s, SECONDS(1), SECONDS(7 * 86400)),
     .divisor = SECONDS(1), .zero_is_off = true,
     .help = "Give an answer for so long past its time when no upstream gives a fresh one (RFC "
             "8767); 0 never does."},
    {.key = "cache.refresh", .environment = "DNSPROXY_CACHE_REFRESH", .argument = "on|off",
     .default_text = "on", .set = set_toggle, FIELD(snapshot.cache.refresh),
     .help = "Ask for popular answers anew before their time is over, so that nobody waits for "
             "them."},
    {.flag = "--admin", .key = "admin", .environment = "DNSPROXY_ADMIN", .argument = "ADDR|off",
     .default_text = "127.0.0.1:9153", .set = set_admin, .differs = admins_differ,
     .help = "Serve /health, /ready and /metrics over HTTP on this address; off does not."},
    {.flag = "--log-level", .key = "log.level", .environment = "DNSPROXY_LOG_LEVEL",
     .argument = "LEVEL", .default_text = "info", .set = set_choice, .choices = LEVELS,
     FIELD(snapshot.log_level),
     .help = "Log error, warning, info or debug, each with those before it."},
    {.flag = "--log-format", .key = "log.format", .environment = "DNSPROXY_LOG_FORMAT",
     .argument = "text|json", .default_text = "text", .set = set_choice, .choices = FORMATS,
     FIELD(log_format),
     .help = "Write log lines as text or as JSON."},
    {.flag = "--allow", .key = "allow", .environment = "DNSPROXY_ALLOW", .argument = "CIDR",
     .default_text = "127.0.0.0/8, ::1, 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, "
                     "169.254.0.0/16, 100.64.0.0/10, fe80::/10, fc00::/7",
     .set = add_prefix, LIST(snapshot.allow_count, CONFIG_PREFIXES_MAX),
     .help = "Answer clients in this range of addresses; all others are refused. The default is "
             "loopback, private and link-local addresses."},
    {.key = "refused-source-ports", .environment = "DNSPROXY_REFUSED_SOURCE_PORTS",
     .argument = "PORT", .default_text = "7, 13, 17, 19, 37, 69, 111, 123, 137, 161, 389, 520",
     .set = add_source_port, LIST(snapshot.refused_source_port_count, CONFIG_PORTS_MAX),
     .may_be_empty = true,
     .quantity = &COUNTS, .minimum = 1, .maximum = 65535,
     .help = "Drop UDP queries from these source ports: they belong to services that answer "
             "anything, and an exchange with one might never end. The default has none from 1024 "
             "up, from which clients draw their own ports. none drops none."},

    {.flag = "--query-timeout", .key = "timeouts.query", .environment = "DNSPROXY_QUERY_TIMEOUT",
     .default_text = "4s", DURATION(snapshot.timeouts.query_ns, MILLISECONDS(10), SECONDS(60)),
     .help = "Give each client its reply within this time, if need be an error; the default is "
             "below the 5 s that a C library waits."},
    {.key = "timeouts.connect", .environment = "DNSPROXY_TIMEOUTS_CONNECT",
     .default_text = "1s", DURATION(snapshot.timeouts.connect_ns, MILLISECONDS(10), SECONDS(60)),
     .help = "Wait this long for a TCP connection to an upstream."},
    {.key = "timeouts.handshake", .environment = "DNSPROXY_TIMEOUTS_HANDSHAKE",
     .default_text = "1500ms", DURATION(snapshot.timeouts.handshake_ns, MILLISECONDS(10), SECONDS(60)),
     .help = "Wait this long for the TLS handshake with an upstream."},
    {.key = "timeouts.request", .environment = "DNSPROXY_TIMEOUTS_REQUEST",
     .default_text = "1s", DURATION(snapshot.timeouts.request_ns, MILLISECONDS(10), SECONDS(60)),
     .help = "A connection to an upstream that is silent for this long with questions unanswered is "
             "dead; sooner when its answers are usually quick. A late question is asked elsewhere "
             "long before."},
    {.key = "timeouts.park", .environment = "DNSPROXY_TIMEOUTS_PARK",
     .default_text = "3s", DURATION(snapshot.timeouts.park_ns, MILLISECONDS(10), SECONDS(60)),
     .zero_is_off = true,
     .help = "When all upstreams are away, as while they restart, let queries wait this long for "
             "one to come back; after that they fail at once, until one does. 0 always fails at "
             "once."},
    {.key = "timeouts.upstream-idle", .environment = "DNSPROXY_TIMEOUTS_UPSTREAM_IDLE",
     .default_text = "30s", DURATION(snapshot.timeouts.idle_ns, MILLISECONDS(10), SECONDS(3600)),
     .help = "Close an upstream connection that has had nothing to do for this long."},
    {.key = "timeouts.tcp-idle", .environment = "DNSPROXY_TIMEOUTS_TCP_IDLE",
     .default_text = "10s", DURATION(snapshot.timeouts.tcp_idle_ns, MILLISECONDS(10), SECONDS(3600)),
     .help = "Close the connection of a TCP client that has asked nothing for this long."},
    {.key = "timeouts.tcp-message", .environment = "DNSPROXY_TIMEOUTS_TCP_MESSAGE",
     .default_text = "5s", DURATION(snapshot.timeouts.tcp_message_ns, MILLISECONDS(10), SECONDS(600)),
     .help = "Give a TCP client this long from the first byte of a query to its last."},
    {.key = "timeouts.tcp-send", .environment = "DNSPROXY_TIMEOUTS_TCP_SEND",
     .default_text = "5s", DURATION(snapshot.timeouts.tcp_send_ns, MILLISECONDS(10), SECONDS(600)),
     .help = "Close the connection of a TCP client that takes no byte of its replies for this "
             "long."},
    {.key = "timeouts.lame-duck", .environment = "DNSPROXY_TIMEOUTS_LAME_DUCK",
     .default_text = "0s", DURATION(snapshot.timeouts.lame_duck_ns, MILLISECONDS(10), SECONDS(600)),
     .zero_is_off = true,
     .help = "After SIGTERM, go on answering for this long, with /ready at 503, so that load "
             "balancers and endpoints of Kubernetes move on first; 0 stops at once. Whoever stops it "
             "(TimeoutStopSec, docker stop -t) must wait longer than this and timeouts.drain."},
    {.key = "timeouts.drain", .environment = "DNSPROXY_TIMEOUTS_DRAIN",
     .default_text = "2s", DURATION(snapshot.timeouts.drain_ns, MILLISECONDS(10), SECONDS(600)),
     .help = "After SIGTERM and timeouts.lame-duck, answer what has arrived for at most this "
             "long."},

    {.key = "limits.queries", .environment = "DNSPROXY_LIMITS_QUERIES",
     .default_text = "16000", COUNT(limits.queries, 1, 16 * 16383),
     .help = "Queries in flight in each worker. For more, those that have waited for 200 ms give way, "
             "of the network (/24 or /56) that has most of them; with none the new ones are sent to "
             "TCP (UDP) or not read (TCP)."},
    {.key = "limits.upstream-requests", .environment = "DNSPROXY_LIMITS_UPSTREAM_REQUESTS",
     .default_text = "16383", COUNT(limits.upstream_requests, 1, 16383),
     .help = "Requests in flight on one upstream connection, beside our own probe. Times limits.upstream-connections "
             "they must be as many as limits.queries, so that none that waits wants for a place "
             "there."},
    {.key = "limits.upstream-connections", .environment = "DNSPROXY_LIMITS_UPSTREAM_CONNECTIONS",
     .default_text = "2", COUNT(limits.upstream_connections, 1, 16),
     .help = "Connections of each worker to one upstream; another is opened only when the first "
             "are full."},
    {.key = "limits.tcp-clients", .environment = "DNSPROXY_LIMITS_TCP_CLIENTS",
     .default_text = "4096", COUNT(limits.tcp_clients, 1, 1 << 20),
     .help = "Connections of TCP clients to each worker. When all are open, whoever has most gives an "
             "idle one to others."},
    {.key = "limits.tcp-clients-per-address",
     .environment = "DNSPROXY_LIMITS_TCP_CLIENTS_PER_ADDRESS",
     .default_text = "512", COUNT(snapshot.limits.tcp_clients_per_address, 1, 1 << 20),
     .help = "The same from one address (IPv6: from one /64)."},
    {.key = "limits.tcp-queries", .environment = "DNSPROXY_LIMITS_TCP_QUERIES",
     .default_text = "128", COUNT(snapshot.limits.tcp_queries, 1, 65535),
     .help = "Queries in flight of one TCP client; it is not read until one is answered."},
    {.key = "limits.tcp-queries-total", .environment = "DNSPROXY_LIMITS_TCP_QUERIES_TOTAL",
     .default_text = "0", COUNT(snapshot.limits.tcp_queries_total, 1, 1000000000), .zero_is_off = true,
     .help = "Close a TCP client's connection after this many queries; 0 never does."},
    {.key = "limits.tcp-accept-rate", .environment = "DNSPROXY_LIMITS_TCP_ACCEPT_RATE",
     .default_text = "0", COUNT(snapshot.limits.tcp_accept_rate, 1, 1000000), .zero_is_off = true,
     .help = "New TCP connections per second to each worker; 0 is any number."},
    {.key = "limits.tcp-lifetime", .environment = "DNSPROXY_LIMITS_TCP_LIFETIME",
     .default_text = "0s", DURATION(limits.tcp_lifetime_ns, MILLISECONDS(10), SECONDS(7 * 86400)),
     .zero_is_off = true,
     .help = "Close a TCP client's connection at this age; 0 never does."},
    {.key = "limits.tcp-memory", .environment = "DNSPROXY_LIMITS_TCP_MEMORY",
     .argument = "SIZE", .default_text = "32MiB",
     NUMBER(limits.tcp_memory_bytes, SIZES, UINT64_C(1) << 20, UINT64_C(1) << 40),
     .help = "What TCP clients may make each worker hold: replies that they do not read, messages "
             "that they do not finish. Beyond it connections that do not move are closed, those "
             "that hold most first."},
    {.key = "limits.udp-rate", .environment = "DNSPROXY_LIMITS_UDP_RATE",
     .default_text = "0", COUNT(limits.udp_rate, 1, 1000000), .zero_is_off = true,
     .help = "UDP replies per second of each worker to one network (/24 or /56); beyond it clients "
             "are sent to TCP. 0 is any number."},
    {.key = "limits.udp-queries-per-address",
     .environment = "DNSPROXY_LIMITS_UDP_QUERIES_PER_ADDRESS",
     .default_text = "4096", COUNT(snapshot.limits.udp_queries_per_address, 1, 1 << 20), .zero_is_off = true,
     .help = "UDP queries of one address (IPv6: of one /64) in flight in each worker, half as many "
             "while others' are; beyond it the client is sent to TCP. Loopback may have any number. "
             "0 is any number."},
    {.key = "limits.udp-reply-size", .environment = "DNSPROXY_LIMITS_UDP_REPLY_SIZE",
     .argument = "BYTES", .default_text = "1232",
     NUMBER(snapshot.limits.udp_reply_size, COUNTS, 512, 4096),
     .help = "Largest UDP reply; clients fetch larger ones over TCP (RFC 9715)."},

    {.flag = "--help", .letter = 'h', .set = set_command, .help = "Print this help and exit."},
    {.flag = "--version", .letter = 'V', .set = set_command, .help = "Print the version and exit."},
};
// clang-format on

const size_t OPTION_COUNT = sizeof OPTIONS / sizeof OPTIONS[0];
static_assert(sizeof OPTIONS / sizeof OPTIONS[0] <= OPTIONS_MAX, "struct settings has no room");

const struct command_word COMMANDS[] = {
    {"serve", COMMAND_SERVE, "Answer queries (the default)."},
    {"check", COMMAND_CHECK, "Check the configuration, print every error in it and exit."},
    {"probe", COMMAND_PROBE, "Connect to each upstream, print what was seen as a table and exit."},
    {"health", COMMAND_HEALTH,
     "Ask the running daemon, at the address of --admin, whether it is ready, and exit."},
};
const size_t COMMAND_COUNT = sizeof COMMANDS / sizeof COMMANDS[0];

const char *strategy_name(enum strategy strategy)
{
    assert(strategy <= STRATEGY_HASH);
    return STRATEGIES[strategy];
}

static void next_level(struct settings *settings)
{
    memset(settings->seen, 0, sizeof settings->seen);
    settings->where = (struct origin){};
}

static void apply_defaults(struct settings *settings)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        settings->where.name = OPTIONS[i].key;
        if (OPTIONS[i].default_text)
            settings_apply(settings, &OPTIONS[i], OPTIONS[i].default_text);
    }
    for (size_t i = 0; i < settings->config->listener_count; i++)
        settings->config->listeners[i].is_default = true;
}

/* One that cannot be looked at is: reading it says why. */
static bool is_there(const char *path)
{
    return access(path, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

static void apply_file(struct settings *settings)
{
    assert(settings->config && settings->errors);
    const char *from_environment = getenv("DNSPROXY_CONFIG");
    if (!settings->config_file && from_environment && *from_environment != '\0')
        settings->config_file = from_environment;
    if (!settings->config_file && is_there(DEFAULT_CONFIG_FILE))
        settings->config_file = DEFAULT_CONFIG_FILE;
    settings->config->file = settings->config_file;
    if (settings->config_file)
        yaml_read_file(settings, settings->config_file);
}

/* Else queries would fail for want of a slot, of which one client could have all, before anybody
 * wants for a place to wait, of which none can. */
static void check_slots(struct settings *settings)
{
    assert(settings->config->limits.upstream_requests > 0);
    const struct config *config = settings->config;
    const uint64_t slots =
        (uint64_t)config->limits.upstream_requests * config->limits.upstream_connections;
    settings->where = (struct origin){.name = "limits.queries"};
    if (config->limits.queries > slots)
        settings_report(settings, "is more than the requests in flight to one upstream may be: "
                                  "limits.upstream-requests times limits.upstream-connections");
}

/* What no row can check alone. */
static void check_together(struct settings *settings)
{
    settings->where = (struct origin){.name = "cache.ttl-min"};
    if (settings->config->snapshot.cache.ttl_min_s > settings->config->snapshot.cache.ttl_max_s)
        settings_report(settings, "is longer than cache.ttl-max");
    check_slots(settings);
    check_host_names(settings);
}

static void load_levels(struct settings *settings, const struct argument *arguments, size_t count)
{
    next_level(settings);
    apply_file(settings);
    next_level(settings);
    environment_apply(settings, environ);
    next_level(settings);
    arguments_apply(settings, arguments, count);
    check_together(settings);
}

static enum status load(struct settings *settings, int argc, char *const argv[])
{
    assert(OPTION_COUNT <= OPTIONS_MAX && !settings->config);
    settings->config = calloc(1, sizeof *settings->config);
    struct argument *arguments = calloc((size_t)argc + 1, sizeof *arguments);
    if (!settings->config || !arguments) {
        free(arguments);
        settings_report(settings, "out of memory");
        return STATUS_SYSTEM;
    }
    apply_defaults(settings); /* which are allowed, so that only memory can be wanting */
    if (settings->failed) {
        free(arguments);
        return STATUS_SYSTEM;
    }
    const size_t count = arguments_read(settings, argc, argv, arguments);
    if (settings->command != COMMAND_HELP && settings->command != COMMAND_VERSION)
        load_levels(settings, arguments, count);
    free(arguments);
    return settings->failed ? STATUS_INVALID : STATUS_OK;
}

static enum status load_all(struct settings *settings, int argc, char *const argv[],
                            struct config **out)
{
    const enum status status = load(settings, argc, argv);
    if (status == STATUS_OK)
        *out = settings->config;
    else
        config_free(settings->config);
    return status;
}

enum status options_load(int argc, char *const argv[], FILE *errors, enum command *command,
                         struct config **out)
{
    assert(argc >= 0 && argv && errors && command && out);
    struct settings settings = {.errors = errors, .command = COMMAND_SERVE};
    TRY(load_all(&settings, argc, argv, out));
    *command = settings.command;
    return STATUS_OK;
}

enum status options_reload(int argc, char *const argv[], const struct config *start, FILE *errors,
                           struct config **out)
{
    assert(argc >= 0 && argv && start && errors && out);
    struct settings settings = {
        .errors = errors, .command = COMMAND_SERVE, .is_reload = true, .config_file = start->file};
    return load_all(&settings, argc, argv, out);
}

bool option_needs_restart(const struct option *option)
{
    return option->key && option->offset < offsetof(struct config, snapshot);
}

static bool differs(const struct option *option, const struct config *a, const struct config *b)
{
    if (option->differs)
        return option->differs(a, b);
    assert(option->size > 0);
    return memcmp((const char *)a + option->offset, (const char *)b + option->offset,
                  option->size) != 0;
}

size_t options_find_left(const struct config *running, const struct config *wanted, char *text,
                         size_t size)
{
    assert(running && wanted && text && size > 0);
    size_t count = 0;
    size_t length = 0;
    *text = '\0';
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *option = &OPTIONS[i];
        if (!option_needs_restart(option) || !differs(option, running, wanted))
            continue;
        if (length < size)
            length += (size_t)snprintf(text + length, size - length, "%s%s", count > 0 ? " " : "",
                                       option->key);
        count++;
    }
    return count;
}

void config_free(struct config *config)
{
    if (!config)
        return;
    assert(config->snapshot.upstream_count <= CONFIG_UPSTREAMS_MAX);
    for (size_t i = 0; i < CONFIG_UPSTREAMS_MAX; i++)
        free_upstream(&config->snapshot.upstreams[i]);
    free(config->snapshot.tls_ca_file);
    free(config->snapshot.tls_ca_origin);
    free(config);
}
