// SPDX-License-Identifier: Apache-2.0
/* `dnsproxy probe`: a handshake and a query with each upstream, and a table of what was seen. */
#ifndef CONTROL_PROBE_H
#define CONTROL_PROBE_H

#include <stdio.h>

#include "config/config.h"

/* Prints one row for each upstream: address, TLS version, cipher, certificate verdict, resumption,
 * padding, keepalive, and the connect, TLS and query times. Returns the exit status: 0 when every
 * upstream answered, else 1. */
int probe_run(struct config *config, FILE *out);

#endif
