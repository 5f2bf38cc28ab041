// SPDX-License-Identifier: Apache-2.0
/* The names that the load generator asks for: all of the same length,
 * "n0123456789.TAGTAGTA.bench.test".
 *
 * A kind is hot:COUNT or hot:COUNT:TAG (in turn), unique:TAG (never the same twice; the tag keeps
 * two runs apart) or zipf:COUNT:EXPONENT (the k-th name with a frequency of k^-EXPONENT; the same
 * seed gives the same sequence). Behind a tag may be what the upstream does when it is asked for
 * such a name, hot:COUNT:TAG:DEED or unique:TAG:DEED. The name begins with the deed's letter:
 *   close  it ends the connection without an answer
 *   runt   the answer is of 1 to 11 octets
 *   late   the answer comes late
 *   fail   SERVFAIL comes late
 *   huge   an answer of 64 KB comes late
 *   mute   no answer comes */
#ifndef BENCH_NAMES_H
#define BENCH_NAMES_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum deed {
    DEED_NONE = 'n',
    DEED_CLOSE = 'c',
    DEED_RUNT = 'r',
    DEED_LATE = 'l',
    DEED_FAIL = 'f',
    DEED_HUGE = 'h',
    DEED_MUTE = 'm',
};

enum { NAME_DIGITS = 10, NAME_TAG = 8, NAME_LENGTH = 1 + 1 + NAME_DIGITS + 1 + NAME_TAG + 12 };

struct names {
    uint64_t next;
    uint64_t count; /* 0: all are new */
    uint64_t random;
    double *cumulative; /* Zipf: the probability of all names up to this one */
    uint8_t template[NAME_LENGTH];
};

/* The letter of a deed; 0 when there is none of that name. */
static inline uint8_t names_deed(const char *word)
{
    static const char *const deeds[] = {"none", "close", "runt", "late", "fail", "huge", "mute"};
    for (size_t i = 0; i < sizeof deeds / sizeof *deeds; i++)
        if (strcmp(word, deeds[i]) == 0)
            return (uint8_t)*word;
    return 0;
}

static inline bool names_open(struct names *names, const char *kind, uint64_t seed)
{
    char tag[NAME_TAG + 1] = "", deed[8] = "none";
    double exponent = 0;
    int length = 0;
    *names = (struct names){.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1};
    if (sscanf(kind, "zipf:%lu:%lf", &names->count, &exponent) == 2 && names->count > 0) {
        double sum = 0;
        names->cumulative = malloc(names->count * sizeof(double));
        for (uint64_t i = 0; i < names->count; i++)
            names->cumulative[i] = sum += pow((double)(i + 1), -exponent);
        for (uint64_t i = 0; i < names->count; i++)
            names->cumulative[i] /= sum;
        strcpy(tag, "zipf");
    } else if (sscanf(kind, "hot:%lu:%8[0-9a-z]:%7s", &names->count, tag, deed) >= 1 &&
               names->count > 0) {
        if (tag[0] == 0)
            strcpy(tag, "hot");
    } else if (sscanf(kind, "unique:%8[0-9a-z]%n:%7s%n", tag, &length, deed, &length) < 1 ||
               kind[length] != 0) {
        return false; /* a tag cut short could be another run's */
    }
    memcpy(names->template, "\x0bn0000000000\x08", 13);
    names->template[1] = names_deed(deed);
    memset(names->template + 13, '-', NAME_TAG);
    memcpy(names->template + 13, tag, strlen(tag));
    memcpy(names->template + 13 + NAME_TAG, "\5bench\4test", 12);
    return names->template[1] != 0;
}

/* xorshift64*, in [0, 1). */
static inline double names_random(struct names *names)
{
    names->random ^= names->random >> 12;
    names->random ^= names->random << 25;
    names->random ^= names->random >> 27;
    return (double)(names->random * UINT64_C(2685821657736338717) >> 11) * 0x1p-53;
}

/* The number of the name to ask for next. */
static inline uint64_t names_next(struct names *names)
{
    if (!names->cumulative) {
        const uint64_t name = names->next++;
        return names->count ? name % names->count : name;
    }
    const double sought = names_random(names);
    uint64_t low = 0, high = names->count - 1;
    while (low < high) {
        const uint64_t middle = (low + high) / 2;
        if (names->cumulative[middle] > sought)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* The name in wire form, NAME_LENGTH octets. */
static inline void names_write(const struct names *names, uint64_t name, uint8_t *out)
{
    memcpy(out, names->template, NAME_LENGTH);
    for (size_t i = 1 + NAME_DIGITS; name > 0; i--, name /= 10)
        out[i] = (uint8_t)('0' + name % 10);
}

#endif
