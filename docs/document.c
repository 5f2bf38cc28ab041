// SPDX-License-Identifier: Apache-2.0
/* The documents that are made from the tables in the code, which generate-docs prints.
 *
 * Thread: one. Sources: CommonMark tables as GitHub has them; man-pages(7) and groff_man(7). */
#include "document.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#include "base/failure.h"
#include "config/settings.h"

enum form { MARKDOWN, ROFF };

static const char PRECEDENCE[] =
    "An option on the command line replaces that of the environment, which replaces that of the "
    "configuration file, which replaces the default; one that can be given several times is "
    "replaced as a whole. On the command line the last of several counts for an option that takes "
    "one value. Every value is checked, also one that is replaced, and nothing is started when one "
    "is wrong.";

static const char VALUES[] =
    "Where a list is taken, its values are separated by commas or spaces; in the configuration "
    "file they may also be a YAML list. A key with a dot stands in a section: `cache.size` is "
    "`size` under `cache`. A duration is a whole number with `ms`, `s`, `m`, `h` or `d`; a size "
    "one with `KiB`, `MiB` or `GiB`. `on` may also be written `true` or `yes`, `off` also `false` "
    "or `no`. An IPv6 address with a port stands in brackets: `[::1]:53`.";

static const char RELOAD[] =
    "On SIGHUP the file is read anew, once a second at most; arguments and environment stay those "
    "of the start, and go on to replace what it says. When anything in it is wrong, or it is gone, "
    "nothing changes, and the log says what and where (`not_reloaded`, "
    "`dnsproxy_config_last_reload_successful` is 0). What needs a restart is named "
    "(`restart_needed`) and left as it is. All else is in force from then on, also what the files "
    "with authorities hold by then. An upstream whose address, name, pins and authorities are the "
    "same stays with its connections; one that is removed is asked nothing more, and has "
    "`timeouts.request` to answer what it was asked. Until these have gone the metrics show them, "
    "and no new one; what is counted of one that comes again begins at 0. Queries, the cache, "
    "clients' connections and listeners stay.";

static const char VARIABLES[] =
    "Each option has its variable. One that starts with `DNSPROXY_` and is not known is an error, "
    "except those that Kubernetes and Docker set for a service called dnsproxy or "
    "dnsproxy-something "
    "(`DNSPROXY_METRICS_SERVICE_HOST`, `DNSPROXY_PORT_53_UDP` and more); an empty one counts "
    "as not set.";

static const char EXAMPLE[] = "listen: [127.0.0.1:53, 'udp://[::1]:53']\n"
                              "upstreams:\n"
                              "  - tls://9.9.9.9#dns.quad9.net\n"
                              "  - url: tls://192.0.2.1:8853\n"
                              "    pins: [sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=]\n"
                              "    weight: 10\n"
                              "cache:\n"
                              "  size: 128MiB\n";

static const char MANUAL_HEAD[] =
    ".TH DNSPROXY 8 \"" DNSPROXY_DATE "\" \"dnsproxy " DNSPROXY_VERSION
    "\" \"System Administration\"\n"
    ".SH NAME\n"
    "dnsproxy \\- answer DNS queries over authenticated DNS over TLS\n"
    ".SH SYNOPSIS\n"
    ".B dnsproxy\n"
    "[\\fICOMMAND\\fR] [\\fB\\-c\\fR \\fIFILE\\fR] [\\fB\\-l\\fR \\fIADDR\\fR]...\n"
    "[\\fB\\-u\\fR \\fIURL\\fR]... [\\fIOPTION\\fR]...\n"
    ".SH DESCRIPTION\n"
    "dnsproxy answers the DNS queries of a host, of containers or of a network. What its cache "
    "does not know it asks servers over TLS (RFC 7858), which it authenticates by name or by key; "
    "to a server that fails this, and in clear text, no query is ever sent.\n";

/* --- what the two forms differ in --- */

/* A bar would end a cell of Markdown, also inside of code. roff takes a backslash, a hyphen that is
 * a minus, a quote that would become typographic, and a dot or quote that starts a line. */
static void print_text(FILE *out, enum form form, const char *text)
{
    if (form == ROFF && (*text == '.' || *text == '\''))
        fputs("\\&", out);
    for (; *text != '\0'; text++) {
        if (form == MARKDOWN)
            fprintf(out, *text == '|' ? "\\%c" : "%c", *text);
        else if (*text == '\\')
            fputs("\\e", out);
        else if (*text == '-')
            fputs("\\-", out);
        else if (*text == '\'')
            fputs("\\(aq", out);
        else if (*text != '`')
            fputc(*text, out);
    }
}

static void print_heading(FILE *out, enum form form, const char *title)
{
    fputs(form == MARKDOWN ? "\n## " : ".SH ", out);
    for (; *title != '\0'; title++)
        fputc(form == MARKDOWN ? *title : toupper((unsigned char)*title), out);
    fputc('\n', out);
}

static void print_paragraph(FILE *out, enum form form, const char *text)
{
    fputs(form == MARKDOWN ? "\n" : ".PP\n", out);
    print_text(out, form, text);
    fputc('\n', out);
}

static void print_table_head(FILE *out, enum form form, const char *term, const char *meaning)
{
    if (form == MARKDOWN)
        fprintf(out, "\n| %s | %s |\n| --- | --- |\n", term, meaning);
}

static void print_row(FILE *out, enum form form, const char *term, const char *meaning)
{
    fputs(form == MARKDOWN ? "| `" : ".TP\n.B ", out);
    print_text(out, form, term);
    fputs(form == MARKDOWN ? "` | " : "\n", out);
    print_text(out, form, meaning);
    fputs(form == MARKDOWN ? " |\n" : "\n", out);
}

static void print_cell(FILE *out, const char *text)
{
    fputs(text ? " `" : " ", out);
    print_text(out, MARKDOWN, text ? text : "");
    fputs(text ? "` |" : " |", out);
}

static void print_markdown_option(FILE *out, const struct option *option)
{
    char flag[64];
    char letter[] = {'`', ',', ' ', '`', '-', option->letter, '\0'};
    snprintf(flag, sizeof flag, "%s%s%s%s", option->flag ? option->flag : "",
             option->argument ? " " : "", option->argument ? option->argument : "",
             option->letter ? letter : "");
    fputc('|', out);
    print_cell(out, option->key);
    print_cell(out, option->flag ? flag : NULL);
    print_cell(out, option->environment);
    print_cell(out, option->default_text);
    fputc(' ', out);
    print_text(out, MARKDOWN, option->help);
    fprintf(out, "%s%s |\n", option->most ? " A list." : "",
            option_needs_restart(option) ? " Needs a restart." : "");
}

static void print_fact(FILE *out, const char *label, const char *value)
{
    if (!value)
        return;
    fprintf(out, "%s: ", label);
    print_text(out, ROFF, value);
    fputs(".\n", out);
}

static void print_roff_option(FILE *out, const struct option *option)
{
    fputs(".TP\n", out);
    if (option->letter)
        fprintf(out, "\\fB\\-%c\\fR, ", option->letter);
    fputs("\\fB", out);
    print_text(out, ROFF, option->flag ? option->flag : option->key);
    fputs(option->flag ? "\\fR \\fI" : ":\\fR \\fI", out);
    print_text(out, ROFF, option->argument ? option->argument : "");
    fputs("\\fR\n", out);
    print_text(out, ROFF, option->help);
    fprintf(out, "\n%s%s", option->most ? "A list.\n" : "",
            option_needs_restart(option) ? "Needs a restart.\n" : "");
    print_fact(out, "Default", option->default_text);
    print_fact(out, "Key", option->flag ? option->key : NULL);
    print_fact(out, "Variable", option->environment);
}

/* --- the document --- */

static void print_options(FILE *out, enum form form)
{
    print_heading(out, form, "Options");
    print_paragraph(out, form, PRECEDENCE);
    print_paragraph(out, form, VALUES);
    print_paragraph(out, form, RELOAD);
    if (form == MARKDOWN)
        fputs("\n| key | flag | environment | default | meaning |\n"
              "| --- | --- | --- | --- | --- |\n",
              out);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (form == MARKDOWN)
            print_markdown_option(out, &OPTIONS[i]);
        else
            print_roff_option(out, &OPTIONS[i]);
    }
}

static void print_upstreams(FILE *out, enum form form)
{
    print_heading(out, form, "An upstream as a mapping");
    print_paragraph(out, form, "In the file, an item of `upstreams` may be a mapping:");
    print_table_head(out, form, "key", "meaning");
    for (size_t i = 0; i < UPSTREAM_FIELD_COUNT; i++)
        print_row(out, form, UPSTREAM_FIELDS[i].key, UPSTREAM_FIELDS[i].help);
    fputs(form == MARKDOWN ? "\n```yaml\n" : ".PP\n.nf\n", out);
    fputs(EXAMPLE, out);
    fputs(form == MARKDOWN ? "```\n" : ".fi\n", out);
    print_heading(out, form, "Presets");
    print_table_head(out, form, "name", "servers");
    for (size_t i = 0; i < PRESET_COUNT; i++) {
        const struct preset *preset = &PRESETS[i];
        char servers[256];
        snprintf(servers, sizeof servers, "%s, %s, %s, %s as %s", preset->addresses[0],
                 preset->addresses[1], preset->addresses[2], preset->addresses[3],
                 preset->authentication_name);
        print_row(out, form, preset->name, servers);
    }
}

static void print_document(FILE *out, enum form form)
{
    print_heading(out, form, "Commands");
    print_table_head(out, form, "command", "does");
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        print_row(out, form, COMMANDS[i].name, COMMANDS[i].help);
    print_options(out, form);
    print_upstreams(out, form);
    print_heading(out, form, "Environment");
    print_paragraph(out, form, VARIABLES);
    print_heading(out, form, "Exit status");
    print_table_head(out, form, "status", "meaning");
    print_row(out, form, "0",
              "A clean stop; the configuration is valid (check), every upstream answered (probe), "
              "the daemon is ready (health).");
    print_row(out, form, "1",
              "An error in the configuration or the arguments; an upstream did not answer (probe), "
              "the daemon is not ready (health).");
    print_row(out, form, "2", "An address cannot be bound, or the daemon cannot start.");
    print_heading(out, form, "Signals");
    print_table_head(out, form, "signal", "does");
    print_row(out, form, "TERM, INT",
              "The end: after timeouts.lame-duck what has arrived is answered, for at most "
              "timeouts.drain. A second one ends it at once.");
    print_row(out, form, "HUP",
              "The configuration is read anew, all of it or nothing; see Options.");
    print_row(out, form, "others", "A line in the log, if they would end it by default.");
    print_heading(out, form, "Files");
    print_table_head(out, form, "file", "is");
    print_row(out, form, DEFAULT_CONFIG_FILE,
              "The configuration, in YAML, unless -c names another.");
}

/* --- metrics --- */

enum scope { SCOPE_WORKER, SCOPE_UPSTREAM, SCOPE_PROCESS };
enum type { TYPE_COUNTER, TYPE_GAUGE, TYPE_HISTOGRAM, TYPE_FAILURES };

static const char *const type_names[] = {"counter", "gauge", "histogram", "counter"};

static const struct metric_row {
    enum scope scope;
    enum type type;
    const char *name;
    const char *labels;
    const char *help;
} metric_rows[] = {
#define METRIC(type, field, name, labels, help) {SCOPE_WORKER, TYPE_##type, name, labels, help},
#define UPSTREAM_METRIC(type, field, name, labels, help) \
    {SCOPE_UPSTREAM, TYPE_##type, name, labels, help},
#define PROCESS_METRIC(type, field, name, labels, help) \
    {SCOPE_PROCESS, TYPE_##type, name, labels, help},
#include "observe/metrics.def"
};

enum { METRIC_COUNT = sizeof(metric_rows) / sizeof(*metric_rows) };

static void print_metrics(FILE *out)
{
    fputs("## Metrics\n\n| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n", out);
    for (size_t i = 0; i < METRIC_COUNT; i++) {
        const struct metric_row *row = &metric_rows[i];
        fprintf(out, "| `%s` | %s | %s%s", row->name, type_names[row->type],
                row->scope == SCOPE_UPSTREAM ? "upstream" : "",
                row->type == TYPE_FAILURES ? ", cause" : "");
        if (*row->labels)
            fprintf(out, "%s`%s`", row->scope == SCOPE_UPSTREAM ? ", " : "", row->labels);
        fprintf(out, " | %s |\n", row->help);
    }
    /* Without the version: the docs are not generated anew for each one. */
    fputs("| `dnsproxy_build_info` | gauge | version | Always 1 |\n"
          "\n| `cause` | Meaning |\n|---|---|\n",
          out);
    for (size_t cause = FAILURE_NONE + 1; cause < FAILURE_COUNT; cause++)
        fprintf(out, "| `%s` | %s |\n", failure_label((enum failure)cause),
                failure_text((enum failure)cause));
}

void print_reference(FILE *out)
{
    fputs("# Reference\n\nMade by the program itself (`generate-docs reference`); do not edit.\n",
          out);
    print_document(out, MARKDOWN);
    fputc('\n', out);
    print_metrics(out);
}

void print_manual(FILE *out)
{
    fputs(MANUAL_HEAD, out);
    print_document(out, ROFF);
}
