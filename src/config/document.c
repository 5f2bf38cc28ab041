// SPDX-License-Identifier: Apache-2.0
/* What people read about the options, made from their table: --help, the reference page and the
 * manual page.
 *
 * Thread: main. Sources: CommonMark tables as GitHub has them; man-pages(7) and groff_man(7). */
#include <string.h>

#include "config/settings.h"

enum { HELP_WIDTH = 80, HELP_INDENT = 26 };

struct exit_status {
    const char *status;
    const char *meaning;
};

static const struct exit_status EXIT_STATUSES[] = {
    {"0", "A clean stop; the configuration is valid (check), every upstream answered (probe), the "
          "daemon is ready (health)."},
    {"1", "An error in the configuration or the arguments; an upstream did not answer (probe), the "
          "daemon is not ready (health)."},
    {"2", "An address cannot be bound, or the daemon cannot start."},
};
enum { EXIT_STATUS_COUNT = sizeof EXIT_STATUSES / sizeof EXIT_STATUSES[0] };

static const char PRECEDENCE[] =
    "An option on the command line replaces that of the environment, which replaces that of the "
    "configuration file, which replaces the default; one that can be given several times is "
    "replaced as a whole. On the command line the last of several counts for an option that takes "
    "one value. Every value is checked, also one that is replaced, and nothing is started when one "
    "is wrong.";

static const char LISTS[] =
    "Where a list is taken, its values are separated by commas or spaces; in the configuration "
    "file they may also be a YAML list.";

/* Prints words from column `column` on, broken before HELP_WIDTH and indented. */
static void print_wrapped(FILE *out, const char *text, int column)
{
    while (*text != '\0') {
        const int length = (int)strcspn(text, " ");
        if (column > HELP_INDENT && column + 1 + length > HELP_WIDTH) {
            fprintf(out, "\n%*s", HELP_INDENT, "");
            column = HELP_INDENT;
        } else if (column > HELP_INDENT) {
            fputc(' ', out);
            column++;
        }
        fprintf(out, "%.*s", length, text);
        column += length;
        text += length;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

static void print_help_row(FILE *out, const char *term, const char *text)
{
    int column = fprintf(out, "  %s", term);
    if (column >= HELP_INDENT) {
        fputc('\n', out);
        column = 0;
    }
    fprintf(out, "%*s", HELP_INDENT - column, "");
    print_wrapped(out, text, HELP_INDENT);
}

static void print_help_option(FILE *out, const struct option *option)
{
    char term[64];
    char letter[] = {'-', option->letter, ',', ' ', '\0'};
    snprintf(term, sizeof term, "%s--%s%s%s", option->letter ? letter : "    ", option->flag,
             option->argument ? " " : "", option->argument ? option->argument : "");
    print_help_row(out, term, option->help);
    if (!option->environment)
        return;
    fprintf(out, "%*s[%s", HELP_INDENT, "", option->environment);
    fprintf(out, "%s]\n", option->clear ? "; may be repeated" : "");
    if (!option->default_text)
        return;
    fprintf(out, "%*s", HELP_INDENT, "");
    char text[256];
    snprintf(text, sizeof text, "[default: %s]", option->default_text);
    print_wrapped(out, text, HELP_INDENT);
}

void options_print_help(FILE *out)
{
    fputs("Usage: dnsproxy [COMMAND] [-c FILE] [-l ADDR]... [-u URL]... [OPTION]...\n"
          "Answer DNS queries by asking servers over authenticated TLS.\n\nCommands:\n",
          out);
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        print_help_row(out, COMMANDS[i].name, COMMANDS[i].help);
    fputs("\nOptions, with their environment variables:\n", out);
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (OPTIONS[i].flag)
            print_help_option(out, &OPTIONS[i]);
    fputs("\nThe configuration file is described in dnsproxy(8), with the options (timeouts,\n"
          "limits and more) that only the file and the environment have.\n",
          out);
}

/* --- Markdown --- */

/* A bar would end the cell, also inside of code. */
static void print_cell(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '|')
            fputc('\\', out);
        fputc(*text, out);
    }
}

static void print_code_cell(FILE *out, const char *text)
{
    fputs(" | ", out);
    if (!text)
        return;
    fputc('`', out);
    print_cell(out, text);
    fputc('`', out);
}

static void print_flag(FILE *out, const struct option *option)
{
    char flag[64] = "";
    if (option->flag)
        snprintf(flag, sizeof flag, "--%s%s%s", option->flag, option->argument ? " " : "",
                 option->argument ? option->argument : "");
    print_code_cell(out, option->flag ? flag : NULL);
    if (option->letter)
        fprintf(out, ", `-%c`", option->letter);
}

static void print_reference_row(FILE *out, const struct option *option)
{
    fputs("| ", out);
    if (option->key)
        fprintf(out, "`%s`", option->key);
    print_flag(out, option);
    print_code_cell(out, option->environment);
    print_code_cell(out, option->default_text);
    fputs(" | ", out);
    print_cell(out, option->help);
    fputs(option->clear ? " A list. |\n" : " |\n", out);
}

static void print_reference_upstreams(FILE *out)
{
    fputs("\n### An upstream as a mapping\n\n"
          "In the file, an item of `upstreams` may be a mapping:\n\n"
          "| key | meaning |\n| --- | --- |\n",
          out);
    for (size_t i = 0; i < UPSTREAM_FIELD_COUNT; i++)
        fprintf(out, "| `%s` | %s |\n", UPSTREAM_FIELDS[i].key, UPSTREAM_FIELDS[i].help);
    fputs("\n```yaml\n"
          "listen: [127.0.0.1:53, 'udp://[::1]:53']\n"
          "upstreams:\n"
          "  - tls://9.9.9.9#dns.quad9.net\n"
          "  - url: tls://192.0.2.1:8853\n"
          "    pins: [sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=]\n"
          "    weight: 10\n"
          "cache:\n"
          "  size: 128MiB\n"
          "```\n\n"
          "### Presets\n\n| name | servers |\n| --- | --- |\n",
          out);
    for (size_t i = 0; i < preset_count(); i++) {
        fprintf(out, "| `%s` | ", preset_name(i));
        preset_describe(i, out);
        fputs(" |\n", out);
    }
}

void options_print_reference(FILE *out)
{
    fputs("# Reference\n\nMade by the program itself (`generate-docs reference`); do not edit.\n\n"
          "## Commands\n\n| command | does |\n| --- | --- |\n",
          out);
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        fprintf(out, "| `%s` | %s |\n", COMMANDS[i].name, COMMANDS[i].help);
    fprintf(out,
            "\n## Options\n\n%s\n\n%s A key with a dot stands in a section: `cache.size` is "
            "`size` under `cache`. A duration is a whole number with `ms`, `s`, `m`, `h` or `d`; "
            "a size one with `KiB`, `MiB` or `GiB`. An environment variable that starts with "
            "`DNSPROXY_` and is not known is an error, except those that Kubernetes and Docker set "
            "for a service called dnsproxy (`DNSPROXY_SERVICE_*`, `DNSPROXY_PORT*`); an empty one "
            "counts as not set.\n\n",
            PRECEDENCE, LISTS);
    fputs("| key | flag | environment | default | meaning |\n"
          "| --- | --- | --- | --- | --- |\n",
          out);
    for (size_t i = 0; i < OPTION_COUNT; i++)
        print_reference_row(out, &OPTIONS[i]);
    print_reference_upstreams(out);
    fputs("\n## Exit status\n\n| status | meaning |\n| --- | --- |\n", out);
    for (size_t i = 0; i < EXIT_STATUS_COUNT; i++)
        fprintf(out, "| %s | %s |\n", EXIT_STATUSES[i].status, EXIT_STATUSES[i].meaning);
}

/* --- roff --- */

/* Escapes what roff takes for itself: a backslash, a hyphen that is a minus, a quote that would
 * become typographic, and a dot or quote that starts a line. */
static void print_roff(FILE *out, const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", out);
    for (; *text != '\0'; text++) {
        if (*text == '\\')
            fputs("\\e", out);
        else if (*text == '-')
            fputs("\\-", out);
        else if (*text == '\'')
            fputs("\\(aq", out);
        else if (*text != '`')
            fputc(*text, out);
    }
}

static void print_paragraph(FILE *out, const char *macro, const char *text)
{
    fprintf(out, "%s\n", macro);
    print_roff(out, text);
    fputc('\n', out);
}

static void print_manual_term(FILE *out, const struct option *option)
{
    fputs(".TP\n", out);
    if (option->letter)
        fprintf(out, "\\fB\\-%c\\fR, ", option->letter);
    fputs(option->flag ? "\\fB\\-\\-" : "\\fB", out);
    print_roff(out, option->flag ? option->flag : option->key);
    fputs(option->flag ? "\\fR" : ":\\fR", out);
    if (option->argument) {
        fputs(" \\fI", out);
        print_roff(out, option->argument);
        fputs("\\fR", out);
    }
    fputc('\n', out);
}

static void print_manual_option(FILE *out, const struct option *option)
{
    print_manual_term(out, option);
    print_roff(out, option->help);
    if (option->clear)
        fputs(option->flag ? "\nMay be repeated." : "\nA list.", out);
    if (option->default_text) {
        fputs("\nDefault: ", out);
        print_roff(out, option->default_text);
        fputc('.', out);
    }
    if (option->key && option->flag) {
        fputs("\nKey: ", out);
        print_roff(out, option->key);
        fputc('.', out);
    }
    fputc('\n', out);
}

static void print_manual_upstreams(FILE *out)
{
    print_paragraph(out, ".SS Upstreams",
                    "In the file, an item of upstreams may be a mapping with these keys.");
    for (size_t i = 0; i < UPSTREAM_FIELD_COUNT; i++) {
        print_paragraph(out, ".TP\n.B", UPSTREAM_FIELDS[i].key);
        print_roff(out, UPSTREAM_FIELDS[i].help);
        fputc('\n', out);
    }
    print_paragraph(out, ".PP", "The presets are:");
    for (size_t i = 0; i < preset_count(); i++) {
        print_paragraph(out, ".TP\n.B", preset_name(i));
        preset_describe(i, out);
        fputs(".\n", out);
    }
}

static void print_manual_environment(FILE *out)
{
    print_paragraph(out, ".SH ENVIRONMENT",
                    "Each option may be given in a variable. One that starts with DNSPROXY_ and is "
                    "not known is an error, except DNSPROXY_SERVICE_* and DNSPROXY_PORT*, which "
                    "Kubernetes and Docker set for a service called dnsproxy; an empty one counts "
                    "as not set.");
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *option = &OPTIONS[i];
        if (!option->environment)
            continue;
        print_paragraph(out, ".TP\n.B", option->environment);
        print_roff(out, option->flag ? "As --" : "As the key ");
        print_roff(out, option->flag ? option->flag : option->key);
        fputs(".\n", out);
    }
}

static void print_manual_head(FILE *out)
{
    fputs(".TH DNSPROXY 8 \"\" \"dnsproxy " DNSPROXY_VERSION "\" \"System Administration\"\n"
          ".SH NAME\n"
          "dnsproxy \\- answer DNS queries over authenticated DNS over TLS\n"
          ".SH SYNOPSIS\n"
          ".B dnsproxy\n"
          "[\\fICOMMAND\\fR] [\\fB\\-c\\fR \\fIFILE\\fR] [\\fB\\-l\\fR \\fIADDR\\fR]...\n"
          "[\\fB\\-u\\fR \\fIURL\\fR]... [\\fIOPTION\\fR]...\n",
          out);
    print_paragraph(out, ".SH DESCRIPTION",
                    "dnsproxy answers the DNS queries of a host, of containers or of a network. "
                    "What its cache does not know it asks servers over TLS (RFC 7858), which it "
                    "authenticates by name or by key; to a server that fails this, and in clear "
                    "text, no query is ever sent.");
    print_paragraph(out, ".PP", "The commands are:");
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        print_paragraph(out, ".TP\n.B", COMMANDS[i].name);
        print_roff(out, COMMANDS[i].help);
        fputc('\n', out);
    }
}

void options_print_manual(FILE *out)
{
    print_manual_head(out);
    print_paragraph(out, ".SH OPTIONS", PRECEDENCE);
    print_paragraph(out, ".PP", LISTS);
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (OPTIONS[i].flag)
            print_manual_option(out, &OPTIONS[i]);
    print_paragraph(out, ".SS Keys without a flag",
                    "These stand in the configuration file or the environment. A key with a dot "
                    "stands in a section: cache.size is size under cache.");
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (!OPTIONS[i].flag)
            print_manual_option(out, &OPTIONS[i]);
    print_manual_upstreams(out);
    print_manual_environment(out);
    fputs(".SH EXIT STATUS\n", out);
    for (size_t i = 0; i < EXIT_STATUS_COUNT; i++) {
        print_paragraph(out, ".TP\n.B", EXIT_STATUSES[i].status);
        print_roff(out, EXIT_STATUSES[i].meaning);
        fputc('\n', out);
    }
    fputs(".SH FILES\n", out);
    print_paragraph(out, ".TP\n.I", DEFAULT_CONFIG_FILE);
    print_roff(out, "The configuration, in YAML, unless -c names another.");
    fputc('\n', out);
}
