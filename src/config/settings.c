// SPDX-License-Identifier: Apache-2.0
/* Setting one value from text, and saying what is wrong with it.
 *
 * The text comes from people: nothing here asserts on it, and each rejection tells what is allowed.
 *
 * Thread: main. */
#include "config/settings.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/deadline.h"

enum { ADMIN_PORT = 9153, QUOTED_LENGTH_MAX = 80, UNITS_MAX = 5 };

struct quantity {
    const char *problem; /* for errors: "PROBLEM; allowed: BESIDES1 to 2FORM" */
    const char *besides;
    const char *form;
    struct unit {
        const char *name;
        uint64_t factor;
    } units[UNITS_MAX]; /* largest first; none: plain numbers */
};

const struct quantity DURATIONS = {
    "is not a duration",
    "",
    ", as a whole number with ms, s, m, h or d",
    {{"d", 86400 * NANOSECONDS_PER_SECOND},
     {"h", 3600 * NANOSECONDS_PER_SECOND},
     {"m", 60 * NANOSECONDS_PER_SECOND},
     {"s", NANOSECONDS_PER_SECOND},
     {"ms", NANOSECONDS_PER_MILLISECOND}},
};
const struct quantity SIZES = {
    "is not a size",
    "",
    ", as a whole number with KiB, MiB or GiB",
    {{"GiB", UINT64_C(1) << 30}, {"MiB", UINT64_C(1) << 20}, {"KiB", UINT64_C(1) << 10}},
};
const struct quantity COUNTS = {.problem = "is not a number in range", .besides = "", .form = ""};
const struct quantity WORKER_COUNTS = {
    .problem = "is not a number of workers", .besides = "auto, or ", .form = ""};

/* Control bytes would reach the terminal of whoever reads the error. */
static void print_masked(FILE *out, const char *text)
{
    const size_t length = strnlen(text, QUOTED_LENGTH_MAX);
    for (size_t i = 0; i < length; i++) {
        const bool is_control = (unsigned char)text[i] < ' ' || text[i] == 0x7f;
        fputc(is_control ? '?' : text[i], out);
    }
    if (text[length] != '\0')
        fputs("...", out);
}

static void print_origin(FILE *out, const struct origin *where)
{
    if (where->file && where->line > 0)
        fprintf(out, "%s:%zu:%zu: ", where->file, where->line, where->column);
    else if (where->file)
        fprintf(out, "%s: ", where->file);
    if (where->name) {
        print_masked(out, where->name);
        fputs(": ", out);
    }
}

static void print_problem(struct settings *settings, const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0)));
static void print_problem(struct settings *settings, const char *format, va_list arguments)
{
    vfprintf(settings->errors, format, arguments);
    fputc('\n', settings->errors);
    settings->failed = true;
}

void settings_report(struct settings *settings, const char *format, ...)
{
    assert(settings->errors && format);
    print_origin(settings->errors, &settings->where);
    va_list arguments;
    va_start(arguments, format);
    print_problem(settings, format, arguments);
    va_end(arguments);
}

enum status settings_reject(struct settings *settings, const char *text, const char *format, ...)
{
    assert(settings->errors && text && format);
    print_origin(settings->errors, &settings->where);
    fputc('"', settings->errors);
    print_masked(settings->errors, text);
    fputs("\" ", settings->errors);
    va_list arguments;
    va_start(arguments, format);
    print_problem(settings, format, arguments);
    va_end(arguments);
    return STATUS_INVALID;
}

char *settings_origin(struct settings *settings, const struct origin *where)
{
    assert(where);
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (out)
        print_origin(out, where);
    if (out && fclose(out) == 0)
        return text;
    free(text);
    settings_report(settings, "out of memory");
    return NULL;
}

char *settings_copy(struct settings *settings, const char *text)
{
    assert(text);
    char *copy = strdup(text);
    if (!copy)
        settings_report(settings, "out of memory");
    return copy;
}

/* Digits, then the name of a unit, if there are any. */
static bool parse_number(const struct quantity *quantity, const char *text, uint64_t *out)
{
    const size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 18)
        return false;
    const uint64_t number = strtoull(text, NULL, 10);
    const char *name = text + digits;
    if (*name == '\0') {
        *out = number;
        return !quantity->units[0].name || number == 0; /* "5" of what? But zero is zero. */
    }
    for (size_t i = 0; i < UNITS_MAX && quantity->units[i].name; i++)
        if (strcmp(name, quantity->units[i].name) == 0)
            return !__builtin_mul_overflow(number, quantity->units[i].factor, out);
    return false;
}

const char *number_format(const struct quantity *quantity, uint64_t value,
                          char text[static NUMBER_TEXT_SIZE])
{
    assert(quantity);
    struct unit unit = {"", 1};
    for (size_t i = 0; i < UNITS_MAX && quantity->units[i].name; i++) {
        unit = quantity->units[i];
        if (value >= unit.factor && value % unit.factor == 0)
            break;
    }
    snprintf(text, NUMBER_TEXT_SIZE, "%" PRIu64 "%s", value / unit.factor, unit.name);
    return text;
}

static bool lacks_unit(const struct quantity *quantity, const char *text)
{
    const size_t digits = strspn(text, "0123456789");
    const bool is_zero = strspn(text, "0") == digits; /* of any unit */
    return quantity->units[0].name && text[digits] == '\0' && !is_zero;
}

static bool is_in_range(const struct option *option, uint64_t value)
{
    if (value == 0 && option->zero_is_off)
        return true;
    return value >= option->minimum && value <= option->maximum;
}

static enum status read_number(struct settings *settings, const struct option *option,
                               const char *text, uint64_t *out)
{
    assert(option->quantity && option->minimum <= option->maximum);
    const struct quantity *quantity = option->quantity;
    uint64_t value;
    if (parse_number(quantity, text, &value) && is_in_range(option, value)) {
        *out = value;
        return STATUS_OK;
    }
    char minimum[NUMBER_TEXT_SIZE];
    char maximum[NUMBER_TEXT_SIZE];
    return settings_reject(settings, text, "%s; allowed: %s%s%s to %s%s",
                           lacks_unit(quantity, text) ? "has no unit" : quantity->problem,
                           option->zero_is_off ? "0, or " : "", quantity->besides,
                           number_format(quantity, option->minimum, minimum),
                           number_format(quantity, option->maximum, maximum), quantity->form);
}

static void *field_of(struct settings *settings, const struct option *option)
{
    assert(settings->config && option->offset < sizeof(*settings->config));
    return (char *)settings->config + option->offset;
}

enum status set_number(struct settings *settings, const struct option *option, const char *text)
{
    uint64_t value;
    TRY(read_number(settings, option, text, &value));
    const uint64_t divisor = option->divisor > 0 ? option->divisor : 1;
    if (value % divisor != 0)
        return settings_reject(settings, text, "is not a whole number of seconds");
    value /= divisor;
    void *field = field_of(settings, option);
    switch (option->size) {
    case sizeof(uint16_t):
        assert(value <= UINT16_MAX);
        *(uint16_t *)field = (uint16_t)value;
        break;
    case sizeof(uint32_t):
        assert(value <= UINT32_MAX);
        *(uint32_t *)field = (uint32_t)value;
        break;
    default:
        assert(option->size == sizeof(uint64_t));
        *(uint64_t *)field = value;
    }
    return STATUS_OK;
}

enum status set_choice(struct settings *settings, const struct option *option, const char *text)
{
    assert(option->choices && option->size == sizeof(unsigned int));
    static_assert(sizeof(enum strategy) == sizeof(unsigned int), "a choice is stored as one");
    for (unsigned int i = 0; option->choices[i]; i++) {
        if (strcmp(text, option->choices[i]) == 0) {
            *(unsigned int *)field_of(settings, option) = i;
            return STATUS_OK;
        }
    }
    char allowed[128] = "";
    for (size_t i = 0; option->choices[i]; i++)
        snprintf(allowed + strlen(allowed), sizeof allowed - strlen(allowed), "%s%s",
                 i > 0 ? ", " : "", option->choices[i]);
    return settings_reject(settings, text, "is not known; allowed: %s", allowed);
}

/* YAML 1.1 10.2, type bool: whoever comes from another program writes true or no. */
static bool parse_toggle(const char *text, enum toggle *out)
{
    static const struct {
        const char *word;
        enum toggle toggle;
    } words[] = {{"on", TOGGLE_ON},   {"yes", TOGGLE_ON}, {"true", TOGGLE_ON},
                 {"off", TOGGLE_OFF}, {"no", TOGGLE_OFF}, {"false", TOGGLE_OFF}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(text, words[i].word) == 0) {
            *out = words[i].toggle;
            return true;
        }
    }
    return false;
}

enum status set_toggle(struct settings *settings, const struct option *option, const char *text)
{
    if (parse_toggle(text, field_of(settings, option)))
        return STATUS_OK;
    return settings_reject(settings, text, "is not known; allowed: on, off, true, false, yes, no");
}

enum status set_workers(struct settings *settings, const struct option *option, const char *text)
{
    if (strcmp(text, "auto") != 0)
        return set_number(settings, option, text);
    settings->config->workers = workers_automatic();
    return STATUS_OK;
}

enum status set_admin(struct settings *settings, const struct option *option, const char *text)
{
    (void)option;
    struct address address;
    enum toggle toggle;
    if (parse_toggle(text, &toggle) && toggle == TOGGLE_OFF) {
        settings->config->admin.enabled = false;
        return STATUS_OK;
    }
    TRY(read_address(settings, text, text, ADMIN_PORT, &address,
                     "is not an address; allowed: off, or an IPv4 or [IPv6] address with a port "
                     "from 1 to 65535"));
    settings->config->admin.enabled = true;
    settings->config->admin.address = address;
    return STATUS_OK;
}

bool admins_differ(const struct config *a, const struct config *b)
{
    return a->admin.enabled != b->admin.enabled ||
           (a->admin.enabled && !address_equal(&a->admin.address, &b->admin.address));
}

enum status read_address(struct settings *settings, const char *text, const char *place,
                         uint16_t default_port, struct address *out, const char *problem)
{
    assert(place && default_port != 0 && problem);
    struct address address;
    char bracketed[ADDRESS_TEXT_SIZE];
    if (address_has_unclear_port(place, &address))
        return settings_reject(settings, text,
                               "needs brackets that tell the address from the port, as in %s; "
                               "they hold the last part if it is no port",
                               address_format(&address, bracketed));
    if (address_parse(place, default_port, out) != STATUS_OK)
        return settings_reject(settings, text, "%s", problem);
    return STATUS_OK;
}

/* Non-blocking, so that a pipe without a writer is an error and not a wait. */
enum status check_readable(struct settings *settings, const char *path)
{
    assert(path);
    struct stat info = {};
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (descriptor < 0 || fstat(descriptor, &info) != 0)
        return settings_reject(settings, path, "cannot be read: %s", strerror(errno));
    close(descriptor);
    if (!S_ISREG(info.st_mode))
        return settings_reject(settings, path, "is not a file");
    if (info.st_size == 0)
        return settings_reject(settings, path, "is empty");
    return STATUS_OK;
}

enum status set_tls_ca(struct settings *settings, const struct option *option, const char *text)
{
    assert(option->default_text);
    struct config *config = settings->config;
    const bool is_file = strcmp(text, option->default_text) != 0;
    if (is_file)
        TRY(check_readable(settings, text));
    free(config->snapshot.tls_ca_file);
    free(config->snapshot.tls_ca_origin);
    config->snapshot.tls_ca_file = is_file ? settings_copy(settings, text) : NULL;
    config->snapshot.tls_ca_origin = is_file ? settings_origin(settings, &settings->where) : NULL;
    return !is_file || (config->snapshot.tls_ca_file && config->snapshot.tls_ca_origin)
               ? STATUS_OK
               : STATUS_INVALID;
}

enum status set_command(struct settings *settings, const struct option *option, const char *text)
{
    (void)text;
    settings->command = option->letter == 'h' ? COMMAND_HELP : COMMAND_VERSION;
    return STATUS_OK;
}

enum status set_config_file(struct settings *settings, const struct option *option,
                            const char *text)
{
    (void)option;
    settings->config_file = text;
    return STATUS_OK;
}

enum status add_prefix(struct settings *settings, const struct option *option, const char *text)
{
    (void)option;
    struct snapshot *snapshot = &settings->config->snapshot;
    struct prefix prefix;
    if (prefix_parse(text, &prefix) != STATUS_OK)
        return settings_reject(settings, text,
                               "is not a range of addresses; allowed: such as 192.0.2.0/24, "
                               "2001:db8::/32 or one address, without bits beyond the length");
    snapshot->allow[snapshot->allow_count++] = prefix;
    return STATUS_OK;
}

enum status add_source_port(struct settings *settings, const struct option *option,
                            const char *text)
{
    struct snapshot *snapshot = &settings->config->snapshot;
    uint64_t port;
    TRY(read_number(settings, option, text, &port));
    snapshot->refused_source_ports[snapshot->refused_source_port_count++] = (uint16_t)port;
    return STATUS_OK;
}

void settings_begin_option(struct settings *settings, const struct option *option)
{
    const size_t index = (size_t)(option - OPTIONS);
    assert(index < OPTION_COUNT && option == &OPTIONS[index]);
    if (!settings->seen[index] && option->most > 0)
        *(size_t *)field_of(settings, option) = 0;
    settings->seen[index] = true;
}

static void set_value(struct settings *settings, const struct option *option, const char *text)
{
    assert(option->set && (text || !option->argument));
    const bool is_full = option->most > 0 && *(size_t *)field_of(settings, option) == option->most;
    const enum status status =
        is_full ? settings_reject(settings, text, "is one too many; allowed: %zu", option->most)
                : option->set(settings, option, text);
    if (status != STATUS_OK)
        settings->failed = true;
}

static void apply_list(struct settings *settings, const struct option *option, char *list)
{
    if (option->may_be_empty && strcmp(list, "none") == 0)
        return;
    bool is_empty = true;
    char *rest;
    for (char *item = strtok_r(list, ", \t\r\n", &rest); item;
         item = strtok_r(NULL, ", \t\r\n", &rest)) {
        is_empty = false;
        set_value(settings, option, item);
    }
    if (is_empty)
        settings_report(settings, "needs at least one value");
}

void settings_apply(struct settings *settings, const struct option *option, const char *text)
{
    assert(option && (text || !option->argument));
    settings_begin_option(settings, option);
    if (option->most == 0) {
        set_value(settings, option, text);
        return;
    }
    char *list = settings_copy(settings, text);
    if (list)
        apply_list(settings, option, list);
    free(list);
}
