// SPDX-License-Identifier: Apache-2.0
/* TLS against servers with every kind of certificate, ticket and misbehaviour. */
#include <errno.h>
#include <signal.h>

#include "net/tls.h"
#include "sockets.h"
#include "tls_server.h"

static struct identity authority, stranger, good;
static struct tls_trust *trust;

/* One client against one server. */
struct session {
    struct tls_client *client;
    struct tls *tls;
    struct tls_server server;
    int fd;
    enum failure failure;
    enum status status; /* of the handshake */
};

static struct tls_client *client_with(const char *name, const uint8_t (*pins)[32], size_t count)
{
    struct tls_client *client = NULL;
    struct upstream_config upstream = {.name = name ? strdupa(name) : NULL, .pin_count = count};
    for (size_t i = 0; i < count; i++)
        memcpy(upstream.pins[i], pins[i], PIN_SIZE);
    assert_int_equal(tls_client_open(&upstream, trust, &client), STATUS_OK);
    memset(upstream.pins, 0, sizeof upstream.pins); /* the client has its own copy */
    return client;
}

static void start(struct session *session, struct tls_client *client, SSL_CTX *context)
{
    int server_fd;
    *session = (struct session){.client = client};
    tcp_pair(&session->fd, &server_fd);
    server_open(&session->server, context, server_fd);
    assert_int_equal(tls_open(client, session->fd, &session->tls), STATUS_OK);
    assert_string_equal(tls_error_text(session->tls), "");
}

/* Both sides until the client knows and the server has heard of it. */
static void shake_hands(struct session *session)
{
    session->status = STATUS_AGAIN;
    while (session->status == STATUS_AGAIN) {
        session->status = tls_handshake(session->tls, &session->failure);
        server_step(&session->server);
        if (session->status == STATUS_AGAIN && !tls_wants_write(session->tls))
            wait_for(session->fd, POLLIN);
    }
    while (!session->server.open && !session->server.broken && !session->server.closed) {
        wait_for(session->server.fd, POLLIN);
        server_step(&session->server);
    }
}

static void end(struct session *session)
{
    tls_close(session->tls);
    close(session->fd);
    server_free(&session->server);
    close(session->server.fd);
}

/* Reads at the client until bytes, an end, or nothing is left. */
static enum status read_at_client(struct session *session, char *text, size_t size)
{
    size_t length = 0;
    wait_for(session->fd, POLLIN);
    const enum status status =
        tls_read(session->tls, (uint8_t *)text, size - 1, &length, &session->failure);
    text[length] = '\0';
    return status;
}

/* A whole connection; the server greets, so that the client has also read the tickets. */
static bool connection_was_resumed(struct tls_client *client, SSL_CTX *context)
{
    struct session session;
    struct tls_facts facts;
    char text[8];
    start(&session, client, context);
    shake_hands(&session);
    assert_int_equal(session.status, STATUS_OK);
    server_write(&session.server, "hello", 5);
    while (read_at_client(&session, text, sizeof text) != STATUS_OK)
        ;
    assert_string_equal(text, "hello");
    tls_facts(session.tls, &facts);
    end(&session);
    return facts.resumed;
}

/* The outcome for a server with `identity`. A failure must leave the server without our Finished,
 * hence without a way to decrypt anything. */
static enum failure outcome(struct tls_client *client, const struct identity *identity)
{
    SSL_CTX *context = server_context(identity);
    struct session session;
    start(&session, client, context);
    shake_hands(&session);
    if (session.status != STATUS_OK) {
        assert_int_equal(session.status, STATUS_CLOSED);
        assert_false(session.server.open);
        assert_string_not_equal(tls_error_text(session.tls), "");
    }
    assert_int_equal(session.server.received_length, 0);
    end(&session);
    SSL_CTX_free(context);
    return session.failure;
}

static enum failure outcome_of_form(const char *name, struct identity_form form)
{
    struct tls_client *client = client_with(name, NULL, 0);
    struct identity identity = identity_make(&form);
    const enum failure failure = outcome(client, &identity);
    identity_free(&identity);
    tls_client_close(client);
    return failure;
}

static int make_authorities(void **state)
{
    (void)state;
    char path[PATH_SIZE], error[128];
    signal(SIGPIPE, SIG_IGN);
    authority = identity_make(&(struct identity_form){.common_name = "authority", .is_ca = true});
    stranger = identity_make(&(struct identity_form){.common_name = "stranger", .is_ca = true});
    good = identity_make(&(struct identity_form){
        .common_name = "x", .san = "DNS:dns.example.net", .issuer = &authority});
    write_certificate(path, &authority);
    assert_int_equal(tls_trust_open(path, &trust, error, sizeof error), STATUS_OK);
    unlink(path);
    return 0;
}

static int free_authorities(void **state)
{
    (void)state;
    identity_free(&authority);
    identity_free(&stranger);
    identity_free(&good);
    tls_trust_close(trust);
    return 0;
}

/* --- Trust and settings --- */

static void trust_tells_what_is_wrong_with_its_file(void **state)
{
    (void)state;
    struct tls_trust *none = NULL;
    char path[PATH_SIZE], error[256], expected[256];
    assert_int_equal(tls_trust_open("/missing/ca.pem", &none, error, sizeof error), STATUS_INVALID);
    assert_string_equal(error, "cannot read /missing/ca.pem: No such file or directory");
    write_file(path, "no certificate here\n");
    assert_int_equal(tls_trust_open(path, &none, error, sizeof error), STATUS_INVALID);
    snprintf(expected, sizeof expected, "%s holds no certificate in PEM, or a damaged one", path);
    assert_string_equal(error, expected);
    unlink(path);
    write_file(path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert_int_equal(tls_trust_open(path, &none, error, sizeof error), STATUS_INVALID);
    snprintf(expected, sizeof expected, "%s holds no certificate in PEM, or a damaged one", path);
    assert_string_equal(error, expected);
    unlink(path);
    assert_null(none);
    tls_trust_close(NULL);
}

static struct tls_trust *trust_of(const struct identity *first, const struct identity *second)
{
    struct tls_trust *out = NULL;
    char path[PATH_SIZE], error[256];
    write_certificate(path, first);
    if (second) {
        FILE *file = fopen(path, "a");
        assert_non_null(file);
        assert_int_equal(PEM_write_X509(file, second->certificate), 1);
        fclose(file);
    }
    assert_int_equal(tls_trust_open(path, &out, error, sizeof error), STATUS_OK);
    unlink(path);
    return out;
}

/* Whatever the file is called. */
static void J1_trust_is_the_same_with_the_same_certificates(void **state)
{
    (void)state;
    struct tls_trust *one = trust_of(&authority, NULL);
    struct tls_trust *other = trust_of(&stranger, NULL);
    struct tls_trust *both = trust_of(&authority, &stranger);
    assert_true(tls_trust_is_same(one, trust));
    assert_false(tls_trust_is_same(one, other));
    assert_false(tls_trust_is_same(one, both));
    assert_ptr_equal(tls_trust_share(both), both);
    tls_trust_close(both);
    assert_false(tls_trust_is_same(both, one)); /* the other owner has it */
    tls_trust_close(both);
    tls_trust_close(other);
    tls_trust_close(one);
}

/* A root that the file says is not to be trusted is another than the same root without a word. */
static void E1_J1_trust_is_another_when_a_root_is_rejected(void **state)
{
    (void)state;
    struct tls_trust *rejecting = NULL;
    char path[PATH_SIZE], error[256];
    X509 *root = X509_dup(authority.certificate);
    assert_int_equal(X509_add1_reject_object(root, OBJ_nid2obj(NID_server_auth)), 1);
    write_file(path, "");
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_X509_AUX(file, root), 1);
    fclose(file);
    X509_free(root);
    assert_int_equal(tls_trust_open(path, &rejecting, error, sizeof error), STATUS_OK);
    unlink(path);
    assert_false(tls_trust_is_same(rejecting, trust));
    tls_trust_close(rejecting);
}

static void system_store_is_where_the_environment_says(void **state)
{
    (void)state;
    struct tls_trust *system = NULL;
    char path[PATH_SIZE], error[256];
    write_certificate(path, &stranger);
    setenv("SSL_CERT_FILE", path, 1);
    assert_int_equal(tls_trust_open(NULL, &system, error, sizeof error), STATUS_OK);
    tls_trust_close(system);
    unlink(path);
    assert_int_equal(tls_trust_open(NULL, &system, error, sizeof error), STATUS_INVALID);
    assert_non_null(strstr(error, path));
    unsetenv("SSL_CERT_FILE");
    if (access("/etc/ssl/certs/ca-certificates.crt", R_OK) == 0) {
        assert_int_equal(tls_trust_open(NULL, &system, error, sizeof error), STATUS_OK);
        tls_trust_close(system);
    }
}

static void E2_settings_that_authenticate_nobody_are_refused(void **state)
{
    (void)state;
    struct tls_client *client = NULL;
    char names[][16] = {"", ".", ".example.net", "dns.example.net"};
    struct upstream_config upstream = {.name = NULL};
    assert_int_equal(tls_client_open(&upstream, trust, &client), STATUS_INVALID);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        upstream.name = names[i];
        assert_int_equal(tls_client_open(&upstream, i < 3 ? trust : NULL, &client), STATUS_INVALID);
    }
    assert_null(client);
    tls_client_close(NULL);
    tls_close(NULL);
}

/* --- E1, E6: names and dates --- */

static void E1_certificate_for_the_name_is_accepted(void **state)
{
    (void)state;
    const struct identity_form form = {
        .common_name = "x", .san = "DNS:other.example,DNS:DNS.example.net", .issuer = &authority};
    assert_int_equal(outcome_of_form("dns.example.net", form), FAILURE_NONE);
    assert_int_equal(outcome_of_form("dns.example.net.", form), FAILURE_NONE);
}

static void E1_wrong_name_fails(void **state)
{
    (void)state;
    const struct identity_form form = {
        .common_name = "x", .san = "DNS:dns.example.net", .issuer = &authority};
    assert_int_equal(outcome_of_form("other.example.net", form), FAILURE_CERTIFICATE_NAME);
    assert_int_equal(outcome_of_form("example.net", form), FAILURE_CERTIFICATE_NAME);
    assert_int_equal(outcome_of_form("a.dns.example.net", form), FAILURE_CERTIFICATE_NAME);
    assert_int_equal(outcome_of_form("192.0.2.1", form), FAILURE_CERTIFICATE_NAME);
}

static void E1_expired_fails(void **state)
{
    (void)state;
    const struct identity_form form = {.common_name = "x",
                                       .san = "DNS:dns.example.net",
                                       .issuer = &authority,
                                       .not_before_s = -2 * DAY_S,
                                       .not_after_s = -60};
    assert_int_equal(outcome_of_form("dns.example.net", form), FAILURE_CERTIFICATE_EXPIRED);
}

static void E1_not_yet_valid_fails(void **state)
{
    (void)state;
    const struct identity_form form = {.common_name = "x",
                                       .san = "DNS:dns.example.net",
                                       .issuer = &authority,
                                       .not_before_s = 3600};
    assert_int_equal(outcome_of_form("dns.example.net", form), FAILURE_CERTIFICATE_NOT_YET_VALID);
}

static void E1_self_signed_fails(void **state)
{
    (void)state;
    const struct identity_form form = {.common_name = "x", .san = "DNS:dns.example.net"};
    assert_int_equal(outcome_of_form("dns.example.net", form), FAILURE_CERTIFICATE_UNTRUSTED);
}

static void E1_unknown_authority_fails(void **state)
{
    (void)state;
    const struct identity_form form = {
        .common_name = "x", .san = "DNS:dns.example.net", .issuer = &stranger};
    assert_int_equal(outcome_of_form("dns.example.net", form), FAILURE_CERTIFICATE_UNTRUSTED);
}

static void E1_issuer_that_is_no_authority_fails(void **state)
{
    (void)state;
    const struct identity_form form = {
        .common_name = "x", .san = "DNS:dns.example.net", .issuer = &good};
    struct tls_client *client = client_with("dns.example.net", NULL, 0);
    struct identity identity = identity_make(&form);
    SSL_CTX *context = server_context(&identity);
    struct session session;
    assert_int_equal(SSL_CTX_add1_chain_cert(context, good.certificate), 1);
    start(&session, client, context);
    shake_hands(&session);
    assert_int_equal(session.status, STATUS_CLOSED);
    assert_int_equal(session.failure, FAILURE_CERTIFICATE_UNTRUSTED);
    assert_false(session.server.open);
    end(&session);
    SSL_CTX_free(context);
    identity_free(&identity);
    tls_client_close(client);
}

static void E1_no_san_and_name_only_in_cn_fails(void **state)
{
    (void)state;
    const struct identity_form form = {.common_name = "dns.example.net", .issuer = &authority};
    assert_int_equal(outcome_of_form("dns.example.net", form), FAILURE_CERTIFICATE_NAME);
    const struct identity_form address = {.common_name = "192.0.2.1", .issuer = &authority};
    assert_int_equal(outcome_of_form("192.0.2.1", address), FAILURE_CERTIFICATE_NAME);
}

static void E1_wildcard_covers_one_whole_label_only(void **state)
{
    (void)state;
    const struct identity_form one = {
        .common_name = "x", .san = "DNS:*.example.net", .issuer = &authority};
    assert_int_equal(outcome_of_form("dns.example.net", one), FAILURE_NONE);
    assert_int_equal(outcome_of_form("a.dns.example.net", one), FAILURE_CERTIFICATE_NAME);
    assert_int_equal(outcome_of_form("example.net", one), FAILURE_CERTIFICATE_NAME);
    const char *too_wide[] = {"DNS:*.net", "DNS:*", "DNS:*.*.net", "DNS:d*.example.net",
                              "DNS:*s.example.net"};
    for (size_t i = 0; i < sizeof too_wide / sizeof *too_wide; i++) {
        const struct identity_form wide = {
            .common_name = "x", .san = too_wide[i], .issuer = &authority};
        assert_int_equal(outcome_of_form("dns.example.net", wide), FAILURE_CERTIFICATE_NAME);
    }
    const struct identity_form top = {.common_name = "x", .san = "DNS:*.net", .issuer = &authority};
    assert_int_equal(outcome_of_form("example.net", top), FAILURE_CERTIFICATE_NAME);
}

static void E1_certificate_that_is_not_for_servers_fails(void **state)
{
    (void)state;
    const struct identity_form form = {.common_name = "x",
                                       .san = "DNS:dns.example.net",
                                       .issuer = &authority,
                                       .usage = "clientAuth"};
    assert_int_equal(outcome_of_form("dns.example.net", form), FAILURE_CERTIFICATE_INVALID);
}

static void E6_address_in_the_certificate_is_accepted(void **state)
{
    (void)state;
    const struct identity_form form = {
        .common_name = "x", .san = "IP:192.0.2.1,IP:2001:db8::1", .issuer = &authority};
    assert_int_equal(outcome_of_form("192.0.2.1", form), FAILURE_NONE);
    assert_int_equal(outcome_of_form("2001:db8::1", form), FAILURE_NONE);
    assert_int_equal(outcome_of_form("192.0.2.2", form), FAILURE_CERTIFICATE_NAME);
    /* RFC 9525 6.5: the text of an address in a dNSName does not count. */
    const struct identity_form text = {
        .common_name = "x", .san = "DNS:192.0.2.1", .issuer = &authority};
    assert_int_equal(outcome_of_form("192.0.2.1", text), FAILURE_CERTIFICATE_NAME);
}

static void E6_server_name_is_sent_only_when_there_is_a_dns_name(void **state)
{
    (void)state;
    uint8_t pin[1][32];
    const struct {
        const char *name, *sent;
    } rows[] = {{"dns.example.net", "dns.example.net"},
                {"dns.example.net.", "dns.example.net"},
                {"192.0.2.1", NULL},
                {NULL, NULL}};
    identity_pin(&good, pin[0]);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tls_client *client = client_with(rows[i].name, pin, 1);
        SSL_CTX *context = server_context(&good);
        struct session session;
        start(&session, client, context);
        shake_hands(&session);
        const char *name = SSL_get_servername(session.server.ssl, TLSEXT_NAMETYPE_host_name);
        if (rows[i].sent)
            assert_string_equal(name, rows[i].sent);
        else
            assert_null(name);
        end(&session);
        SSL_CTX_free(context);
        tls_client_close(client);
    }
}

/* --- E4: pins --- */

static enum failure outcome_with_pins(const char *name, const struct identity *identity,
                                      const struct identity *pinned, const struct identity *also)
{
    uint8_t pins[2][32] = {0};
    identity_pin(pinned, pins[0]);
    if (also)
        identity_pin(also, pins[1]);
    struct tls_client *client = client_with(name, pins, 2);
    const enum failure failure = outcome(client, identity);
    tls_client_close(client);
    return failure;
}

static void E4_pin_alone_decides_when_there_is_no_name(void **state)
{
    (void)state;
    struct identity alone = identity_make(&(struct identity_form){
        .common_name = "x", .not_before_s = -2 * DAY_S, .not_after_s = -60});
    assert_int_equal(outcome_with_pins(NULL, &alone, &alone, NULL), FAILURE_NONE);
    assert_int_equal(outcome_with_pins(NULL, &alone, &good, NULL), FAILURE_CERTIFICATE_PIN);
    /* The authority's key vouches for nothing when no chain was verified. */
    assert_int_equal(outcome_with_pins(NULL, &good, &authority, NULL), FAILURE_CERTIFICATE_PIN);
    identity_free(&alone);
}

static void E4_any_of_several_pins_will_do(void **state)
{
    (void)state;
    assert_int_equal(outcome_with_pins(NULL, &good, &stranger, &good), FAILURE_NONE);
    assert_int_equal(outcome_with_pins("dns.example.net", &good, &stranger, &good), FAILURE_NONE);
}

static void E4_name_and_pin_must_both_match(void **state)
{
    (void)state;
    assert_int_equal(outcome_with_pins("dns.example.net", &good, &good, NULL), FAILURE_NONE);
    assert_int_equal(outcome_with_pins("dns.example.net", &good, &authority, NULL), FAILURE_NONE);
    assert_int_equal(outcome_with_pins("dns.example.net", &good, &stranger, NULL),
                     FAILURE_CERTIFICATE_PIN);
    assert_int_equal(outcome_with_pins("other.example.net", &good, &good, NULL),
                     FAILURE_CERTIFICATE_NAME);
}

static void the_peer_pin_is_the_hash_of_its_public_key(void **state)
{
    (void)state;
    struct tls_client *client = client_with("dns.example.net", NULL, 0);
    SSL_CTX *context = server_context(&good);
    struct session session;
    uint8_t pin[33], expected[32]; /* OpenSSL counts what "=" stands for as an octet of 0 */
    start(&session, client, context);
    assert_string_equal(tls_peer_pin(session.tls), "");
    shake_hands(&session);
    assert_int_equal(strlen(tls_peer_pin(session.tls)), 44);
    assert_int_equal(EVP_DecodeBlock(pin, (const uint8_t *)tls_peer_pin(session.tls), 44), 33);
    identity_pin(&good, expected);
    assert_memory_equal(pin, expected, 32);
    end(&session);
    SSL_CTX_free(context);
    tls_client_close(client);
}

/* --- E3, E5: tickets --- */

static SSL_CTX *server_of_version(int version)
{
    SSL_CTX *context = server_context(&good);
    SSL_CTX_set_max_proto_version(context, version);
    return context;
}

static void E5_second_connection_is_resumed(void **state)
{
    (void)state;
    const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t i = 0; i < 2; i++) {
        struct tls_client *client = client_with("dns.example.net", NULL, 0);
        SSL_CTX *context = server_of_version(versions[i]);
        assert_false(connection_was_resumed(client, context));
        for (int again = 0; again < 6; again++)
            assert_true(connection_was_resumed(client, context));
        SSL_CTX_free(context);
        tls_client_close(client);
    }
}

static void E5_a_pin_is_still_kept_by_resumption(void **state)
{
    (void)state;
    uint8_t pin[1][32];
    identity_pin(&good, pin[0]);
    struct tls_client *client = client_with(NULL, pin, 1);
    SSL_CTX *context = server_context(&good);
    assert_false(connection_was_resumed(client, context));
    assert_true(connection_was_resumed(client, context));
    SSL_CTX_free(context);
    tls_client_close(client);
}

static bool resumed_without_reading(struct tls_client *client, SSL_CTX *context)
{
    struct session session;
    struct tls_facts facts;
    start(&session, client, context);
    shake_hands(&session);
    assert_int_equal(session.status, STATUS_OK);
    tls_facts(session.tls, &facts);
    end(&session);
    return facts.resumed;
}

/* RFC 8446 C.4. */
static void E5_tickets_of_tls_1_3_are_used_once(void **state)
{
    (void)state;
    struct tls_client *client = client_with("dns.example.net", NULL, 0);
    SSL_CTX *context = server_context(&good);
    SSL_CTX_set_num_tickets(context, 1);
    assert_false(connection_was_resumed(client, context));
    assert_true(resumed_without_reading(client, context));
    assert_false(resumed_without_reading(client, context));
    SSL_CTX_free(context);
    tls_client_close(client);
}

static void E5_only_the_newest_tickets_are_kept(void **state)
{
    (void)state;
    struct tls_client *client = client_with("dns.example.net", NULL, 0);
    SSL_CTX *context = server_context(&good);
    SSL_CTX_set_num_tickets(context, 40);
    assert_false(connection_was_resumed(client, context));
    int resumed = 0;
    while (resumed < 40 && resumed_without_reading(client, context))
        resumed++;
    assert_int_equal(resumed, 32);
    SSL_CTX_free(context);
    tls_client_close(client);
}

static void E5_refused_ticket_gives_a_full_handshake(void **state)
{
    (void)state;
    const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t i = 0; i < 2; i++) {
        struct tls_client *client = client_with("dns.example.net", NULL, 0);
        SSL_CTX *before = server_of_version(versions[i]), *after = server_of_version(versions[i]);
        assert_false(connection_was_resumed(client, before));
        assert_false(connection_was_resumed(client, after)); /* has other ticket keys */
        assert_true(connection_was_resumed(client, after));
        SSL_CTX_free(before);
        SSL_CTX_free(after);
        tls_client_close(client);
    }
}

static void E5_a_ticket_does_not_outlive_its_certificate(void **state)
{
    (void)state;
    uint8_t pin[1][32];
    struct identity expired = identity_make(&(struct identity_form){
        .common_name = "x", .not_before_s = -2 * DAY_S, .not_after_s = -60});
    identity_pin(&expired, pin[0]);
    struct tls_client *client = client_with(NULL, pin, 1);
    SSL_CTX *context = server_context(&expired);
    assert_false(connection_was_resumed(client, context));
    assert_false(connection_was_resumed(client, context));
    SSL_CTX_free(context);
    identity_free(&expired);
    tls_client_close(client);
}

/* The server would resume either; only the client can keep them apart. */
static void E3_tickets_are_never_offered_with_other_settings(void **state)
{
    (void)state;
    uint8_t pin[1][32];
    identity_pin(&stranger, pin[0]);
    struct tls_client *first = client_with("dns.example.net", NULL, 0);
    struct tls_client *second = client_with("other.example.net", NULL, 0);
    struct tls_client *third = client_with("dns.example.net", pin, 1);
    struct tls_client *fourth = client_with("dns.example.net", NULL, 0);
    SSL_CTX *context = server_context(&good);
    assert_false(connection_was_resumed(first, context));
    assert_int_equal(outcome(second, &good), FAILURE_CERTIFICATE_NAME);
    assert_int_equal(outcome(third, &good), FAILURE_CERTIFICATE_PIN);
    assert_false(connection_was_resumed(fourth, context));
    assert_true(connection_was_resumed(first, context));
    SSL_CTX_free(context);
    tls_client_close(first);
    tls_client_close(second);
    tls_client_close(third);
    tls_client_close(fourth);
}

/* F1: a bare end or a reset does not cost the session. */
static void E5_a_connection_that_broke_off_is_resumed_too(void **state)
{
    (void)state;
    const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t i = 0; i < 4; i++) {
        struct tls_client *client = client_with("dns.example.net", NULL, 0);
        SSL_CTX *context = server_of_version(versions[i / 2]);
        struct session session;
        char text[8];
        start(&session, client, context);
        shake_hands(&session);
        server_write(&session.server, "hello", 5);
        while (read_at_client(&session, text, sizeof text) != STATUS_OK)
            ;
        if (i % 2 == 0)
            reset(session.server.fd);
        else
            close(session.server.fd);
        assert_int_equal(read_at_client(&session, text, sizeof text), STATUS_CLOSED);
        assert_int_equal(session.failure, i % 2 == 0 ? FAILURE_RESET : FAILURE_CLOSED);
        tls_close(session.tls);
        close(session.fd);
        server_free(&session.server);
        assert_true(connection_was_resumed(client, context));
        SSL_CTX_free(context);
        tls_client_close(client);
    }
}

/* --- E7, E8: odd servers --- */

static enum failure outcome_of_context(SSL_CTX *context, struct tls_facts *facts)
{
    struct tls_client *client = client_with("dns.example.net", NULL, 0);
    struct session session;
    start(&session, client, context);
    shake_hands(&session);
    if (session.status == STATUS_OK && facts)
        tls_facts(session.tls, facts);
    end(&session);
    SSL_CTX_free(context);
    tls_client_close(client);
    return session.failure;
}

static void E7_tls_1_2_only_is_accepted(void **state)
{
    (void)state;
    struct tls_facts facts;
    assert_int_equal(outcome_of_context(server_of_version(TLS1_2_VERSION), &facts), FAILURE_NONE);
    assert_string_equal(facts.version, "TLSv1.2");
    assert_non_null(strstr(facts.cipher, "ECDHE"));
    assert_int_equal(outcome_of_context(server_of_version(TLS1_3_VERSION), &facts), FAILURE_NONE);
    assert_string_equal(facts.version, "TLSv1.3");
    assert_false(facts.resumed);
}

/* RFC 8996. */
static void E7_tls_1_1_is_refused(void **state)
{
    (void)state;
    SSL_CTX *context = server_context(&good);
    SSL_CTX_set_security_level(context, 0);
    SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(context, TLS1_1_VERSION);
    assert_int_equal(outcome_of_context(context, NULL), FAILURE_TLS);
}

static void E7_weak_ciphers_of_tls_1_2_are_refused(void **state)
{
    (void)state;
    SSL_CTX *context = server_of_version(TLS1_2_VERSION);
    SSL_CTX_set_cipher_list(context, "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA384");
    assert_int_equal(outcome_of_context(context, NULL), FAILURE_TLS);
}

static void E7_hello_retry_request_is_followed(void **state)
{
    (void)state;
    SSL_CTX *context = server_context(&good);
    char groups[] = "P-384";
    assert_int_equal(SSL_CTX_set1_groups_list(context, groups), 1);
    assert_int_equal(outcome_of_context(context, NULL), FAILURE_NONE);
}

static void E7_certificate_chain_of_100_kilobytes_is_refused(void **state)
{
    (void)state;
    struct identity large = identity_make(&(struct identity_form){
        .common_name = "large", .issuer = &authority, .padding_length = 20000});
    SSL_CTX *context = server_context(&good);
    for (int i = 0; i < 5; i++)
        assert_int_equal(SSL_CTX_add1_chain_cert(context, large.certificate), 1);
    assert_int_equal(outcome_of_context(context, NULL), FAILURE_TLS);
    context = server_context(&good);
    for (int i = 0; i < 2; i++)
        assert_int_equal(SSL_CTX_add1_chain_cert(context, large.certificate), 1);
    assert_int_equal(outcome_of_context(context, NULL), FAILURE_NONE);
    identity_free(&large);
}

static void E7_alert_is_told_in_words(void **state)
{
    (void)state;
    struct tls_client *client = client_with("dns.example.net", NULL, 0);
    SSL_CTX *context = SSL_CTX_new(TLS_server_method()); /* has no certificate to show */
    struct session session;
    start(&session, client, context);
    shake_hands(&session);
    assert_int_equal(session.failure, FAILURE_TLS);
    assert_non_null(strstr(tls_error_text(session.tls), "handshake failure"));
    end(&session);
    SSL_CTX_free(context);
    tls_client_close(client);
}

/* The client against raw bytes; `then` says how the server ends. */
static enum failure outcome_of_bytes(const void *bytes, size_t length, void (*then)(int fd))
{
    struct tls_client *client = client_with("dns.example.net", NULL, 0);
    enum failure failure = FAILURE_NONE;
    int fd, server_fd;
    struct tls *tls;
    char hello[4096];
    tcp_pair(&fd, &server_fd);
    assert_int_equal(tls_open(client, fd, &tls), STATUS_OK);
    assert_int_equal(tls_handshake(tls, &failure), STATUS_AGAIN); /* a silent server: we wait */
    assert_false(tls_wants_write(tls));
    wait_for(server_fd, POLLIN);
    assert_true(read(server_fd, hello, sizeof hello) > 0);
    assert_int_equal(write(server_fd, bytes, length), length);
    then(server_fd);
    enum status status = STATUS_AGAIN;
    while (status == STATUS_AGAIN) {
        wait_for(fd, POLLIN);
        status = tls_handshake(tls, &failure);
    }
    assert_int_equal(status, STATUS_CLOSED);
    assert_string_not_equal(tls_error_text(tls), "");
    tls_close(tls);
    close(fd);
    tls_client_close(client);
    return failure;
}

static void close_it(int fd)
{
    close(fd);
}

static void E7_garbage_and_breaks_in_the_handshake_are_failures(void **state)
{
    (void)state;
    char garbage[600];
    memset(garbage, 'g', sizeof garbage);
    assert_int_equal(outcome_of_bytes(garbage, sizeof garbage, close_it), FAILURE_TLS);
    assert_int_equal(outcome_of_bytes("HTTP/1.1 400 Bad Request\r\n\r\n", 28, close_it),
                     FAILURE_TLS);
    assert_int_equal(outcome_of_bytes("", 0, close_it), FAILURE_CLOSED);
    assert_int_equal(outcome_of_bytes("\x16\x03\x03", 3, close_it), FAILURE_CLOSED);
    assert_int_equal(outcome_of_bytes("", 0, reset), FAILURE_RESET);
    assert_int_equal(outcome_of_bytes("\x15\x03\x03\0\2\2\x28", 7, close_it), FAILURE_TLS);
}

static void E8_alpn_dot_is_offered_and_not_needed(void **state)
{
    (void)state;
    struct tls_facts facts;
    assert_int_equal(outcome_of_context(server_context(&good), &facts), FAILURE_NONE);
    assert_false(facts.alpn_dot);
    alpn_answer = "dot";
    assert_int_equal(outcome_of_context(server_context(&good), &facts), FAILURE_NONE);
    assert_true(facts.alpn_dot);
    alpn_answer = NULL;
}

/* --- Bytes --- */

struct quiet {
    struct session session;
    struct tls_client *client;
    SSL_CTX *context;
};

static void open_quiet(struct quiet *quiet, int version)
{
    quiet->client = client_with("dns.example.net", NULL, 0);
    quiet->context = server_of_version(version);
    SSL_CTX_set_num_tickets(quiet->context, 0);
    start(&quiet->session, quiet->client, quiet->context);
    shake_hands(&quiet->session);
    assert_int_equal(quiet->session.status, STATUS_OK);
}

static void close_quiet(struct quiet *quiet)
{
    end(&quiet->session);
    SSL_CTX_free(quiet->context);
    tls_client_close(quiet->client);
}

static void bytes_go_both_ways_and_pending_ones_are_known(void **state)
{
    (void)state;
    struct quiet quiet;
    struct session *session = &quiet.session;
    char text[8];
    size_t length;
    open_quiet(&quiet, TLS1_3_VERSION);
    assert_false(tls_has_pending(session->tls));
    assert_int_equal(tls_read(session->tls, (uint8_t *)text, 8, &length, &session->failure),
                     STATUS_AGAIN);
    assert_false(tls_wants_write(session->tls));
    assert_int_equal(
        tls_write(session->tls, (const uint8_t *)"question", 8, &length, &session->failure),
        STATUS_OK);
    assert_int_equal(length, 8);
    wait_for(session->server.fd, POLLIN);
    server_step(&session->server);
    assert_memory_equal(session->server.received, "question", 8);
    server_write(&session->server, "first", 5);
    server_write(&session->server, "second", 6);
    assert_int_equal(read_at_client(session, text, 4), STATUS_OK);
    assert_string_equal(text, "fir");
    assert_true(tls_has_pending(session->tls)); /* the rest, and the second record */
    assert_int_equal(tls_read(session->tls, (uint8_t *)text, 8, &length, &session->failure),
                     STATUS_OK);
    assert_int_equal(length, 2);
    assert_true(tls_has_pending(session->tls));
    assert_int_equal(tls_read(session->tls, (uint8_t *)text, 8, &length, &session->failure),
                     STATUS_OK);
    assert_int_equal(length, 6);
    assert_false(tls_has_pending(session->tls));
    close_quiet(&quiet);
}

static void the_error_of_another_connection_is_not_taken_for_ours(void **state)
{
    (void)state;
    struct quiet quiet;
    uint8_t byte;
    size_t length;
    enum failure failure = FAILURE_NONE;
    open_quiet(&quiet, TLS1_3_VERSION);
    ERR_raise(ERR_LIB_SSL, SSL_R_BAD_LENGTH);
    assert_int_equal(tls_read(quiet.session.tls, &byte, 1, &length, &failure), STATUS_AGAIN);
    ERR_raise(ERR_LIB_SSL, SSL_R_BAD_LENGTH);
    close_quiet(&quiet);
    assert_int_equal(ERR_peek_error(), 0);
}

static void a_forged_record_is_a_tls_failure(void **state)
{
    (void)state;
    struct quiet quiet;
    char text[8];
    open_quiet(&quiet, TLS1_3_VERSION);
    assert_int_equal(write(quiet.session.server.fd,
                           "\x17\x03\x03\0\x14"
                           "forged forged forged",
                           25),
                     25);
    assert_int_equal(read_at_client(&quiet.session, text, sizeof text), STATUS_CLOSED);
    assert_int_equal(quiet.session.failure, FAILURE_TLS);
    assert_string_not_equal(tls_error_text(quiet.session.tls), "");
    close_quiet(&quiet);
}

static void F1_an_orderly_and_a_bare_end_are_both_normal(void **state)
{
    (void)state;
    const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t i = 0; i < 4; i++) {
        struct quiet quiet;
        char text[8];
        open_quiet(&quiet, versions[i / 2]);
        if (i % 2 == 0)
            SSL_shutdown(quiet.session.server.ssl);
        assert_int_equal(shutdown(quiet.session.server.fd, SHUT_WR), 0);
        assert_int_equal(read_at_client(&quiet.session, text, sizeof text), STATUS_CLOSED);
        assert_int_equal(quiet.session.failure, FAILURE_CLOSED);
        close_quiet(&quiet);
    }
}

static void F14_close_notify_is_sent_and_not_waited_for(void **state)
{
    (void)state;
    struct quiet quiet;
    struct session *session = &quiet.session;
    open_quiet(&quiet, TLS1_3_VERSION);
    tls_close(session->tls);
    session->tls = NULL;
    wait_for(session->server.fd, POLLIN);
    server_step(&session->server);
    assert_true(session->server.closed);
    close_quiet(&quiet);
}

/* Writes until the socket is full, and returns how much went in. */
static size_t fill(struct session *session)
{
    static const uint8_t bytes[16384];
    size_t total = 0;
    for (;;) {
        size_t length;
        const enum status status =
            tls_write(session->tls, bytes, sizeof bytes, &length, &session->failure);
        if (status == STATUS_AGAIN)
            return total;
        assert_int_equal(status, STATUS_OK);
        total += length;
    }
}

static void F14_close_on_a_full_socket_does_not_block(void **state)
{
    (void)state;
    struct quiet quiet;
    open_quiet(&quiet, TLS1_3_VERSION);
    assert_true(fill(&quiet.session) > 0);
    assert_true(tls_wants_write(quiet.session.tls));
    close_quiet(&quiet);
}

/* RFC 8446 4.6.3: a key update that wants one back, while our own writing is blocked. */
static void F7_reading_goes_on_while_writing_is_blocked(void **state)
{
    (void)state;
    struct quiet quiet;
    struct session *session = &quiet.session;
    char text[16];
    static const uint8_t bytes[16384];
    size_t length, total;
    open_quiet(&quiet, TLS1_3_VERSION);
    total = fill(session);
    assert_int_equal(SSL_key_update(session->server.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
    server_write(&session->server, "still here", 10);
    enum status status = STATUS_AGAIN;
    while (status == STATUS_AGAIN) {
        wait_for(session->fd, POLLIN);
        status = tls_read(session->tls, (uint8_t *)text, 10, &length, &session->failure);
        if (status == STATUS_AGAIN && tls_wants_write(session->tls))
            server_step(&session->server);
    }
    assert_int_equal(status, STATUS_OK);
    assert_memory_equal(text, "still here", 10);
    do {
        server_step(&session->server);
        status = tls_write(session->tls, bytes, sizeof bytes, &length, &session->failure);
    } while (status == STATUS_AGAIN);
    assert_int_equal(status, STATUS_OK);
    total += length;
    while (session->server.received_length < total) {
        wait_for(session->server.fd, POLLIN);
        server_step(&session->server);
        assert_false(session->server.broken);
    }
    assert_int_equal(session->server.received_length, total);
    close_quiet(&quiet);
}

/* A ticket that takes several records, of which the first is sent; the others are in `rest`. */
static size_t send_half_a_ticket(struct session *session, uint8_t *rest, size_t size)
{
    static const uint8_t filler[1024];
    uint8_t records[4096];
    SSL *ssl = session->server.ssl;
    BIO *held = BIO_new(BIO_s_mem());
    BIO *wire = SSL_get_wbio(ssl);
    assert_true(BIO_up_ref(wire) == 1 && BIO_up_ref(held) == 1);
    SSL_set0_wbio(ssl, held);
    assert_int_equal(SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), filler, sizeof filler),
                     1);
    assert_int_equal(SSL_set_max_send_fragment(ssl, 512), 1);
    assert_int_equal(SSL_new_session_ticket(ssl), 1);
    assert_int_equal(SSL_do_handshake(ssl), 1);
    const int length = BIO_read(held, records, sizeof records);
    assert_true(length > 0);
    const size_t first = 5 + ((size_t)records[3] << 8 | records[4]);
    assert_in_range((size_t)length - first, 1, size);
    assert_int_equal(send(session->server.fd, records, first, 0), first);
    memcpy(rest, records + first, (size_t)length - first);
    BIO_free(held);
    SSL_set0_wbio(ssl, wire);
    return (size_t)length - first;
}

/* The server decides when the rest comes. */
static void F7_writing_waits_for_a_ticket_that_is_half_there(void **state)
{
    (void)state;
    struct quiet quiet;
    struct session *session = &quiet.session;
    uint8_t rest[4096];
    char text[8];
    size_t length;
    open_quiet(&quiet, TLS1_3_VERSION);
    const size_t rest_length = send_half_a_ticket(session, rest, sizeof rest);
    assert_int_equal(read_at_client(session, text, sizeof text), STATUS_AGAIN);
    const uint8_t *question = (const uint8_t *)"question";
    assert_int_equal(tls_write(session->tls, question, 8, &length, &session->failure),
                     STATUS_AGAIN);
    assert_false(tls_wants_write(session->tls)); /* the stream waits until it can read */
    assert_int_equal(send(session->server.fd, rest, rest_length, 0), rest_length);
    assert_int_equal(read_at_client(session, text, sizeof text), STATUS_AGAIN);
    assert_int_equal(tls_write(session->tls, question, 8, &length, &session->failure), STATUS_OK);
    wait_for(session->server.fd, POLLIN);
    server_step(&session->server);
    assert_memory_equal(session->server.received, "question", 8);
    close_quiet(&quiet);
}

static void renegotiation_is_refused(void **state)
{
    (void)state;
    struct quiet quiet;
    char text[8];
    open_quiet(&quiet, TLS1_2_VERSION);
    assert_int_equal(SSL_renegotiate(quiet.session.server.ssl), 1);
    assert_int_equal(SSL_do_handshake(quiet.session.server.ssl), 1); /* sends HelloRequest */
    assert_int_equal(read_at_client(&quiet.session, text, sizeof text), STATUS_AGAIN);
    server_step(&quiet.session.server);
    assert_true(quiet.session.server.broken); /* alert no_renegotiation */
    close_quiet(&quiet);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trust_tells_what_is_wrong_with_its_file),
        cmocka_unit_test(J1_trust_is_the_same_with_the_same_certificates),
        cmocka_unit_test(E1_J1_trust_is_another_when_a_root_is_rejected),
        cmocka_unit_test(system_store_is_where_the_environment_says),
        cmocka_unit_test(E2_settings_that_authenticate_nobody_are_refused),
        cmocka_unit_test(E1_certificate_for_the_name_is_accepted),
        cmocka_unit_test(E1_wrong_name_fails),
        cmocka_unit_test(E1_expired_fails),
        cmocka_unit_test(E1_not_yet_valid_fails),
        cmocka_unit_test(E1_self_signed_fails),
        cmocka_unit_test(E1_unknown_authority_fails),
        cmocka_unit_test(E1_issuer_that_is_no_authority_fails),
        cmocka_unit_test(E1_no_san_and_name_only_in_cn_fails),
        cmocka_unit_test(E1_wildcard_covers_one_whole_label_only),
        cmocka_unit_test(E1_certificate_that_is_not_for_servers_fails),
        cmocka_unit_test(E6_address_in_the_certificate_is_accepted),
        cmocka_unit_test(E6_server_name_is_sent_only_when_there_is_a_dns_name),
        cmocka_unit_test(E4_pin_alone_decides_when_there_is_no_name),
        cmocka_unit_test(E4_any_of_several_pins_will_do),
        cmocka_unit_test(E4_name_and_pin_must_both_match),
        cmocka_unit_test(the_peer_pin_is_the_hash_of_its_public_key),
        cmocka_unit_test(E5_second_connection_is_resumed),
        cmocka_unit_test(E5_a_pin_is_still_kept_by_resumption),
        cmocka_unit_test(E5_tickets_of_tls_1_3_are_used_once),
        cmocka_unit_test(E5_only_the_newest_tickets_are_kept),
        cmocka_unit_test(E5_refused_ticket_gives_a_full_handshake),
        cmocka_unit_test(E5_a_ticket_does_not_outlive_its_certificate),
        cmocka_unit_test(E3_tickets_are_never_offered_with_other_settings),
        cmocka_unit_test(E5_a_connection_that_broke_off_is_resumed_too),
        cmocka_unit_test(E7_tls_1_2_only_is_accepted),
        cmocka_unit_test(E7_tls_1_1_is_refused),
        cmocka_unit_test(E7_weak_ciphers_of_tls_1_2_are_refused),
        cmocka_unit_test(E7_hello_retry_request_is_followed),
        cmocka_unit_test(E7_certificate_chain_of_100_kilobytes_is_refused),
        cmocka_unit_test(E7_alert_is_told_in_words),
        cmocka_unit_test(E7_garbage_and_breaks_in_the_handshake_are_failures),
        cmocka_unit_test(E8_alpn_dot_is_offered_and_not_needed),
        cmocka_unit_test(bytes_go_both_ways_and_pending_ones_are_known),
        cmocka_unit_test(the_error_of_another_connection_is_not_taken_for_ours),
        cmocka_unit_test(a_forged_record_is_a_tls_failure),
        cmocka_unit_test(F1_an_orderly_and_a_bare_end_are_both_normal),
        cmocka_unit_test(F14_close_notify_is_sent_and_not_waited_for),
        cmocka_unit_test(F14_close_on_a_full_socket_does_not_block),
        cmocka_unit_test(F7_reading_goes_on_while_writing_is_blocked),
        cmocka_unit_test(F7_writing_waits_for_a_ticket_that_is_half_there),
        cmocka_unit_test(renegotiation_is_refused),
    };
    return cmocka_run_group_tests(tests, make_authorities, free_authorities);
}
