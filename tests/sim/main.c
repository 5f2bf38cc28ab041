// SPDX-License-Identifier: Apache-2.0
/* Runs seeds, many at a time in processes of their own, since a run that fails ends its process. A
 * seed that fails is made small: faults are turned off one by one, queries and time cut, as long as
 * it fails, and the line that repeats it is printed.
 *
 *   sim --seeds 10000 [--seed FIRST] [--jobs N] [--only-find] [--fault FAULT,...] [--share]
 *   sim --seed N [--queries N] [--duration MS] [--fault FAULT,...] [--without FAULT,...]
 * [--verbose]
 *
 * --fault: these are on in each run, and but harmless ones no others. --share: innocent questions
 * that fail are counted; without it a run ends with the first. */
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sim.h"

enum {
    SEEDS = 1000, /* when none is said */
    JOBS_MAX = 64,
    FAILURES_MAX = 10,   /* then no more are looked for */
    RUN_MAX_S = 30,      /* of real time, for a run that takes milliseconds */
    REPLAY_EVERY = 50,   /* seeds that are run twice, to see that they are the same */
    SEEDS_FOR_ALL = 2000 /* after so many each fault must have happened */
};

struct job {
    uint64_t seed; /* which it runs */
    uint64_t done;
    uint64_t faults[FAULT_COUNT];
    struct figures figures;
};

static struct job *jobs; /* shared with the children */

const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "quarantine_size_mb=4:malloc_context_size=4:detect_leaks=0";
}

/* --- Children --- */

static void silence(void)
{
    const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null != -1)
        dup2(null, STDERR_FILENO);
}

static pid_t start_child(void)
{
    fflush(NULL);
    const pid_t pid = fork();
    if (pid == -1) {
        perror("fork");
        exit(2);
    }
    if (pid == 0) {
        const struct rlimit none = {0};
        (void)setrlimit(RLIMIT_CORE, &none);
    }
    return pid;
}

static bool has_ended_well(int status)
{
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* Whether a run with these options fails. */
static bool fails(const struct sim_options *options, bool is_silent)
{
    const pid_t pid = start_child();
    if (pid == 0) {
        if (is_silent)
            silence();
        alarm(RUN_MAX_S);
        (void)sim_run(options);
        exit(0);
    }
    int status = 0;
    if (waitpid(pid, &status, 0) != pid)
        exit(2);
    if (!is_silent && WIFSIGNALED(status))
        fprintf(stderr, "sim: ended by signal %d (%s)\n", WTERMSIG(status),
                strsignal(WTERMSIG(status)));
    return !has_ended_well(status);
}

static _Noreturn void run_stripe(struct job *job, struct sim_options options, uint64_t end,
                                 uint64_t step)
{
    silence();
    for (; options.seed < end; options.seed += step) {
        job->seed = options.seed;
        alarm(RUN_MAX_S);
        const uint64_t digest = sim_run(&options);
        if (options.seed % REPLAY_EVERY == 0 && sim_run(&options) != digest)
            sim_fail("two runs of one seed differ");
        job->done++;
        memcpy(job->faults, fault_counts, sizeof(fault_counts));
        job->figures = figures;
    }
    exit(0);
}

/* --- The minimiser --- */

static void print_faults(FILE *out, const char *option, uint64_t faults)
{
    const char *separator = option;
    for (size_t i = 0; i < FAULT_COUNT; i++) {
        if (!(faults & UINT64_C(1) << i))
            continue;
        fprintf(out, "%s%s", separator, fault_labels[i]);
        separator = ",";
    }
}

static void print_command(FILE *out, const struct sim_options *options)
{
    fprintf(out, "./dev sim --seed %" PRIu64, options->seed);
    if (options->queries_max < SIM_QUERIES_MAX)
        fprintf(out, " --queries %" PRIu32, options->queries_max);
    if (options->duration_max_ms < UINT32_MAX)
        fprintf(out, " --duration %" PRIu32, options->duration_max_ms);
    print_faults(out, " --fault ", options->faults);
    print_faults(out, " --without ", options->without);
    if (options->counts_failures)
        fputs(" --share", out);
    fputc('\n', out);
}

static bool keep_if_it_fails(struct sim_options *best, const struct sim_options *smaller)
{
    if (!fails(smaller, true))
        return false;
    *best = *smaller;
    return true;
}

static bool drop_faults(struct sim_options *best)
{
    bool is_smaller = false;
    plan_draw(best);
    const uint64_t faults = plan.faults;
    for (size_t i = 0; i < FAULT_COUNT; i++) {
        struct sim_options smaller = *best;
        smaller.without |= UINT64_C(1) << i;
        if (faults & UINT64_C(1) << i)
            is_smaller |= keep_if_it_fails(best, &smaller);
    }
    return is_smaller;
}

/* Cuts a number by halves, then quarters, ..., as long as it fails. */
static bool cut(struct sim_options *best, uint32_t *number)
{
    bool is_smaller = false;
    for (uint32_t step = *number / 2; step > 0; step /= 2) {
        const uint32_t before = *number;
        *number -= step;
        struct sim_options smaller = *best;
        *number = before;
        is_smaller |= keep_if_it_fails(best, &smaller);
    }
    return is_smaller;
}

static void minimise(struct sim_options *best)
{
    plan_draw(best);
    best->queries_max = plan.queries;
    best->duration_max_ms = (uint32_t)(plan.duration_ns / NANOSECONDS_PER_MILLISECOND);
    while (drop_faults(best) + cut(best, &best->queries_max) + cut(best, &best->duration_max_ms) >
           0)
        continue;
}

static void report_failure(struct sim_options options, bool only_find)
{
    fputs("sim: fails: ", stdout);
    print_command(stdout, &options);
    if (only_find)
        return;
    minimise(&options);
    fflush(stdout);
    plan_draw(&options);
    plan_print();
    if (!fails(&options, false))
        fputs("sim: it fails only after other seeds in one process\n", stdout);
    fputs("sim: the smallest: ", stdout);
    print_command(stdout, &options);
}

/* --- Many seeds --- */

static size_t find_job(const pid_t *pids, size_t count, pid_t pid)
{
    for (size_t i = 0; i < count; i++)
        if (pids[i] == pid)
            return i;
    return 0;
}

static void start_stripe(pid_t *pid, struct job *job, struct sim_options options, uint64_t end,
                         uint64_t step)
{
    *pid = start_child();
    if (*pid == 0)
        run_stripe(job, options, end, step);
}

/* Runs seeds `first` to `end`, every job each so many'th; returns how many failed. */
static size_t find_failures(const struct sim_options *first, uint64_t end, size_t job_count,
                            uint64_t *failures, size_t failures_max)
{
    pid_t pids[JOBS_MAX];
    size_t failure_count = 0;
    struct sim_options options = *first;
    for (size_t i = 0; i < job_count; i++, options.seed++)
        start_stripe(&pids[i], &jobs[i], options, end, job_count);
    for (size_t running = job_count; running > 0;) {
        int status = 0;
        const pid_t pid = wait(&status);
        if (pid == -1)
            break;
        const size_t i = find_job(pids, job_count, pid);
        if (has_ended_well(status) || failure_count == failures_max) {
            running--;
            continue;
        }
        failures[failure_count++] = jobs[i].seed;
        options.seed = failure_count == failures_max ? end : jobs[i].seed + job_count;
        start_stripe(&pids[i], &jobs[i], options, end, job_count);
    }
    return failure_count;
}

/* Every fault of the list must come up, or the list says what is not so. */
static bool all_faults_happened(size_t job_count, const struct sim_options *options)
{
    bool all = true;
    for (size_t i = 0; i < FAULT_COUNT; i++) {
        uint64_t count = 0;
        for (size_t j = 0; j < job_count; j++)
            count += jobs[j].faults[i];
        const bool is_missing =
            count == 0 && !options->faults && !(options->without & UINT64_C(1) << i);
        if (options->verbose || is_missing)
            printf("sim: %-16s %10" PRIu64 "\n", fault_labels[i], count);
        all = all && !is_missing;
    }
    return all;
}

static double percent(uint64_t part, uint64_t all)
{
    return all > 0 ? 100 * (double)part / (double)all : 0;
}

static struct figures sum_figures(size_t job_count)
{
    struct figures all = {0};
    for (size_t i = 0; i < job_count; i++) {
        const struct figures *of_job = &jobs[i].figures;
        all.innocent += of_job->innocent;
        all.convicted += of_job->convicted;
        all.promised += of_job->promised;
        all.failed += of_job->failed;
        if (of_job->sends > all.sends)
            all.sends = of_job->sends;
    }
    return all;
}

enum { PROMISED_MIN = 10000 }; /* fewer questions show no share */
#define FAILED_PERCENT_MAX 0.1

/* False when more of those fail that may not than a fault at its onset, or bad luck, explains. */
static bool print_figures(size_t job_count)
{
    const struct figures all = sum_figures(job_count);
    printf("sim: of %" PRIu64 " innocent questions %.4f %% were convicted; of %" PRIu64
           " that may not fail %.2f %% did; %" PRIu32 " sends of one to one upstream at most\n",
           all.innocent, percent(all.convicted, all.innocent), all.promised,
           percent(all.failed, all.promised), all.sends);
    return all.promised < PROMISED_MIN || percent(all.failed, all.promised) <= FAILED_PERCENT_MAX;
}

static int run_many(const struct sim_options *first, uint64_t count, size_t job_count,
                    bool only_find)
{
    uint64_t failures[FAILURES_MAX];
    uint64_t done = 0;
    jobs = mmap(NULL, JOBS_MAX * sizeof(*jobs), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                -1, 0);
    if (jobs == MAP_FAILED)
        return 2;
    const size_t failed = find_failures(first, first->seed + count, job_count, failures,
                                        only_find ? 1 : FAILURES_MAX);
    for (size_t i = 0; i < failed; i++) {
        struct sim_options options = *first;
        options.seed = failures[i];
        options.verbose = false;
        report_failure(options, only_find || i > 2);
    }
    for (size_t i = 0; i < job_count; i++)
        done += jobs[i].done;
    const bool is_complete =
        failed > 0 || count < SEEDS_FOR_ALL || all_faults_happened(job_count, first);
    if (!is_complete)
        puts("sim: a fault never happened");
    const bool is_kept = print_figures(job_count);
    if (!is_kept)
        puts("sim: that is too many");
    printf("sim: %" PRIu64 " seeds passed, %zu failed\n", done, failed);
    return failed == 0 && is_complete && is_kept ? 0 : 1;
}

static int run_one(const struct sim_options *options)
{
    if (!fails(options, false)) {
        printf("sim: seed %" PRIu64 " passed\n", options->seed);
        return 0;
    }
    if (options->queries_max == SIM_QUERIES_MAX && !options->verbose)
        report_failure(*options, false);
    return 1;
}

/* --- Arguments --- */

static uint64_t parse_faults(char *text)
{
    uint64_t faults = 0;
    for (const char *name = strtok(text, ","); name; name = strtok(NULL, ",")) {
        size_t i = 0;
        while (i < FAULT_COUNT && strcmp(name, fault_labels[i]) != 0)
            i++;
        if (i == FAULT_COUNT) {
            fprintf(stderr, "sim: there is no fault %s; there are:\n", name);
            for (i = 0; i < FAULT_COUNT; i++)
                fprintf(stderr, "  %s\n", fault_labels[i]);
            exit(2);
        }
        faults |= UINT64_C(1) << i;
    }
    return faults;
}

static uint64_t parse_number(const char *text, uint64_t max)
{
    char *end;
    const uint64_t number = strtoull(text, &end, 10);
    if (*text == '\0' || *end != '\0' || number > max) {
        fprintf(stderr, "sim: %s is no number up to %" PRIu64 "\n", text, max);
        exit(2);
    }
    return number;
}

int main(int argc, char **argv)
{
    enum { SEED, COUNT, QUERIES, DURATION, FAULT, WITHOUT, SHARE, JOBS, VERBOSE, ONLY_FIND };
    static const struct option table[] = {
        {"seed", required_argument, NULL, SEED},
        {"seeds", required_argument, NULL, COUNT},
        {"queries", required_argument, NULL, QUERIES},
        {"duration", required_argument, NULL, DURATION},
        {"fault", required_argument, NULL, FAULT},
        {"without", required_argument, NULL, WITHOUT},
        {"share", no_argument, NULL, SHARE},
        {"jobs", required_argument, NULL, JOBS},
        {"verbose", no_argument, NULL, VERBOSE},
        {"only-find", no_argument, NULL, ONLY_FIND},
        {0},
    };
    struct sim_options options = {.queries_max = SIM_QUERIES_MAX, .duration_max_ms = UINT32_MAX};
    uint64_t count = 0;
    bool is_one = false;
    size_t job_count = (size_t)sysconf(_SC_NPROCESSORS_ONLN);
    bool only_find = false;
    for (int option; (option = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        switch (option) {
        case SEED:
            options.seed = parse_number(optarg, UINT64_MAX / 2);
            is_one = true;
            break;
        case COUNT:
            count = parse_number(optarg, UINT32_MAX);
            break;
        case QUERIES:
            options.queries_max = (uint32_t)parse_number(optarg, SIM_QUERIES_MAX);
            break;
        case DURATION:
            options.duration_max_ms = (uint32_t)parse_number(optarg, UINT32_MAX - 1);
            break;
        case FAULT:
            options.faults = parse_faults(optarg);
            break;
        case SHARE:
            options.counts_failures = true;
            break;
        case WITHOUT:
            options.without = parse_faults(optarg);
            break;
        case JOBS:
            job_count = parse_number(optarg, JOBS_MAX);
            break;
        case VERBOSE:
            options.verbose = true;
            break;
        case ONLY_FIND:
            only_find = true;
            break;
        default:
            return 2;
        }
    }
    job_count = job_count < 1 ? 1 : job_count > JOBS_MAX ? JOBS_MAX : job_count;
    if (count == 0 && is_one)
        return run_one(&options);
    return run_many(&options, count > 0 ? count : SEEDS, job_count, only_find);
}
