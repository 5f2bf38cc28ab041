// SPDX-License-Identifier: Apache-2.0
/* Connecting to the first of several addresses that answers.
 *
 * Thread: the worker of the loop.   Owner: see net/race.h.
 * RFC:    8305 5. */
#include "net/race.h"

#include <assert.h>
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "net/socket.h"

static bool is_running(const struct race *race)
{
    return race->loop != NULL;
}

void race_cancel(struct race *race)
{
    if (!is_running(race))
        return;
    assert(race->next <= race->count && race->count <= RACE_ADDRESSES_MAX);
    deadline_cancel(&race->deadline);
    loop_remove_queue(&race->stagger);
    for (size_t i = 0; i < race->next; i++) {
        const int fd = race->attempts[i].source.fd;
        loop_remove(race->loop, &race->attempts[i].source);
        if (fd != -1)
            close(fd);
    }
    race->loop = NULL;
}

/* Where we lacked something ourselves, nobody knows what the address would have done. */
static void note_failure(struct race *race, enum failure failure)
{
    assert(failure != FAILURE_NONE);
    if (race->failure != FAILURE_LOCAL)
        race->failure = failure;
}

static enum status begin_attempt(struct race *race, size_t index)
{
    assert(index < race->count && race->attempts[index].source.fd == -1);
    struct race_attempt *attempt = &race->attempts[index];
    int fd;
    if (socket_connect(&race->addresses[index], race->timeouts.user_ns, &fd) != STATUS_OK) {
        note_failure(race, socket_connect_failure(errno));
        return STATUS_SYSTEM;
    }
    if (loop_add(race->loop, &attempt->source, fd, EPOLLOUT) != STATUS_OK) {
        note_failure(race, FAILURE_LOCAL);
        close(fd);
        return STATUS_SYSTEM;
    }
    race->open++;
    return STATUS_OK;
}

/* The next address that can be tried at all; false when there is none. */
static bool try_next(struct race *race)
{
    while (race->next < race->count) {
        if (begin_attempt(race, race->next++) != STATUS_OK)
            continue;
        if (race->next < race->count)
            deadline_arm(&race->stagger, &race->deadline, race->loop->now);
        return true;
    }
    return false;
}

static void on_stagger(struct deadline *deadline, uint64_t now)
{
    struct race *race = CONTAINER_OF(deadline, struct race, deadline);
    assert(is_running(race));
    (void)now;
    (void)try_next(race); /* those before it go on */
}

static void attempt_failed(struct race *race, struct race_attempt *attempt, enum failure failure)
{
    assert(attempt->race == race && race->open > 0);
    const int fd = attempt->source.fd;
    note_failure(race, failure);
    loop_remove(race->loop, &attempt->source);
    close(fd);
    race->open--;
    deadline_cancel(&race->deadline);
    if (try_next(race) || race->open > 0)
        return;
    race_cancel(race);
    race->on_lost(race, race->failure);
}

static void on_ready(struct loop_source *source, uint32_t events)
{
    struct race_attempt *attempt = CONTAINER_OF(source, struct race_attempt, source);
    struct race *race = attempt->race;
    (void)events;
    const int error = socket_error(source->fd);
    if (error != 0) {
        attempt_failed(race, attempt, socket_connect_failure(error));
        return;
    }
    const int fd = source->fd;
    loop_remove(race->loop, source);
    race_cancel(race);
    race->on_won(race, fd, (size_t)(attempt - race->attempts));
}

/* The last address has as long as two of these. RFC 8305 5 wants no less than 10 ms: so it is, but
 * for eight addresses within a timeouts.connect under 90 ms. */
static uint64_t stagger_ns(const struct race *race)
{
    const uint64_t share_ns = race->timeouts.connect_ns / (race->count + 1);
    return share_ns < RACE_STAGGER_NS ? share_ns : RACE_STAGGER_NS;
}

enum status race_start(struct race *race, struct loop *loop, const struct address *addresses,
                       size_t count, struct race_timeouts timeouts, enum failure *failure)
{
    assert(loop && addresses && failure);
    assert(race->on_won && race->on_lost && !is_running(race));
    assert(count > 0 && count <= RACE_ADDRESSES_MAX && timeouts.connect_ns > count);
    race->loop = loop;
    race->addresses = addresses;
    race->count = count;
    race->next = 0;
    race->open = 0;
    race->timeouts = timeouts;
    race->failure = FAILURE_NONE;
    for (size_t i = 0; i < count; i++)
        race->attempts[i] =
            (struct race_attempt){.source = {.fd = -1, .on_ready = on_ready}, .race = race};
    deadline_init(&race->deadline);
    loop_add_queue(loop, &race->stagger, stagger_ns(race), on_stagger);
    if (try_next(race))
        return STATUS_OK;
    race_cancel(race);
    *failure = race->failure;
    return STATUS_SYSTEM;
}
