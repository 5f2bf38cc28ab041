// SPDX-License-Identifier: Apache-2.0
/* --help, made from the table of options. The other documents are made from it by docs/document.c,
 * which is no part of the daemon.
 *
 * Thread: main. */
#include <assert.h>
#include <string.h>

#include "config/options.h"
#include "config/settings.h"

enum { HELP_WIDTH = 80, HELP_INDENT = 26 };

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
    snprintf(term, sizeof term, "%s%s%s%s", option->letter ? letter : "    ", option->flag,
             option->argument ? " " : "", option->argument ? option->argument : "");
    print_help_row(out, term, option->help);
    if (!option->environment)
        return;
    fprintf(out, "%*s[%s", HELP_INDENT, "", option->environment);
    fprintf(out, "%s]\n", option->most ? "; may be repeated" : "");
    if (!option->default_text)
        return;
    fprintf(out, "%*s", HELP_INDENT, "");
    char text[256];
    snprintf(text, sizeof text, "[default: %s]", option->default_text);
    print_wrapped(out, text, HELP_INDENT);
}

void options_print_help(FILE *out)
{
    assert(out);
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
