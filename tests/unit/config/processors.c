// SPDX-License-Identifier: Apache-2.0
/* The CPU quota, from trees of files as the kernel lays them out. */
#include "test.h"

#include <ftw.h>

#include "config/settings.h"
#include "config_fixture.h"

static int setup(void **state)
{
    return config_setup(state);
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info;
    (void)type;
    (void)walk;
    return remove(path);
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(chdir("/"), 0);
    return nftw(config_directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* Writes the file and makes the directories above it. */
static void put(const char *path, const char *text)
{
    char directory[256];
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(directory, sizeof directory, "%.*s", (int)(slash - path), path);
        mkdir(directory, 0700);
    }
    config_write(path, text, strlen(text));
}

static uint32_t quota(const char *membership)
{
    put("membership", membership);
    return processors_quota("membership", "mount");
}

static void no_quota_is_none(void **state)
{
    (void)state;
    assert_int_equal(processors_quota("missing", "mount"), UINT32_MAX);
    assert_int_equal(quota(""), UINT32_MAX);
    assert_int_equal(quota("0::/a\n"), UINT32_MAX);
    put("mount/a/cpu.max", "max 100000\n");
    assert_int_equal(quota("0::/a\n"), UINT32_MAX);
    put("mount/a/cpu.max", "nonsense\n");
    assert_int_equal(quota("0::/a\nno colons\n:\n"), UINT32_MAX);
    put("mount/a/cpu.max", "100000 0\n");
    assert_int_equal(quota("0::/a\n"), UINT32_MAX);
}

static void version_2_rounds_up_to_whole_processors(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t processors;
    } cases[] = {{"100000 100000\n", 1}, {"150000 100000\n", 2}, {"10000 100000\n", 1},
                 {"400000 100000\n", 4}, {"400001 100000\n", 5}, {"50000 25000\n", 2}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put("mount/a/b/cpu.max", cases[i].text);
        assert_int_equal(quota("0::/a/b\n"), cases[i].processors);
    }
}

static void the_smallest_quota_on_the_way_up_counts(void **state)
{
    (void)state;
    put("mount/a/b/cpu.max", "400000 100000\n");
    put("mount/a/cpu.max", "200000 100000\n");
    put("mount/cpu.max", "300000 100000\n");
    assert_int_equal(quota("0::/a/b\n"), 2);
    assert_int_equal(quota("0::/\n"), 3);
    put("cpu.max", "100000 100000\n"); /* above the mount: not ours */
    assert_int_equal(quota("0::/a/b\n"), 2);
}

/* In a container the mount is its own cgroup, and the path may be the host's. */
static void a_path_that_is_not_there_falls_back_to_the_mount(void **state)
{
    (void)state;
    put("mount/cpu.max", "300000 100000\n");
    assert_int_equal(quota("0::/docker/0123456789abcdef\n"), 3);
    assert_int_equal(quota("0::/../../other\n"), 3);
}

static void version_1_has_a_hierarchy_for_its_controllers(void **state)
{
    (void)state;
    put("mount/cpu,cpuacct/a/cpu.cfs_quota_us", "250000\n");
    put("mount/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
    put("mount/cpuset/a/cpuset.cpus", "0-3\n");
    assert_int_equal(quota("7:cpuset:/a\n3:cpu,cpuacct:/a\n1:name=systemd:/a\n"), 3);
    put("mount/cpu,cpuacct/a/cpu.cfs_quota_us", "-1\n");
    assert_int_equal(quota("3:cpu,cpuacct:/a\n"), UINT32_MAX);
    put("mount/cpuacct,cpu/cpu.cfs_quota_us", "200000\n");
    put("mount/cpuacct,cpu/cpu.cfs_period_us", "100000\n");
    assert_int_equal(quota("3:cpuacct,cpu:/gone\n"), 2);
}

static void workers_are_one_for_each_usable_processor_and_eight_at_most(void **state)
{
    (void)state;
    assert_int_equal(workers_for(1, UINT32_MAX), 1);
    assert_int_equal(workers_for(8, UINT32_MAX), 8);
    assert_int_equal(workers_for(9, UINT32_MAX), 8);
    assert_int_equal(workers_for(64, UINT32_MAX), 8);
    assert_int_equal(workers_for(UINT32_MAX, UINT32_MAX), 8);
    assert_int_equal(workers_for(64, 2), 2);
    assert_int_equal(workers_for(2, 64), 2);
    assert_in_range(workers_automatic(), 1, 8);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(no_quota_is_none),
        TEST(version_2_rounds_up_to_whole_processors),
        TEST(the_smallest_quota_on_the_way_up_counts),
        TEST(a_path_that_is_not_there_falls_back_to_the_mount),
        TEST(version_1_has_a_hierarchy_for_its_controllers),
        TEST(workers_are_one_for_each_usable_processor_and_eight_at_most),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
