// SPDX-License-Identifier: Apache-2.0
/* The option table: defaults, precedence, command line, environment, and that every row is settable
 * wherever it says so and described everywhere. */
#include "test.h"

#include <ctype.h>

#include "config/settings.h"
#include "config_fixture.h"
#include "document.h"

static void every_default(void **state)
{
    (void)state;
    struct loaded loaded = CONFIG_LOAD("--workers", "3");
    assert_string_equal(loaded.errors, "");
    assert_int_equal(loaded.command, COMMAND_SERVE);
    char *text = config_describe(loaded.config);
    assert_string_equal(
        text, "listen = 127.0.0.1:53/udp/tcp/default [::1]:53/udp/tcp/default\n"
              "listen-freebind = 0\n"
              "upstreams = 1.1.1.1:853#cloudflare-dns.com,1.1.1.1:853,cloudflare-dns.com,-,1"
              " 1.0.0.1:853#cloudflare-dns.com,1.0.0.1:853,cloudflare-dns.com,-,1"
              " [2606:4700:4700::1111]:853#cloudflare-dns.com,[2606:4700:4700::1111]:853,"
              "cloudflare-dns.com,-,1"
              " [2606:4700:4700::1001]:853#cloudflare-dns.com,[2606:4700:4700::1001]:853,"
              "cloudflare-dns.com,-,1\n"
              "bootstrap =\n"
              "allow = 00000000000000000000ffff7f000000/104 00000000000000000000000000000001/128"
              " 00000000000000000000ffff0a000000/104 00000000000000000000ffffac100000/108"
              " 00000000000000000000ffffc0a80000/112 00000000000000000000ffffa9fe0000/112"
              " 00000000000000000000ffff64400000/106 fe800000000000000000000000000000/10"
              " fc000000000000000000000000000000/7\n"
              "refused-source-ports = 7 13 17 19 37 69 111 123 137 161 389 520\n"
              "admin = 127.0.0.1:9153\n"
              "strategy = fastest\ntls.ca = -\nworkers = 3\n"
              "cache.size = 67108864\ncache.ttl-min = 0\ncache.ttl-max = 86400\n"
              "cache.negative-ttl-max = 3600\ncache.max-stale = 86400\ncache.refresh = 1\n"
              "log.level = 2\nlog.format = 0\n"
              "timeouts.query = 4000\ntimeouts.connect = 1000\ntimeouts.handshake = 1500\n"
              "timeouts.request = 1000\ntimeouts.park = 3000\ntimeouts.upstream-idle = "
              "30000\ntimeouts.tcp-idle = 10000\n"
              "timeouts.tcp-message = 5000\ntimeouts.tcp-send = 5000\n"
              "timeouts.lame-duck = 0\ntimeouts.drain = 2000\n"
              "limits.queries = 16000\nlimits.upstream-requests = 16383\n"
              "limits.upstream-connections = 2\nlimits.tcp-clients = 4096\n"
              "limits.tcp-clients-per-address = 512\nlimits.tcp-queries = 128\n"
              "limits.tcp-queries-total = 0\nlimits.tcp-accept-rate = 0\nlimits.tcp-lifetime = 0\n"
              "limits.tcp-memory = 33554432\n"
              "limits.udp-rate = 0\nlimits.udp-queries-per-address = 4096\nlimits.udp-reply-size = "
              "1232\n");
    free(text);
    loaded_free(&loaded);
}

static void workers_default_to_the_processors_there_are(void **state)
{
    (void)state;
    struct loaded loaded = CONFIG_LOAD();
    assert_int_equal(loaded.status, STATUS_OK);
    assert_int_equal(loaded.config->workers, workers_automatic());
    loaded_free(&loaded);
}

/* --- every row --- */

/* An allowed value that is not the default, as the fixture describes it in `described`. */
static const char *sample(const struct option *option)
{
    if (option->divisor)
        return "77s";
    if (option->set == set_number && option->quantity == &DURATIONS)
        return "2500ms";
    if (option->set == set_number && option->quantity == &SIZES)
        return "1MiB";
    if (strcmp(option->key, "limits.upstream-requests") == 0)
        return "9000"; /* twice that is more than limits.queries */
    if (option->set == set_number)
        return option->minimum <= 9 ? "9" : "600";
    if (option->set == set_choice) /* one that is not the default */
        return option->choices[strcmp(option->default_text, option->choices[1]) == 0 ? 0 : 1];
    if (option->set == set_toggle)
        return strcmp(option->default_text, "on") == 0 ? "off" : "on";
    if (option->set == set_workers)
        return "7";
    if (option->set == set_admin)
        return "[::1]:9999";
    if (option->set == set_tls_ca)
        return "ca.pem";
    if (option->set == add_prefix)
        return "192.0.2.0/24";
    if (option->set == add_source_port)
        return "4242";
    if (option->set == add_listener)
        return "192.0.2.1:5300";
    if (option->set == add_upstream)
        return "quad9";
    if (option->set == add_bootstrap)
        return "9.9.9.9";
    fail_msg("there is no sample for %s", option->key);
    return NULL;
}

/* Lines in which two descriptions differ. */
static size_t count_differences(const char *a, const char *b)
{
    size_t count = 0;
    while (*a != '\0' || *b != '\0') {
        const size_t a_length = strcspn(a, "\n");
        const size_t b_length = strcspn(b, "\n");
        count += a_length != b_length || memcmp(a, b, a_length) != 0;
        a += a_length + (a[a_length] == '\n');
        b += b_length + (b[b_length] == '\n');
    }
    return count;
}

static char *describe_and_free(struct loaded loaded)
{
    assert_string_equal(loaded.errors, "");
    char *text = config_describe(loaded.config);
    loaded_free(&loaded);
    return text;
}

static char *through_environment(const struct option *option)
{
    assert_int_equal(setenv(option->environment, sample(option), 1), 0);
    char *text = describe_and_free(CONFIG_LOAD());
    unsetenv(option->environment);
    return text;
}

static char *through_yaml(const struct option *option)
{
    char yaml[256];
    const char *dot = strchr(option->key, '.');
    if (dot)
        snprintf(yaml, sizeof yaml, "%.*s:\n  %s: '%s'\n", (int)(dot - option->key), option->key,
                 dot + 1, sample(option));
    else
        snprintf(yaml, sizeof yaml, "%s: '%s'\n", option->key, sample(option));
    return describe_and_free(config_load_yaml(yaml));
}

static char *through_flag(const struct option *option)
{
    return describe_and_free(CONFIG_LOAD(option->flag, sample(option)));
}

static void assert_only_its_line_changes(const struct option *option, char *changed)
{
    char *defaults = describe_and_free(CONFIG_LOAD());
    if (count_differences(defaults, changed) != 1)
        fail_msg("%s changes not exactly its field:\n%s", option->key, changed);
    free(defaults);
    free(changed);
}

static void every_option_is_settable_everywhere_and_changes_its_field_only(void **state)
{
    (void)state;
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *option = &OPTIONS[i];
        if (!option->key)
            continue;
        assert_only_its_line_changes(option, through_environment(option));
        assert_only_its_line_changes(option, through_yaml(option));
        if (option->flag)
            assert_only_its_line_changes(option, through_flag(option));
    }
}

static void every_flag_takes_its_value_in_each_form(void **state)
{
    (void)state;
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *option = &OPTIONS[i];
        if (!option->flag || !option->key)
            continue;
        char word[128];
        snprintf(word, sizeof word, "%s=%s", option->flag, sample(option));
        assert_only_its_line_changes(option, describe_and_free(CONFIG_LOAD(word)));
        if (!option->letter)
            continue;
        snprintf(word, sizeof word, "-%c%s", option->letter, sample(option));
        assert_only_its_line_changes(option, describe_and_free(CONFIG_LOAD(word)));
        snprintf(word, sizeof word, "-%c", option->letter);
        assert_only_its_line_changes(option, describe_and_free(CONFIG_LOAD(word, sample(option))));
    }
}

static void every_default_may_be_written_out(void **state)
{
    (void)state;
    char *defaults = describe_and_free(CONFIG_LOAD("-l", "127.0.0.1:53", "-l", "[::1]:53"));
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (OPTIONS[i].default_text)
            assert_int_equal(setenv(OPTIONS[i].environment, OPTIONS[i].default_text, 1), 0);
    char *written = describe_and_free(CONFIG_LOAD());
    assert_string_equal(written, defaults);
    free(written);
    free(defaults);
}

/* DNSPROXY_ and the flag in capitals, or the key where there is no flag. */
static void variables_are_named_by_one_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *option = &OPTIONS[i];
        if (!option->key)
            continue;
        char name[128];
        snprintf(name, sizeof name, "DNSPROXY_%s", option->flag ? option->flag + 2 : option->key);
        for (char *at = name; *at != '\0'; at++)
            *at = isalnum((unsigned char)*at) ? (char)toupper((unsigned char)*at) : '_';
        assert_string_equal(option->environment, name);
    }
}

static void assert_taken(const struct option *option, uint64_t value, bool is_allowed)
{
    char text[NUMBER_TEXT_SIZE];
    setenv(option->environment, number_format(option->quantity, value, text), 1);
    setenv("DNSPROXY_CACHE_TTL_MAX", "7d", 0); /* not below cache.ttl-min */
    setenv("DNSPROXY_LIMITS_QUERIES", "1", 0); /* not above those of one upstream */
    setenv("DNSPROXY_LIMITS_UPSTREAM_CONNECTIONS", "16", 0);
    struct loaded loaded = CONFIG_LOAD();
    if ((loaded.status == STATUS_OK) != is_allowed)
        fail_msg("%s = %s: %s", option->key, text, loaded.errors);
    loaded_free(&loaded);
    config_clear_environment();
}

static void every_range_takes_its_ends_and_nothing_beyond(void **state)
{
    (void)state;
    size_t count = 0;
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *option = &OPTIONS[i];
        if (option->set != set_number)
            continue;
        char text[NUMBER_TEXT_SIZE];
        /* The number of the unit in which a bound is written. */
        const uint64_t bound =
            strtoull(number_format(option->quantity, option->maximum, text), NULL, 10);
        assert_taken(option, 0, option->zero_is_off);
        assert_taken(option, option->minimum, true);
        assert_taken(option, option->maximum, true);
        assert_taken(option, option->maximum / bound * (bound + 1), false);
        count++;
    }
    assert_true(count > 20);
}

/* --- values --- */

static void units_count(void **state)
{
    (void)state;
    static const char *const durations[][2] = {
        {"10ms", "10"}, {"1500ms", "1500"}, {"4s", "4000"}, {"1m", "60000"}, {"007s", "7000"},
    };
    for (size_t i = 0; i < sizeof durations / sizeof durations[0]; i++) {
        struct loaded loaded = CONFIG_LOAD("--query-timeout", durations[i][0]);
        assert_int_equal(loaded.status, STATUS_OK);
        assert_value(loaded.config, "timeouts.query", durations[i][1]);
        loaded_free(&loaded);
    }
    static const char *const sizes[][2] = {
        {"0", "0"}, {"64KiB", "65536"}, {"3MiB", "3145728"}, {"2GiB", "2147483648"}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct loaded loaded = CONFIG_LOAD("--cache-size", sizes[i][0]);
        assert_int_equal(loaded.status, STATUS_OK);
        assert_value(loaded.config, "cache.size", sizes[i][1]);
        loaded_free(&loaded);
    }
}

static void bad_values_are_refused_with_what_is_allowed(void **state)
{
    (void)state;
    static const char *const durations[] = {"",    "4 s",     "-4s", "4S", "s",   "1.5s",
                                            "9ms", "60001ms", "2m",  "0",  "4sec"};
    for (size_t i = 0; i < sizeof durations / sizeof durations[0]; i++) {
        char expected[256];
        snprintf(expected, sizeof expected,
                 "--query-timeout: \"%s\" is not a duration; allowed: 10ms to 1m, as a whole "
                 "number with ms, s, m, h or d\n",
                 durations[i]);
        assert_errors(CONFIG_LOAD("--query-timeout", durations[i]), expected);
    }
    static const char *const sizes[] = {"",
                                        "64MB",
                                        "64mib",
                                        "1KiB",
                                        "-1MiB",
                                        "1025GiB",
                                        "99999999999999999999GiB",
                                        "18014398509481985KiB"};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char expected[256];
        snprintf(expected, sizeof expected,
                 "--cache-size: \"%s\" is not a size; allowed: 0, or 64KiB to 1024GiB, as a whole "
                 "number with KiB, MiB or GiB\n",
                 sizes[i]);
        assert_errors(CONFIG_LOAD("--cache-size", sizes[i]), expected);
    }
    assert_errors(CONFIG_LOAD("--workers", "0"),
                  "--workers: \"0\" is not a number of workers; allowed: auto, or 1 to 64\n");
    assert_errors(CONFIG_LOAD("--workers", "65"),
                  "--workers: \"65\" is not a number of workers; allowed: auto, or 1 to 64\n");
    assert_errors(CONFIG_LOAD("--strategy", "Fastest"),
                  "--strategy: \"Fastest\" is not known; allowed: fastest, ordered, weighted, "
                  "hash\n");
    assert_errors(CONFIG_LOAD("--admin", "localhost:9153"),
                  "--admin: \"localhost:9153\" is not an address; allowed: off, or an IPv4 or "
                  "[IPv6] address with a port from 1 to 65535\n");
    assert_errors(CONFIG_LOAD("--allow", "10.0.0.1/8"),
                  "--allow: \"10.0.0.1/8\" is not a range of addresses; allowed: such as "
                  "192.0.2.0/24, 2001:db8::/32 or one address, without bits beyond the length\n");
    setenv("DNSPROXY_CACHE_TTL_MAX", "1500ms", 1);
    assert_errors(CONFIG_LOAD(),
                  "DNSPROXY_CACHE_TTL_MAX: \"1500ms\" is not a whole number of seconds\n");
    setenv("DNSPROXY_CACHE_TTL_MAX", "10s", 1);
    setenv("DNSPROXY_CACHE_TTL_MIN", "11s", 1);
    assert_errors(CONFIG_LOAD(), "cache.ttl-min: is longer than cache.ttl-max\n");
    config_clear_environment();
    setenv("DNSPROXY_LIMITS_UPSTREAM_REQUESTS", "7999", 1);
    assert_errors(CONFIG_LOAD(),
                  "limits.queries: is more than the requests in flight to one upstream may be: "
                  "limits.upstream-requests times limits.upstream-connections\n");
    setenv("DNSPROXY_LIMITS_UPSTREAM_REQUESTS", "8000", 1);
    assert_errors(CONFIG_LOAD(), "");
}

static void a_number_without_a_unit_is_told_so(void **state)
{
    (void)state;
    assert_errors(CONFIG_LOAD("--query-timeout", "4"),
                  "--query-timeout: \"4\" has no unit; allowed: 10ms to 1m, as a whole number with "
                  "ms, s, m, h or d\n");
    assert_errors(CONFIG_LOAD("--cache-size", "64"),
                  "--cache-size: \"64\" has no unit; allowed: 0, or 64KiB to 1024GiB, as a whole "
                  "number with KiB, MiB or GiB\n");
    setenv("DNSPROXY_CACHE_TTL_MAX", "3600", 1);
    assert_errors(CONFIG_LOAD(), "DNSPROXY_CACHE_TTL_MAX: \"3600\" has no unit; allowed: 1s to 7d, "
                                 "as a whole number with ms, s, m, h or d\n");
}

static void a_toggle_takes_all_words_of_yaml(void **state)
{
    (void)state;
    static const char *const on[] = {"on", "On", "ON", "true", "True", "TRUE", "yes", "Yes", "YES"};
    static const char *const off[] = {"off",   "Off", "OFF", "false", "False",
                                      "FALSE", "no",  "No",  "NO"};
    for (size_t i = 0; i < sizeof on / sizeof on[0]; i++) {
        setenv("DNSPROXY_CACHE_REFRESH", on[i], 1);
        struct loaded loaded = CONFIG_LOAD();
        assert_value(loaded.config, "cache.refresh", "1");
        loaded_free(&loaded);
    }
    for (size_t i = 0; i < sizeof off / sizeof off[0]; i++) {
        setenv("DNSPROXY_CACHE_REFRESH", off[i], 1);
        struct loaded loaded = CONFIG_LOAD("--admin", off[i]);
        assert_value(loaded.config, "cache.refresh", "0");
        assert_value(loaded.config, "admin", "off");
        loaded_free(&loaded);
    }
    setenv("DNSPROXY_CACHE_REFRESH", "1", 1);
    assert_errors(CONFIG_LOAD("--admin", "yes"),
                  "DNSPROXY_CACHE_REFRESH: \"1\" is not known; allowed: on, off, true, false, yes, "
                  "no\n"
                  "--admin: \"yes\" is not an address; allowed: off, or an IPv4 or [IPv6] address "
                  "with a port from 1 to 65535\n");
}

static void an_address_whose_port_is_unclear_is_refused_with_brackets(void **state)
{
    (void)state;
#define BRACKETS(address)                                                \
    "needs brackets that tell the address from the port, as in " address \
    "; they hold the last part if it is no port\n"
    assert_errors(CONFIG_LOAD("-l", "::1:53"), "--listen: \"::1:53\" " BRACKETS("[::1]:53"));
    assert_errors(CONFIG_LOAD("-l", "udp://:::5300"),
                  "--listen: \"udp://:::5300\" " BRACKETS("[::]:5300"));
    assert_errors(CONFIG_LOAD("--admin", "::1:9153"),
                  "--admin: \"::1:9153\" " BRACKETS("[::1]:9153"));
    assert_errors(CONFIG_LOAD("--bootstrap", "2620:fe::9:53"),
                  "--bootstrap: \"2620:fe::9:53\" " BRACKETS("[2620:fe::9]:53"));
    assert_errors(CONFIG_LOAD("-u", "tls://2001:db8::1:853#a.example"),
                  "--upstream: \"tls://2001:db8::1:853#a.example\" " BRACKETS("[2001:db8::1]:853"));
    struct loaded loaded = CONFIG_LOAD("-l", "2001:db8::53", "-l", "[::1:2:53]");
    assert_value(loaded.config, "listen", "[2001:db8::53]:53/udp/tcp [::1:2:53]:53/udp/tcp");
    loaded_free(&loaded);
}

static void files_of_certificates_are_read_before_anything_starts(void **state)
{
    (void)state;
    config_write("ca.pem", "", 0);
    assert_errors(CONFIG_LOAD("--tls-ca", "ca.pem"), "--tls-ca: \"ca.pem\" is empty\n");
    assert_errors(CONFIG_LOAD("--tls-ca", "missing.pem"),
                  "--tls-ca: \"missing.pem\" cannot be read: No such file or directory\n");
    assert_errors(CONFIG_LOAD("--tls-ca", "/"), "--tls-ca: \"/\" is not a file\n");
    assert_errors(CONFIG_LOAD("--tls-ca", "/dev/null"), "--tls-ca: \"/dev/null\" is not a file\n");
    config_write("ca.pem", "x", 1);
    struct loaded loaded = CONFIG_LOAD("--tls-ca=ca.pem", "--tls-ca=system");
    assert_int_equal(loaded.status, STATUS_OK);
    assert_null(loaded.config->snapshot.tls_ca_file);
    loaded_free(&loaded);
}

static void off_and_none_empty_what_has_a_default(void **state)
{
    (void)state;
    setenv("DNSPROXY_REFUSED_SOURCE_PORTS", "none", 1);
    struct loaded loaded = CONFIG_LOAD("--admin", "off");
    assert_int_equal(loaded.status, STATUS_OK);
    assert_false(loaded.config->admin.enabled);
    assert_int_equal(loaded.config->snapshot.refused_source_port_count, 0);
    loaded_free(&loaded);
    assert_errors(CONFIG_LOAD("--listen", " , "), "--listen: needs at least one value\n");
}

static void lists_have_an_end(void **state)
{
    (void)state;
    char text[CONFIG_PREFIXES_MAX * 16 + 16] = "";
    for (int i = 0; i < CONFIG_PORTS_MAX; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%d,", i + 1);
    setenv("DNSPROXY_REFUSED_SOURCE_PORTS", text, 1);
    assert_errors(CONFIG_LOAD(), "");
    strcat(text, "99");
    setenv("DNSPROXY_REFUSED_SOURCE_PORTS", text, 1);
    assert_errors(CONFIG_LOAD(),
                  "DNSPROXY_REFUSED_SOURCE_PORTS: \"99\" is one too many; allowed: 64\n");
    config_clear_environment();
    *text = '\0';
    for (int i = 0; i < CONFIG_PREFIXES_MAX; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "10.0.0.%d ", i);
    assert_errors(CONFIG_LOAD("--allow", text), "");
    assert_errors(CONFIG_LOAD("--allow", text, "--allow", "::1"),
                  "--allow: \"::1\" is one too many; allowed: 256\n");
}

/* --- precedence --- */

static void flag_beats_environment_beats_file_beats_default(void **state)
{
    (void)state;
    struct loaded loaded = config_load_yaml("cache: {size: 2MiB}\n");
    assert_value(loaded.config, "cache.size", "2097152");
    loaded_free(&loaded);
    setenv("DNSPROXY_CACHE_SIZE", "3MiB", 1);
    loaded = CONFIG_LOAD("-c", "dnsproxy.yaml");
    assert_value(loaded.config, "cache.size", "3145728");
    loaded_free(&loaded);
    loaded = CONFIG_LOAD("-c", "dnsproxy.yaml", "--cache-size", "4MiB");
    assert_value(loaded.config, "cache.size", "4194304");
    loaded_free(&loaded);
}

static void a_list_of_a_higher_level_replaces_those_below(void **state)
{
    (void)state;
    config_write("dnsproxy.yaml", "listen: [192.0.2.1, 192.0.2.2]\n", 31);
    struct loaded loaded = CONFIG_LOAD("-c", "dnsproxy.yaml");
    assert_value(loaded.config, "listen", "192.0.2.1:53/udp/tcp 192.0.2.2:53/udp/tcp");
    loaded_free(&loaded);
    setenv("DNSPROXY_LISTEN", "192.0.2.3, 192.0.2.4 192.0.2.5", 1);
    loaded = CONFIG_LOAD("-c", "dnsproxy.yaml");
    assert_value(loaded.config, "listen",
                 "192.0.2.3:53/udp/tcp 192.0.2.4:53/udp/tcp 192.0.2.5:53/udp/tcp");
    loaded_free(&loaded);
    loaded = CONFIG_LOAD("-c", "dnsproxy.yaml", "-l", "192.0.2.6", "-l", "192.0.2.7");
    assert_value(loaded.config, "listen", "192.0.2.6:53/udp/tcp 192.0.2.7:53/udp/tcp");
    loaded_free(&loaded);
}

static void a_value_that_is_replaced_is_still_checked(void **state)
{
    (void)state;
    setenv("DNSPROXY_CACHE_SIZE", "much", 1);
    assert_errors(CONFIG_LOAD("--cache-size", "4MiB"),
                  "DNSPROXY_CACHE_SIZE: \"much\" is not a size; allowed: 0, or 64KiB to 1024GiB, "
                  "as a whole number with KiB, MiB or GiB\n");
}

static void the_last_of_several_flags_counts(void **state)
{
    (void)state;
    struct loaded loaded = CONFIG_LOAD("--workers", "2", "--workers", "5");
    assert_value(loaded.config, "workers", "5");
    loaded_free(&loaded);
}

static void the_file_is_named_by_flag_or_environment(void **state)
{
    (void)state;
    config_write("dnsproxy.yaml", "workers: 9\n", 11);
    setenv("DNSPROXY_CONFIG", "dnsproxy.yaml", 1);
    struct loaded loaded = CONFIG_LOAD();
    assert_value(loaded.config, "workers", "9");
    loaded_free(&loaded);
    setenv("DNSPROXY_CONFIG", "missing.yaml", 1);
    assert_errors(CONFIG_LOAD(), "missing.yaml: cannot be read: No such file or directory\n");
    loaded = CONFIG_LOAD("--config=dnsproxy.yaml");
    assert_value(loaded.config, "workers", "9");
    loaded_free(&loaded);
}

/* --- command line and environment --- */

static void commands_and_what_only_prints(void **state)
{
    (void)state;
    static const struct {
        const char *words[4];
        enum command command;
    } cases[] = {
        {{"serve"}, COMMAND_SERVE},
        {{"check"}, COMMAND_CHECK},
        {{"probe"}, COMMAND_PROBE},
        {{"health"}, COMMAND_HEALTH},
        {{"--workers", "3", "check"}, COMMAND_CHECK},
        {{"check", "--workers", "3"}, COMMAND_CHECK},
        {{"-h"}, COMMAND_HELP},
        {{"--help", "serve"}, COMMAND_HELP},
        {{"probe", "--help"}, COMMAND_HELP},
        {{"-V"}, COMMAND_VERSION},
        {{"--version"}, COMMAND_VERSION},
        {{"--help", "-c", "missing.yaml"}, COMMAND_HELP},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loaded loaded = config_load(cases[i].words);
        assert_string_equal(loaded.errors, "");
        assert_int_equal(loaded.command, cases[i].command);
        loaded_free(&loaded);
    }
}

static void wrong_words_are_all_reported(void **state)
{
    (void)state;
    assert_errors(CONFIG_LOAD("--cache-sise=0", "chekc", "check", "-x", "--version=2", "--", "-"),
                  "--cache-sise=0: is not an option; the nearest is --cache-size\n"
                  "chekc: is not a command; allowed: serve, check, probe, health\n"
                  "check: is one argument too many; a command was given\n"
                  "-x: is not an option\n"
                  "--version: takes no value\n"
                  "--: is not an option\n"
                  "-: is one argument too many; a command was given\n");
    assert_errors(CONFIG_LOAD("--cache-sise", "3MiB", "chekc"),
                  "--cache-sise: is not an option; the nearest is --cache-size\n"
                  "chekc: is not a command; allowed: serve, check, probe, health\n");
    assert_errors(CONFIG_LOAD("-l"), "--listen: needs a value, ADDR\n");
    assert_errors(CONFIG_LOAD("--workers"), "--workers: needs a value, N\n");
    assert_errors(CONFIG_LOAD("-c"), "--config: needs a value, FILE\n");
}

static void the_nearest_flag_is_told_when_one_is_near(void **state)
{
    (void)state;
    static const char *const unknown[][2] = {
        {"--lsiten=::", "--listen"},
        {"--Listen=::", "--listen"},
        {"--upstreams=google", "--upstream"},
        {"--tls.ca=x", "--tls-ca"},
        {"--log_levle=debug", "--log-level"},
        {"--timeouts-query=4s", "--query-timeout"},
        {"--port=53", NULL},
        {"--servers=9.9.9.9", NULL},
        {"--timeouts-connect=1s", NULL}, /* that has no flag */
        {"--c=x", NULL},
    };
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        char expected[128];
        snprintf(expected, sizeof expected, "%s: is not an option%s%s\n", unknown[i][0],
                 unknown[i][1] ? "; the nearest is " : "", unknown[i][1] ? unknown[i][1] : "");
        assert_errors(CONFIG_LOAD(unknown[i][0]), expected);
    }
}

/* All that Kubernetes sets for a service, for one of IPv6 and one with a second port. */
static void service_variables_of_any_service_are_ignored(void **state)
{
    (void)state;
    static const char *const services[] = {"DNSPROXY", "DNSPROXY_METRICS", "DNSPROXY_LISTEN_2"};
    static const char *const variables[][2] = {
        {"SERVICE_HOST", "10.0.0.1"},
        {"SERVICE_HOST", "fd00::1"},
        {"SERVICE_PORT", "53"},
        {"SERVICE_PORT_DNS", "53"},
        {"SERVICE_PORT_DNS_UDP", "53"},
        {"PORT", "udp://10.0.0.1:53"},
        {"PORT", "tcp://[fd00::1]:9153"},
        {"PORT_53_UDP", "udp://10.0.0.1:53"},
        {"PORT_53_UDP_PROTO", "udp"},
        {"PORT_53_UDP_PORT", "53"},
        {"PORT_53_UDP_ADDR", "10.0.0.1"},
        {"PORT_9153_TCP", "tcp://[fd00::1]:9153"},
        {"PORT_9153_TCP_ADDR", "fd00::1"},
        {"PORT_5000_SCTP_PROTO", "sctp"},
    };
    for (size_t i = 0; i < sizeof services / sizeof services[0]; i++)
        for (size_t j = 0; j < sizeof variables / sizeof variables[0]; j++) {
            char name[128];
            snprintf(name, sizeof name, "%s_%s", services[i], variables[j][0]);
            setenv(name, variables[j][1], 1);
            assert_errors(CONFIG_LOAD(), "");
        }
}

static void unknown_variables_are_errors(void **state)
{
    (void)state;
    setenv("DNSPROXY_LISTEN", "", 1);
    setenv("DNSPROXY_SOMETHING", "", 1);
    assert_errors(CONFIG_LOAD(), "");
    static const struct {
        const char *name;
        const char *value;
        const char *nearest; /* NULL: none */
    } unknown[] = {
        {"DNSPROXY_CACHESIZE", "0", "DNSPROXY_CACHE_SIZE"},
        {"DNSPROXY_REFUSED_SOURCE_PORT", "53", "DNSPROXY_REFUSED_SOURCE_PORTS"},
        {"DNSPROXY_TIMEOUTS_QUERY", "2s", "DNSPROXY_QUERY_TIMEOUT"},
        /* Not quite what Kubernetes sets: the name, then the value. */
        {"DNSPROXY_ADMIN_PORT", "9153", NULL},
        {"DNSPROXY_PORT", "53", NULL},
        {"DNSPROXY_PORTS", "udp://10.0.0.1:53", NULL},
        {"DNSPROXY_PORT_53", "udp://10.0.0.1:53", NULL},
        {"DNSPROXY_SERVICE_HOSTS", "10.0.0.1", NULL},
        {"DNSPROXY_SERVICE_HOST", "listen", NULL},
        {"DNSPROXY_SERVICE_PORT", "tcp", NULL},
        {"DNSPROXY_SERVICE", "10.0.0.1", NULL},
        {"DNSPROXY_PORT_53_UDP_NAME", "53", NULL},
    };
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        char expected[256];
        snprintf(expected, sizeof expected, "%s: is not a known variable%s%s\n", unknown[i].name,
                 unknown[i].nearest ? "; the nearest is " : "",
                 unknown[i].nearest ? unknown[i].nearest : "");
        setenv(unknown[i].name, unknown[i].value, 1);
        assert_errors(CONFIG_LOAD(), expected);
        unsetenv(unknown[i].name);
    }
}

static void control_bytes_never_reach_the_terminal(void **state)
{
    (void)state;
    assert_errors(CONFIG_LOAD("--strategy", "\x1b[2J\x7f"),
                  "--strategy: \"?[2J?\" is not known; allowed: fastest, ordered, weighted, "
                  "hash\n");
    char text[200];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    struct loaded loaded = CONFIG_LOAD("--strategy", text);
    assert_true(strlen(loaded.errors) < sizeof text);
    assert_non_null(strstr(loaded.errors, "xxx...\" is not known"));
    loaded_free(&loaded);
}

static void no_program_name_is_no_crash(void **state)
{
    (void)state;
    char *const argv[] = {NULL};
    enum command command;
    struct config *config;
    assert_int_equal(options_load(0, argv, stderr, &command, &config), STATUS_OK);
    config_free(config);
    config_free(NULL);
}

/* --- reload --- */

static const char *left_of(const struct config *running, const struct config *wanted)
{
    static char text[512];
    const size_t count = options_find_left(running, wanted, text, sizeof text);
    assert_int_equal(count > 0, *text != '\0');
    return text;
}

/* No option is without an effect and without a word. */
static void J1_every_option_is_in_the_snapshot_or_is_named(void **state)
{
    (void)state;
    struct loaded defaults = CONFIG_LOAD("-l", "127.0.0.1:53");
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *option = &OPTIONS[i];
        if (!option->key)
            continue;
        unsetenv("DNSPROXY_LISTEN");
        setenv("DNSPROXY_LISTEN", "127.0.0.1:53", 1);
        setenv(option->environment, sample(option), 1);
        struct loaded loaded = CONFIG_LOAD();
        unsetenv(option->environment);
        unsetenv("DNSPROXY_LISTEN");
        assert_string_equal(loaded.errors, "");
        const bool is_left =
            memcmp(defaults.config, loaded.config, offsetof(struct config, snapshot)) != 0;
        assert_string_equal(left_of(defaults.config, loaded.config), is_left ? option->key : "");
        assert_string_equal(left_of(loaded.config, defaults.config), is_left ? option->key : "");
        assert_string_equal(left_of(loaded.config, loaded.config), "");
        assert_int_equal(option_needs_restart(option), is_left);
        char *described[] = {config_describe(defaults.config), config_describe(loaded.config)};
        assert_string_not_equal(described[0], described[1]);
        free(described[0]);
        free(described[1]);
        loaded_free(&loaded);
    }
    loaded_free(&defaults);
}

/* Each member of what has several, one at a time. */
static void J1_what_differs_in_one_part_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *key, *a, *b;
    } pairs[] = {
        {"listen", "udp://127.0.0.1:53", "tcp://127.0.0.1:53"},
        {"listen", "udp://127.0.0.1:53", "127.0.0.1:53"},
        {"listen", "127.0.0.1:53", "127.0.0.1:54"},
        {"listen", "127.0.0.1:53", "127.0.0.1:53, 127.0.0.2:53"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        char text[2][256];
        struct loaded loaded[2];
        snprintf(text[0], sizeof text[0], "%s: [%s]\n", pairs[i].key, pairs[i].a);
        snprintf(text[1], sizeof text[1], "%s: [%s]\n", pairs[i].key, pairs[i].b);
        for (size_t j = 0; j < 2; j++) {
            loaded[j] = config_load_yaml(text[j]);
            assert_string_equal(loaded[j].errors, "");
        }
        assert_string_equal(left_of(loaded[0].config, loaded[1].config), pairs[i].key);
        assert_string_equal(left_of(loaded[1].config, loaded[0].config), pairs[i].key);
        assert_string_equal(left_of(loaded[1].config, loaded[1].config), "");
        loaded_free(&loaded[0]);
        loaded_free(&loaded[1]);
    }
}

#define PIN "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
#define OTHER_PIN "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA="

/* Whether the only upstream of the one text has its slot in the other, where it is the last. */
static bool stays(const char *former, const char *next, const struct tls_trust *trusts[2])
{
    char text[2][256];
    snprintf(text[0], sizeof text[0], "bootstrap: 192.0.2.53\nupstreams: [%s]\n", former);
    snprintf(text[1], sizeof text[1], "bootstrap: 192.0.2.53\nupstreams: [%s]\n", next);
    struct loaded a = config_load_yaml(text[0]);
    struct loaded b = config_load_yaml(text[1]);
    assert_string_equal(a.errors, "");
    assert_string_equal(b.errors, "");
    struct snapshot *snapshot = &b.config->snapshot;
    a.config->snapshot.upstreams[0].trust = trusts[0];
    snapshot->upstreams[snapshot->upstream_count - 1].trust = trusts[1];
    upstreams_place(snapshot, &a.config->snapshot);
    const size_t slot = snapshot->upstreams[snapshot->upstream_count - 1].slot;
    loaded_free(&a);
    loaded_free(&b);
    return slot == 0;
}

static void J1_upstream_stays_when_nothing_of_it_is_another(void **state)
{
    (void)state;
    static int places[2];
    const struct tls_trust *one[2] = {(void *)&places[0], (void *)&places[0]};
    const struct tls_trust *two[2] = {(void *)&places[0], (void *)&places[1]};
    const char *url = "{url: 'tls://192.0.2.1#a.test'}";
    assert_true(stays(url, url, one));
    assert_false(stays(url, url, two));
    assert_true(stays(url, "{url: 'tls://192.0.2.1#a.test', weight: 2}", one));
    assert_true(
        stays(url, "{url: 'tls://192.0.2.2#a.test'}, {url: 'tls://192.0.2.1#a.test'}", one));
    assert_false(stays(url, "{url: 'tls://192.0.2.2#a.test'}", one));
    assert_false(stays(url, "{url: 'tls://192.0.2.1#b.test'}", one));
    assert_false(stays(url, "{url: 'tls://192.0.2.1:1#a.test'}", one));
    assert_true(stays("{url: 'tls://up.test'}",
                      "{url: 'tls://192.0.2.1#a.test'}, {url: 'tls://up.test'}", one));
    assert_false(stays("{url: 'tls://up.test'}", "{url: 'tls://up2.test#up.test'}", one));
    const char *pins = "{url: 'tls://192.0.2.1', pins: ['" OTHER_PIN "', '" PIN "']}";
    assert_true(stays(pins, pins, one));
    assert_false(stays(pins, "{url: 'tls://192.0.2.1', pins: ['" PIN "']}", one));
    assert_false(stays(url, "{url: 'tls://192.0.2.1#a.test', pins: ['" PIN "']}", one));
    /* By what it is, not by the number in its label. */
    const char *second = "{url: 'tls://192.0.2.1', pins: ['" OTHER_PIN "']}";
    assert_true(stays(second,
                      "{url: 'tls://192.0.2.1', pins: ['" PIN "']}, "
                      "{url: 'tls://192.0.2.1', pins: ['" OTHER_PIN "']}",
                      one));
}

/* As many new ones as there may be, beside as many that leave. */
static void J1_each_upstream_has_a_slot_of_its_own(void **state)
{
    (void)state;
    static struct snapshot snapshots[3];
    static char labels[3][CONFIG_UPSTREAMS_MAX][16];
    for (size_t i = 0; i < 3; i++) {
        snapshots[i].upstream_count = CONFIG_UPSTREAMS_MAX;
        for (size_t j = 0; j < CONFIG_UPSTREAMS_MAX; j++) {
            /* The last one of the former is the first one of the next. */
            const size_t number = i * (CONFIG_UPSTREAMS_MAX - 1) + j;
            snprintf(labels[i][j], sizeof labels[i][j], "up%zu", number);
            snapshots[i].upstreams[j].label = labels[i][j];
            snapshots[i].upstreams[j].slot = j;
            snapshots[i].upstreams[j].host = labels[i][j];
        }
        if (i > 0)
            upstreams_place(&snapshots[i], &snapshots[i - 1]);
        upstream_set slots = 0;
        for (size_t j = 0; i > 0 && j < CONFIG_UPSTREAMS_MAX; j++)
            slots |= upstream_bit(snapshots[i - 1].upstreams[j].slot);
        for (size_t j = i > 0; j < CONFIG_UPSTREAMS_MAX; j++) {
            assert_true((slots & upstream_bit(snapshots[i].upstreams[j].slot)) == 0);
            slots |= upstream_bit(snapshots[i].upstreams[j].slot);
        }
        if (i > 0)
            assert_int_equal(snapshots[i].upstreams[0].slot,
                             snapshots[i - 1].upstreams[CONFIG_UPSTREAMS_MAX - 1].slot);
    }
}

static void J1_what_is_named_is_cut_and_counted(void **state)
{
    (void)state;
    struct loaded a = CONFIG_LOAD("--workers", "3", "--cache-size", "1MiB", "--admin", "off");
    struct loaded b = CONFIG_LOAD("--workers", "4", "--cache-size", "2MiB");
    char text[16];
    assert_string_equal(left_of(a.config, b.config), "workers cache.size admin");
    assert_int_equal(options_find_left(a.config, b.config, text, sizeof text), 3);
    assert_string_equal(text, "workers cache.s");
    assert_int_equal(options_find_left(a.config, b.config, text, 1), 3);
    assert_string_equal(text, "");
    loaded_free(&a);
    loaded_free(&b);
}

/* With nothing on the command line, as a daemon that found its file where it always is. */
static enum status reload(char **errors)
{
    static const struct config start = {.file = "dnsproxy.yaml"};
    char *const argv[] = {(char *)(uintptr_t) "dnsproxy", NULL};
    size_t length;
    struct config *config = NULL;
    FILE *out = open_memstream(errors, &length);
    assert_non_null(out);
    const enum status status = options_reload(1, argv, &start, out, &config);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(status == STATUS_OK, config != NULL);
    config_free(config);
    return status;
}

/* One that is gone is no reason to go on with the defaults; a pipe would wait for somebody to write
 * into it. */
static void J1_file_that_is_gone_or_a_pipe_is_an_error(void **state)
{
    (void)state;
    char *errors;
    config_write("dnsproxy.yaml", "workers: 3\n", 11);
    assert_int_equal(reload(&errors), STATUS_OK);
    assert_string_equal(errors, "");
    free(errors);
    unlink("dnsproxy.yaml");
    assert_int_equal(reload(&errors), STATUS_INVALID);
    assert_string_equal(errors, "dnsproxy.yaml: cannot be read: No such file or directory\n");
    free(errors);
    assert_int_equal(mkfifo("dnsproxy.yaml", 0600), 0);
    assert_int_equal(reload(&errors), STATUS_INVALID);
    assert_string_equal(errors, "dnsproxy.yaml: is not a file, and so is read at the start only\n");
    free(errors);
}

/* --- documents --- */

static char *print(void (*print_document)(FILE *out))
{
    char *text;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    assert_non_null(out);
    print_document(out);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" is missing", part);
}

static void help_has_every_flag_and_fits_a_terminal(void **state)
{
    (void)state;
    char *text = print(options_print_help);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (!OPTIONS[i].flag)
            continue;
        assert_contains(text, OPTIONS[i].flag);
        if (OPTIONS[i].environment)
            assert_contains(text, OPTIONS[i].environment);
    }
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        assert_contains(text, COMMANDS[i].name);
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1)
        assert_in_range(strcspn(line, "\n"), 0, 80);
    free(text);
}

static void reference_has_every_key_variable_flag_and_default(void **state)
{
    (void)state;
    char *text = print(print_reference);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const char *const parts[] = {OPTIONS[i].key, OPTIONS[i].environment,
                                     OPTIONS[i].default_text};
        for (size_t j = 0; j < sizeof parts / sizeof parts[0]; j++) {
            char code[256];
            snprintf(code, sizeof code, "`%s`", parts[j] ? parts[j] : "size");
            assert_contains(text, code);
        }
        char flag[64];
        snprintf(flag, sizeof flag, "`%s", OPTIONS[i].flag ? OPTIONS[i].flag : "--");
        assert_contains(text, flag);
        assert_true(strlen(OPTIONS[i].help) > 10);
        assert_int_equal(OPTIONS[i].help[strlen(OPTIONS[i].help) - 1], '.');
    }
    assert_contains(text, "`--admin ADDR\\|off`"); /* the bar would end the cell */
    for (size_t i = 0; i < UPSTREAM_FIELD_COUNT; i++)
        assert_contains(text, UPSTREAM_FIELDS[i].key);
    assert_contains(text, "| `google` | 8.8.8.8, 8.8.4.4, 2001:4860:4860::8888, "
                          "2001:4860:4860::8844 as dns.google |\n");
    free(text);
}

static void manual_has_its_date_sections_and_every_option(void **state)
{
    (void)state;
    char *text = print(print_manual);
    int year = 0, month = 0, day = 0;
    assert_int_equal(sscanf(text, ".TH DNSPROXY 8 \"%4d-%2d-%2d\" ", &year, &month, &day), 3);
    assert_in_range(year, 2026, 2099);
    assert_in_range(month, 1, 12);
    assert_in_range(day, 1, 31);
    static const char *const sections[] = {"NAME",        "SYNOPSIS",    "DESCRIPTION", "OPTIONS",
                                           "ENVIRONMENT", "EXIT STATUS", "FILES"};
    const char *last = text;
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++) {
        char heading[64];
        snprintf(heading, sizeof heading, "\n.SH %s\n", sections[i]);
        const char *found = strstr(text, heading);
        assert_true(found && found > last);
        last = found;
    }
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (OPTIONS[i].environment)
            assert_contains(text, OPTIONS[i].environment);
        char escaped[128] = "";
        for (const char *at = OPTIONS[i].flag ? OPTIONS[i].flag : OPTIONS[i].key; *at; at++)
            snprintf(escaped + strlen(escaped), sizeof escaped - strlen(escaped), "%s%c",
                     *at == '-' ? "\\" : "", *at);
        assert_contains(text, escaped);
    }
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1)
        assert_true(*line != '\'' && *line != '\n');
    free(text);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, config_setup, config_teardown)
    const struct CMUnitTest tests[] = {
        TEST(J1_every_option_is_in_the_snapshot_or_is_named),
        TEST(J1_what_differs_in_one_part_is_named),
        TEST(J1_upstream_stays_when_nothing_of_it_is_another),
        TEST(J1_each_upstream_has_a_slot_of_its_own),
        TEST(J1_what_is_named_is_cut_and_counted),
        TEST(J1_file_that_is_gone_or_a_pipe_is_an_error),
        TEST(every_default),
        TEST(workers_default_to_the_processors_there_are),
        TEST(every_option_is_settable_everywhere_and_changes_its_field_only),
        TEST(every_flag_takes_its_value_in_each_form),
        TEST(every_default_may_be_written_out),
        TEST(variables_are_named_by_one_rule),
        TEST(every_range_takes_its_ends_and_nothing_beyond),
        TEST(units_count),
        TEST(bad_values_are_refused_with_what_is_allowed),
        TEST(a_number_without_a_unit_is_told_so),
        TEST(a_toggle_takes_all_words_of_yaml),
        TEST(an_address_whose_port_is_unclear_is_refused_with_brackets),
        TEST(files_of_certificates_are_read_before_anything_starts),
        TEST(off_and_none_empty_what_has_a_default),
        TEST(lists_have_an_end),
        TEST(flag_beats_environment_beats_file_beats_default),
        TEST(a_list_of_a_higher_level_replaces_those_below),
        TEST(a_value_that_is_replaced_is_still_checked),
        TEST(the_last_of_several_flags_counts),
        TEST(the_file_is_named_by_flag_or_environment),
        TEST(commands_and_what_only_prints),
        TEST(wrong_words_are_all_reported),
        TEST(the_nearest_flag_is_told_when_one_is_near),
        TEST(service_variables_of_any_service_are_ignored),
        TEST(unknown_variables_are_errors),
        TEST(control_bytes_never_reach_the_terminal),
        TEST(no_program_name_is_no_crash),
        TEST(help_has_every_flag_and_fits_a_terminal),
        TEST(reference_has_every_key_variable_flag_and_default),
        TEST(manual_has_its_date_sections_and_every_option),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
