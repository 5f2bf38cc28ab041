// SPDX-License-Identifier: Apache-2.0
/* Inside src/config only: a row of the option table, and the state of one load.
 *
 * Levels are applied from the lowest to the highest (default, file, environment, command line);
 * each sets what it names over what was there. Every value of every level is checked, also one that
 * a higher level replaces.
 *
 * Thread: main. Owner: options_load, options_reload. */
#ifndef CONFIG_SETTINGS_H
#define CONFIG_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"
#include "config/config.h"

enum {
    OPTIONS_MAX = 64,
    KEY_SIZE = 128, /* longest key in an error; longer ones are cut */
    WEIGHT_MAX = 1000,
    CONFIG_FILE_SIZE_MAX = 1 << 20,
};

/* Where a value was written. */
struct origin {
    const char *name; /* flag, variable or key, as the reader of an error knows it */
    const char *file; /* NULL outside of a file */
    size_t line;      /* from 1, as the column */
    size_t column;
};

struct settings {
    struct config *config;
    FILE *errors;
    bool failed; /* something was reported */
    bool is_reload;
    enum command command;
    const char *config_file;
    struct origin where;    /* of the value in hand */
    struct origin named;    /* of the last upstream that is a host name */
    bool seen[OPTIONS_MAX]; /* set on the current level */
};

struct option;
typedef enum status option_setter(struct settings *settings, const struct option *option,
                                  const char *text);

/* What a number counts and how it is written; settings.c has the kinds. */
struct quantity;
extern const struct quantity DURATIONS, SIZES, COUNTS, WORKER_COUNTS;

struct option {
    const char *flag;         /* "--listen"; NULL: none */
    const char *key;          /* dotted YAML key; NULL: says what to do, not how */
    const char *environment;  /* NULL: none */
    const char *argument;     /* what the value is called; NULL: takes none */
    const char *default_text; /* as one would write it; NULL: none */
    const char *help;
    option_setter *set;
    const char *const *choices;      /* of set_choice: names in the order of the enum */
    const struct quantity *quantity; /* of a number, with its limits */
    uint64_t minimum;
    uint64_t maximum;
    uint64_t divisor; /* the field counts these; 0: ones */
    /* Whether two configurations differ in it; NULL: when its plain field does. */
    bool (*differs)(const struct config *a, const struct config *b);
    size_t offset; /* in struct config: of the one plain field, or of a list's count */
    size_t size;
    size_t most; /* values of a repeatable option; 0: not repeatable */
    char letter; /* 0: none */
    bool may_be_empty;
    bool zero_is_off; /* 0 is allowed besides minimum to maximum */
};

struct command_word {
    const char *name;
    enum command command;
    const char *help;
};

extern const struct option OPTIONS[];
extern const size_t OPTION_COUNT;
extern const struct command_word COMMANDS[];
extern const size_t COMMAND_COUNT;
extern const char DEFAULT_CONFIG_FILE[];

/* Prints one line, "ORIGIN: problem". */
void settings_report(struct settings *settings, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Prints one line, "ORIGIN: "text" problem" with the control bytes of `text` masked, and returns
 * STATUS_INVALID. */
enum status settings_reject(struct settings *settings, const char *text, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "FILE:LINE:COLUMN: KEY: ", the start of an error there, on the heap; NULL and reported when
 * memory is short. */
char *settings_origin(struct settings *settings, const struct origin *where);

/* A copy on the heap; NULL and reported when memory is short. */
char *settings_copy(struct settings *settings, const char *text);

/* Sets `option` from text; the text of a repeatable option is a list separated by commas or white
 * space. Problems are reported at settings->where. */
void settings_apply(struct settings *settings, const struct option *option, const char *text);

/* To be called before the first value of an option on a level. */
void settings_begin_option(struct settings *settings, const struct option *option);

#define ENVIRONMENT_PREFIX "DNSPROXY_"

/* Flags, keys and variables are found by the offset of their pointer in struct option. */
#define OPTION_FLAG offsetof(struct option, flag)
#define OPTION_KEY offsetof(struct option, key)
#define OPTION_ENVIRONMENT offsetof(struct option, environment)
const char *option_name(const struct option *option, size_t field);
const struct option *option_find(const char *name, size_t field); /* NULL: none */

/* Reports `problem` of a name that is none, and the one that may have been meant, if any. */
void settings_report_unknown(struct settings *settings, const char *name, size_t field,
                             const char *problem);

/* An option on the command line. */
struct argument {
    const struct option *option;
    const char *value;
};

/* As a person writes it: "1m 30s" is never needed, so the largest unit that divides. */
enum { NUMBER_TEXT_SIZE = 32 };
const char *number_format(const struct quantity *quantity, uint64_t value,
                          char text[static NUMBER_TEXT_SIZE]);

/* The set functions of the table. */
option_setter set_number, set_choice, set_toggle, set_workers, set_admin, set_tls_ca, set_command,
    set_config_file, add_prefix, add_source_port, add_listener, add_upstream, add_bootstrap;

bool listeners_differ(const struct config *a, const struct config *b);
bool admins_differ(const struct config *a, const struct config *b);

/* False for what a reload replaces. */
bool option_needs_restart(const struct option *option);

/* Reads the address in `text` that stands at `place`. STATUS_INVALID and reported when it is
 * unclear whether it has a port; as `problem` when it is none. */
enum status read_address(struct settings *settings, const char *text, const char *place,
                         uint16_t default_port, struct address *out, const char *problem);

/* STATUS_INVALID and reported unless `path` is a file that can be opened and is not empty. */
enum status check_readable(struct settings *settings, const char *path);

/* An upstream, as a URL or as a mapping of the YAML file; its strings live as long as the text. */
struct upstream_entry {
    const char *url;
    const char *ca_file;
    uint8_t pins[CONFIG_PINS_MAX][PIN_SIZE];
    size_t pin_count;
    uint32_t weight;
    struct origin where; /* of the URL */
    struct origin ca_where;
};

/* One key of such a mapping. */
struct upstream_field {
    const char *key;
    const char *help;
    enum status (*set)(struct settings *settings, struct upstream_entry *entry, const char *text);
    bool repeatable;
};
extern const struct upstream_field UPSTREAM_FIELDS[];
extern const size_t UPSTREAM_FIELD_COUNT;

/* Reports upstreams whose names nobody could ever look up. */
void check_host_names(struct settings *settings);

/* Frees what it holds; safe on a zeroed one. */
void free_upstream(struct upstream_config *upstream);

/* Appends what the entry's URL or preset stands for. */
enum status upstream_entry_add(struct settings *settings, const struct upstream_entry *entry);

struct preset {
    const char *name;
    const char *authentication_name;
    const char *addresses[4];
};
extern const struct preset PRESETS[];
extern const size_t PRESET_COUNT;

/* The levels; each reports its problems and goes on. */

/* Obeys commands and options without a key at once; keeps the others in `arguments`, which has room
 * for argc, and returns their number. */
size_t arguments_read(struct settings *settings, int argc, char *const argv[],
                      struct argument *arguments);
void arguments_apply(struct settings *settings, const struct argument *arguments, size_t count);
void environment_apply(struct settings *settings, char *const environment[]);
void yaml_read(struct settings *settings, const char *name, const char *text, size_t length);
void yaml_read_file(struct settings *settings, const char *name);

/* "workers: auto": CPUs that this process may use (affinity, bounded by the cgroup's quota), at
 * most CONFIG_WORKERS_AUTO_MAX. */
uint32_t workers_automatic(void);
uint32_t workers_for(uint32_t processors, uint32_t quota);

/* The quota in whole CPUs, rounded up, of the cgroup told by `membership` (as /proc/self/cgroup)
 * in the hierarchies under `mount` (as /sys/fs/cgroup); UINT32_MAX without one. */
uint32_t processors_quota(const char *membership, const char *mount);

#endif
