// SPDX-License-Identifier: Apache-2.0
/* Listeners, upstreams and bootstraps: their URLs, the presets, authentication names and pins.
 *
 * An upstream without a way to authenticate it, or one that would be asked in clear text, is
 * refused here, so that nothing above ever has to decide what to do with one (FAULTS E2).
 *
 * Thread: main. RFC: 7858 (port 853), 8310 (strict profile), 6125 6.4 and 1123 2.1 (names). */
#include <arpa/inet.h>
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config/options.h"
#include "config/settings.h"

enum { DNS_PORT = 53, TLS_PORT = 853, NAME_LENGTH_MAX = 253 };

const struct preset PRESETS[] = {
    {"cloudflare",
     "cloudflare-dns.com",
     {"1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001"}},
    {"google",
     "dns.google",
     {"8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"}},
    {"quad9", "dns.quad9.net", {"9.9.9.9", "149.112.112.112", "2620:fe::fe", "2620:fe::9"}},
};
const size_t PRESET_COUNT = sizeof PRESETS / sizeof PRESETS[0];

#define ALLOWED_UPSTREAMS \
    "tls://ADDRESS[:PORT]#NAME, tls://HOST[:PORT], cloudflare, google or quad9"

/* True when `text` starts with the scheme; `*rest` is what follows. */
static bool has_scheme(const char *text, const char *scheme, const char **rest)
{
    const size_t length = strlen(scheme);
    if (strncasecmp(text, scheme, length) != 0 || strncmp(text + length, "://", 3) != 0)
        return false;
    *rest = text + length + 3;
    return true;
}

/* What a URL with another scheme asks for; NULL for none that is known. */
static const char *encrypted_protocol(const char *text)
{
    static const struct {
        const char *scheme;
        const char *name;
    } protocols[] = {{"https", "DNS over HTTPS (DoH)"},
                     {"h3", "DNS over HTTP/3 (DoH)"},
                     {"quic", "DNS over QUIC (DoQ)"},
                     {"doq", "DNS over QUIC (DoQ)"},
                     {"sdns", "a DNS stamp"}};
    const char *rest;
    for (size_t i = 0; i < sizeof protocols / sizeof protocols[0]; i++)
        if (has_scheme(text, protocols[i].scheme, &rest))
            return protocols[i].name;
    return NULL;
}

/* --- listeners --- */

static enum status parse_listener(struct settings *settings, const char *text,
                                  struct listener_config *out)
{
    const char *rest;
    struct listener_config listener = {.udp = true, .tcp = true};
    if (has_scheme(text, "tls", &rest) || encrypted_protocol(text))
        return settings_reject(settings, text,
                               "encrypted listeners are not supported by this version");
    if (has_scheme(text, "udp", &rest))
        listener.tcp = false;
    else if (has_scheme(text, "tcp", &rest))
        listener.udp = false;
    else
        rest = text;
    TRY(read_address(settings, text, rest, DNS_PORT, &listener.address,
                     "is not an address to listen on; allowed: ADDRESS:PORT, udp://ADDRESS:PORT or "
                     "tcp://ADDRESS:PORT, where ADDRESS is IPv4 or [IPv6] and PORT 1 to 65535"));
    *out = listener;
    return STATUS_OK;
}

enum status add_listener(struct settings *settings, const struct option *option, const char *text)
{
    (void)option;
    struct config *config = settings->config;
    struct listener_config listener;
    TRY(parse_listener(settings, text, &listener));
    assert(config->listener_count < CONFIG_LISTENERS_MAX);
    for (size_t i = 0; i < config->listener_count; i++) {
        const struct listener_config *other = &config->listeners[i];
        const bool overlaps = (listener.udp && other->udp) || (listener.tcp && other->tcp);
        if (overlaps && address_equal(&listener.address, &other->address))
            return settings_reject(settings, text, "is listened on twice");
    }
    config->listeners[config->listener_count++] = listener;
    return STATUS_OK;
}

bool listeners_differ(const struct config *a, const struct config *b)
{
    for (size_t i = 0; i < a->listener_count && i < b->listener_count; i++) {
        const struct listener_config *one = &a->listeners[i];
        const struct listener_config *other = &b->listeners[i];
        if (!address_equal(&one->address, &other->address) || one->udp != other->udp ||
            one->tcp != other->tcp || one->is_default != other->is_default)
            return true;
    }
    return a->listener_count != b->listener_count;
}

/* --- pins --- */

/* The digits of `text` after each other, `bits` from each; false unless they are one pin. */
static bool decode_pin(const char *text, const char *alphabet, unsigned int bits,
                       uint8_t pin[static PIN_SIZE])
{
    assert(bits == 4 || bits == 6);
    uint32_t waiting = 0;
    unsigned int waiting_bits = 0;
    size_t length = 0;
    for (; *text != '\0' && length < PIN_SIZE; text++) {
        const char *digit = strchr(alphabet, *text);
        if (!digit)
            return false;
        waiting = waiting << bits | (uint32_t)(digit - alphabet);
        waiting_bits += bits;
        if (waiting_bits >= 8) {
            waiting_bits -= 8;
            pin[length++] = (uint8_t)(waiting >> waiting_bits);
        }
    }
    const bool has_more = (waiting & ((1U << waiting_bits) - 1)) != 0;
    return length == PIN_SIZE && !has_more && strcmp(text, bits == 6 ? "=" : "") == 0;
}

/* RFC 4648 4 and 8: 32 bytes are 43 digits and one "=" of base64, or 64 hexadecimal digits. */
static bool parse_pin(const char *text, uint8_t pin[static PIN_SIZE])
{
    return decode_pin(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", 6,
                      pin) ||
           decode_pin(text, "0123456789abcdef", 4, pin) ||
           decode_pin(text, "0123456789ABCDEF", 4, pin);
}

static enum status set_pin(struct settings *settings, struct upstream_entry *entry,
                           const char *text)
{
    const char *digits = text;
    uint8_t pin[PIN_SIZE];
    if (strncmp(text, "sha256/", 7) == 0)
        digits += text[7] == '/' ? 8 : 7; /* as HPKP wrote it, and as curl does */
    if (!parse_pin(digits, pin))
        return settings_reject(settings, text,
                               "is not a pin; allowed: a SHA-256 of the public key, as 44 "
                               "characters of base64 or 64 hexadecimal digits");
    if (entry->pin_count == CONFIG_PINS_MAX)
        return settings_reject(settings, text, "is one too many; allowed: %d pins",
                               CONFIG_PINS_MAX);
    memcpy(entry->pins[entry->pin_count++], pin, PIN_SIZE);
    return STATUS_OK;
}

/* --- upstreams --- */

/* RFC 1123 2.1: letters, digits and hyphens, and a last label that is not a number. */
static bool is_dns_name(const char *name)
{
    const size_t length = strlen(name);
    if (length == 0 || length > NAME_LENGTH_MAX)
        return false;
    for (const char *label = name;;) {
        const size_t label_length = strcspn(label, ".");
        if (label_length == 0 || label_length > 63)
            return false;
        if (strspn(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") <
                label_length ||
            label[0] == '-' || label[label_length - 1] == '-')
            return false;
        if (label[label_length] == '\0')
            return strspn(label, "0123456789") < label_length;
        label += label_length + 1;
    }
}

static bool is_authentication_name(const char *name)
{
    uint8_t bytes[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, name, bytes) == 1 || inet_pton(AF_INET6, name, bytes) == 1 ||
           is_dns_name(name);
}

static enum status reject_scheme(struct settings *settings, const char *text)
{
    static const char *const CLEAR[] = {"udp", "tcp", "dns", "http"};
    const char *rest;
    struct address address;
    bool is_clear = address_parse(text, TLS_PORT, &address) == STATUS_OK ||
                    address_has_unclear_port(text, &address);
    for (size_t i = 0; i < sizeof CLEAR / sizeof CLEAR[0]; i++)
        is_clear = is_clear || has_scheme(text, CLEAR[i], &rest);
    if (is_clear)
        return settings_reject(
            settings, text,
            "would send queries in clear text, which is refused; allowed: " ALLOWED_UPSTREAMS);
    const char *protocol = encrypted_protocol(text);
    if (protocol)
        return settings_reject(settings, text,
                               "is %s, which is not supported yet; allowed: " ALLOWED_UPSTREAMS,
                               protocol);
    return settings_reject(settings, text,
                           "is neither a preset nor a tls:// URL; allowed: " ALLOWED_UPSTREAMS);
}

/* Where an upstream is, and what its certificate is for. */
struct target {
    struct address address;
    char host[NAME_LENGTH_MAX + sizeof ":65535"]; /* "": it is at `address` */
    uint16_t port;                                /* of the host */
    const char *name;                             /* NULL: none is given */
};

/* "HOST" or "HOST:PORT" in target->host, which loses its port, unless it is none. */
static bool parse_host(struct target *target)
{
    uint16_t port = TLS_PORT;
    char *colon = strchr(target->host, ':');
    if (colon && port_parse(colon + 1, &port) != STATUS_OK)
        return false;
    if (colon)
        *colon = '\0';
    if (is_dns_name(target->host)) {
        target->port = port;
        return true;
    }
    if (colon)
        *colon = ':';
    return false;
}

/* A host name, which is also what the certificate is for unless another is given, or an address. */
static enum status parse_place(struct settings *settings, const char *text, struct target *target)
{
    if (parse_host(target)) {
        if (!target->name)
            target->name = target->host;
        return STATUS_OK;
    }
    TRY(read_address(settings, text, target->host, TLS_PORT, &target->address,
                     "has no usable address or host name; allowed: tls://ADDRESS[:PORT]#NAME or "
                     "tls://HOST[:PORT], where ADDRESS is IPv4 or [IPv6], HOST a DNS name and PORT "
                     "1 to 65535"));
    target->host[0] = '\0';
    if (address_is_any(&target->address))
        return settings_reject(settings, text, "is the address of no server");
    return STATUS_OK;
}

/* Cuts `text` at its "#". */
static enum status parse_upstream_url(struct settings *settings, const char *text,
                                      struct target *target)
{
    const char *rest;
    if (!has_scheme(text, "tls", &rest))
        return reject_scheme(settings, text);
    const size_t host_length = strcspn(rest, "#");
    target->name = rest[host_length] == '#' ? rest + host_length + 1 : NULL;
    if (host_length >= sizeof target->host)
        return settings_reject(settings, text, "is too long; allowed: " ALLOWED_UPSTREAMS);
    memcpy(target->host, rest, host_length);
    target->host[host_length] = '\0';
    TRY(parse_place(settings, text, target));
    if (target->name && !is_authentication_name(target->name))
        return settings_reject(settings, text,
                               "has no valid name after \"#\"; allowed: the DNS name or the IP "
                               "address that the server's certificate is for");
    return STATUS_OK;
}

static bool same_name(const char *a, const char *b)
{
    return a && b ? strcasecmp(a, b) == 0 : a == b;
}

static bool is_same_place(const struct upstream_config *a, const struct upstream_config *b)
{
    if (!a->host && !b->host)
        return address_equal(&a->address, &b->address);
    return same_name(a->host, b->host) && a->port == b->port;
}

/* Who is asked there. */
static bool is_same_server(const struct upstream_config *a, const struct upstream_config *b)
{
    return is_same_place(a, b) && same_name(a->name, b->name) && a->pin_count == b->pin_count &&
           memcmp(a->pins, b->pins, sizeof a->pins) == 0;
}

static bool is_duplicate(const struct config *config, const struct upstream_config *upstream)
{
    for (size_t i = 0; i < config->snapshot.upstream_count; i++)
        if (is_same_server(&config->snapshot.upstreams[i], upstream))
            return true;
    return false;
}

static bool label_is_taken(const struct config *config, const char *label)
{
    for (size_t i = 0; i < config->snapshot.upstream_count; i++)
        if (strcasecmp(config->snapshot.upstreams[i].label, label) == 0)
            return true;
    return false;
}

/* Labels tell the series of the metrics apart, so two upstreams that differ in their pins only are
 * numbered. */
static char *make_label(struct settings *settings, const struct upstream_config *upstream)
{
    char place[NAME_LENGTH_MAX + sizeof ":65535"];
    static_assert(sizeof place >= ADDRESS_TEXT_SIZE, "an address is a place, too");
    char label[sizeof place + NAME_LENGTH_MAX + sizeof "#/99"];
    if (upstream->host)
        snprintf(place, sizeof place, "%s:%u", upstream->host, upstream->port);
    else
        address_format(&upstream->address, place);
    const int length = snprintf(label, sizeof label, "%s%s%s", place, upstream->name ? "#" : "",
                                upstream->name ? upstream->name : "");
    for (int i = 2; label_is_taken(settings->config, label); i++)
        snprintf(label + length, sizeof label - (size_t)length, "/%d", i);
    return settings_copy(settings, label);
}

void free_upstream(struct upstream_config *upstream)
{
    free(upstream->label);
    free(upstream->name);
    free(upstream->ca_file);
    free(upstream->ca_origin);
    free(upstream->host);
    *upstream = (struct upstream_config){};
}

static enum status fill_upstream(struct settings *settings, struct upstream_config *upstream,
                                 const struct target *target, const struct upstream_entry *entry)
{
    assert(target->name || entry->pin_count > 0);
    assert(entry->weight > 0 && entry->weight <= WEIGHT_MAX && entry->pin_count <= CONFIG_PINS_MAX);
    upstream->address = target->address;
    upstream->port = target->port;
    upstream->weight = entry->weight;
    upstream->pin_count = entry->pin_count;
    memcpy(upstream->pins, entry->pins, sizeof entry->pins);
    if (target->name && !(upstream->name = settings_copy(settings, target->name)))
        return STATUS_INVALID;
    if (*target->host && !(upstream->host = settings_copy(settings, target->host)))
        return STATUS_INVALID;
    if (entry->ca_file && !(upstream->ca_file = settings_copy(settings, entry->ca_file)))
        return STATUS_INVALID;
    if (entry->ca_file && !(upstream->ca_origin = settings_origin(settings, &entry->ca_where)))
        return STATUS_INVALID;
    if (is_duplicate(settings->config, upstream))
        return settings_reject(settings, entry->url, "is given twice");
    upstream->label = make_label(settings, upstream);
    return upstream->label ? STATUS_OK : STATUS_INVALID;
}

static enum status append_upstream(struct settings *settings, const struct target *target,
                                   const struct upstream_entry *entry)
{
    assert(entry->url);
    struct config *config = settings->config;
    if (config->snapshot.upstream_count == CONFIG_UPSTREAMS_MAX)
        return settings_reject(settings, entry->url, "is one too many; allowed: %d",
                               CONFIG_UPSTREAMS_MAX);
    struct upstream_config *upstream = &config->snapshot.upstreams[config->snapshot.upstream_count];
    free_upstream(upstream); /* one that this level replaces, or that was refused */
    upstream->slot = config->snapshot.upstream_count;
    TRY(fill_upstream(settings, upstream, target, entry));
    config->snapshot.upstream_count++;
    return STATUS_OK;
}

static enum status append_preset(struct settings *settings, const struct preset *preset,
                                 const struct upstream_entry *entry)
{
    for (size_t i = 0; i < sizeof preset->addresses / sizeof preset->addresses[0]; i++) {
        struct target target = {.name = preset->authentication_name};
        TRY(address_parse(preset->addresses[i], TLS_PORT, &target.address));
        TRY(append_upstream(settings, &target, entry));
    }
    return STATUS_OK;
}

enum status upstream_entry_add(struct settings *settings, const struct upstream_entry *entry)
{
    assert(entry->url && entry->weight > 0);
    for (size_t i = 0; i < PRESET_COUNT; i++)
        if (strcmp(entry->url, PRESETS[i].name) == 0)
            return append_preset(settings, &PRESETS[i], entry);
    struct target target = {};
    TRY(parse_upstream_url(settings, entry->url, &target));
    if (*target.host)
        settings->named = settings->where;
    if (!target.name && entry->pin_count == 0)
        return settings_reject(settings, entry->url,
                               "has no name to authenticate the server by; write "
                               "tls://ADDRESS#NAME, or give pins in the configuration file");
    return append_upstream(settings, &target, entry);
}

enum status add_upstream(struct settings *settings, const struct option *option, const char *text)
{
    (void)option;
    return upstream_entry_add(settings, &(struct upstream_entry){.url = text, .weight = 1});
}

bool is_same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static const struct upstream_config *find_same(const struct snapshot *snapshot,
                                               const struct upstream_config *upstream)
{
    for (size_t i = 0; i < snapshot->upstream_count; i++) {
        const struct upstream_config *other = &snapshot->upstreams[i];
        if (is_same_server(other, upstream) && other->trust == upstream->trust)
            return other;
    }
    return NULL;
}

void upstreams_place(struct snapshot *snapshot, const struct snapshot *former)
{
    static_assert(CONFIG_UPSTREAM_SLOTS >= 2 * CONFIG_UPSTREAMS_MAX, "both have room");
    const upstream_set taken = upstreams_slots(former);
    size_t slot = 0;
    for (size_t i = 0; i < snapshot->upstream_count; i++) {
        struct upstream_config *upstream = &snapshot->upstreams[i];
        const struct upstream_config *same = find_same(former, upstream);
        while (!same && (taken & upstream_bit(slot)))
            slot++;
        upstream->slot = same ? same->slot : slot++;
    }
}

/* --- bootstraps --- */

enum status add_bootstrap(struct settings *settings, const struct option *option, const char *text)
{
    (void)option;
    struct config *config = settings->config;
    struct address address;
    static const char problem[] = "is not the address of a DNS server; allowed: ADDRESS[:PORT], "
                                  "where ADDRESS is IPv4 or [IPv6] and PORT 1 to 65535";
    TRY(read_address(settings, text, text, DNS_PORT, &address, problem));
    if (address_is_any(&address))
        return settings_reject(settings, text, "%s", problem);
    for (size_t i = 0; i < config->snapshot.bootstrap_count; i++)
        if (address_equal(&config->snapshot.bootstraps[i], &address))
            return settings_reject(settings, text, "is given twice");
    config->snapshot.bootstraps[config->snapshot.bootstrap_count++] = address;
    return STATUS_OK;
}

void check_host_names(struct settings *settings)
{
    const struct config *config = settings->config;
    if (config->snapshot.bootstrap_count > 0 || settings->failed)
        return;
    for (size_t i = 0; i < config->snapshot.upstream_count; i++)
        if (!config->snapshot.upstreams[i].host)
            return;
    settings->where = settings->named;
    settings_report(settings, "is a host name, as all upstreams are, and nobody could look it up; "
                              "give addresses of plain DNS servers with bootstrap, such as "
                              "bootstrap: 9.9.9.9, or an upstream with an address");
}

/* --- an upstream as a mapping --- */

static enum status set_url(struct settings *settings, struct upstream_entry *entry,
                           const char *text)
{
    entry->url = text;
    entry->where = settings->where;
    return STATUS_OK;
}

static enum status set_ca(struct settings *settings, struct upstream_entry *entry, const char *text)
{
    entry->ca_file = text;
    entry->ca_where = settings->where;
    entry->ca_where.name = "upstreams.ca"; /* what is there now does not outlive this key */
    return check_readable(settings, text);
}

static enum status set_weight(struct settings *settings, struct upstream_entry *entry,
                              const char *text)
{
    const size_t digits = strspn(text, "0123456789");
    const unsigned long weight = strtoul(text, NULL, 10);
    if (digits == 0 || text[digits] != '\0' || weight < 1 || weight > WEIGHT_MAX)
        return settings_reject(settings, text, "is not a weight; allowed: 1 to %d", WEIGHT_MAX);
    entry->weight = (uint32_t)weight;
    return STATUS_OK;
}

const struct upstream_field UPSTREAM_FIELDS[] = {
    {"url", "`tls://ADDRESS[:PORT]#NAME`, `tls://HOST[:PORT]`, or the name of a preset.", set_url,
     false},
    {"ca", "A file of certificates (PEM) to trust for this upstream, in place of `tls.ca`.", set_ca,
     false},
    {"pins",
     "SHA-256 of the public key (SubjectPublicKeyInfo) of the server's certificate, in base64 or "
     "hexadecimal; one or a list, of which one must match.",
     set_pin, true},
    {"weight", "Share of the queries with the strategy `weighted`, 1 (the default) to 1000.",
     set_weight, false},
};
const size_t UPSTREAM_FIELD_COUNT = sizeof UPSTREAM_FIELDS / sizeof UPSTREAM_FIELDS[0];
