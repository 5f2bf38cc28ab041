// SPDX-License-Identifier: Apache-2.0
/* Connecting to an upstream that is a host name: see dial.c. */
#ifndef UPSTREAM_DIAL_H
#define UPSTREAM_DIAL_H

#include "base/failure.h"
#include "base/status.h"
#include "upstream/connection.h"
#include "upstream/names.h"

/* For the connection, which was opened without a peer. On failure nothing is left of the dial. */
enum status dial_begin(struct connection *connection, struct name *name, enum failure *failure);

/* Safe when there is none. */
void dial_end(struct connection *connection);

#endif
