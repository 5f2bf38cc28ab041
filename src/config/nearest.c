// SPDX-License-Identifier: Apache-2.0
/* The option of a name, or what somebody who wrote an unknown one may have meant.
 *
 * A key is looked for among those of its own section. Nothing is better than a guess: a name is
 * near when not even every third of its letters is wrong.
 *
 * Thread: main. Source: Wagner and Fischer, "The string-to-string correction problem" (1974), with
 * neighbours that changed places as one mistake (Damerau 1964). */
#include <assert.h>
#include <ctype.h>
#include <string.h>

#include "config/settings.h"

enum { COMPARED_LENGTH_MAX = 63 };

/* The nearest so far. */
struct search {
    const char *name; /* what was written, without what all names of its kind start with */
    size_t length;
    size_t distance;
    const char *found; /* NULL: none */
    size_t found_length;
};

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* "CACHE_SIZE", "cache-size" and "cache.size" are one name. */
static int fold(char letter)
{
    return letter == '_' || letter == '.' ? '-' : tolower((unsigned char)letter);
}

static bool differ(char a, char b)
{
    return fold(a) != fold(b);
}

/* Letters inserted, left out, replaced or exchanged with the next that turn one into the other. */
static size_t edit_distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    assert(a && b);
    size_t rows[COMPARED_LENGTH_MAX + 1][COMPARED_LENGTH_MAX + 1];
    a_length = smaller(a_length, COMPARED_LENGTH_MAX);
    b_length = smaller(b_length, COMPARED_LENGTH_MAX);
    for (size_t j = 0; j <= b_length; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        rows[i][0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            const size_t replaced = rows[i - 1][j - 1] + differ(a[i - 1], b[j - 1]);
            rows[i][j] = smaller(replaced, smaller(rows[i - 1][j], rows[i][j - 1]) + 1);
            if (i > 1 && j > 1 && !differ(a[i - 1], b[j - 2]) && !differ(a[i - 2], b[j - 1]))
                rows[i][j] = smaller(rows[i][j], rows[i - 2][j - 2] + 1);
        }
    }
    return rows[a_length][b_length];
}

/* Takes the first `found_length` letters of `found` when `known` is nearer than all before. */
static void consider(struct search *search, const char *known, size_t known_length,
                     const char *found, size_t found_length)
{
    assert(known && found_length <= strlen(found));
    const size_t distance = edit_distance(search->name, search->length, known, known_length);
    if (distance >= search->distance)
        return;
    search->distance = distance;
    search->found = found;
    search->found_length = found_length;
}

const char *option_name(const struct option *option, size_t field)
{
    assert(option && field % sizeof(char *) == 0 && field < offsetof(struct option, set));
    return *(const char *const *)((const char *)option + field);
}

const struct option *option_find(const char *name, size_t field)
{
    assert(name);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const char *known = option_name(&OPTIONS[i], field);
        if (known && strcmp(known, name) == 0)
            return &OPTIONS[i];
    }
    return NULL;
}

static struct search begin_search(const char *name)
{
    const size_t length = strcspn(name, "="); /* a flag may have its value behind it */
    return (struct search){.name = name, .length = length, .distance = (length + 1) / 3 + 1};
}

/* Among the keys and sections in the section that `key` names; false when there is no such. */
static bool search_section(struct search *search, const char *key)
{
    assert(key <= search->name);
    const size_t section_length = (size_t)(search->name - key);
    bool is_section = false;
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const char *known = OPTIONS[i].key;
        if (!known || strncmp(known, key, section_length) != 0)
            continue;
        const size_t length = strcspn(known + section_length, ".");
        consider(search, known + section_length, length, known, section_length + length);
        is_section = true;
    }
    return is_section;
}

/* A key without its section, "ttl-max", one of a section that is wrong, and "cache-size". */
static void search_all_keys(struct search *search, const char *key)
{
    *search = begin_search(key);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const char *known = OPTIONS[i].key;
        if (!known)
            continue;
        const char *dot = strrchr(known, '.');
        consider(search, known, strlen(known), known, strlen(known));
        if (dot && strcmp(dot + 1, key) == 0)
            consider(search, dot + 1, strlen(dot + 1), known, strlen(known));
    }
}

static struct search search_key(const char *key)
{
    const char *dot = strrchr(key, '.');
    struct search search = begin_search(dot ? dot + 1 : key);
    const bool is_section = search_section(&search, key);
    if (!search.found && (!dot || !is_section))
        search_all_keys(&search, key);
    return search;
}

/* Flags and variables; some know an option by its key alone. */
static struct search search_name(const char *name, size_t field, size_t start_length)
{
    struct search search = begin_search(name + start_length);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const char *known = option_name(&OPTIONS[i], field);
        const char *key = OPTIONS[i].key;
        if (!known)
            continue;
        consider(&search, known + start_length, strlen(known + start_length), known, strlen(known));
        if (key)
            consider(&search, key, strlen(key), known, strlen(known));
    }
    return search;
}

static struct search search_field(const char *name, size_t field)
{
    if (field == OPTION_KEY)
        return search_key(name);
    const char *start = field == OPTION_FLAG ? "--" : ENVIRONMENT_PREFIX;
    if (strncmp(name, start, strlen(start)) != 0)
        return (struct search){};
    return search_name(name, field, strlen(start));
}

void settings_report_unknown(struct settings *settings, const char *name, size_t field,
                             const char *problem)
{
    assert(name && problem);
    const struct search search = search_field(name, field);
    if (search.found)
        settings_report(settings, "%s; the nearest is %.*s", problem, (int)search.found_length,
                        search.found);
    else
        settings_report(settings, "%s", problem);
}
