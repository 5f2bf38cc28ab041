// SPDX-License-Identifier: Apache-2.0
/* Durations counted in buckets of 1/128 of their power of two: under 1 % off, at any length. */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { STEP_BITS = 7, STEPS = 1 << STEP_BITS, OCTAVES = 40 };

struct histogram {
    uint64_t counts[OCTAVES * STEPS];
    uint64_t total;
    uint64_t max_ns;
    double sum_ns;
};

static inline void histogram_add(struct histogram *histogram, uint64_t ns)
{
    unsigned octave = 0;
    if (ns >= STEPS)
        octave = 63u - (unsigned)__builtin_clzll(ns) - STEP_BITS + 1;
    const uint64_t step = octave == 0 ? ns : (ns >> (octave - 1)) - STEPS;
    const uint64_t index = (uint64_t)octave * STEPS + step;
    histogram->counts[index < OCTAVES * STEPS ? index : OCTAVES * STEPS - 1]++;
    histogram->total++;
    histogram->sum_ns += (double)ns;
    if (ns > histogram->max_ns)
        histogram->max_ns = ns;
}

/* The middle of a bucket, in microseconds. */
static inline double histogram_middle_us(unsigned index)
{
    const unsigned octave = index / STEPS, step = index % STEPS;
    if (octave == 0)
        return step / 1e3;
    const uint64_t width = UINT64_C(1) << (octave - 1);
    return ((double)((STEPS + step) * width) + (double)width / 2) / 1e3;
}

static inline double histogram_quantile_us(const struct histogram *histogram, double quantile)
{
    uint64_t seen = 0;
    for (unsigned i = 0; i < OCTAVES * STEPS; i++) {
        seen += histogram->counts[i];
        if (seen > 0 && (double)seen >= quantile * (double)histogram->total)
            return histogram_middle_us(i);
    }
    return 0;
}

static inline void histogram_print(const struct histogram *histogram, FILE *file)
{
    const double mean = histogram->total ? histogram->sum_ns / (double)histogram->total / 1e3 : 0;
    fprintf(file,
            "\"mean\": %.2f, \"p50\": %.2f, \"p90\": %.2f, \"p99\": %.2f, \"p999\": %.2f, \"max\": "
            "%.2f",
            mean, histogram_quantile_us(histogram, 0.5), histogram_quantile_us(histogram, 0.9),
            histogram_quantile_us(histogram, 0.99), histogram_quantile_us(histogram, 0.999),
            (double)histogram->max_ns / 1e3);
}

/* Lines of "microseconds count", for those who add several up. */
static inline bool histogram_write(const struct histogram *histogram, const char *path)
{
    FILE *file = fopen(path, "w");
    if (!file)
        return false;
    for (unsigned i = 0; i < OCTAVES * STEPS; i++)
        if (histogram->counts[i] > 0)
            fprintf(file, "%.3f %lu\n", histogram_middle_us(i), histogram->counts[i]);
    return fclose(file) == 0;
}

#endif
