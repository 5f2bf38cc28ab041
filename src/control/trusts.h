// SPDX-License-Identifier: Apache-2.0
/* The sets of trusted roots that a configuration names: each file is loaded once, whole, before any
 * worker knows of it, and shared by all upstreams that name it.
 *
 * Thread: main.   Owner: main, which closes them when no worker goes by that configuration. */
#ifndef CONTROL_TRUSTS_H
#define CONTROL_TRUSTS_H

#include <stdio.h>

#include "base/status.h"
#include "config/config.h"
#include "net/tls.h"

struct trusts;

/* Gives each upstream its trust, where not pins alone decide: that of `former` (NULL: none), if it
 * holds the same certificates. Every file that cannot be used gets a line on `errors`;
 * STATUS_INVALID when there was any. */
enum status trusts_open(struct snapshot *snapshot, const struct trusts *former, FILE *errors,
                        struct trusts **out);

void trusts_close(struct trusts *trusts); /* safe on NULL */

#endif
