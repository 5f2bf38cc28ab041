// SPDX-License-Identifier: Apache-2.0
/* How many CPUs this process may use, and how many workers that asks for.
 *
 * A container's quota is no CPU set: with a quota of 2 on a machine of 64, sched_getaffinity says
 * 64, and 64 workers would be throttled for most of each period.
 *
 * Thread: main. Sources: cgroups(7); the kernel's admin-guide, cgroup-v2 "cpu.max" and
 * scheduler/sched-bwc for version 1. */
#include <assert.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "config/settings.h"

static uint32_t quota_processors(int64_t quota_us, int64_t period_us)
{
    if (quota_us <= 0 || period_us <= 0)
        return UINT32_MAX;
    const int64_t processors = (quota_us - 1) / period_us + 1;
    return processors < UINT32_MAX ? (uint32_t)processors : UINT32_MAX;
}

/* The numbers in a file, at most `count`; how many there were. */
static int read_numbers(const char *directory, const char *name, int64_t numbers[static 2])
{
    assert(directory && name);
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", directory, name) >= (int)sizeof path)
        return 0;
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    const int count = fscanf(file, "%" SCNd64 " %" SCNd64, &numbers[0], &numbers[1]);
    fclose(file);
    return count;
}

static uint32_t directory_quota(const char *directory)
{
    int64_t maximum[2]; /* no number when there is no quota: "max 100000" */
    if (read_numbers(directory, "cpu.max", maximum) == 2)
        return quota_processors(maximum[0], maximum[1]);
    int64_t quota[2];
    int64_t period[2];
    if (read_numbers(directory, "cpu.cfs_quota_us", quota) >= 1 &&
        read_numbers(directory, "cpu.cfs_period_us", period) >= 1)
        return quota_processors(quota[0], period[0]);
    return UINT32_MAX;
}

/* The smallest quota from the cgroup itself up to the mount. A container sees its own cgroup as the
 * mount, whatever path it is told, so a directory that is missing is passed over. */
static uint32_t path_quota(const char *hierarchy, const char *cgroup)
{
    char directory[PATH_MAX];
    const size_t root_length = strlen(hierarchy);
    if (strstr(cgroup, ".."))
        cgroup = ""; /* outside of our namespace */
    if (snprintf(directory, sizeof directory, "%s%s", hierarchy, cgroup) >= (int)sizeof directory)
        return UINT32_MAX;

    uint32_t smallest = UINT32_MAX;
    for (;;) {
        const uint32_t quota = directory_quota(directory);
        smallest = quota < smallest ? quota : smallest;
        char *last = strrchr(directory, '/');
        if (!last || (size_t)(last - directory) < root_length)
            return smallest;
        *last = '\0';
    }
}

/* A line is "ID:CONTROLLERS:PATH"; version 1 has a hierarchy named by its controllers, of which
 * only that of cpu has quota files. */
static uint32_t line_quota(char *line, const char *mount)
{
    line[strcspn(line, "\n")] = '\0';
    char *controllers = strchr(line, ':');
    char *cgroup = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!cgroup)
        return UINT32_MAX;
    *cgroup++ = '\0';
    *controllers = '/';
    char hierarchy[PATH_MAX];
    if (snprintf(hierarchy, sizeof hierarchy, "%s%s", mount, controllers[1] ? controllers : "") >=
        (int)sizeof hierarchy)
        return UINT32_MAX;
    return path_quota(hierarchy, cgroup);
}

uint32_t processors_quota(const char *membership, const char *mount)
{
    assert(membership && mount);
    FILE *file = fopen(membership, "re");
    if (!file)
        return UINT32_MAX;
    char line[PATH_MAX];
    uint32_t smallest = UINT32_MAX;
    while (fgets(line, sizeof line, file)) {
        const uint32_t quota = line_quota(line, mount);
        smallest = quota < smallest ? quota : smallest;
    }
    fclose(file);
    return smallest;
}

uint32_t workers_for(uint32_t processors, uint32_t quota)
{
    assert(processors > 0 && quota > 0);
    const uint32_t usable = quota < processors ? quota : processors;
    return usable < CONFIG_WORKERS_AUTO_MAX ? usable : CONFIG_WORKERS_AUTO_MAX;
}

uint32_t workers_automatic(void)
{
    cpu_set_t set;
    uint32_t count = UINT32_MAX; /* a machine of more than 1024 CPUs refuses the small set */
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        count = (uint32_t)CPU_COUNT(&set);
    return workers_for(count, processors_quota("/proc/self/cgroup", "/sys/fs/cgroup"));
}
