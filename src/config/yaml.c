// SPDX-License-Identifier: Apache-2.0
/* The configuration file: libyaml's tree walked along the option table.
 *
 * What YAML offers beyond mappings, lists and scalars (anchors, tags, several documents) is looked
 * for among the events first, because the tree no longer shows it, and refused where it stands. A
 * mapping in a mapping is a dotted key. After an error in a value the walk goes on.
 *
 * Thread: main. All of libyaml is in this file. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml.h>

#include "config/settings.h"

struct file {
    struct settings *settings;
    const char *name;
    const char *text;
    size_t length;
    yaml_document_t tree;
    bool section_seen[OPTIONS_MAX]; /* at the first option of the section */
};

/* Errors from here on are about `name` at `mark`. */
static void set_origin(struct file *file, const char *name, yaml_mark_t mark)
{
    file->settings->where = (struct origin){
        .name = name, .file = file->name, .line = mark.line + 1, .column = mark.column + 1};
}

/* --- what is YAML, and what is too much of it --- */

/* A reader error (bytes that are no UTF-8) has an offset only. */
static yaml_mark_t mark_of_offset(const struct file *file, size_t offset)
{
    assert(offset <= file->length);
    yaml_mark_t mark = {};
    for (size_t i = 0; i < offset && i < file->length; i++)
        mark.line += file->text[i] == '\n';
    return mark;
}

static bool is_tab(const struct file *file, yaml_mark_t mark)
{
    const char *line = file->text;
    const char *end = file->text + file->length;
    for (size_t i = 0; i < mark.line && line; i++) {
        line = memchr(line, '\n', (size_t)(end - line));
        line = line ? line + 1 : NULL;
    }
    return line && mark.column < (size_t)(end - line) && line[mark.column] == '\t';
}

static const char *problem_of(const struct file *file, const yaml_parser_t *parser)
{
    if (parser->error == YAML_MEMORY_ERROR)
        return "out of memory";
    if (parser->error == YAML_SCANNER_ERROR && is_tab(file, parser->problem_mark))
        return "a tab stands where YAML takes spaces alone, as for indentation";
    return parser->problem;
}

static void report_broken(struct file *file, const yaml_parser_t *parser)
{
    const bool is_reader = parser->error == YAML_READER_ERROR;
    set_origin(file, NULL,
               is_reader ? mark_of_offset(file, parser->problem_offset) : parser->problem_mark);
    settings_report(file->settings, "not YAML: %s", problem_of(file, parser));
}

static bool has_anchor_or_tag(const yaml_event_t *event)
{
    if (event->type == YAML_SCALAR_EVENT)
        return event->data.scalar.anchor || event->data.scalar.tag;
    if (event->type == YAML_SEQUENCE_START_EVENT)
        return event->data.sequence_start.anchor || event->data.sequence_start.tag;
    if (event->type == YAML_MAPPING_START_EVENT)
        return event->data.mapping_start.anchor || event->data.mapping_start.tag;
    return event->type == YAML_ALIAS_EVENT;
}

/* Returns the type of the next event, YAML_NO_EVENT after an error and at the end. */
static yaml_event_type_t check_event(struct file *file, yaml_parser_t *parser, size_t *documents)
{
    yaml_event_t event;
    if (!yaml_parser_parse(parser, &event)) {
        report_broken(file, parser);
        return YAML_NO_EVENT;
    }
    set_origin(file, NULL, event.start_mark);
    if (has_anchor_or_tag(&event))
        settings_report(file->settings, "anchors, aliases and tags are not allowed");
    if (event.type == YAML_DOCUMENT_START_EVENT && ++*documents == 2)
        settings_report(file->settings, "only one document is allowed in a file");
    const yaml_event_type_t type = event.type;
    yaml_event_delete(&event);
    return type;
}

static bool open_parser(const struct file *file, yaml_parser_t *parser)
{
    assert(file->text || file->length == 0);
    if (!yaml_parser_initialize(parser)) {
        settings_report(file->settings, "out of memory");
        return false;
    }
    yaml_parser_set_input_string(parser, (const unsigned char *)file->text, file->length);
    return true;
}

/* True when the text is one document of plain data. */
static bool check_events(struct file *file)
{
    const bool failed_before = file->settings->failed;
    yaml_parser_t parser;
    if (!open_parser(file, &parser))
        return false;
    file->settings->failed = false;
    yaml_event_type_t type;
    size_t documents = 0;
    do
        type = check_event(file, &parser, &documents);
    while (type != YAML_NO_EVENT && type != YAML_STREAM_END_EVENT);
    yaml_parser_delete(&parser);
    const bool is_plain = !file->settings->failed;
    file->settings->failed = failed_before || !is_plain;
    return is_plain;
}

/* --- nodes --- */

static const yaml_node_t *node_at(struct file *file, int index)
{
    return yaml_document_get_node(&file->tree, index);
}

/* Nothing at all, or YAML's words for it: whatever it was to hold has its defaults. */
static bool is_null(const yaml_node_t *node)
{
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    const char *text = (const char *)node->data.scalar.value;
    return *text == '\0' || strcmp(text, "~") == 0 || strcasecmp(text, "null") == 0;
}

/* The text of a scalar, about which errors are from here on; NULL and reported when it is none. */
static const char *scalar(struct file *file, const yaml_node_t *node, const char *name,
                          const char *problem)
{
    set_origin(file, name, node->start_mark);
    if (node->type != YAML_SCALAR_NODE) {
        settings_report(file->settings, "%s", problem);
        return NULL;
    }
    const char *text = (const char *)node->data.scalar.value;
    if (strlen(text) == node->data.scalar.length)
        return text;
    settings_report(file->settings, "contains a NUL byte");
    return NULL;
}

static const char *key_text(struct file *file, const yaml_node_t *key)
{
    return scalar(file, key, NULL, "a key is plain text");
}

/* --- upstreams as mappings --- */

static const struct upstream_field *find_field(const char *key)
{
    for (size_t i = 0; i < UPSTREAM_FIELD_COUNT; i++)
        if (strcmp(UPSTREAM_FIELDS[i].key, key) == 0)
            return &UPSTREAM_FIELDS[i];
    return NULL;
}

static void set_field(struct file *file, const struct upstream_field *field, const char *name,
                      const yaml_node_t *node, const char *problem, struct upstream_entry *entry)
{
    const char *text = scalar(file, node, name, problem);
    if (text && field->set(file->settings, entry, text) != STATUS_OK)
        file->settings->failed = true;
}

/* `seen` has a bit for each field that was there before. */
static void read_field(struct file *file, const char *option_key, const yaml_node_pair_t *pair,
                       unsigned int *seen, struct upstream_entry *entry)
{
    const yaml_node_t *key = node_at(file, pair->key);
    const yaml_node_t *value = node_at(file, pair->value);
    const char *text = key_text(file, key);
    if (!text)
        return;
    char name[KEY_SIZE];
    snprintf(name, sizeof name, "%s.%s", option_key, text);
    set_origin(file, name, key->start_mark);
    const struct upstream_field *field = find_field(text);
    if (!field) {
        settings_report(file->settings, "is not known; allowed: url, ca, pins, weight");
        return;
    }
    const unsigned int bit = 1U << (field - UPSTREAM_FIELDS);
    assert((size_t)(field - UPSTREAM_FIELDS) < UPSTREAM_FIELD_COUNT);
    if (*seen & bit) {
        settings_report(file->settings, "is given twice");
        return;
    }
    *seen |= bit;
    if (value->type != YAML_SEQUENCE_NODE || !field->repeatable) {
        set_field(file, field, name, value, "takes one plain value", entry);
        return;
    }
    const yaml_node_item_t *end = value->data.sequence.items.top;
    for (const yaml_node_item_t *item = value->data.sequence.items.start; item < end; item++)
        set_field(file, field, name, node_at(file, *item), "takes plain values", entry);
}

static void read_upstream(struct file *file, const struct option *option, const yaml_node_t *node)
{
    assert(node->type == YAML_MAPPING_NODE && option->most > 0);
    struct settings *settings = file->settings;
    struct upstream_entry entry = {.weight = 1};
    unsigned int seen = 0;
    const bool failed_before = settings->failed;
    settings->failed = false;
    const yaml_node_pair_t *end = node->data.mapping.pairs.top;
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < end; pair++)
        read_field(file, option->key, pair, &seen, &entry);

    set_origin(file, option->key, node->start_mark);
    if (!entry.url) {
        settings_report(settings, "needs a url");
    } else if (!settings->failed) { /* "has no pin" would be a second error for a pin refused */
        settings->where = entry.where;
        settings->where.name = option->key;
        settings->failed = upstream_entry_add(settings, &entry) != STATUS_OK;
    }
    settings->failed = settings->failed || failed_before;
}

/* --- options --- */

static void apply_value(struct file *file, const struct option *option, const yaml_node_t *node,
                        const char *problem)
{
    if (node->type == YAML_MAPPING_NODE && option->set == add_upstream) {
        read_upstream(file, option, node);
        return;
    }
    const char *text = scalar(file, node, option->key, problem);
    if (text)
        settings_apply(file->settings, option, text);
}

static void read_option(struct file *file, const struct option *option, const yaml_node_t *node)
{
    settings_begin_option(file->settings, option);
    if (node->type != YAML_SEQUENCE_NODE || option->most == 0) {
        apply_value(file, option, node,
                    option->most ? "takes a value or a list of values" : "takes one plain value");
        return;
    }
    const yaml_node_item_t *start = node->data.sequence.items.start;
    const yaml_node_item_t *end = node->data.sequence.items.top;
    set_origin(file, option->key, node->start_mark);
    if (start == end)
        settings_apply(file->settings, option, option->may_be_empty ? "none" : "");
    for (const yaml_node_item_t *item = start; item < end; item++)
        apply_value(file, option, node_at(file, *item), "takes plain values");
}

/* --- sections --- */

/* The first option whose key is `section`, a dot and more; NULL when it is no section. */
static const struct option *find_section(const char *section)
{
    const size_t length = strlen(section);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const char *key = OPTIONS[i].key;
        if (key && strncmp(key, section, length) == 0 && key[length] == '.')
            return &OPTIONS[i];
    }
    return NULL;
}

static void read_section(struct file *file, const char *section, const yaml_node_t *node);

static void read_subsection(struct file *file, const struct option *first, const char *section,
                            const yaml_node_t *node)
{
    if (node->type == YAML_MAPPING_NODE) {
        read_section(file, section, node);
        return;
    }
    if (is_null(node))
        return;
    set_origin(file, section, node->start_mark);
    settings_report(file->settings, "is a section of keys, such as %s", first->key);
}

/* Recurses only into known sections, so only as deep as the table's keys have dots. */
static void read_pair(struct file *file, const char *section, const yaml_node_pair_t *pair)
{
    const yaml_node_t *key = node_at(file, pair->key);
    const yaml_node_t *value = node_at(file, pair->value);
    const char *text = key_text(file, key);
    if (!text)
        return;
    char name[KEY_SIZE];
    snprintf(name, sizeof name, "%s%s%s", section, *section != '\0' ? "." : "", text);
    set_origin(file, name, key->start_mark);
    const struct option *option = option_find(name, OPTION_KEY);
    const struct option *first = option ? NULL : find_section(name);
    if (!option && !first) {
        settings_report_unknown(file->settings, name, OPTION_KEY, "is not a known key");
        return;
    }
    bool *seen =
        option ? &file->settings->seen[option - OPTIONS] : &file->section_seen[first - OPTIONS];
    if (*seen) {
        settings_report(file->settings, "is given twice");
    } else if (option) {
        read_option(file, option, value);
    } else {
        *seen = true;
        read_subsection(file, first, name, value);
    }
}

/* `section` is "" for the whole file. */
static void read_section(struct file *file, const char *section, const yaml_node_t *node)
{
    assert(node->type == YAML_MAPPING_NODE);
    const yaml_node_pair_t *end = node->data.mapping.pairs.top;
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < end; pair++)
        read_pair(file, section, pair);
}

/* --- the file --- */

static void read_tree(struct file *file)
{
    yaml_parser_t parser;
    if (!open_parser(file, &parser))
        return;
    if (yaml_parser_load(&parser, &file->tree)) {
        const yaml_node_t *root = yaml_document_get_root_node(&file->tree);
        if (root && root->type == YAML_MAPPING_NODE) {
            read_section(file, "", root);
        } else if (root && !is_null(root)) { /* a file may be nothing but comments */
            set_origin(file, NULL, root->start_mark);
            settings_report(file->settings, "a configuration is a mapping of keys to values");
        }
        yaml_document_delete(&file->tree);
    } else {
        report_broken(file, &parser);
    }
    yaml_parser_delete(&parser);
}

void yaml_read(struct settings *settings, const char *name, const char *text, size_t length)
{
    assert(name && (text || length == 0));
    struct file file = {.settings = settings, .name = name, .text = text, .length = length};
    settings->where = (struct origin){.file = name};
    if (check_events(&file))
        read_tree(&file);
}

/* Who starts the daemon may write the file into a pipe, and waits until it is read. But one that
 * runs waits for nobody, as far as that is in its hands: a file may be on a server that is away. */
static FILE *open_file(struct settings *settings, const char *name)
{
    const int descriptor =
        open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY | (settings->is_reload ? O_NONBLOCK : 0));
    struct stat info;
    if (descriptor >= 0 && settings->is_reload && fstat(descriptor, &info) == 0 &&
        !S_ISREG(info.st_mode)) {
        close(descriptor);
        settings_report(settings, "is not a file, and so is read at the start only");
        return NULL;
    }
    FILE *stream = descriptor >= 0 ? fdopen(descriptor, "r") : NULL;
    if (!stream)
        settings_report(settings, "cannot be read: %s", strerror(errno));
    if (!stream && descriptor >= 0)
        close(descriptor);
    return stream;
}

void yaml_read_file(struct settings *settings, const char *name)
{
    assert(name);
    enum { SIZE = CONFIG_FILE_SIZE_MAX + 1 };
    settings->where = (struct origin){.file = name};
    FILE *stream = open_file(settings, name);
    if (!stream)
        return;
    char *text = malloc(SIZE);
    const size_t length = text ? fread(text, 1, SIZE, stream) : 0;
    if (!text || ferror(stream))
        settings_report(settings, "cannot be read: %s", strerror(errno));
    else if (length == SIZE)
        settings_report(settings, "is longer than 1 MiB");
    else
        yaml_read(settings, name, text, length);
    free(text);
    fclose(stream);
}
