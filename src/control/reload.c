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
#include "config/options.h"
#include "control/trusts.h"
#include "observe/log.h"

/* From one to the next: however often it is asked for, main has time for all else. */
#define REST_NS NANOSECONDS_PER_SECOND

enum { PROBLEMS_LOGGED = 8, KEYS_SIZE = 512 };

void reload_init(struct reload *reload, int argc, char *const argv[], const struct config *start,
                 const struct reload_events *events)
{
    assert(start && events->hand_out && events->is_taken);
    *reload = (struct reload){
        .events = events,
        .argc = argc,
        .argv = argv,
        .start = start,
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
static enum status read_all(const struct reload *reload, FILE *errors, struct config **out)
{
    struct trusts *trusts = NULL;
    TRY(options_reload(reload->argc, reload->argv, reload->start, errors, out));
    const enum status status = trusts_open(*out, errors, &trusts);
    trusts_close(trusts);
    if (status == STATUS_OK)
        return STATUS_OK;
    config_free(*out);
    *out = NULL;
    return status;
}

/* NULL and logged when the configuration has an error. */
static struct config *read_anew(const struct reload *reload)
{
    char *problems = NULL;
    size_t length = 0;
    struct config *config = NULL;
    FILE *errors = open_memstream(&problems, &length);
    if (errors)
        (void)read_all(reload, errors, &config);
    const bool is_told = errors && fclose(errors) == 0 && length > 0;
    if (!config && is_told)
        log_problems(problems);
    else if (!config)
        log_event(LOG_LEVEL_ERROR, "not_reloaded", "cause", "memory is short", NULL);
    free(problems);
    return config;
}

/* Returns whether the strategy that is in force stays for the sake of the upstreams. */
static bool keep_strategy(struct reload *reload)
{
    const enum strategy in_force = reload_snapshot(reload)->strategy;
    struct snapshot *next = &reload->next->snapshot;
    if (next->strategy == in_force || !upstreams_differ(reload->start, reload->next))
        return false;
    next->strategy = in_force;
    return true;
}

static void note_left(struct reload *reload, bool keeps_strategy)
{
    char keys[KEYS_SIZE];
    reload->left = options_find_left(reload->start, reload->next, keys, sizeof(keys));
    if (keeps_strategy) {
        const size_t length = strlen(keys);
        snprintf(keys + length, sizeof(keys) - length, " strategy");
        reload->left++;
    }
    if (reload->left > 0)
        log_event(LOG_LEVEL_WARNING, "restart_needed", "keys", keys, "cause",
                  "a restart would change these, a reload leaves them as they were", NULL);
}

static void begin(struct reload *reload)
{
    assert(!reload->next);
    reload->next = read_anew(reload);
    reload->has_failed = !reload->next;
    if (reload->has_failed)
        return;
    const bool keeps_strategy = keep_strategy(reload);
    reload->events->hand_out(&reload->next->snapshot);
    note_left(reload, keeps_strategy); /* at the level that holds now */
}

static void end(struct reload *reload)
{
    char generation[24];
    config_free(reload->current);
    reload->current = reload->next;
    reload->next = NULL;
    reload->ended_s = (uint64_t)time(NULL);
    snprintf(generation, sizeof(generation), "%" PRIu64, ++reload->generation);
    log_event(LOG_LEVEL_INFO, "reloaded", "generation", generation, NULL);
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
    *reload = (struct reload){};
}
