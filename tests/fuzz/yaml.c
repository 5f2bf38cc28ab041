// SPDX-License-Identifier: Apache-2.0
/* Anything at all as a configuration file: taken with every value in its range, or refused at a
 * line and column.
 *
 * Each error stands where the text has a character or ends, without control characters for the
 * terminal of who reads it. The same text behind a comment gives the same errors a line further
 * down, and an accepted one the same configuration, field by field. No file but this one is read.
 */
#include "test.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

#include "config/settings.h"
#include "config_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int __wrap_open64(const char *path, int flags, ...);

enum { TEXT_MAX = 4096 };

static const char file_name[] = "fuzz.yaml";
static const char comment[] = "# a line more\n";
static const char *text;
static size_t text_length;

/* The file under test; no other exists. (meson asks for 64-bit offsets, hence the name.) */
int __wrap_open64(const char *path, int flags, ...)
{
    (void)flags;
    if (strcmp(path, file_name) != 0) {
        errno = ENOENT;
        return -1;
    }
    const int descriptor = memfd_create(file_name, MFD_CLOEXEC);
    if (descriptor < 0 || write(descriptor, text, text_length) != (ssize_t)text_length ||
        lseek(descriptor, 0, SEEK_SET) != 0)
        abort();
    return descriptor;
}

static struct loaded load(const char *bytes, size_t length)
{
    text = bytes;
    text_length = length;
    return CONFIG_LOAD("-c", file_name);
}

/* --- Where an error is --- */

/* With the breaks that YAML 1.1 knows; the end counts as one, libyaml says. */
static size_t count_lines(void)
{
    size_t count = 2;
    if (text_length > 0 && (uint8_t)*text >= 0xfe)
        return text_length + count; /* UTF-16, where any octet may be part of one */
    for (size_t i = 0; i < text_length; i++) {
        const uint8_t *octets = (const uint8_t *)text + i;
        const size_t left = text_length - i;
        count += *octets == '\n' || *octets == '\r';
        count += left >= 2 && octets[0] == 0xc2 && octets[1] == 0x85;
        count += left >= 3 && octets[0] == 0xe2 && octets[1] == 0x80 && (octets[2] & 0xfe) == 0xa8;
    }
    return count;
}

/* "NAME:LINE:COLUMN: what"; returns what. One error is about no place. */
static const char *check_place(const char *line, unsigned long *number, unsigned long *column)
{
    *number = *column = 0;
    if (strncmp(line, "cache.ttl-min: is longer than cache.ttl-max\n", 44) == 0)
        return line;
    assert(strncmp(line, file_name, strlen(file_name)) == 0 && line[strlen(file_name)] == ':');
    char *rest;
    *number = strtoul(line + strlen(file_name) + 1, &rest, 10);
    assert(*rest == ':' && *number >= 1 && *number <= count_lines());
    *column = strtoul(rest + 1, &rest, 10);
    assert(*rest == ':' && rest[1] == ' ' && *column >= 1 && *column <= text_length + 1);
    return rest + 2;
}

static void check_errors(const char *errors)
{
    for (const char *line = errors; *line != '\0';) {
        unsigned long number;
        unsigned long column;
        const char *end = strchr(check_place(line, &number, &column), '\n');
        assert(end && end > line);
        for (; line < end; line++)
            assert((unsigned char)*line >= ' ' && *line != 0x7f);
        line = end + 1;
    }
}

/* The same errors, one line further down. */
static void check_shifted(const char *errors, const char *shifted)
{
    while (*errors != '\0') {
        unsigned long lines[2];
        unsigned long columns[2];
        errors = check_place(errors, &lines[0], &columns[0]);
        shifted = check_place(shifted, &lines[1], &columns[1]);
        assert(columns[0] == columns[1] && lines[1] == lines[0] + (lines[0] > 0));
        const size_t length = strcspn(errors, "\n") + 1;
        assert(strncmp(errors, shifted, length) == 0);
        errors += length;
        shifted += length;
    }
    assert(*shifted == '\0');
}

/* --- What was accepted --- */

static uint64_t value_of(const struct config *config, const struct option *option)
{
    const char *field = (const char *)config + option->offset;
    switch (option->size) {
    case sizeof(uint16_t):
        return *(const uint16_t *)(const void *)field;
    case sizeof(uint32_t):
        return *(const uint32_t *)(const void *)field;
    default:
        assert(option->size == sizeof(uint64_t));
        return *(const uint64_t *)(const void *)field;
    }
}

static void check_ranges(const struct config *config)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *option = &OPTIONS[i];
        if (!option->quantity || option->size == 0)
            continue;
        const uint64_t divisor = option->divisor ? option->divisor : 1;
        const uint64_t value = value_of(config, option);
        assert((value == 0 && option->zero_is_off) ||
               (value >= option->minimum / divisor && value <= option->maximum / divisor));
    }
    assert(config->listener_count > 0 && config->listener_count <= CONFIG_LISTENERS_MAX);
    assert(config->snapshot.upstream_count > 0 &&
           config->snapshot.upstream_count <= CONFIG_UPSTREAMS_MAX);
    assert(config->snapshot.allow_count <= CONFIG_PREFIXES_MAX);
    assert(config->snapshot.refused_source_port_count <= CONFIG_PORTS_MAX);
    assert(config->snapshot.cache.ttl_min_s <= config->snapshot.cache.ttl_max_s);
    for (size_t i = 0; i < config->snapshot.upstream_count; i++) {
        const struct upstream_config *upstream = &config->snapshot.upstreams[i];
        assert(upstream->label && (upstream->name || upstream->pin_count > 0)); /* FAULTS E2 */
        assert(upstream->weight >= 1 && upstream->weight <= WEIGHT_MAX);
    }
}

static void check_same(const struct config *a, const struct config *b)
{
    char *a_text = config_describe(a);
    char *b_text = config_describe(b);
    assert(strcmp(a_text, b_text) == 0);
    free(a_text);
    free(b_text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char longer[sizeof(comment) + TEXT_MAX];
    if (size > TEXT_MAX)
        return 0;
    struct loaded loaded = load((const char *)data, size);
    assert((loaded.status == STATUS_OK) == (*loaded.errors == '\0'));
    check_errors(loaded.errors);
    if (loaded.config)
        check_ranges(loaded.config);
    const bool has_mark =
        size > 0 && (data[0] == 0xef || data[0] >= 0xfe); /* a byte order mark stands first */
    if (size > 0 && !has_mark) {
        memcpy(longer, comment, sizeof(comment) - 1);
        memcpy(longer + sizeof(comment) - 1, data, size);
        struct loaded again = load(longer, sizeof(comment) - 1 + size);
        check_shifted(loaded.errors, again.errors);
        if (loaded.config)
            check_same(loaded.config, again.config);
        loaded_free(&again);
    }
    loaded_free(&loaded);
    return 0;
}
