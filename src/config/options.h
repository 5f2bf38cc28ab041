// SPDX-License-Identifier: Apache-2.0
/* The option table and what is made from it: flags, environment, YAML keys, --help; and, by
 * docs/document.c, the reference page and the manual page.
 *
 * Precedence: flag, environment, file, default. A repeatable option given at one level replaces
 * those of the levels below it. Every error is printed, one line each, as
 *     dnsproxy.yaml:3:7: cache.size: "64XB" is not a size; allowed: ...
 *     --cache-size: "64XB" is not a size; allowed: ...
 *     DNSPROXY_CACHE_SIZE: "64XB" is not a size; allowed: ...
 *
 * Thread: main. */
#ifndef CONFIG_OPTIONS_H
#define CONFIG_OPTIONS_H

#include <stdbool.h>
#include <stdio.h>

#include "base/status.h"
#include "config/config.h"

/* Reads arguments (argv[0] is the program), environment and file into a new configuration. All
 * problems go to `errors`, one per line; STATUS_INVALID when there was any. With COMMAND_HELP and
 * COMMAND_VERSION neither file nor environment is read, and the configuration is the default. */
enum status options_load(int argc, char *const argv[], FILE *errors, enum command *command,
                         struct config **out);

/* The same once more while the daemon runs that has begun with `start`. The file that was read then
 * must be there still, and be one of which reading ends: a pipe is an error. */
enum status options_reload(int argc, char *const argv[], const struct config *start, FILE *errors,
                           struct config **out);

/* Whether both are the same text, or NULL. */
bool is_same_text(const char *a, const char *b);

/* Gives each upstream its slot: that which it has in `former`, if the same one is there (address or
 * host, port, name, pins and trust), else one that nobody has there. Without this they have them in
 * their order. */
void upstreams_place(struct snapshot *snapshot, const struct snapshot *former);

/* The keys of what differs and only a restart can change, separated by blanks, and cut when `text`
 * is too small. Returns their number. */
size_t options_find_left(const struct config *running, const struct config *wanted, char *text,
                         size_t size);

/* Safe on NULL. */
void config_free(struct config *config);

/* --help, made from the table. */
void options_print_help(FILE *out);

/* The name of a strategy, for logs. */
const char *strategy_name(enum strategy strategy);

#endif
