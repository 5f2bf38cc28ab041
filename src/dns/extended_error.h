// SPDX-License-Identifier: Apache-2.0
/* Extended errors (RFC 8914) as EDNS options in a bounded room: what a text costs too much is cut
 * off it, so that the codes survive. */
#ifndef DNS_EXTENDED_ERROR_H
#define DNS_EXTENDED_ERROR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

/* Writes one option with as much of its text as leaves room for `reserve` octets more. The text is
 * cut between two characters, and left out when it is not UTF-8. Nothing is written, and the writer
 * has not failed, when there is no room for the code. */
void extended_error_write(struct writer *writer, uint16_t code, const void *text, size_t length,
                          size_t reserve);

/* True when one of them says that the error is the answer: the name's signatures are not valid, or
 * it is blocked, censored or filtered. Another upstream would not, or should not, say otherwise. */
bool extended_errors_are_final(const uint8_t *options, size_t length);

/* Writes those that are among `options`, which are well formed. The first texts are kept as far as
 * they leave room for the codes behind them. */
void extended_errors_copy(struct writer *writer, const uint8_t *options, size_t length);

#endif
