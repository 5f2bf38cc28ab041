// SPDX-License-Identifier: Apache-2.0
/* The sets of trusted roots that the configuration names: each file is loaded once, whole, before
 * any worker starts, and shared by all upstreams that name it.
 *
 * Thread: main.   Owner: main, which closes them after the last worker. */
#ifndef CONTROL_TRUSTS_H
#define CONTROL_TRUSTS_H

#include <stdio.h>

#include "base/status.h"
#include "config/config.h"
#include "net/tls.h"

struct trusts;

/* Every file that cannot be used gets a line on `errors`; STATUS_INVALID when there was any. */
enum status trusts_open(const struct config *config, FILE *errors, struct trusts **out);

/* One for each upstream, in their order; NULL where pins alone decide. */
const struct tls_trust *const *trusts_of_upstreams(const struct trusts *trusts);

void trusts_close(struct trusts *trusts); /* safe on NULL */

#endif
