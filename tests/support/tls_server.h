// SPDX-License-Identifier: Apache-2.0
/* The server side of TLS for the tests: non-blocking, in the thread of the test. */
#ifndef SUPPORT_TLS_SERVER_H
#define SUPPORT_TLS_SERVER_H

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "certificates.h"

struct tls_server {
    SSL *ssl;
    int fd;
    bool open;   /* the handshake is done */
    bool closed; /* the client sent close_notify */
    bool broken;
    uint8_t *received; /* all application bytes ever */
    size_t received_length;
};

/* What the server answers to ALPN, in wire form; NULL: it knows no ALPN. */
static const char *alpn_answer;

static inline int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_length,
                              const unsigned char *in, unsigned in_length, void *argument)
{
    (void)ssl;
    (void)in;
    (void)in_length;
    (void)argument;
    if (!alpn_answer)
        return SSL_TLSEXT_ERR_NOACK;
    *out = (const unsigned char *)alpn_answer;
    *out_length = (unsigned char)strlen(alpn_answer);
    return SSL_TLSEXT_ERR_OK;
}

static inline SSL_CTX *server_context(const struct identity *identity)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    assert_non_null(context);
    assert_int_equal(SSL_CTX_use_certificate(context, identity->certificate), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(context, identity->key), 1);
    SSL_CTX_set_alpn_select_cb(context, choose_alpn, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return context;
}

static inline void server_open(struct tls_server *server, SSL_CTX *context, int fd)
{
    *server = (struct tls_server){.ssl = SSL_new(context), .fd = fd};
    assert_non_null(server->ssl);
    assert_int_equal(SSL_set_fd(server->ssl, fd), 1);
    SSL_set_accept_state(server->ssl);
}

/* Frees all but the descriptor. */
static inline void server_free(struct tls_server *server)
{
    SSL_free(server->ssl);
    free(server->received);
    server->ssl = NULL;
    server->received = NULL;
    ERR_clear_error();
}

static inline void server_note(struct tls_server *server, int result)
{
    const int error = SSL_get_error(server->ssl, result);
    server->closed = error == SSL_ERROR_ZERO_RETURN;
    server->broken = error == SSL_ERROR_SSL || error == SSL_ERROR_SYSCALL;
}

/* Reads one record at most; true when it held application bytes. */
static inline bool server_read(struct tls_server *server)
{
    uint8_t bytes[16384];
    size_t length;
    ERR_clear_error();
    const int result = SSL_read_ex(server->ssl, bytes, sizeof bytes, &length);
    if (result != 1) {
        server_note(server, result);
        return false;
    }
    server->received = realloc(server->received, server->received_length + length);
    assert_non_null(server->received);
    memcpy(server->received + server->received_length, bytes, length);
    server->received_length += length;
    return true;
}

/* Goes on with the handshake, then reads what there is. */
static inline void server_step(struct tls_server *server)
{
    if (server->broken || server->closed)
        return;
    if (!server->open) {
        ERR_clear_error();
        const int result = SSL_do_handshake(server->ssl);
        server->open = result == 1;
        if (!server->open)
            server_note(server, result);
    }
    while (server->open && server_read(server))
        ;
}

/* One record. */
static inline void server_write(struct tls_server *server, const void *bytes, size_t length)
{
    size_t written;
    ERR_clear_error();
    assert_int_equal(SSL_write_ex(server->ssl, bytes, length, &written), 1);
    assert_int_equal(written, length);
}

#endif
