// SPDX-License-Identifier: Apache-2.0
/* The configuration file: libyaml's events walked along the option table.
 *
 * Events and not the document API, because only events carry the line and the column of each value,
 * and because what YAML offers beyond mappings, lists and scalars (anchors, tags, several
 * documents) can be refused where it stands. A mapping in a mapping is a dotted key. After an error
 * in a value the walk goes on; only text that is no YAML ends it.
 *
 * Thread: main. All of libyaml is in this file. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yaml.h>

#include "config/settings.h"

struct document {
    struct settings *settings;
    const char *file;
    const char *text;
    size_t length;
    yaml_parser_t parser;
    yaml_event_t event; /* the one in hand */
    bool broken;        /* no more events: reported */
    bool key_seen[OPTIONS_MAX];
    bool section_seen[OPTIONS_MAX]; /* at the first option of the section */
};

/* Errors from here on are about `name` at the event in hand. */
static void set_origin(struct document *document, const char *name)
{
    document->settings->where = (struct origin){
        .name = name,
        .file = document->file,
        .line = document->event.start_mark.line + 1,
        .column = document->event.start_mark.column + 1,
    };
}

/* A reader error (bytes that are no UTF-8) has an offset only. */
static size_t line_of(const struct document *document, size_t offset)
{
    size_t line = 1;
    for (size_t i = 0; i < offset && i < document->length; i++)
        line += document->text[i] == '\n';
    return line;
}

static void report_broken(struct document *document)
{
    const yaml_parser_t *parser = &document->parser;
    struct origin where = {.file = document->file,
                           .line = parser->problem_mark.line + 1,
                           .column = parser->problem_mark.column + 1};
    if (parser->error == YAML_READER_ERROR) {
        where.line = line_of(document, parser->problem_offset);
        where.column = 1;
    }
    document->settings->where = where;
    settings_report(document->settings, "not YAML: %s",
                    parser->error == YAML_MEMORY_ERROR ? "out of memory" : parser->problem);
    document->broken = true;
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

/* Takes the next event in hand and returns its type; YAML_NO_EVENT for ever after an error. */
static yaml_event_type_t next(struct document *document)
{
    if (document->broken)
        return YAML_NO_EVENT;
    yaml_event_delete(&document->event);
    if (!yaml_parser_parse(&document->parser, &document->event)) {
        memset(&document->event, 0, sizeof document->event);
        report_broken(document);
        return YAML_NO_EVENT;
    }
    if (has_anchor_or_tag(&document->event)) {
        set_origin(document, NULL);
        settings_report(document->settings, "anchors, aliases and tags are not allowed");
    }
    return document->event.type;
}

/* The scalar in hand as a string, NULL and reported when a byte of it is NUL. */
static const char *scalar(struct document *document)
{
    const char *text = (const char *)document->event.data.scalar.value;
    if (strlen(text) == document->event.data.scalar.length)
        return text;
    settings_report(document->settings, "contains a NUL byte");
    return NULL;
}

/* Passes over the rest of the value in hand. */
static void skip_value(struct document *document)
{
    size_t depth = 0;
    for (yaml_event_type_t type = document->event.type; !document->broken; type = next(document)) {
        if (type == YAML_SEQUENCE_START_EVENT || type == YAML_MAPPING_START_EVENT)
            depth++;
        else if (type == YAML_SEQUENCE_END_EVENT || type == YAML_MAPPING_END_EVENT)
            depth--;
        if (depth == 0)
            return;
    }
}

static void refuse_value(struct document *document, const char *name, const char *problem)
{
    const bool is_reported = document->broken || document->event.type == YAML_ALIAS_EVENT;
    set_origin(document, name);
    if (!is_reported)
        settings_report(document->settings, "%s", problem);
    skip_value(document);
}

/* The scalar in hand as a key of `section`; NULL, reported and passed over when it is none. */
static const char *read_key_text(struct document *document, const char *section)
{
    set_origin(document, *section != '\0' ? section : NULL);
    const bool is_scalar = document->event.type == YAML_SCALAR_EVENT;
    const char *text = is_scalar ? scalar(document) : NULL;
    if (text)
        return text;
    if (!is_scalar)
        refuse_value(document, NULL, "a key is plain text");
    next(document);
    skip_value(document);
    return NULL;
}

/* The key in hand, about which errors are, and its value. */
static void refuse_key(struct document *document, const char *problem, const char *nearest)
{
    settings_report(document->settings, "%s%s", problem, nearest);
    next(document);
    skip_value(document);
}

/* --- upstreams as mappings --- */

static const struct upstream_field *find_field(const char *key)
{
    for (size_t i = 0; i < UPSTREAM_FIELD_COUNT; i++)
        if (strcmp(UPSTREAM_FIELDS[i].key, key) == 0)
            return &UPSTREAM_FIELDS[i];
    return NULL;
}

static void set_field(struct document *document, const struct upstream_field *field,
                      const char *name, struct upstream_entry *entry)
{
    set_origin(document, name);
    const char *text = scalar(document);
    if (text && field->set(document->settings, entry, text) != STATUS_OK)
        document->settings->failed = true;
}

static void read_field_list(struct document *document, const struct upstream_field *field,
                            const char *name, struct upstream_entry *entry)
{
    while (next(document) != YAML_SEQUENCE_END_EVENT && !document->broken) {
        if (document->event.type == YAML_SCALAR_EVENT)
            set_field(document, field, name, entry);
        else
            refuse_value(document, name, "takes plain values");
    }
}

static void read_field_value(struct document *document, const struct upstream_field *field,
                             const char *name, struct upstream_entry *entry)
{
    const yaml_event_type_t type = next(document);
    if (type == YAML_SCALAR_EVENT)
        set_field(document, field, name, entry);
    else if (type == YAML_SEQUENCE_START_EVENT && field->repeatable)
        read_field_list(document, field, name, entry);
    else
        refuse_value(document, name, "takes one plain value");
}

/* The key in hand and its value; `seen` has a bit for each field that was there before. */
static void read_field(struct document *document, const char *option_key, const char *key,
                       unsigned int *seen, struct upstream_entry *entry)
{
    char name[KEY_SIZE];
    snprintf(name, sizeof name, "%s.%s", option_key, key);
    set_origin(document, name);
    const struct upstream_field *field = find_field(key);
    if (!field) {
        refuse_key(document, "is not known; allowed: url, ca, pins, weight", "");
        return;
    }
    const unsigned int bit = 1U << (field - UPSTREAM_FIELDS);
    if (*seen & bit) {
        refuse_key(document, "is given twice", "");
        return;
    }
    *seen |= bit;
    read_field_value(document, field, name, entry);
}

static void read_fields(struct document *document, const char *option_key,
                        struct upstream_entry *entry, struct origin *url_origin)
{
    unsigned int seen = 0;
    while (next(document) != YAML_MAPPING_END_EVENT && !document->broken) {
        const char *key = read_key_text(document, option_key);
        if (!key)
            continue;
        const bool had_url = entry->url;
        read_field(document, option_key, key, &seen, entry);
        if (entry->url && !had_url)
            *url_origin = document->settings->where;
    }
}

/* The mapping in hand. */
static void read_upstream(struct document *document, const struct option *option)
{
    struct settings *settings = document->settings;
    struct upstream_entry entry = upstream_entry_new();
    set_origin(document, option->key);
    struct origin where = settings->where;
    const bool failed_before = settings->failed;
    settings->failed = false;
    read_fields(document, option->key, &entry, &where);

    where.name = option->key;
    settings->where = where;
    settings_begin_option(settings, option);
    if (!entry.url && !document->broken)
        settings_report(settings, "needs a url");
    /* With a pin that was refused, "has no pin" would be a second error for one mistake. */
    else if (!settings->failed && upstream_entry_add(settings, &entry) != STATUS_OK)
        settings->failed = true;
    settings->failed = settings->failed || failed_before;
    upstream_entry_free(&entry);
}

/* --- options --- */

static void apply_scalar(struct document *document, const struct option *option)
{
    set_origin(document, option->key);
    const char *text = scalar(document);
    if (text)
        settings_apply(document->settings, option, text);
}

static bool takes_mappings(const struct option *option)
{
    return option->set == add_upstream;
}

static void read_list(struct document *document, const struct option *option)
{
    bool is_empty = true;
    set_origin(document, option->key);
    const struct origin start = document->settings->where;
    while (next(document) != YAML_SEQUENCE_END_EVENT && !document->broken) {
        is_empty = false;
        if (document->event.type == YAML_SCALAR_EVENT)
            apply_scalar(document, option);
        else if (document->event.type == YAML_MAPPING_START_EVENT && takes_mappings(option))
            read_upstream(document, option);
        else
            refuse_value(document, option->key, "takes plain values");
    }
    document->settings->where = start;
    if (is_empty && !document->broken)
        settings_apply(document->settings, option, option->may_be_empty ? "none" : "");
}

static void read_option(struct document *document, const struct option *option)
{
    const yaml_event_type_t type = next(document);
    if (type == YAML_SCALAR_EVENT)
        apply_scalar(document, option);
    else if (type == YAML_SEQUENCE_START_EVENT && option->clear)
        read_list(document, option);
    else if (type == YAML_MAPPING_START_EVENT && takes_mappings(option))
        read_upstream(document, option);
    else
        refuse_value(document, option->key,
                     option->clear ? "takes a value or a list of values" : "takes one plain value");
}

/* --- sections --- */

static size_t find_key(const char *key)
{
    size_t i = 0;
    while (i < OPTION_COUNT && (!OPTIONS[i].key || strcmp(OPTIONS[i].key, key) != 0))
        i++;
    return i;
}

/* The first option whose key is `section`, a dot and more. */
static size_t find_section(const char *section)
{
    const size_t length = strlen(section);
    size_t i = 0;
    while (i < OPTION_COUNT && (!OPTIONS[i].key || strncmp(OPTIONS[i].key, section, length) != 0 ||
                                OPTIONS[i].key[length] != '.'))
        i++;
    return i;
}

static void read_section(struct document *document, const char *section);

static void read_subsection(struct document *document, const char *key, size_t first)
{
    char problem[KEY_SIZE];
    snprintf(problem, sizeof problem, "is a section of keys, such as %s", OPTIONS[first].key);
    if (next(document) == YAML_MAPPING_START_EVENT)
        read_section(document, key);
    else
        refuse_value(document, key, problem);
}

/* The full key in hand, and its value. Recurses only into known sections, so only as deep as the
 * table's keys have dots. */
static void read_key(struct document *document, const char *key)
{
    const size_t index = find_key(key);
    const size_t first = find_section(key);
    set_origin(document, key);
    if (index == OPTION_COUNT && first == OPTION_COUNT) {
        refuse_key(document, "is not a known key; the nearest is ",
                   settings_nearest(key, offsetof(struct option, key)));
        return;
    }
    bool *seen = index < OPTION_COUNT ? &document->key_seen[index] : &document->section_seen[first];
    if (*seen) {
        refuse_key(document, "is given twice", "");
        return;
    }
    *seen = true;
    if (index < OPTION_COUNT)
        read_option(document, &OPTIONS[index]);
    else
        read_subsection(document, key, first);
}

/* The mapping in hand; `section` is "" for the whole file. */
static void read_section(struct document *document, const char *section)
{
    while (next(document) != YAML_MAPPING_END_EVENT && !document->broken) {
        char key[KEY_SIZE];
        const char *text = read_key_text(document, section);
        if (!text)
            continue;
        snprintf(key, sizeof key, "%s%s%s", section, *section != '\0' ? "." : "", text);
        read_key(document, key);
    }
}

static void read_document(struct document *document)
{
    next(document); /* the start of the stream */
    if (next(document) != YAML_DOCUMENT_START_EVENT)
        return; /* broken, or nothing but comments */
    if (next(document) == YAML_MAPPING_START_EVENT)
        read_section(document, "");
    else if (!document->broken)
        refuse_value(document, NULL, "a configuration is a mapping of keys to values");
    next(document); /* the end of the document */
    if (next(document) == YAML_DOCUMENT_START_EVENT) {
        set_origin(document, NULL);
        settings_report(document->settings, "only one document is allowed in a file");
    }
}

void yaml_read(struct settings *settings, const char *file, const char *text, size_t length)
{
    struct document document = {.settings = settings, .file = file, .text = text, .length = length};
    settings->where = (struct origin){.file = file};
    if (!yaml_parser_initialize(&document.parser)) {
        settings_report(settings, "out of memory");
        return;
    }
    yaml_parser_set_input_string(&document.parser, (const unsigned char *)text, length);
    yaml_parser_set_encoding(&document.parser, YAML_UTF8_ENCODING);
    read_document(&document);
    yaml_event_delete(&document.event);
    yaml_parser_delete(&document.parser);
    settings->where = (struct origin){};
}

/* Reads at most `size` bytes; -1 with errno. A pipe may give them in parts. */
static ssize_t read_whole(int descriptor, char *text, size_t size)
{
    size_t length = 0;
    while (length < size) {
        const ssize_t count = read(descriptor, text + length, size - length);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return -1;
        if (count == 0)
            break;
        length += (size_t)count;
    }
    return (ssize_t)length;
}

static void read_descriptor(struct settings *settings, const char *file, int descriptor)
{
    enum { SIZE = CONFIG_FILE_SIZE_MAX + 1 };
    char *text = malloc(SIZE);
    const ssize_t length = text ? read_whole(descriptor, text, SIZE) : -1;
    if (length < 0)
        settings_report(settings, "cannot be read: %s", strerror(errno));
    else if (length == 0)
        settings_report(settings, "is empty");
    else if (length == SIZE)
        settings_report(settings, "is longer than 1 MiB");
    else
        yaml_read(settings, file, text, (size_t)length);
    free(text);
}

void yaml_read_file(struct settings *settings, const char *file)
{
    settings->where = (struct origin){.file = file};
    const int descriptor = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (descriptor < 0) {
        settings_report(settings, "cannot be read: %s", strerror(errno));
        return;
    }
    read_descriptor(settings, file, descriptor);
    close(descriptor);
}
