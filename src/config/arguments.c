// SPDX-License-Identifier: Apache-2.0
/* The command line and the environment, walked along the option table.
 *
 * getopt_long would print its own errors, take abbreviations, and need a second table.
 *
 * Thread: main. */
#include <assert.h>
#include <regex.h>
#include <string.h>

#include "config/settings.h"

static const struct option *find_letter(char letter)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (letter != '\0' && OPTIONS[i].letter == letter)
            return &OPTIONS[i];
    return NULL;
}

/* "-l", "-lADDR", "--listen" or "--listen=ADDR"; no option when there is none of this name. */
static struct argument parse_word(const char *word)
{
    if (word[1] != '-')
        return (struct argument){find_letter(word[1]),
                                 word[1] != '\0' && word[2] != '\0' ? word + 2 : NULL};
    char flag[KEY_SIZE];
    const size_t length = strcspn(word, "=");
    snprintf(flag, sizeof flag, "%.*s", (int)length, word);
    return (struct argument){option_find(flag, OPTION_FLAG),
                             word[length] == '=' ? word + length + 1 : NULL};
}

/* What says what to do has to be known before the file is read: it is obeyed at once. True for an
 * argument to keep. */
static bool judge_argument(struct settings *settings, const struct argument *argument)
{
    assert(argument->option && argument->option->flag);
    const struct option *option = argument->option;
    settings->where = (struct origin){.name = option->flag};
    if (!option->argument && argument->value)
        settings_report(settings, "takes no value");
    else if (option->argument && !argument->value)
        settings_report(settings, "needs a value, %s", option->argument);
    else if (option->key)
        return true;
    else
        settings_apply(settings, option, argument->value);
    return false;
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
    assert(settings->config && arguments && (argc == 0 || argv));
    size_t count = 0;
    bool has_command = false;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (word[0] != '-' || word[1] == '\0') {
            read_command(settings, word, &has_command);
            continue;
        }
        struct argument argument = parse_word(word);
        if (!argument.option) {
            settings->where = (struct origin){.name = word};
            settings_report_unknown(settings, word, OPTION_FLAG, "is not an option");
            /* The next word was meant for it, and would be called a wrong command. */
            if (!argument.value && i + 1 < argc && argv[i + 1][0] != '-')
                i++;
            continue;
        }
        if (argument.option->argument && !argument.value && i + 1 < argc)
            argument.value = argv[++i];
        if (judge_argument(settings, &argument))
            arguments[count++] = argument;
    }
    return count;
}

void arguments_apply(struct settings *settings, const struct argument *arguments, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        assert(arguments[i].option && arguments[i].value);
        settings->where = (struct origin){.name = arguments[i].option->flag};
        settings_apply(settings, arguments[i].option, arguments[i].value);
    }
}

/* What Kubernetes puts into every pod for each service of its namespace, and Docker for links, when
 * the service is called dnsproxy or dnsproxy-something. Names alone would take a mistyped option
 * for one of these: the values must fit, too. */
static bool is_service_variable(const char *assignment)
{
    static const char pattern[] =
        "^" ENVIRONMENT_PREFIX "([A-Z0-9_]+_)?"
        "(SERVICE_HOST=[0-9A-Fa-f.:]+"
        "|SERVICE_PORT(_[A-Z0-9_]+)?=[0-9]+"
        "|PORT(_[0-9]+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://.+"
        "|PORT_[0-9]+_(TCP|UDP|SCTP)_(PROTO=(tcp|udp|sctp)|PORT=[0-9]+|ADDR=[0-9A-Fa-f.:]+))$";
    regex_t expression;
    if (regcomp(&expression, pattern, REG_EXTENDED | REG_NOSUB) != 0)
        return false;
    const bool matches = regexec(&expression, assignment, 0, NULL, 0) == 0;
    regfree(&expression);
    return matches;
}

/* An empty variable counts as none: that is how compose files pass on what is not set. */
static void apply_variable(struct settings *settings, const char *name, const char *assignment)
{
    const char *value = strchr(assignment, '=') + 1;
    const struct option *option = option_find(name, OPTION_ENVIRONMENT);
    if (*value == '\0' || (!option && is_service_variable(assignment)))
        return;
    settings->where = (struct origin){.name = name};
    if (!option)
        settings_report_unknown(settings, name, OPTION_ENVIRONMENT, "is not a known variable");
    else if (option->key)
        settings_apply(settings, option, value);
}

void environment_apply(struct settings *settings, char *const environment[])
{
    assert(settings->config && environment);
    for (size_t i = 0; environment[i]; i++) {
        char name[KEY_SIZE];
        const char *value = strchr(environment[i], '=');
        if (!value ||
            strncmp(environment[i], ENVIRONMENT_PREFIX, sizeof ENVIRONMENT_PREFIX - 1) != 0)
            continue;
        snprintf(name, sizeof name, "%.*s", (int)(value - environment[i]), environment[i]);
        apply_variable(settings, name, environment[i]);
    }
}
