// SPDX-License-Identifier: Apache-2.0
/* All of OpenSSL: trust, the TLS settings of one upstream, and one TLS connection over a socket.
 *
 * The certificate is judged inside the handshake, before OpenSSL would send the client's Finished:
 * a peer that is not authenticated never sees an application byte. A resumed session was judged
 * when it was made, by the same settings, because its ticket lives in their tls_client; it is not
 * offered any more once its certificate has expired.
 *
 * OpenSSL's error queue belongs to the thread, so it is cleared before each call whose error is
 * read: the error of one connection is never taken for another's.
 *
 * Thread: a tls_trust any, the rest one worker.   Owner: see the header.
 * RFC:    7858 and 8310 (DoT, strict), 8446, 9325, 9525 (names), 7469 (pins over the chain). */
#include "net/tls.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include "net/socket.h"

enum {
    SESSIONS_MAX = 32, /* newest first; for those that are opened at once when one has ended */
    CERTIFICATE_LIST_LENGTH_MAX = 65536, /* a chain is some 4 KiB, a post-quantum one 30 KiB */
    CHAIN_DEPTH_MAX = 10,
};

struct tls_trust {
    X509_STORE *store;
    size_t owners; /* snapshots that name it, which have no other order in time; main counts */
    uint8_t hash[PIN_SIZE]; /* SHA-256 of what is in the store */
};

struct tls_client {
    SSL_CTX *context;
    char *name; /* without a final dot; NULL: pins alone */
    bool name_is_address;
    uint8_t pins[CONFIG_PINS_MAX][PIN_SIZE];
    size_t pin_count;
    SSL_SESSION *sessions[SESSIONS_MAX]; /* oldest first */
    size_t session_count;
};

struct tls {
    SSL *ssl;
    struct tls_client *client; /* outlives its connections */
    const char *error_text;
    bool is_open; /* the handshake is done, and the peer authenticated */
    bool wants_write;
    bool failed;                  /* OpenSSL allows no further call than SSL_free */
    char peer_pin[PIN_TEXT_SIZE]; /* of the leaf it showed; OpenSSL forgets one that it refused */
};

/* --- Trust --- */

static const char *system_store(void)
{
    static const char debian[] = "/etc/ssl/certs/ca-certificates.crt";
    const char *file = secure_getenv("SSL_CERT_FILE");
    if (file && *file)
        return file;
    return access(debian, R_OK) == 0 ? debian : X509_get_default_cert_file();
}

static enum status load_file(X509_STORE *store, const char *path, char *error, size_t error_size)
{
    ERR_clear_error();
    if (X509_STORE_load_file(store, path) == 1)
        return STATUS_OK;
    const unsigned long first = ERR_peek_error();
    if (ERR_SYSTEM_ERROR(first))
        snprintf(error, error_size, "cannot read %s: %s", path,
                 strerrordesc_np(ERR_GET_REASON(first)));
    else
        snprintf(error, error_size, "%s holds no certificate in PEM, or a damaged one", path);
    ERR_clear_error();
    return STATUS_INVALID;
}

/* With what its file says of the trust in it (TRUSTED CERTIFICATE). */
static bool hash_certificate(EVP_MD_CTX *context, const X509 *certificate)
{
    uint8_t *bytes = NULL;
    const int length = i2d_X509_AUX(certificate, &bytes);
    const bool is_good = length > 0 && EVP_DigestUpdate(context, bytes, (size_t)length) == 1;
    OPENSSL_free(bytes);
    return is_good;
}

static bool hash_revoked(EVP_MD_CTX *context, const X509_CRL *revoked)
{
    uint8_t hash[PIN_SIZE];
    return revoked && X509_CRL_digest(revoked, EVP_sha256(), hash, NULL) == 1 &&
           EVP_DigestUpdate(context, hash, sizeof hash) == 1;
}

/* In the store's order, which is always the same for the same file. */
static bool hash_store(X509_STORE *store, uint8_t out[static PIN_SIZE])
{
    STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(store);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool is_good = context && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1;
    for (int i = 0; is_good && i < sk_X509_OBJECT_num(objects); i++) {
        const X509_OBJECT *object = sk_X509_OBJECT_value(objects, i);
        const X509 *certificate = X509_OBJECT_get0_X509(object);
        is_good = certificate ? hash_certificate(context, certificate)
                              : hash_revoked(context, X509_OBJECT_get0_X509_CRL(object));
    }
    is_good = is_good && EVP_DigestFinal_ex(context, out, NULL) == 1;
    EVP_MD_CTX_free(context);
    return is_good;
}

enum status tls_trust_open(const char *ca_file, struct tls_trust **out, char *error,
                           size_t error_size)
{
    assert(out && error && error_size > 0);
    struct tls_trust *trust = calloc(1, sizeof *trust);
    if (trust) {
        trust->owners = 1;
        trust->store = X509_STORE_new();
    }
    if (!trust || !trust->store) {
        snprintf(error, error_size, "out of memory");
        tls_trust_close(trust);
        return STATUS_INVALID;
    }
    enum status status =
        load_file(trust->store, ca_file ? ca_file : system_store(), error, error_size);
    if (status == STATUS_OK && !hash_store(trust->store, trust->hash)) {
        snprintf(error, error_size, "out of memory");
        status = STATUS_INVALID;
    }
    if (status != STATUS_OK) {
        tls_trust_close(trust);
        return status;
    }
    *out = trust;
    return STATUS_OK;
}

bool tls_trust_is_same(const struct tls_trust *a, const struct tls_trust *b)
{
    assert(a && b);
    return memcmp(a->hash, b->hash, sizeof a->hash) == 0;
}

struct tls_trust *tls_trust_share(struct tls_trust *trust)
{
    assert(trust->owners > 0);
    trust->owners++;
    return trust;
}

void tls_trust_close(struct tls_trust *trust)
{
    if (!trust || --trust->owners > 0)
        return;
    X509_STORE_free(trust->store);
    free(trust);
}

/* --- Judging the peer --- */

static bool public_key_hash(X509 *certificate, uint8_t out[static PIN_SIZE])
{
    uint8_t *key = NULL;
    const int length = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &key);
    if (length <= 0)
        return false;
    const int hashed = EVP_Digest(key, (size_t)length, out, NULL, EVP_sha256(), NULL);
    OPENSSL_free(key);
    return hashed == 1;
}

static bool is_pinned(const struct tls_client *client, X509 *certificate)
{
    uint8_t hash[PIN_SIZE];
    if (!certificate || !public_key_hash(certificate, hash))
        return false;
    for (size_t i = 0; i < client->pin_count; i++) {
        if (memcmp(client->pins[i], hash, PIN_SIZE) == 0)
            return true;
    }
    return false;
}

static bool chain_is_pinned(const struct tls_client *client, STACK_OF(X509) * chain)
{
    for (int i = 0; i < sk_X509_num(chain); i++) {
        if (is_pinned(client, sk_X509_value(chain, i)))
            return true;
    }
    return false;
}

/* RFC 9525 6: subject alternative names only, and a wildcard is a whole label. Not left to the
 * X509_VERIFY_PARAM of the connection: SSL_new copies the name into it, and goes on without name
 * when memory is short. */
static bool is_named(const struct tls_client *client, X509 *certificate)
{
    assert(client->name && *client->name);
    const unsigned flags =
        X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS;
    if (client->name_is_address)
        return X509_check_ip_asc(certificate, client->name, 0) == 1;
    return X509_check_host(certificate, client->name, 0, flags, NULL) == 1;
}

/* What is wrong with a chain that has been verified, or needs no verifying. */
static int verdict_on_peer(const struct tls_client *client, X509_STORE_CTX *store)
{
    X509 *leaf = X509_STORE_CTX_get0_cert(store);
    /* RFC 7858 4.2: without a name the pinned key of the server is all that counts. */
    if (!client->name)
        return is_pinned(client, leaf) ? X509_V_OK : X509_V_ERR_APPLICATION_VERIFICATION;
    if (!is_named(client, leaf))
        return X509_V_ERR_HOSTNAME_MISMATCH;
    /* RFC 7469 2.6: a pin may name any certificate of the chain that was verified. */
    if (client->pin_count > 0 && !chain_is_pinned(client, X509_STORE_CTX_get0_chain(store)))
        return X509_V_ERR_APPLICATION_VERIFICATION;
    return X509_V_OK;
}

/* Takes the place of OpenSSL's own verification of the chain, within the handshake. */
static int judge_peer(X509_STORE_CTX *store, void *argument)
{
    const struct tls_client *client = argument;
    struct tls *tls =
        SSL_get_app_data(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
    assert(tls && tls->client == client);
    uint8_t pin[PIN_SIZE];
    if (public_key_hash(X509_STORE_CTX_get0_cert(store), pin))
        EVP_EncodeBlock((uint8_t *)tls->peer_pin, pin, sizeof pin);
    if (client->name && X509_verify_cert(store) != 1)
        return 0;
    const int verdict = verdict_on_peer(client, store);
    X509_STORE_CTX_set_error(store, verdict);
    return verdict == X509_V_OK;
}

static enum failure certificate_failure(long verdict)
{
    assert(verdict != X509_V_OK);
    switch (verdict) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
        return FAILURE_CERTIFICATE_NAME;
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return FAILURE_CERTIFICATE_EXPIRED;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return FAILURE_CERTIFICATE_NOT_YET_VALID;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_UNTRUSTED:
        return FAILURE_CERTIFICATE_UNTRUSTED;
    case X509_V_ERR_APPLICATION_VERIFICATION:
        return FAILURE_CERTIFICATE_PIN;
    default:
        return FAILURE_CERTIFICATE_INVALID;
    }
}

/* --- Session tickets --- */

/* Takes over the caller's reference. */
static void keep_session(struct tls_client *client, SSL_SESSION *session)
{
    assert(session && client->session_count <= SESSIONS_MAX);
    if (client->session_count == SESSIONS_MAX) {
        SSL_SESSION_free(client->sessions[0]);
        client->session_count--;
        memmove(client->sessions, client->sessions + 1,
                client->session_count * sizeof client->sessions[0]);
    }
    client->sessions[client->session_count++] = session;
}

static int new_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls *tls = SSL_get_app_data(ssl);
    keep_session(tls->client, session);
    return 1; /* the reference is ours */
}

static bool is_usable(SSL_SESSION *session)
{
    X509 *certificate = SSL_SESSION_get0_peer(session);
    return SSL_SESSION_is_resumable(session) && certificate &&
           X509_cmp_current_time(X509_get0_notAfter(certificate)) > 0;
}

/* A ticket leaves the client when it is offered: TLS 1.3 tickets are for one use (RFC 8446 C.4),
 * and a server that stumbles over a TLS 1.2 session is not offered it for ever. */
static void offer_newest_session(struct tls *tls)
{
    struct tls_client *client = tls->client;
    assert(SSL_in_before(tls->ssl) && client->session_count <= SESSIONS_MAX);
    while (client->session_count > 0) {
        SSL_SESSION *session = client->sessions[--client->session_count];
        const bool offered = is_usable(session) && SSL_set_session(tls->ssl, session) == 1;
        SSL_SESSION_free(session);
        if (offered)
            return;
    }
}

/* TLS 1.2 gives no new session after a resumption; the old one serves on. */
static void keep_resumed_session(struct tls *tls)
{
    if (SSL_session_reused(tls->ssl) && SSL_version(tls->ssl) <= TLS1_2_VERSION)
        keep_session(tls->client, SSL_get1_session(tls->ssl));
}

/* --- The settings of one upstream --- */

/* RFC 9325 4.2: TLS 1.2 with forward secrecy and authenticated encryption only. */
static bool set_protocol(SSL_CTX *context)
{
    static const uint8_t alpn[] = {3, 'd', 'o', 't'};
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(context, 1); /* one system call for the records of a burst */
    SSL_CTX_set_max_cert_list(context, CERTIFICATE_LIST_LENGTH_MAX);
    return SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1 &&
           SSL_CTX_set_alpn_protos(context, alpn, sizeof alpn) == 0;
}

static void set_sessions(SSL_CTX *context)
{
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, new_session);
}

static bool is_address(const char *name)
{
    uint8_t bytes[16];
    return inet_pton(AF_INET, name, bytes) == 1 || inet_pton(AF_INET6, name, bytes) == 1;
}

static enum status copy_name(struct tls_client *client, const char *name)
{
    assert(!client->name);
    size_t length = strlen(name);
    if (length > 0 && name[length - 1] == '.') /* RFC 6066 3: without the final dot */
        length--;
    if (length == 0 || name[0] == '.') /* OpenSSL would let ".example" stand for all below it */
        return STATUS_INVALID;
    client->name = strndup(name, length);
    if (!client->name)
        return STATUS_SYSTEM;
    client->name_is_address = is_address(client->name);
    return STATUS_OK;
}

static enum status set_up_client(struct tls_client *client, const struct upstream_config *upstream,
                                 const struct tls_trust *trust)
{
    assert(upstream->pin_count <= CONFIG_PINS_MAX);
    client->context = SSL_CTX_new(TLS_client_method());
    if (!client->context || !set_protocol(client->context))
        return STATUS_SYSTEM;
    set_sessions(client->context);
    SSL_CTX_set_verify(client->context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_verify_depth(client->context, CHAIN_DEPTH_MAX);
    SSL_CTX_set_cert_verify_callback(client->context, judge_peer, client);
    memcpy(client->pins, upstream->pins, sizeof client->pins);
    client->pin_count = upstream->pin_count;
    if (!upstream->name)
        return STATUS_OK;
    SSL_CTX_set1_cert_store(client->context, trust->store);
    return copy_name(client, upstream->name);
}

enum status tls_client_open(const struct upstream_config *upstream, const struct tls_trust *trust,
                            struct tls_client **out)
{
    assert(upstream && out);
    if (upstream->name ? !trust : upstream->pin_count == 0)
        return STATUS_INVALID;
    struct tls_client *client = calloc(1, sizeof *client);
    if (!client)
        return STATUS_SYSTEM;
    ERR_clear_error();
    const enum status status = set_up_client(client, upstream, trust);
    if (status != STATUS_OK) {
        tls_client_close(client);
        return status;
    }
    *out = client;
    return STATUS_OK;
}

void tls_client_close(struct tls_client *client)
{
    if (!client)
        return;
    assert(client->session_count <= SESSIONS_MAX);
    for (size_t i = 0; i < client->session_count; i++)
        SSL_SESSION_free(client->sessions[i]);
    SSL_CTX_free(client->context);
    free(client->name);
    free(client);
}

/* --- One connection --- */

enum status tls_open(struct tls_client *client, int fd, struct tls **out)
{
    assert(client && client->context && fd >= 0 && out);
    struct tls *tls = calloc(1, sizeof *tls);
    if (!tls)
        return STATUS_SYSTEM;
    ERR_clear_error();
    tls->client = client;
    tls->error_text = "";
    tls->ssl = SSL_new(client->context);
    if (!tls->ssl || SSL_set_fd(tls->ssl, fd) != 1 || SSL_set_app_data(tls->ssl, tls) != 1)
        goto fail;
    if (client->name && !client->name_is_address &&
        SSL_set_tlsext_host_name(tls->ssl, client->name) != 1)
        goto fail;
    SSL_set_connect_state(tls->ssl);
    *out = tls;
    return STATUS_OK;
fail:
    SSL_free(tls->ssl);
    free(tls);
    errno = ENOMEM;
    return STATUS_SYSTEM;
}

void tls_close(struct tls *tls)
{
    if (!tls)
        return;
    ERR_clear_error();
    if (!tls->failed && SSL_is_init_finished(tls->ssl))
        (void)SSL_shutdown(tls->ssl); /* sends what the socket takes, waits for nothing */
    /* Without this SSL_free would spoil the session for the next connection. */
    SSL_set_shutdown(tls->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(tls->ssl);
    free(tls);
    ERR_clear_error();
}

static enum status fail_with(struct tls *tls, enum failure failure, const char *text,
                             enum failure *out)
{
    tls->failed = true;
    tls->error_text = text;
    *out = failure;
    return STATUS_CLOSED;
}

static enum status fail_in_protocol(struct tls *tls, enum failure *failure)
{
    const long verdict = SSL_get_verify_result(tls->ssl);
    if (verdict != X509_V_OK) {
        const enum failure cause = certificate_failure(verdict);
        const char *text = cause == FAILURE_CERTIFICATE_PIN
                               ? failure_text(cause)
                               : X509_verify_cert_error_string(verdict);
        return fail_with(tls, cause, text, failure);
    }
    const char *text = ERR_reason_error_string(ERR_peek_error());
    return fail_with(tls, FAILURE_TLS, text ? text : "TLS protocol error", failure);
}

/* What the call that returned `result` (not 1) has met; `error` is errno right after it. */
static enum status explain(struct tls *tls, int result, int error, enum failure *failure)
{
    const int reason = SSL_get_error(tls->ssl, result);
    tls->wants_write = reason == SSL_ERROR_WANT_WRITE;
    switch (reason) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return STATUS_AGAIN;
    case SSL_ERROR_ZERO_RETURN: /* close_notify or a bare end */
        tls->error_text = "closed by the server";
        *failure = FAILURE_CLOSED;
        return STATUS_CLOSED;
    case SSL_ERROR_SYSCALL:
        return fail_with(tls, socket_failure(error), strerrordesc_np(error), failure);
    default:
        return fail_in_protocol(tls, failure);
    }
}

static void before_call(const struct tls *tls)
{
    assert(!tls->failed);
    ERR_clear_error();
    errno = 0;
}

enum status tls_handshake(struct tls *tls, enum failure *failure)
{
    assert(tls && failure);
    before_call(tls);
    if (SSL_in_before(tls->ssl))
        offer_newest_session(tls); /* not earlier: a TCP connect that fails costs no ticket */
    const int result = SSL_do_handshake(tls->ssl);
    if (result != 1 || SSL_get_verify_result(tls->ssl) != X509_V_OK)
        return explain(tls, result, errno, failure);
    tls->is_open = true;
    keep_resumed_session(tls);
    return STATUS_OK;
}

enum status tls_read(struct tls *tls, uint8_t *buffer, size_t size, size_t *length,
                     enum failure *failure)
{
    assert(size > 0);
    before_call(tls);
    const int result = SSL_read_ex(tls->ssl, buffer, size, length);
    return result == 1 ? STATUS_OK : explain(tls, result, errno, failure);
}

enum status tls_write(struct tls *tls, const uint8_t *bytes, size_t size, size_t *length,
                      enum failure *failure)
{
    /* FAULTS E1. OpenSSL is "in init" again while a ticket or a key update is half read or half
     * answered; then it goes on with that, and takes nothing. */
    assert(size > 0 && tls->is_open);
    before_call(tls);
    const int result = SSL_write_ex(tls->ssl, bytes, size, length);
    return result == 1 ? STATUS_OK : explain(tls, result, errno, failure);
}

bool tls_wants_write(const struct tls *tls)
{
    return tls->wants_write;
}

bool tls_has_pending(const struct tls *tls)
{
    return SSL_has_pending(tls->ssl) == 1;
}

/* --- Facts --- */

void tls_facts(const struct tls *tls, struct tls_facts *out)
{
    assert(out && tls->is_open);
    const uint8_t *alpn;
    unsigned alpn_length;
    SSL_get0_alpn_selected(tls->ssl, &alpn, &alpn_length);
    *out = (struct tls_facts){
        .version = SSL_get_version(tls->ssl),
        .cipher = SSL_get_cipher_name(tls->ssl),
        .resumed = SSL_session_reused(tls->ssl) == 1,
        .alpn_dot = alpn_length == 3 && memcmp(alpn, "dot", 3) == 0,
    };
}

const char *tls_error_text(const struct tls *tls)
{
    assert(tls->error_text);
    return tls->error_text;
}

const char *tls_peer_pin(const struct tls *tls)
{
    return tls->peer_pin;
}
