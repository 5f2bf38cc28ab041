// SPDX-License-Identifier: Apache-2.0
/* Loading a configuration in a test: a directory of its own, no variables from outside, errors as
 * text, and the result as text in which every field has its line. */
#ifndef SUPPORT_CONFIG_FIXTURE_H
#define SUPPORT_CONFIG_FIXTURE_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/options.h"

struct loaded {
    enum status status;
    enum command command;
    struct config *config; /* NULL unless STATUS_OK */
    char *errors;          /* "" when there are none */
};

static char config_directory[64];

static inline void config_clear_environment(void)
{
    for (size_t i = 0; environ[i];) {
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(environ[i], "="), environ[i]);
        if (strncmp(name, "DNSPROXY_", 9) == 0)
            unsetenv(name);
        else
            i++;
    }
}

static inline void config_write(const char *path, const char *text, size_t length)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

/* The test runs in an empty directory with one file, ca.pem. */
static inline int config_setup(void **state)
{
    (void)state;
    config_clear_environment();
    strcpy(config_directory, "/tmp/dnsproxy-config-XXXXXX");
    assert_non_null(mkdtemp(config_directory));
    assert_int_equal(chdir(config_directory), 0);
    config_write("ca.pem", "x", 1);
    return 0;
}

static inline int config_teardown(void **state)
{
    (void)state;
    config_clear_environment();
    unlink("ca.pem");
    unlink("dnsproxy.yaml");
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(rmdir(config_directory), 0);
    return 0;
}

/* Arguments without the program's name, NULL at the end. */
static inline struct loaded config_load(const char *const *arguments)
{
    struct loaded loaded = {};
    char *argv[64] = {(char *)(uintptr_t) "dnsproxy"};
    int argc = 1;
    for (; arguments && arguments[argc - 1]; argc++)
        argv[argc] = (char *)(uintptr_t)arguments[argc - 1];
    size_t length;
    FILE *errors = open_memstream(&loaded.errors, &length);
    assert_non_null(errors);
    loaded.status = options_load(argc, argv, errors, &loaded.command, &loaded.config);
    assert_int_equal(fclose(errors), 0);
    assert_int_equal(loaded.status == STATUS_OK, loaded.config != NULL);
    return loaded;
}

#define CONFIG_LOAD(...) config_load((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

/* dnsproxy.yaml with this text, and no other level. */
static inline struct loaded config_load_yaml(const char *text)
{
    config_write("dnsproxy.yaml", text, strlen(text));
    return CONFIG_LOAD("-c", "dnsproxy.yaml");
}

static inline void loaded_free(struct loaded *loaded)
{
    config_free(loaded->config);
    free(loaded->errors);
    *loaded = (struct loaded){};
}

/* Ends with the errors, which are expected to be exactly `expected`. */
static inline void assert_errors(struct loaded loaded, const char *expected)
{
    assert_string_equal(loaded.errors, expected);
    assert_int_equal(loaded.status, *expected == '\0' ? STATUS_OK : STATUS_INVALID);
    loaded_free(&loaded);
}

static inline void describe_servers(FILE *out, const struct config *config)
{
    char text[ADDRESS_TEXT_SIZE];
    fputs("listen =", out);
    for (size_t i = 0; i < config->listener_count; i++) {
        const struct listener_config *listener = &config->listeners[i];
        fprintf(out, " %s%s%s%s", address_format(&listener->address, text),
                listener->udp ? "/udp" : "", listener->tcp ? "/tcp" : "",
                listener->is_default ? "/default" : "");
    }
    fprintf(out, "\nlisten-freebind = %d", (int)config->listen_freebind);
    fputs("\nupstreams =", out);
    for (size_t i = 0; i < config->snapshot.upstream_count; i++) {
        const struct upstream_config *upstream = &config->snapshot.upstreams[i];
        if (upstream->host)
            snprintf(text, sizeof text, "%s/%u", upstream->host, upstream->port);
        else
            address_format(&upstream->address, text);
        fprintf(out, " %s,%s,%s,%s,%u", upstream->label, text,
                upstream->name ? upstream->name : "-", upstream->ca_file ? upstream->ca_file : "-",
                upstream->weight);
        for (size_t j = 0; j < upstream->pin_count; j++)
            fprintf(out, ",%02x..%02x", upstream->pins[j][0], upstream->pins[j][PIN_SIZE - 1]);
    }
    fputs("\nbootstrap =", out);
    for (size_t i = 0; i < config->snapshot.bootstrap_count; i++)
        fprintf(out, " %s", address_format(&config->snapshot.bootstraps[i], text));
    fputs("\nallow =", out);
    for (size_t i = 0; i < config->snapshot.allow_count; i++)
        fprintf(out, " %016" PRIx64 "%016" PRIx64 "/%u", config->snapshot.allow[i].bits[0],
                config->snapshot.allow[i].bits[1], config->snapshot.allow[i].length);
    fputs("\nrefused-source-ports =", out);
    for (size_t i = 0; i < config->snapshot.refused_source_port_count; i++)
        fprintf(out, " %u", config->snapshot.refused_source_ports[i]);
    fprintf(out, "\nadmin = %s\n",
            config->admin.enabled ? address_format(&config->admin.address, text) : "off");
}

static inline void describe_numbers(FILE *out, const struct config *config)
{
    fprintf(out, "strategy = %s\ntls.ca = %s\nworkers = %u\n",
            strategy_name(config->snapshot.strategy),
            config->snapshot.tls_ca_file ? config->snapshot.tls_ca_file : "-", config->workers);
    fprintf(out, "cache.size = %" PRIu64 "\n", config->cache_size_bytes);
    fprintf(out, "cache.ttl-min = %u\ncache.ttl-max = %u\ncache.negative-ttl-max = %u\n",
            config->snapshot.cache.ttl_min_s, config->snapshot.cache.ttl_max_s,
            config->snapshot.cache.negative_ttl_max_s);
    fprintf(out, "cache.max-stale = %u\ncache.refresh = %d\n", config->snapshot.cache.stale_max_s,
            (int)config->snapshot.cache.refresh);
    fprintf(out, "log.level = %d\nlog.format = %d\n", (int)config->snapshot.log_level,
            (int)config->log_format);
#define TIMEOUT(key, field) \
    fprintf(out, "timeouts." key " = %" PRIu64 "\n", config->field / 1000000)
    TIMEOUT("query", snapshot.timeouts.query_ns);
    TIMEOUT("connect", snapshot.timeouts.connect_ns);
    TIMEOUT("handshake", snapshot.timeouts.handshake_ns);
    TIMEOUT("request", snapshot.timeouts.request_ns);
    TIMEOUT("park", snapshot.timeouts.park_ns);
    TIMEOUT("upstream-idle", snapshot.timeouts.idle_ns);
    TIMEOUT("tcp-idle", snapshot.timeouts.tcp_idle_ns);
    TIMEOUT("tcp-message", snapshot.timeouts.tcp_message_ns);
    TIMEOUT("tcp-send", snapshot.timeouts.tcp_send_ns);
    TIMEOUT("lame-duck", snapshot.timeouts.lame_duck_ns);
    TIMEOUT("drain", snapshot.timeouts.drain_ns);
#undef TIMEOUT
#define LIMIT(key, field) fprintf(out, "limits." key " = %" PRIu64 "\n", (uint64_t)config->field)
    LIMIT("queries", limits.queries);
    LIMIT("upstream-requests", limits.upstream_requests);
    LIMIT("upstream-connections", limits.upstream_connections);
    LIMIT("tcp-clients", limits.tcp_clients);
    LIMIT("tcp-clients-per-address", snapshot.limits.tcp_clients_per_address);
    LIMIT("tcp-queries", snapshot.limits.tcp_queries);
    LIMIT("tcp-queries-total", snapshot.limits.tcp_queries_total);
    LIMIT("tcp-accept-rate", snapshot.limits.tcp_accept_rate);
    LIMIT("tcp-lifetime", limits.tcp_lifetime_ns);
    LIMIT("tcp-memory", limits.tcp_memory_bytes);
    LIMIT("udp-rate", limits.udp_rate);
    LIMIT("udp-queries-per-address", snapshot.limits.udp_queries_per_address);
    LIMIT("udp-reply-size", snapshot.limits.udp_reply_size);
#undef LIMIT
}

/* One line "key = value" for each field; to be freed. */
static inline char *config_describe(const struct config *config)
{
    char *text;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    assert_non_null(out);
    describe_servers(out, config);
    describe_numbers(out, config);
    assert_int_equal(fclose(out), 0);
    return text;
}

/* The value in the line of `key`; to be freed. */
static inline char *config_value(const struct config *config, const char *key)
{
    char line[128];
    snprintf(line, sizeof line, "%s = ", key);
    char *text = config_describe(config);
    const char *found = strstr(text, line);
    if (!found)
        found = strstr(text, (snprintf(line, sizeof line, "%s =", key), line));
    if (!found)
        fail_msg("%s is not described", key);
    found += strlen(line);
    char *value = strndup(found, strcspn(found, "\n"));
    free(text);
    return value;
}

static inline void assert_value(const struct config *config, const char *key, const char *expected)
{
    char *value = config_value(config, key);
    assert_string_equal(value, expected);
    free(value);
}

#endif
