// SPDX-License-Identifier: Apache-2.0
/* What a fallible function returns, and TRY to hand a failure on.
 *
 * The type is must-check: a caller that ignores it does not compile. On any status other than
 * STATUS_OK the outputs of the function are untouched, unless its comment says otherwise. */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

enum [[nodiscard]] status{
    STATUS_OK,        /* done, and the outputs are set */
    STATUS_AGAIN,     /* would block: call again when the descriptor is ready */
    STATUS_MALFORMED, /* the input breaks the rules of its format */
    STATUS_FULL,      /* a limit that has a name is reached */
    STATUS_NOT_FOUND, /* there is no such thing */
    STATUS_CLOSED,    /* the peer has ended the conversation */
    STATUS_INVALID,   /* a configured value is not allowed */
    STATUS_SYSTEM,    /* a system call failed, errno says why */
};

/* Returns from the calling function with the status of `expression` unless it is STATUS_OK. */
#define TRY(expression)                               \
    do {                                              \
        const enum status try_status_ = (expression); \
        if (try_status_ != STATUS_OK)                 \
            return try_status_;                       \
    } while (0)

#endif
