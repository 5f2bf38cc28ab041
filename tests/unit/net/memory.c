// SPDX-License-Identifier: Apache-2.0
/* I2: each allocation of OpenSSL on our side of a connection fails once. Whatever happens, nothing
 * crashes or leaks, and an unauthenticated peer is never taken for a good one. */
#include <signal.h>

#include "net/tls.h"
#include "sockets.h"
#include "tls_server.h"

enum {
    STRIDE = 5, /* of some 4,400 allocations; each fifth takes two seconds under ASan */
    ALLOCATIONS_MAX = 100000,
    TRIES = 20, /* steps of a handshake without waiting: all that could come has come */
};

static long allocations_left; /* until one fails; 0: none will */
static bool counting;

static bool fails_now(void)
{
    return counting && allocations_left > 0 && --allocations_left == 0;
}

static void *allocate(size_t size, const char *file, int line)
{
    (void)file;
    (void)line;
    return fails_now() ? NULL : malloc(size);
}

static void *reallocate(void *old, size_t size, const char *file, int line)
{
    (void)file;
    (void)line;
    return fails_now() ? NULL : realloc(old, size);
}

static void release(void *old, const char *file, int line)
{
    (void)file;
    (void)line;
    free(old);
}

static enum status counted(enum status status)
{
    counting = false;
    return status;
}

/* Runs our side with the count going; the server's allocations never fail. */
#define OURS(call) (counting = true, counted(call))

static enum status shake_hands(struct tls *tls, struct tls_server *server)
{
    enum failure failure = FAILURE_NONE;
    enum status status = STATUS_AGAIN;
    for (int i = 0; i < TRIES && status == STATUS_AGAIN; i++) {
        status = OURS(tls_handshake(tls, &failure));
        server_step(server);
    }
    return status;
}

/* True when an answer came. */
static bool ask(struct tls *tls, struct tls_server *server)
{
    uint8_t answer[8];
    size_t length = 0;
    enum failure failure = FAILURE_NONE;
    if (OURS(tls_write(tls, (const uint8_t *)"question", 8, &length, &failure)) != STATUS_OK)
        return false;
    server_step(server);
    if (server->received_length != 8)
        return false;
    server_write(server, "answer", 6);
    if (OURS(tls_read(tls, answer, sizeof answer, &length, &failure)) != STATUS_OK)
        return false;
    assert_memory_equal(answer, "answer", 6);
    return true;
}

static bool connect_and_ask(struct tls_client *client, struct tls_server *server, int fd)
{
    struct tls *tls = NULL;
    if (OURS(tls_open(client, fd, &tls)) != STATUS_OK)
        return false;
    const bool answered = shake_hands(tls, server) == STATUS_OK && ask(tls, server);
    counting = true;
    tls_close(tls);
    counting = false;
    return answered;
}

/* From the trust file to the answer; false when any of it failed. */
static bool whole_life(const char *ca_file, const char *name, struct tls_server *server, int fd)
{
    struct tls_trust *trust = NULL;
    struct tls_client *client = NULL;
    char error[128];
    bool answered = false;
    if (OURS(tls_trust_open(ca_file, &trust, error, sizeof error)) == STATUS_OK) {
        const struct upstream_config upstream = {.name = strdupa(name)};
        if (OURS(tls_client_open(&upstream, trust, &client)) == STATUS_OK)
            answered = connect_and_ask(client, server, fd);
    }
    tls_client_close(client);
    tls_trust_close(trust);
    return answered;
}

/* Returns how often an answer came although an allocation had failed, or one had not. */
static int sweep(const char *name)
{
    char path[PATH_SIZE];
    struct identity authority =
        identity_make(&(struct identity_form){.common_name = "authority", .is_ca = true});
    struct identity good = identity_make(&(struct identity_form){
        .common_name = "x", .san = "DNS:dns.example.net", .issuer = &authority});
    SSL_CTX *context = server_context(&good);
    int answers = 0;
    bool all_done = false;
    write_certificate(path, &authority);
    for (long first = 1; !all_done && first < ALLOCATIONS_MAX; first += STRIDE) {
        struct tls_server server;
        int fd, server_fd;
        tcp_pair(&fd, &server_fd);
        server_open(&server, context, server_fd);
        allocations_left = first;
        answers += whole_life(path, name, &server, fd);
        all_done = allocations_left > 0;
        server_free(&server);
        close(fd);
        close(server_fd);
    }
    assert_true(all_done);
    unlink(path);
    SSL_CTX_free(context);
    identity_free(&good);
    identity_free(&authority);
    return answers;
}

static void I2_each_allocation_fails_once(void **state)
{
    (void)state;
    assert_true(sweep("dns.example.net") >= 1); /* the last round, at least */
}

static void I2_lack_of_memory_never_lets_a_wrong_name_pass(void **state)
{
    (void)state;
    assert_int_equal(sweep("other.example.net"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(I2_each_allocation_fails_once),
        cmocka_unit_test(I2_lack_of_memory_never_lets_a_wrong_name_pass),
    };
    if (CRYPTO_set_mem_functions(allocate, reallocate, release) != 1)
        return 1;
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
