// SPDX-License-Identifier: Apache-2.0
/* The configuration file: what is read from it, and the exact place of every error. */
#include "test.h"

#include "config/settings.h"
#include "config_fixture.h"

#define PIN_BASE64 "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
#define PIN_HEX "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void a_whole_file(void **state)
{
    (void)state;
    struct loaded loaded = config_load_yaml("# comment\n"
                                            "listen:\n"
                                            "  - 192.0.2.1:5300\n"
                                            "  - udp://192.0.2.2:5300\n"
                                            "upstreams:\n"
                                            "  - tls://192.0.2.53#resolver.example\n"
                                            "  - url: tls://192.0.2.54:8853\n"
                                            "    ca: ca.pem\n"
                                            "    pins: [" PIN_BASE64 "]\n"
                                            "    weight: 10\n"
                                            "strategy: weighted\n"
                                            "cache:\n"
                                            "  size: 2MiB\n"
                                            "  ttl-max: 1h\n"
                                            "cache.ttl-min: 5s\n"
                                            "cache.max-stale: 0\n"
                                            "cache.refresh: off\n"
                                            "log: {level: debug, format: json}\n"
                                            "allow: [192.0.2.0/24]\n"
                                            "refused-source-ports: []\n"
                                            "admin: off\n");
    assert_string_equal(loaded.errors, "");
    assert_value(loaded.config, "listen", "192.0.2.1:5300/udp/tcp 192.0.2.2:5300/udp");
    assert_value(loaded.config, "upstreams",
                 "192.0.2.53:853#resolver.example,192.0.2.53:853,resolver.example,-,1 "
                 "192.0.2.54:8853,192.0.2.54:8853,-,ca.pem,10,e3..55");
    assert_value(loaded.config, "strategy", "weighted");
    assert_value(loaded.config, "cache.size", "2097152");
    assert_value(loaded.config, "cache.ttl-min", "5");
    assert_value(loaded.config, "cache.max-stale", "0");
    assert_value(loaded.config, "cache.refresh", "0");
    assert_value(loaded.config, "cache.ttl-max", "3600");
    assert_value(loaded.config, "log.level", "3");
    assert_value(loaded.config, "log.format", "1");
    assert_value(loaded.config, "refused-source-ports", "");
    assert_value(loaded.config, "admin", "off");
    assert_int_equal(loaded.config->snapshot.allow_count, 1);
    loaded_free(&loaded);
}

static void lists_may_be_written_in_one_value(void **state)
{
    (void)state;
    struct loaded loaded = config_load_yaml("listen: 192.0.2.1, 192.0.2.2:54\n"
                                            "upstreams: quad9\n");
    assert_value(loaded.config, "listen", "192.0.2.1:53/udp/tcp 192.0.2.2:54/udp/tcp");
    assert_int_equal(loaded.config->snapshot.upstream_count, 4);
    loaded_free(&loaded);
}

static void an_upstream_may_be_one_mapping_and_a_preset_have_a_weight(void **state)
{
    (void)state;
    struct loaded loaded =
        config_load_yaml("upstreams: {url: google, weight: 7, pins: " PIN_HEX "}\n");
    assert_string_equal(loaded.errors, "");
    assert_int_equal(loaded.config->snapshot.upstream_count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(loaded.config->snapshot.upstreams[i].weight, 7);
        assert_int_equal(loaded.config->snapshot.upstreams[i].pin_count, 1);
        assert_string_equal(loaded.config->snapshot.upstreams[i].name, "dns.google");
    }
    loaded_free(&loaded);
}

static void E4_pins_are_read_in_every_form_and_several(void **state)
{
    (void)state;
    struct loaded loaded = config_load_yaml("upstreams:\n"
                                            "  - url: tls://192.0.2.1\n"
                                            "    pins:\n"
                                            "      - " PIN_BASE64 "\n"
                                            "      - sha256/" PIN_BASE64 "\n"
                                            "      - sha256//" PIN_BASE64 "\n"
                                            "      - " PIN_HEX "\n"
                                            "      - E3B0C44298FC1C149AFBF4C8996FB92427AE41E4"
                                            "649B934CA495991B7852B855\n");
    assert_string_equal(loaded.errors, "");
    const struct upstream_config *upstream = &loaded.config->snapshot.upstreams[0];
    static const uint8_t sha256_of_nothing[PIN_SIZE] = {
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4,
        0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b,
        0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55};
    assert_int_equal(upstream->pin_count, 5);
    for (size_t i = 0; i < upstream->pin_count; i++)
        assert_memory_equal(upstream->pins[i], sha256_of_nothing, PIN_SIZE);
    assert_null(upstream->name);
    assert_string_equal(upstream->label, "192.0.2.1:853");
    loaded_free(&loaded);
}

static void nothing_but_comments_is_a_configuration(void **state)
{
    (void)state;
    assert_errors(config_load_yaml("# workers: 3\n"), "");
    assert_errors(config_load_yaml("{}\n"), "");
    assert_errors(config_load_yaml(""), "");
    assert_errors(config_load_yaml("---\n"), "");
    assert_errors(config_load_yaml("--- # nothing\n...\n"), "");
    assert_errors(config_load_yaml("~\n"), "");
}

static void an_empty_section_changes_nothing(void **state)
{
    (void)state;
    struct loaded loaded = config_load_yaml("cache:\n"
                                            "  # size: 0\n"
                                            "log: ~\n"
                                            "timeouts: null\n"
                                            "limits: {}\n"
                                            "workers: 3\n");
    assert_string_equal(loaded.errors, "");
    assert_value(loaded.config, "cache.size", "67108864");
    assert_value(loaded.config, "workers", "3");
    loaded_free(&loaded);
}

static void CASE_11_toggles_take_the_words_of_yaml(void **state)
{
    (void)state;
    struct loaded loaded =
        config_load_yaml("cache:\n  refresh: true\nadmin: no\nlisten-freebind: Yes\n");
    assert_string_equal(loaded.errors, "");
    assert_value(loaded.config, "listen-freebind", "1");
    assert_value(loaded.config, "cache.refresh", "1");
    assert_value(loaded.config, "admin", "off");
    loaded_free(&loaded);
    loaded = config_load_yaml("cache: {refresh: False}\nadmin: FALSE\n");
    assert_value(loaded.config, "cache.refresh", "0");
    assert_value(loaded.config, "admin", "off");
    loaded_free(&loaded);
}

static void CASE_10_a_byte_order_mark_is_no_part_of_the_first_key(void **state)
{
    (void)state;
    struct loaded loaded = config_load_yaml("\xef\xbb\xbf"
                                            "listen: [127.0.0.1:5300]\n"
                                            "workers: 3\n");
    assert_string_equal(loaded.errors, "");
    assert_value(loaded.config, "listen", "127.0.0.1:5300/udp/tcp");
    assert_value(loaded.config, "workers", "3");
    loaded_free(&loaded);
    assert_errors(
        config_load_yaml("\xef\xbb\xbf"
                         "lisen: [127.0.0.1:5300]\n"
                         "workers: 0\n"),
        "dnsproxy.yaml:1:1: lisen: is not a known key; the nearest is listen\n"
        "dnsproxy.yaml:2:10: workers: \"0\" is not a number of workers; allowed: auto, or "
        "1 to 64\n");
    assert_errors(config_load_yaml("\xef\xbb\xbf"), "");
    static const char wide[] = "\xff\xfew\0o\0r\0k\0e\0r\0s\0:\0 \0003\0\n";
    config_write("dnsproxy.yaml", wide, sizeof wide);
    loaded = CONFIG_LOAD("-c", "dnsproxy.yaml");
    assert_value(loaded.config, "workers", "3");
    loaded_free(&loaded);
}

struct mistake {
    const char *yaml;
    const char *errors; /* without the name of the file */
};

static void assert_mistakes(const struct mistake *mistakes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char expected[2048] = "";
        for (const char *line = mistakes[i].errors; *line != '\0';) {
            const int length = (int)strcspn(line, "\n") + 1;
            snprintf(expected + strlen(expected), sizeof expected - strlen(expected),
                     "dnsproxy.yaml:%.*s", length, line);
            line += length;
        }
        assert_errors(config_load_yaml(mistakes[i].yaml), expected);
    }
}
#define ASSERT_MISTAKES(mistakes) assert_mistakes(mistakes, sizeof mistakes / sizeof mistakes[0])

#define ALLOWED \
    "allowed: tls://ADDRESS[:PORT]#NAME, tls://HOST[:PORT], cloudflare, google or quad9\n"

static void keys_that_are_wrong(void **state)
{
    (void)state;
    static const struct mistake mistakes[] = {
        {"lisen: 127.0.0.1\n", "1:1: lisen: is not a known key; the nearest is listen\n"},
        {"cache:\n  sizee: 0\n",
         "2:3: cache.sizee: is not a known key; the nearest is cache.size\n"},
        {"ttl-max: 1h\n", "1:1: ttl-max: is not a known key; the nearest is cache.ttl-max\n"},
        {"limits: {udp-reply-sise: 1, queries: 5}\n",
         "1:10: limits.udp-reply-sise: is not a known key; the nearest is "
         "limits.udp-reply-size\n"},
        {"unknown: {deep: [1, {er: 2}]}\nworkers: 0\n",
         "1:1: unknown: is not a known key\n"
         "2:10: workers: \"0\" is not a number of workers; allowed: auto, or 1 to 64\n"},
        {"workers: 3\nworkers: 3\n", "2:1: workers: is given twice\n"},
        {"cache: {size: 0}\nlog: {level: info}\ncache: {ttl-max: 1h}\n",
         "3:1: cache: is given twice\n"},
        {"cache: {size: 0}\ncache.size: 0\n", "2:1: cache.size: is given twice\n"},
        {"cache: {size: {a: b}}\n", "1:15: cache.size: takes one plain value\n"},
        {"workers: [3]\n", "1:10: workers: takes one plain value\n"},
        {"listen: {a: b}\n", "1:9: listen: takes a value or a list of values\n"},
        {"listen: [[127.0.0.1]]\n", "1:10: listen: takes plain values\n"},
        {"cache: ''\n", "1:8: cache: is a section of keys, such as cache.size\n"},
        {"log: 5\n", "1:6: log: is a section of keys, such as log.level\n"},
        {"log: [a, {b: c}]\nworkers: 0\n",
         "1:6: log: is a section of keys, such as log.level\n"
         "2:10: workers: \"0\" is not a number of workers; allowed: auto, or 1 to 64\n"},
        {"[a]: b\n", "1:1: a key is plain text\n"},
        {"cache:\n  {a: b}: c\n", "2:3: a key is plain text\n"},
        {"allow: []\n", "1:8: allow: needs at least one value\n"},
        {"workers:\n",
         "1:9: workers: \"\" is not a number of workers; allowed: auto, or 1 to 64\n"},
    };
    ASSERT_MISTAKES(mistakes);
}

static void values_that_are_wrong(void **state)
{
    (void)state;
    static const struct mistake mistakes[] = {
        {"cache:\n  size: 64XB\n",
         "2:9: cache.size: \"64XB\" is not a size; allowed: 0, or 64KiB to 1024GiB, as a whole "
         "number with KiB, MiB or GiB\n"},
        {"limits: {udp-reply-size: 511}\n",
         "1:26: limits.udp-reply-size: \"511\" is not a number in range; allowed: 512 to 4096\n"},
        {"limits: {tcp-lifetime: 1ms}\n",
         "1:24: limits.tcp-lifetime: \"1ms\" is not a duration; allowed: 0, or 10ms to 7d, as a "
         "whole number with ms, s, m, h or d\n"},
        {"tls:\n  ca: missing.pem\n",
         "2:7: tls.ca: \"missing.pem\" cannot be read: No such file or directory\n"},
        {"workers: \"3\\0\"\n", "1:10: workers: contains a NUL byte\n"},
        {"\"workers\\0\": 3\n", "1:1: contains a NUL byte\n"},
        {"refused-source-ports: [7, 65536]\n",
         "1:27: refused-source-ports: \"65536\" is not a number in range; allowed: 1 to 65535\n"},
        {"refused-source-ports: [7, none]\nallow:\n  - 10.0.0.0/8\n  - 10.0.0.0/33\n",
         "4:5: allow: \"10.0.0.0/33\" is not a range of addresses; allowed: such as 192.0.2.0/24, "
         "2001:db8::/32 or one address, without bits beyond the length\n"},
    };
    ASSERT_MISTAKES(mistakes);
}

static void listeners_that_are_wrong(void **state)
{
    (void)state;
#define LISTEN_ALLOWED                                                              \
    "is not an address to listen on; allowed: ADDRESS:PORT, udp://ADDRESS:PORT or " \
    "tcp://ADDRESS:PORT, where ADDRESS is IPv4 or [IPv6] and PORT 1 to 65535\n"
    static const struct mistake mistakes[] = {
        {"listen:\n  - 127.0.0.1:53\n  - 127.0.0.1\n",
         "3:5: listen: \"127.0.0.1\" is listened on twice\n"},
        {"listen:\n  - udp://127.0.0.1\n  - tcp://127.0.0.1\n  - UDP://127.0.0.1:53\n",
         "4:5: listen: \"UDP://127.0.0.1:53\" is listened on twice\n"},
        {"listen: 127.0.0.1:0\n", "1:9: listen: \"127.0.0.1:0\" " LISTEN_ALLOWED},
        {"listen: localhost\n", "1:9: listen: \"localhost\" " LISTEN_ALLOWED},
        {"listen: udp:127.0.0.1\n", "1:9: listen: \"udp:127.0.0.1\" " LISTEN_ALLOWED},
        {"listen: tls://127.0.0.1\n",
         "1:9: listen: \"tls://127.0.0.1\" encrypted listeners are not supported by this "
         "version\n"},
        {"listen: https://127.0.0.1\n",
         "1:9: listen: \"https://127.0.0.1\" encrypted listeners are not supported by this "
         "version\n"},
        {"listen: quic://127.0.0.1\n",
         "1:9: listen: \"quic://127.0.0.1\" encrypted listeners are not supported by this "
         "version\n"},
    };
    ASSERT_MISTAKES(mistakes);
}

static void E2_upstreams_without_authentication_or_in_clear_text(void **state)
{
    (void)state;
#define NO_NAME                                                                                 \
    "has no name to authenticate the server by; write tls://ADDRESS#NAME, or give pins in the " \
    "configuration file\n"
#define CLEAR "would send queries in clear text, which is refused; " ALLOWED
    static const struct mistake mistakes[] = {
        {"upstreams: [tls://192.0.2.1]\n", "1:13: upstreams: \"tls://192.0.2.1\" " NO_NAME},
        {"upstreams:\n  - weight: 3\n    url: tls://192.0.2.1\n",
         "3:10: upstreams: \"tls://192.0.2.1\" " NO_NAME},
        {"upstreams: 192.0.2.1\n", "1:12: upstreams: \"192.0.2.1\" " CLEAR},
        {"upstreams: '[2001:db8::1]:53'\n", "1:12: upstreams: \"[2001:db8::1]:53\" " CLEAR},
        {"upstreams: udp://192.0.2.1\n", "1:12: upstreams: \"udp://192.0.2.1\" " CLEAR},
        {"upstreams: tcp://192.0.2.1#a.example\n",
         "1:12: upstreams: \"tcp://192.0.2.1#a.example\" " CLEAR},
        {"upstreams: dns://192.0.2.1\n", "1:12: upstreams: \"dns://192.0.2.1\" " CLEAR},
        {"upstreams: http://192.0.2.1/dns-query\n",
         "1:12: upstreams: \"http://192.0.2.1/dns-query\" " CLEAR},
        {"upstreams: 2001:db8::1:53\n", "1:12: upstreams: \"2001:db8::1:53\" " CLEAR},
        {"upstreams: cloudflair\n",
         "1:12: upstreams: \"cloudflair\" is neither a preset nor a tls:// URL; " ALLOWED},
    };
    ASSERT_MISTAKES(mistakes);
}

static void upstreams_of_protocols_that_are_not_supported_yet(void **state)
{
    (void)state;
#define NOT_YET ", which is not supported yet; " ALLOWED
    static const struct mistake mistakes[] = {
        {"upstreams: https://192.0.2.1/dns-query\n",
         "1:12: upstreams: \"https://192.0.2.1/dns-query\" is DNS over HTTPS (DoH)" NOT_YET},
        {"upstreams: [google, HTTPS://dns.google/dns-query]\n",
         "1:21: upstreams: \"HTTPS://dns.google/dns-query\" is DNS over HTTPS (DoH)" NOT_YET},
        {"upstreams:\n  - url: h3://dns.example\n",
         "2:10: upstreams: \"h3://dns.example\" is DNS over HTTP/3 (DoH)" NOT_YET},
        {"upstreams: quic://dns.example\n",
         "1:12: upstreams: \"quic://dns.example\" is DNS over QUIC (DoQ)" NOT_YET},
        {"upstreams: sdns://AgcAAAAAAAAA\n",
         "1:12: upstreams: \"sdns://AgcAAAAAAAAA\" is a DNS stamp" NOT_YET},
        {"upstreams: gopher://dns.example\n", "1:12: upstreams: \"gopher://dns.example\" is "
                                              "neither a preset nor a tls:// URL; " ALLOWED},
    };
    ASSERT_MISTAKES(mistakes);
}

static void upstream_urls_that_are_wrong(void **state)
{
    (void)state;
#define NO_ADDRESS                                                               \
    "has no usable address or host name; allowed: tls://ADDRESS[:PORT]#NAME or " \
    "tls://HOST[:PORT], where ADDRESS is IPv4 or [IPv6], HOST a DNS name and PORT 1 to 65535\n"
#define BAD_NAME                                                                                \
    "has no valid name after \"#\"; allowed: the DNS name or the IP address that the server's " \
    "certificate is for\n"
    static const struct mistake mistakes[] = {
        {"upstreams: tls://dns.example:0\n",
         "1:12: upstreams: \"tls://dns.example:0\" " NO_ADDRESS},
        {"upstreams: tls://dns.example:65536\n",
         "1:12: upstreams: \"tls://dns.example:65536\" " NO_ADDRESS},
        {"upstreams: 'tls://dns.example:853:'\n",
         "1:12: upstreams: \"tls://dns.example:853:\" " NO_ADDRESS},
        {"upstreams: tls://-dns.example\n", "1:12: upstreams: \"tls://-dns.example\" " NO_ADDRESS},
        {"upstreams: tls://dns..example#a.example\n",
         "1:12: upstreams: \"tls://dns..example#a.example\" " NO_ADDRESS},
        {"upstreams: 'tls://dns.example#'\n", "1:12: upstreams: \"tls://dns.example#\" " BAD_NAME},
        {"upstreams: dns.example\n",
         "1:12: upstreams: \"dns.example\" is neither a preset nor a tls:// URL; " ALLOWED},
        {"upstreams: tls://192.0.2.1:0#a.example\n",
         "1:12: upstreams: \"tls://192.0.2.1:0#a.example\" " NO_ADDRESS},
        {"upstreams: tls://192.0.2.256#a.example\n",
         "1:12: upstreams: \"tls://192.0.2.256#a.example\" " NO_ADDRESS},
        {"upstreams: tls://#a.example\n", "1:12: upstreams: \"tls://#a.example\" " NO_ADDRESS},
        {"upstreams: tls://0.0.0.0#a.example\n",
         "1:12: upstreams: \"tls://0.0.0.0#a.example\" is the address of no server\n"},
        {"upstreams: 'tls://192.0.2.1#'\n", "1:12: upstreams: \"tls://192.0.2.1#\" " BAD_NAME},
        {"upstreams: tls://192.0.2.1#a..b\n",
         "1:12: upstreams: \"tls://192.0.2.1#a..b\" " BAD_NAME},
        {"upstreams: tls://192.0.2.1#-a.example\n",
         "1:12: upstreams: \"tls://192.0.2.1#-a.example\" " BAD_NAME},
        {"upstreams: tls://192.0.2.1#a.example.\n",
         "1:12: upstreams: \"tls://192.0.2.1#a.example.\" " BAD_NAME},
        {"upstreams: tls://192.0.2.1#192.0.2.300\n",
         "1:12: upstreams: \"tls://192.0.2.1#192.0.2.300\" " BAD_NAME},
        {"upstreams: 'tls://192.0.2.1#a/b'\n",
         "1:12: upstreams: \"tls://192.0.2.1#a/b\" " BAD_NAME},
        {"upstreams:\n  - tls://192.0.2.1#A.example\n  - tls://192.0.2.1:853#a.example\n",
         "3:5: upstreams: \"tls://192.0.2.1:853#a.example\" is given twice\n"},
        {"upstreams: [quad9, tls://9.9.9.9#dns.quad9.net]\n",
         "1:20: upstreams: \"tls://9.9.9.9#dns.quad9.net\" is given twice\n"},
    };
    ASSERT_MISTAKES(mistakes);
}

static void host_names_in_place_of_addresses(void **state)
{
    (void)state;
    struct loaded loaded = config_load_yaml("upstreams:\n"
                                            "  - tls://dns.quad9.net\n"
                                            "  - tls://dns.example:8853#other.example\n"
                                            "  - {url: tls://DNS.example, pins: " PIN_HEX "}\n"
                                            "  - tls://192.0.2.1#a.example\n");
    assert_string_equal(loaded.errors, "");
    assert_value(loaded.config, "upstreams",
                 "dns.quad9.net:853#dns.quad9.net,dns.quad9.net/853,dns.quad9.net,-,1 "
                 "dns.example:8853#other.example,dns.example/8853,other.example,-,1 "
                 "DNS.example:853#DNS.example,DNS.example/853,DNS.example,-,1,e3..55 "
                 "192.0.2.1:853#a.example,192.0.2.1:853,a.example,-,1");
    loaded_free(&loaded);
    assert_errors(config_load_yaml("upstreams:\n"
                                   "  - tls://dns.example\n"
                                   "  - tls://192.0.2.1#a.example\n"
                                   "  - tls://DNS.example:853#dns.example\n"),
                  "dnsproxy.yaml:4:5: upstreams: \"tls://DNS.example:853#dns.example\" is given "
                  "twice\n");
}

static void names_that_nobody_could_look_up(void **state)
{
    (void)state;
#define NOBODY                                                                                    \
    "is a host name, as all upstreams are, and nobody could look it up; give addresses of plain " \
    "DNS servers with bootstrap, such as bootstrap: 9.9.9.9, or an upstream with an address\n"
    static const struct mistake mistakes[] = {
        {"upstreams: tls://dns.example\n", "1:12: upstreams: " NOBODY},
        {"upstreams:\n  - tls://a.example\n  - weight: 2\n    url: tls://b.example\n",
         "4:10: upstreams: " NOBODY},
    };
    ASSERT_MISTAKES(mistakes);
    assert_errors(CONFIG_LOAD("-u", "tls://a.example"), "--upstream: " NOBODY);
    assert_errors(CONFIG_LOAD("-u", "tls://a.example", "--bootstrap", "192.0.2.53"), "");
    assert_errors(CONFIG_LOAD("-u", "tls://a.example", "-u", "tls://192.0.2.1#a.example"), "");
    assert_errors(config_load_yaml("bootstrap: 192.0.2.53\nupstreams: tls://a.example\n"), "");
}

static void bootstraps(void **state)
{
    (void)state;
    struct loaded loaded =
        config_load_yaml("bootstrap: [192.0.2.53, 192.0.2.53:5353, '2001:db8::53']\n");
    assert_string_equal(loaded.errors, "");
    assert_value(loaded.config, "bootstrap", "192.0.2.53:53 192.0.2.53:5353 [2001:db8::53]:53");
    loaded_free(&loaded);
#define NO_SERVER                                                                            \
    "is not the address of a DNS server; allowed: ADDRESS[:PORT], where ADDRESS is IPv4 or " \
    "[IPv6] and PORT 1 to 65535\n"
    static const struct mistake mistakes[] = {
        {"bootstrap: dns.example\n", "1:12: bootstrap: \"dns.example\" " NO_SERVER},
        {"bootstrap: 192.0.2.53:0\n", "1:12: bootstrap: \"192.0.2.53:0\" " NO_SERVER},
        {"bootstrap:\n  - 0.0.0.0\n", "2:5: bootstrap: \"0.0.0.0\" " NO_SERVER},
        {"bootstrap: [192.0.2.1, 192.0.2.1:53]\n",
         "1:24: bootstrap: \"192.0.2.1:53\" is given twice\n"},
        {"bootstrap: []\n", "1:12: bootstrap: needs at least one value\n"},
    };
    ASSERT_MISTAKES(mistakes);
}

static void E4_pins_and_other_keys_of_an_upstream_that_are_wrong(void **state)
{
    (void)state;
#define BAD_PIN                                                                             \
    "is not a pin; allowed: a SHA-256 of the public key, as 44 characters of base64 or 64 " \
    "hexadecimal digits\n"
    static const struct mistake mistakes[] = {
        {"upstreams:\n  - url: tls://192.0.2.1\n    pins: [AAAA]\n",
         "3:12: upstreams.pins: \"AAAA\" " BAD_PIN},
        {"upstreams:\n  - url: tls://192.0.2.1\n    pins: ''\n",
         "3:11: upstreams.pins: \"\" " BAD_PIN},
        {"upstreams:\n  - url: tls://192.0.2.1\n    pins:\n      - " PIN_HEX "00\n",
         "4:9: upstreams.pins: \"" PIN_HEX "00\" " BAD_PIN},
        {"upstreams:\n  - url: tls://192.0.2.1\n    pins:\n      - g" PIN_HEX "\n",
         "4:9: upstreams.pins: \"g" PIN_HEX "\" " BAD_PIN},
        /* The last digit carries bits beyond the 256. */
        {"upstreams:\n  - url: tls://192.0.2.1\n    pins:\n"
         "      - 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=\n",
         "4:9: upstreams.pins: \"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=\" " BAD_PIN},
        {"upstreams:\n  - url: tls://192.0.2.1\n    pins:\n"
         "      - 47DEQpj8HBSa+_TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
         "4:9: upstreams.pins: \"47DEQpj8HBSa+_TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\" " BAD_PIN},
        {"upstreams:\n  - url: google\n    pins: [[a]]\n",
         "3:12: upstreams.pins: takes plain values\n"},
        {"upstreams:\n  - url: google\n    pins: {a: b}\n",
         "3:11: upstreams.pins: takes one plain value\n"},
        {"upstreams:\n  - url: [google]\n",
         "2:10: upstreams.url: takes one plain value\n2:5: upstreams: needs a url\n"},
        {"upstreams:\n  - url: google\n    weight: 0\n",
         "3:13: upstreams.weight: \"0\" is not a weight; allowed: 1 to 1000\n"},
        {"upstreams:\n  - url: google\n    weight: 1001\n",
         "3:13: upstreams.weight: \"1001\" is not a weight; allowed: 1 to 1000\n"},
        {"upstreams:\n  - url: google\n    weight: 1x\n",
         "3:13: upstreams.weight: \"1x\" is not a weight; allowed: 1 to 1000\n"},
        {"upstreams:\n  - url: google\n    ca: missing.pem\n",
         "3:9: upstreams.ca: \"missing.pem\" cannot be read: No such file or directory\n"},
        {"upstreams:\n  - url: google\n    weigth: 3\n",
         "3:5: upstreams.weigth: is not known; allowed: url, ca, pins, weight\n"},
        {"upstreams:\n  - url: google\n    url: quad9\n", "3:5: upstreams.url: is given twice\n"},
        {"upstreams:\n  - {[a]: b, url: google}\n", "2:6: a key is plain text\n"},
        {"upstreams:\n  - weight: 3\n", "2:5: upstreams: needs a url\n"},
        {"upstreams: [{}]\n", "1:13: upstreams: needs a url\n"},
    };
    ASSERT_MISTAKES(mistakes);
}

static void E3_upstreams_that_differ_in_name_or_pins_are_two(void **state)
{
    (void)state;
    struct loaded loaded =
        config_load_yaml("upstreams:\n"
                         "  - tls://192.0.2.1#a.example\n"
                         "  - tls://192.0.2.1#b.example\n"
                         "  - tls://192.0.2.1:854#a.example\n"
                         "  - tls://192.0.2.1#192.0.2.1\n"
                         "  - tls://192.0.2.1#2001:db8::1\n"
                         "  - {url: tls://192.0.2.1#a.example, pins: " PIN_HEX "}\n");
    assert_string_equal(loaded.errors, "");
    assert_int_equal(loaded.config->snapshot.upstream_count, 6);
    /* The metrics would be invalid with one label for two upstreams. */
    assert_string_equal(loaded.config->snapshot.upstreams[0].label, "192.0.2.1:853#a.example");
    assert_string_equal(loaded.config->snapshot.upstreams[5].label, "192.0.2.1:853#a.example/2");
    loaded_free(&loaded);
}

static void too_many_of_anything(void **state)
{
    (void)state;
    char yaml[8192] = "upstreams:\n";
    for (int i = 0; i < CONFIG_UPSTREAMS_MAX + 1; i++)
        snprintf(yaml + strlen(yaml), sizeof yaml - strlen(yaml),
                 "  - tls://192.0.2.%d#a.example\n", i + 1);
    assert_errors(config_load_yaml(yaml),
                  "dnsproxy.yaml:34:5: upstreams: \"tls://192.0.2.33#a.example\" is one too many; "
                  "allowed: 32\n");
    strcpy(yaml, "listen:\n");
    for (int i = 0; i < CONFIG_LISTENERS_MAX + 1; i++)
        snprintf(yaml + strlen(yaml), sizeof yaml - strlen(yaml), "  - 192.0.2.%d\n", i + 1);
    assert_errors(config_load_yaml(yaml),
                  "dnsproxy.yaml:66:5: listen: \"192.0.2.65\" is one too many; allowed: "
                  "64\n");
    strcpy(yaml, "upstreams:\n  - url: google\n    pins:\n");
    for (int i = 0; i < CONFIG_PINS_MAX + 1; i++)
        strcat(yaml, "      - " PIN_HEX "\n");
    assert_errors(config_load_yaml(yaml), "dnsproxy.yaml:12:9: upstreams.pins: \"" PIN_HEX
                                          "\" is one too many; allowed: 8 pins\n");
    strcpy(yaml, "bootstrap:\n");
    for (int i = 0; i < CONFIG_BOOTSTRAPS_MAX + 1; i++)
        snprintf(yaml + strlen(yaml), sizeof yaml - strlen(yaml), "  - 192.0.2.%d\n", i + 1);
    assert_errors(config_load_yaml(yaml), "dnsproxy.yaml:10:5: bootstrap: \"192.0.2.9\" is one "
                                          "too many; allowed: 8\n");
}

static void what_yaml_offers_beyond_plain_data_is_refused(void **state)
{
    (void)state;
#define BEYOND "anchors, aliases and tags are not allowed\n"
    static const struct mistake mistakes[] = {
        {"workers: &a 3\n", "1:10: " BEYOND},
        {"listen: &a [127.0.0.1]\n", "1:9: " BEYOND},
        {"cache: &a {size: 0}\n", "1:8: " BEYOND},
        {"workers: !!int 3\n", "1:10: " BEYOND},
        {"listen: [&a 127.0.0.1, *a]\n", "1:10: " BEYOND "1:24: " BEYOND},
        {"upstreams: [*a]\n", "1:13: " BEYOND},
        {"*a : 3\n", "1:1: " BEYOND},
        {"--- {}\n--- {}\n", "2:1: only one document is allowed in a file\n"},
        {"- listen\n", "1:1: a configuration is a mapping of keys to values\n"},
        {"listen\n", "1:1: a configuration is a mapping of keys to values\n"},
        {"''\n", "1:1: a configuration is a mapping of keys to values\n"},
    };
    ASSERT_MISTAKES(mistakes);
}

static void text_that_is_no_yaml(void **state)
{
    (void)state;
    static const struct mistake mistakes[] = {
        {"listen: [127.0.0.1\n", "2:1: not YAML: did not find expected ',' or ']'\n"},
        {"workers: 3\n\n  listen: \"\xff\"\n", "3:1: not YAML: invalid leading UTF-8 octet\n"},
        {"upstreams:\n  - {url: google", "3:1: not YAML: did not find expected ',' or '}'\n"},
        {"upstreams:\n  - {url: google, pins: [" PIN_HEX,
         "3:1: not YAML: did not find expected ',' or ']'\n"},
        {"unknown: {", "2:1: not YAML: did not find expected node content\n"},
        {"listen: ]\n", "1:9: not YAML: did not find expected node content\n"},
    };
    ASSERT_MISTAKES(mistakes);
}

static void tabs_are_called_tabs(void **state)
{
    (void)state;
#define TAB "not YAML: a tab stands where YAML takes spaces alone, as for indentation\n"
    static const struct mistake mistakes[] = {
        {"workers: 3\n\tcache: 5\n", "2:1: " TAB},
        {"cache:\n\tsize: 0\n", "2:1: " TAB},
        {"cache:\r\n  size: 0\r\n  \tttl-max: 1h\r\n", "3:3: " TAB},
        {"listen:\n  -\t127.0.0.1\n", "2:4: " TAB},
        {"\tworkers: 3\n", "1:1: " TAB},
        {"listen: @\t\n", "1:9: not YAML: found character that cannot start any token\n"},
    };
    ASSERT_MISTAKES(mistakes);
    assert_errors(config_load_yaml("workers:\t3\nlisten: [\n\t127.0.0.1\n]\n"), "");
}

static void the_nearest_key_is_of_the_same_section(void **state)
{
    (void)state;
    static const char *const unknown[][2] = {
        {"cahce: {size: 0}", "cache"},     {"Cache: {size: 0}", "cache"},
        {"upstream: google", "upstreams"}, {"tsl: {ca: x}", "tls"},
        {"log-level: debug", "log.level"}, {"loglevel: debug", "log.level"},
        {"cahce.size: 0", "cache.size"},   {"cache.sise: 0", "cache.size"},
        {"ttl-max: 1h", "cache.ttl-max"},  {"port: 53", NULL},
        {"servers: 9.9.9.9", NULL},        {"cache.ca: x", NULL},
        {"cache.connect: x", NULL},        {"=: 1", NULL},
    };
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        char expected[128];
        snprintf(expected, sizeof expected, "dnsproxy.yaml:1:1: %.*s: is not a known key%s%s\n",
                 (int)strcspn(unknown[i][0], ":"), unknown[i][0],
                 unknown[i][1] ? "; the nearest is " : "", unknown[i][1] ? unknown[i][1] : "");
        assert_errors(config_load_yaml(unknown[i][0]), expected);
    }
}

static void files_that_cannot_be_read(void **state)
{
    (void)state;
    assert_errors(CONFIG_LOAD("-c", "missing.yaml"),
                  "missing.yaml: cannot be read: No such file or directory\n");
    assert_errors(CONFIG_LOAD("-c", "/"), "/: cannot be read: Is a directory\n");
    char *text = malloc(CONFIG_FILE_SIZE_MAX + 1);
    assert_non_null(text);
    memset(text, '#', CONFIG_FILE_SIZE_MAX + 1);
    config_write("dnsproxy.yaml", text, CONFIG_FILE_SIZE_MAX + 1);
    assert_errors(CONFIG_LOAD("-c", "dnsproxy.yaml"), "dnsproxy.yaml: is longer than 1 MiB\n");
    config_write("dnsproxy.yaml", text, CONFIG_FILE_SIZE_MAX);
    assert_errors(CONFIG_LOAD("-c", "dnsproxy.yaml"), "");
    free(text);
}

static void deep_nesting_is_passed_over_in_bounded_stack(void **state)
{
    (void)state;
    char yaml[8192] = "unknown: ";
    for (int i = 0; i < 900; i++)
        strcat(yaml, "[{a: ");
    struct loaded loaded = config_load_yaml(yaml);
    assert_int_equal(loaded.status, STATUS_INVALID);
    assert_non_null(strstr(loaded.errors, "not YAML"));
    loaded_free(&loaded);
}

/* Every prefix of a file, as after a full disk: never a crash, a leak or half a load. */
static void a_file_cut_anywhere_is_an_error_or_a_configuration(void **state)
{
    (void)state;
    static const char yaml[] = "listen: [192.0.2.1:5300, 'udp://[::1]:54']\n"
                               "upstreams:\n"
                               "  - url: tls://192.0.2.54:8853#a.example\n"
                               "    ca: ca.pem\n"
                               "    pins: [" PIN_BASE64 ", \"" PIN_HEX "\"]\n"
                               "    weight: 10\n"
                               "cache: {size: 2MiB, ttl-max: 1h}\n"
                               "log:\n  level: debug\n";
    for (size_t length = 1; length < sizeof yaml; length++) {
        config_write("dnsproxy.yaml", yaml, length);
        struct loaded loaded = CONFIG_LOAD("-c", "dnsproxy.yaml");
        assert_int_equal(loaded.status == STATUS_OK, *loaded.errors == '\0');
        loaded_free(&loaded);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, config_setup, config_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_whole_file),
        TEST(lists_may_be_written_in_one_value),
        TEST(an_upstream_may_be_one_mapping_and_a_preset_have_a_weight),
        TEST(E4_pins_are_read_in_every_form_and_several),
        TEST(nothing_but_comments_is_a_configuration),
        TEST(an_empty_section_changes_nothing),
        TEST(CASE_11_toggles_take_the_words_of_yaml),
        TEST(CASE_10_a_byte_order_mark_is_no_part_of_the_first_key),
        TEST(keys_that_are_wrong),
        TEST(values_that_are_wrong),
        TEST(listeners_that_are_wrong),
        TEST(E2_upstreams_without_authentication_or_in_clear_text),
        TEST(upstreams_of_protocols_that_are_not_supported_yet),
        TEST(upstream_urls_that_are_wrong),
        TEST(host_names_in_place_of_addresses),
        TEST(names_that_nobody_could_look_up),
        TEST(bootstraps),
        TEST(E4_pins_and_other_keys_of_an_upstream_that_are_wrong),
        TEST(E3_upstreams_that_differ_in_name_or_pins_are_two),
        TEST(too_many_of_anything),
        TEST(what_yaml_offers_beyond_plain_data_is_refused),
        TEST(text_that_is_no_yaml),
        TEST(tabs_are_called_tabs),
        TEST(the_nearest_key_is_of_the_same_section),
        TEST(files_that_cannot_be_read),
        TEST(deep_nesting_is_passed_over_in_bounded_stack),
        TEST(a_file_cut_anywhere_is_an_error_or_a_configuration),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
