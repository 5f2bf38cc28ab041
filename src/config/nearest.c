// SPDX-License-Identifier: Apache-2.0
/* The option of a name, or what somebody who wrote an unknown one may have meant.
 *
 * Thread: main. Source: Wagner and Fischer, "The string-to-string correction problem" (1974). */
#include <assert.h>
#include <string.h>

#include "config/settings.h"

enum { COMPARED_LENGTH_MAX = 63 };

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Insertions, deletions and replacements that turn one into the other. */
static size_t edit_distance(const char *a, const char *b)
{
    const size_t a_length = strnlen(a, COMPARED_LENGTH_MAX);
    const size_t b_length = strnlen(b, COMPARED_LENGTH_MAX);
    size_t row[COMPARED_LENGTH_MAX + 1];
    for (size_t j = 0; j <= b_length; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            const size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = smaller(replaced, smaller(row[j], row[j - 1]) + 1);
        }
    }
    return row[b_length];
}

/* A key without its section, "ttl-max", is nearly right. */
static size_t name_distance(const char *name, const char *known)
{
    const char *dot = strchr(known, '.');
    const size_t whole = edit_distance(name, known);
    return dot ? smaller(whole, edit_distance(name, dot + 1) + 1) : whole;
}

const char *option_name(const struct option *option, size_t field)
{
    return *(const char *const *)((const char *)option + field);
}

const struct option *option_find(const char *name, size_t field)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const char *known = option_name(&OPTIONS[i], field);
        if (known && strcmp(known, name) == 0)
            return &OPTIONS[i];
    }
    return NULL;
}

const char *option_nearest(const char *name, size_t field)
{
    const char *nearest = NULL;
    size_t nearest_distance = SIZE_MAX;
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const char *known = option_name(&OPTIONS[i], field);
        const size_t distance = known ? name_distance(name, known) : SIZE_MAX;
        if (distance < nearest_distance) {
            nearest = known;
            nearest_distance = distance;
        }
    }
    assert(nearest);
    return nearest;
}
