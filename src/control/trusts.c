// SPDX-License-Identifier: Apache-2.0
/* Loads the trust stores of all upstreams.   Thread: main.   Owner: see trusts.h. */
#include "control/trusts.h"

#include <stdlib.h>
#include <string.h>

struct trusts {
    const struct tls_trust *of_upstream[CONFIG_UPSTREAMS_MAX];
    struct tls_trust *loaded[CONFIG_UPSTREAMS_MAX];
    const char *files[CONFIG_UPSTREAMS_MAX]; /* of `loaded`, NULL: the system store */
    size_t count;
};

static bool is_same_file(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static enum status load(struct trusts *trusts, const char *file, FILE *errors,
                        const struct tls_trust **out)
{
    for (size_t i = 0; i < trusts->count; i++)
        if (is_same_file(trusts->files[i], file)) {
            *out = trusts->loaded[i];
            return STATUS_OK;
        }
    char error[256];
    struct tls_trust *trust = NULL;
    const enum status status = tls_trust_open(file, &trust, error, sizeof(error));
    if (status != STATUS_OK) {
        fprintf(errors, "dnsproxy: %s\n", error);
        return STATUS_INVALID;
    }
    trusts->files[trusts->count] = file;
    trusts->loaded[trusts->count++] = trust;
    *out = trust;
    return STATUS_OK;
}

enum status trusts_open(const struct config *config, FILE *errors, struct trusts **out)
{
    struct trusts *trusts = calloc(1, sizeof(*trusts));
    if (!trusts)
        return STATUS_FULL;
    for (size_t i = 0; i < config->upstream_count; i++) {
        const struct upstream_config *upstream = &config->upstreams[i];
        const char *file = upstream->ca_file ? upstream->ca_file : config->tls_ca_file;
        if (!upstream->name)
            continue;
        if (load(trusts, file, errors, &trusts->of_upstream[i]) != STATUS_OK)
            goto fail;
    }
    *out = trusts;
    return STATUS_OK;
fail:
    trusts_close(trusts);
    return STATUS_INVALID;
}

const struct tls_trust *const *trusts_of_upstreams(const struct trusts *trusts)
{
    return trusts->of_upstream;
}

void trusts_close(struct trusts *trusts)
{
    if (!trusts)
        return;
    for (size_t i = 0; i < trusts->count; i++)
        tls_trust_close(trusts->loaded[i]);
    free(trusts);
}
