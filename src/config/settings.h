// SPDX-License-Identifier: Apache-2.0
/* Inside src/config only: a row of the option table, and the state of one load.
 *
 * Levels are applied from the lowest to the highest (default, file, environment, command line);
 * each sets what it names over what was there. Every value of every level is checked, also one that
 * a higher level replaces.
 *
 * Thread: main. Owner: options_load. */
#ifndef CONFIG_SETTINGS_H
#define CONFIG_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"
#include "config/config.h"
#include "config/options.h"

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
    enum command command;
    const char *config_file;
    struct origin where;    /* of the value in hand */
    bool seen[OPTIONS_MAX]; /* set on the current level */
};

struct option {
    const char *flag;         /* without the dashes; NULL: none */
    const char *key;          /* dotted YAML key; NULL: says what to do, not how */
    const char *environment;  /* NULL: none */
    const char *argument;     /* what the value is called; NULL: takes none */
    const char *default_text; /* as one would write it; NULL: none */
    const char *help;
    enum status (*set)(struct settings *settings, const struct option *option, const char *text);
    void (*clear)(struct config *config); /* empties a repeatable option; NULL: not repeatable */
    const char *const *choices;           /* of set_choice: names in the order of the enum */
    uint64_t minimum;
    uint64_t maximum;
    size_t offset; /* of the field in struct config, for the set functions of one plain field */
    char letter;   /* 0: none */
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

/* A copy on the heap; NULL and reported when memory is short. */
char *settings_copy(struct settings *settings, const char *text);

/* Sets `option` from text; the text of a repeatable option is a list separated by commas or white
 * space. Problems are reported at settings->where. */
void settings_apply(struct settings *settings, const struct option *option, const char *text);

/* To be called before the first value of an option on a level. */
void settings_begin_option(struct settings *settings, const struct option *option);

/* The flag, key or variable most similar to `name`; `field` is the offset of the pointer to it in
 * struct option. */
const char *settings_nearest(const char *name, size_t field);

/* An option on the command line. */
struct argument {
    const struct option *option;
    const char *value;
    char word[32]; /* for errors: "--listen" */
};

/* Words that a person writes: "1m 30s" is never needed, so the largest unit that divides. */
enum { UNIT_TEXT_SIZE = 32 };
const char *duration_format(uint64_t duration_ns, char text[static UNIT_TEXT_SIZE]);
const char *size_format(uint64_t size_bytes, char text[static UNIT_TEXT_SIZE]);

/* The set functions of the table. */
enum status set_duration(struct settings *settings, const struct option *option, const char *text);
enum status set_seconds(struct settings *settings, const struct option *option, const char *text);
enum status set_size(struct settings *settings, const struct option *option, const char *text);
enum status set_count(struct settings *settings, const struct option *option, const char *text);
enum status set_count16(struct settings *settings, const struct option *option, const char *text);
enum status set_choice(struct settings *settings, const struct option *option, const char *text);
enum status set_workers(struct settings *settings, const struct option *option, const char *text);
enum status set_admin(struct settings *settings, const struct option *option, const char *text);
enum status set_tls_ca(struct settings *settings, const struct option *option, const char *text);
enum status set_help(struct settings *settings, const struct option *option, const char *text);
enum status set_version(struct settings *settings, const struct option *option, const char *text);
enum status set_config_file(struct settings *settings, const struct option *option,
                            const char *text);
enum status add_prefix(struct settings *settings, const struct option *option, const char *text);
enum status add_source_port(struct settings *settings, const struct option *option,
                            const char *text);
enum status add_listener(struct settings *settings, const struct option *option, const char *text);
enum status add_upstream(struct settings *settings, const struct option *option, const char *text);
void clear_prefixes(struct config *config);
void clear_source_ports(struct config *config);
void clear_listeners(struct config *config);
void clear_upstreams(struct config *config);

/* STATUS_INVALID and reported unless `path` is a file that can be read and is not empty. */
enum status check_readable(struct settings *settings, const char *path);

/* An upstream as a mapping of the YAML file. */
struct upstream_entry {
    char *url;
    char *ca_file;
    uint8_t pins[CONFIG_PINS_MAX][PIN_SIZE];
    size_t pin_count;
    uint32_t weight;
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

struct upstream_entry upstream_entry_new(void);
void upstream_entry_free(struct upstream_entry *entry);

/* Appends what the entry's URL or preset stands for. */
enum status upstream_entry_add(struct settings *settings, const struct upstream_entry *entry);

/* For the documents. */
size_t preset_count(void);
const char *preset_name(size_t index);
void preset_describe(size_t index, FILE *out);

/* The levels; each reports its problems and goes on. */

/* Obeys commands and options without a key at once; keeps the others in `arguments`, which has room
 * for argc, and returns their number. */
size_t arguments_read(struct settings *settings, int argc, char *const argv[],
                      struct argument *arguments);
void arguments_apply(struct settings *settings, const struct argument *arguments, size_t count);
void environment_apply(struct settings *settings, char *const environment[]);
void yaml_read(struct settings *settings, const char *file, const char *text, size_t length);
void yaml_read_file(struct settings *settings, const char *file);

/* CPUs that this process may use: affinity, bounded by the cgroup's quota; 1 to 64. */
enum { WORKERS_MAX = 64 };
uint32_t processors_usable(void);

/* The quota in whole CPUs, rounded up, of the cgroup told by `membership` (as /proc/self/cgroup)
 * in the hierarchies under `mount` (as /sys/fs/cgroup); UINT32_MAX without one. */
uint32_t processors_quota(const char *membership, const char *mount);

#endif
