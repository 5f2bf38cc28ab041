// SPDX-License-Identifier: Apache-2.0
/* The command line and the environment, walked along the option table.
 *
 * getopt_long would print its own errors, take abbreviations, and need a second table.
 *
 * Thread: main. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "config/settings.h"

#define PREFIX "DNSPROXY_"

/* The words not yet read. */
struct words {
    char *const *next;
    size_t left;
};

static const struct option *find_flag(const char *name, size_t length)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const char *flag = OPTIONS[i].flag;
        if (flag && strlen(flag) == length && memcmp(flag, name, length) == 0)
            return &OPTIONS[i];
    }
    return NULL;
}

static const struct option *find_letter(char letter)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (OPTIONS[i].letter == letter)
            return &OPTIONS[i];
    return NULL;
}

/* "-lADDR" or "-l ADDR": what follows the letter is the value, NULL when nothing does. */
static const struct option *parse_letter(const char *word, const char **value)
{
    const struct option *option = word[1] != '\0' ? find_letter(word[1]) : NULL;
    *value = option && word[2] != '\0' ? word + 2 : NULL;
    return option;
}

/* "--listen=ADDR" or "--listen ADDR". */
static const struct option *parse_flag(const char *word, const char **value)
{
    const size_t length = strcspn(word + 2, "=");
    *value = word[2 + length] == '=' ? word + 2 + length + 1 : NULL;
    return find_flag(word + 2, length);
}

static void report_unknown(struct settings *settings, const char *word)
{
    settings->where = (struct origin){.name = word};
    settings_report(settings, "is not an option; the nearest is --%s",
                    settings_nearest(word + strspn(word, "-"), offsetof(struct option, flag)));
}

static enum status take_value(struct settings *settings, struct words *words,
                              struct argument *argument)
{
    settings->where = (struct origin){.name = argument->word};
    if (!argument->option->argument) {
        if (argument->value)
            settings_report(settings, "takes no value");
        return argument->value ? STATUS_INVALID : STATUS_OK;
    }
    if (argument->value)
        return STATUS_OK;
    if (words->left == 0) {
        settings_report(settings, "needs a value, %s", argument->option->argument);
        return STATUS_INVALID;
    }
    argument->value = *words->next++;
    words->left--;
    return STATUS_OK;
}

static enum status read_option(struct settings *settings, const char *word, struct words *words,
                               struct argument *out)
{
    struct argument argument = {};
    argument.option =
        word[1] == '-' ? parse_flag(word, &argument.value) : parse_letter(word, &argument.value);
    if (!argument.option) {
        report_unknown(settings, word);
        return STATUS_INVALID;
    }
    snprintf(argument.word, sizeof argument.word, "--%s", argument.option->flag);
    TRY(take_value(settings, words, &argument));
    *out = argument;
    return STATUS_OK;
}

/* What says what to do has to be known before the file is read. Keeps no argument. */
static size_t apply_now(struct settings *settings, const struct argument *argument)
{
    settings->where = (struct origin){.name = argument->word};
    settings_apply(settings, argument->option, argument->value);
    return 0;
}

static void read_command(struct settings *settings, const char *word, bool *has_command)
{
    settings->where = (struct origin){.name = word};
    if (*has_command) {
        settings_report(settings, "is one argument too many; a command was given");
        return;
    }
    *has_command = true;
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(word, COMMANDS[i].name) == 0) {
            const bool only_prints =
                settings->command == COMMAND_HELP || settings->command == COMMAND_VERSION;
            settings->command = only_prints ? settings->command : COMMANDS[i].command;
            return;
        }
    }
    settings_report(settings, "is not a command; allowed: serve, check, probe, health");
}

size_t arguments_read(struct settings *settings, int argc, char *const argv[],
                      struct argument *arguments)
{
    struct words words = {.next = argv, .left = (size_t)argc};
    size_t count = 0;
    bool has_command = false;
    if (words.left > 0) { /* the program's own name */
        words.next++;
        words.left--;
    }
    while (words.left > 0) {
        const char *word = *words.next++;
        words.left--;
        struct argument *argument = &arguments[count];
        if (word[0] != '-' || word[1] == '\0')
            read_command(settings, word, &has_command);
        else if (read_option(settings, word, &words, argument) == STATUS_OK)
            count += argument->option->key ? 1 : apply_now(settings, argument);
    }
    settings->where = (struct origin){};
    return count;
}

void arguments_apply(struct settings *settings, const struct argument *arguments, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        settings->where = (struct origin){.name = arguments[i].word};
        settings_apply(settings, arguments[i].option, arguments[i].value);
    }
}

/* Kubernetes and Docker describe a service called dnsproxy in variables of these names. */
static bool is_injected(const char *name)
{
    return strncmp(name, PREFIX "SERVICE_", sizeof PREFIX "SERVICE_" - 1) == 0 ||
           strncmp(name, PREFIX "PORT", sizeof PREFIX "PORT" - 1) == 0;
}

static const struct option *find_variable(const char *name)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (OPTIONS[i].environment && strcmp(OPTIONS[i].environment, name) == 0)
            return &OPTIONS[i];
    return NULL;
}

/* An empty variable counts as none: that is how compose files pass on what is not set. */
static void apply_variable(struct settings *settings, const char *name, const char *value)
{
    if (is_injected(name) || *value == '\0')
        return;
    settings->where = (struct origin){.name = name};
    const struct option *option = find_variable(name);
    if (!option)
        settings_report(settings, "is not a known variable; the nearest is %s",
                        settings_nearest(name, offsetof(struct option, environment)));
    else if (option->key)
        settings_apply(settings, option, value);
}

void environment_apply(struct settings *settings, char *const environment[])
{
    for (size_t i = 0; environment[i]; i++) {
        char name[KEY_SIZE];
        const char *value = strchr(environment[i], '=');
        if (!value || strncmp(environment[i], PREFIX, sizeof PREFIX - 1) != 0)
            continue;
        snprintf(name, sizeof name, "%.*s", (int)(value - environment[i]), environment[i]);
        apply_variable(settings, name, value + 1);
    }
    settings->where = (struct origin){};
}
