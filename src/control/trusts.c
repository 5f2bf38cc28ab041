// SPDX-License-Identifier: Apache-2.0
/* Loads the trust stores of all upstreams.   Thread: main.   Owner: see trusts.h. */
#include "control/trusts.h"

#include <assert.h>
#include <stdlib.h>

#include "config/options.h"

enum { FILES_MAX = CONFIG_UPSTREAMS_MAX + 1 }; /* one of each upstream, and tls.ca */

struct trusts {
    struct tls_trust *loaded[FILES_MAX]; /* NULL: it cannot be used */
    const char *files[FILES_MAX];        /* of `loaded`, NULL: the system store */
    size_t count;
};

/* The one of `others` (NULL: none) with the same certificates in its stead, if there is one. */
static struct tls_trust *share(const struct trusts *others, struct tls_trust *trust)
{
    for (size_t i = 0; trust && others && i < others->count; i++)
        if (others->loaded[i] && tls_trust_is_same(others->loaded[i], trust)) {
            tls_trust_close(trust);
            return tls_trust_share(others->loaded[i]);
        }
    return trust;
}

/* NULL when the file cannot be used, of which the first one who names it is told. */
static const struct tls_trust *load(struct trusts *trusts, const struct trusts *former,
                                    const char *file, const char *origin, FILE *errors)
{
    assert(trusts->count < sizeof(trusts->files) / sizeof(trusts->files[0]));
    for (size_t i = 0; i < trusts->count; i++)
        if (is_same_text(trusts->files[i], file))
            return trusts->loaded[i];
    char error[256];
    struct tls_trust *trust = NULL;
    if (tls_trust_open(file, &trust, error, sizeof(error)) != STATUS_OK)
        fprintf(errors, "%s%s\n", origin ? origin : "dnsproxy: ", error);
    trust = share(trusts, share(former, trust));
    trusts->files[trusts->count] = file;
    trusts->loaded[trusts->count++] = trust;
    return trust;
}

/* Files that are named are read also where pins alone decide: a wrong one is a mistake there, too.
 */
static bool load_all(struct trusts *trusts, const struct trusts *former, struct snapshot *snapshot,
                     FILE *errors)
{
    bool is_whole = true;
    const char *file = snapshot->tls_ca_file;
    const char *origin = snapshot->tls_ca_origin;
    if (file)
        is_whole = load(trusts, former, file, origin, errors);
    for (size_t i = 0; i < snapshot->upstream_count; i++) {
        struct upstream_config *upstream = &snapshot->upstreams[i];
        if (!upstream->name && !upstream->ca_file)
            continue;
        const struct tls_trust *trust =
            upstream->ca_file ? load(trusts, former, upstream->ca_file, upstream->ca_origin, errors)
                              : load(trusts, former, file, origin, errors);
        is_whole = is_whole && trust;
        if (upstream->name)
            upstream->trust = trust;
    }
    return is_whole;
}

enum status trusts_open(struct snapshot *snapshot, const struct trusts *former, FILE *errors,
                        struct trusts **out)
{
    assert(snapshot->upstream_count <= CONFIG_UPSTREAMS_MAX && errors && out);
    struct trusts *trusts = calloc(1, sizeof(*trusts));
    if (!trusts)
        return STATUS_FULL;
    if (!load_all(trusts, former, snapshot, errors)) {
        trusts_close(trusts);
        return STATUS_INVALID;
    }
    *out = trusts;
    return STATUS_OK;
}

void trusts_close(struct trusts *trusts)
{
    if (!trusts)
        return;
    for (size_t i = 0; i < trusts->count; i++)
        tls_trust_close(trusts->loaded[i]);
    free(trusts);
}
