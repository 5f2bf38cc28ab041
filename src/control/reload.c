// SPDX-License-Identifier: Apache-2.0
/* One reload after the other; see reload.h.   Thread: main.   Owner: main. */
#include "control/reload.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/deadline.h"
#include "base/numbers.h"
#include "config/options.h"
#include "control/trusts.h"
#include "observe/log.h"

/* From one to the next: however often it is asked for, main has time for all else. */
#define REST_NS NANOSECONDS_PER_SECOND

enum { PROBLEMS_LOGGED = 8, KEYS_SIZE = 512 };

void reload_init(struct reload *reload, int argc, char *const argv[], const struct config *start,
                 struct trusts *trusts, const struct reload_events *events)
{
    assert(start && events->hand_out && events->is_taken && events->ceiling);
    *reload = (struct reload){
        .events = events,
        .argc = argc,
        .argv = argv,
        .start = start,
        .trusts = trusts,
        .generation = 1,
        .ended_s = (uint64_t)time(NULL),
    };
}

void reload_ask(struct reload *reload)
{
    reload->is_asked = true;
}

static void log_problems(char *text)
{
    size_t count = 0;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        if (count++ < PROBLEMS_LOGGED)
            log_event(LOG_LEVEL_ERROR, "not_reloaded", "cause", line, NULL);
    if (count > PROBLEMS_LOGGED)
        log_event(LOG_LEVEL_ERROR, "not_reloaded", "cause",
                  "there are more errors; `dnsproxy check` prints them", NULL);
}

/* Everything that a start would refuse is an error here, too. */
static enum status read_all(struct reload *reload, FILE *errors)
{
    struct config *config = NULL;
    TRY(options_reload(reload->argc, reload->argv, reload->start, errors, &config));
    const enum status status =
        trusts_open(&config->snapshot, reload->trusts, errors, &reload->next_trusts);
    if (status != STATUS_OK) {
        config_free(config);
        return status;
    }
    upstreams_place(&config->snapshot, reload_snapshot(reload));
    reload->next = config;
    return STATUS_OK;
}

/* False and logged when the configuration has an error. */
static bool read_anew(struct reload *reload)
{
    char *problems = NULL;
    size_t length = 0;
    FILE *errors = open_memstream(&problems, &length);
    const bool is_read = errors && read_all(reload, errors) == STATUS_OK;
    const bool is_told = errors && fclose(errors) == 0 && length > 0;
    if (!is_read && is_told)
        log_problems(problems);
    else if (!is_read)
        log_event(LOG_LEVEL_ERROR, "not_reloaded", "cause", "memory is short", NULL);
    free(problems);
    return is_read;
}

/* Those of `some` that `others` are without. */
static void log_difference(const char *event, const struct snapshot *some,
                           const struct snapshot *others)
{
    for (size_t i = 0; i < some->upstream_count; i++)
        if (!(upstreams_slots(others) & upstream_bit(some->upstreams[i].slot)))
            log_event(LOG_LEVEL_INFO, event, "upstream", some->upstreams[i].label, NULL);
}

static void note_left(struct reload *reload)
{
    char keys[KEYS_SIZE];
    reload->left = options_find_left(reload->start, reload->next, keys, sizeof(keys));
    if (reload->left > 0)
        log_event(LOG_LEVEL_WARNING, "restart_needed", "keys", keys, "cause",
                  "a restart would change these, a reload leaves them as they were", NULL);
}

/* Each counts as many upstreams that leave as it has. */
static void log_ceiling(const struct reload *reload, const struct snapshot *next,
                        const struct snapshot *former)
{
    char ceiling[24];
    snprintf(ceiling, sizeof(ceiling), "%" PRIu64,
             most_of(reload->events->ceiling(next), reload->events->ceiling(former)));
    log_event(LOG_LEVEL_INFO, "reloading", "memory_ceiling_bytes", ceiling, NULL);
}

static void begin(struct reload *reload)
{
    assert(!reload->next && !reload->next_trusts);
    reload->has_failed = !read_anew(reload);
    if (reload->has_failed)
        return;
    const struct snapshot *next = &reload->next->snapshot;
    const struct snapshot *former = reload_snapshot(reload);
    reload->events->hand_out(next, former);
    /* At the level that holds now. */
    log_ceiling(reload, next, former);
    note_left(reload);
    log_difference("upstream_removed", former, next);
    log_difference("upstream_added", next, former);
}

static void end(struct reload *reload)
{
    char generation[24];
    char ceiling[24];
    config_free(reload->current);
    trusts_close(reload->trusts);
    reload->current = reload->next;
    reload->trusts = reload->next_trusts;
    reload->next = NULL;
    reload->next_trusts = NULL;
    reload->ended_s = (uint64_t)time(NULL);
    snprintf(generation, sizeof(generation), "%" PRIu64, ++reload->generation);
    snprintf(ceiling, sizeof(ceiling), "%" PRIu64,
             reload->events->ceiling(reload_snapshot(reload)));
    log_event(LOG_LEVEL_INFO, "reloaded", "generation", generation, "memory_ceiling_bytes", ceiling,
              NULL);
}

uint64_t reload_run(struct reload *reload, uint64_t now)
{
    if (reload->next && reload->events->is_taken())
        end(reload);
    if (reload->next || !reload->is_asked)
        return DEADLINE_NEVER;
    if (now < reload->next_ns)
        return reload->next_ns - now;
    reload->is_asked = false;
    reload->next_ns = now + REST_NS;
    begin(reload);
    return DEADLINE_NEVER;
}

const struct snapshot *reload_snapshot(const struct reload *reload)
{
    return reload->current ? &reload->current->snapshot : &reload->start->snapshot;
}

void reload_close(struct reload *reload)
{
    config_free(reload->next);
    config_free(reload->current);
    trusts_close(reload->next_trusts);
    trusts_close(reload->trusts);
    *reload = (struct reload){};
}
