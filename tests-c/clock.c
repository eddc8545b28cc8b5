/*
 * Three nodes in a process whose wall clock jumps by years, forth and back: the functions that tell the time are this program's, and the
 * library's calls come here. The clock that only counts is left alone. Works in the current directory, which must be empty and writable.
 */
#include "wire.h"

#include <sys/syscall.h>
#include <sys/time.h>

#ifdef __cplusplus
#define NO_EXCEPTION noexcept
#else
#define NO_EXCEPTION
#endif

#define YEAR_SECONDS 31557600LL

/* Read by threads of the library: changed and read as one. */
static volatile long long shift_seconds;
static volatile int questions;

int clock_gettime(clockid_t clock, struct timespec *time) NO_EXCEPTION
{
    int code = (int)syscall(SYS_clock_gettime, clock, time);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) {
        __atomic_add_fetch(&questions, 1, __ATOMIC_RELAXED);
        time->tv_sec += (time_t)__atomic_load_n(&shift_seconds, __ATOMIC_RELAXED);
    }
    return code;
}

int gettimeofday(struct timeval *time, void *zone) NO_EXCEPTION
{
    struct timespec precise;
    int code = clock_gettime(CLOCK_REALTIME, &precise);
    (void)zone;
    time->tv_sec = precise.tv_sec;
    time->tv_usec = precise.tv_nsec / 1000;
    return code;
}

time_t time(time_t *result) NO_EXCEPTION
{
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (result != NULL) {
        *result = precise.tv_sec;
    }
    return precise.tv_sec;
}

#define NODES 3

static const char *const addresses[NODES] = {"@clock-1", "@clock-2", "@clock-3"};
static dqlite_node *nodes[NODES];

static int connect_abstract(void *argument, const char *address, int *fd)
{
    (void)argument;
    *fd = dial(address);
    return *fd < 0;
}

static void begin(int i, int recovering)
{
    char directory[16];
    dqlite_node_info infos[NODES];
    for (int at = 0; at < NODES; at++) {
        infos[at].id = (dqlite_node_id)at + 2;
        infos[at].address = own(addresses[at]);
    }
    snprintf(directory, sizeof directory, "node-%d", i);
    mkdir(directory, 0755);
    if (dqlite_node_create(infos[i].id, infos[i].address, directory, &nodes[i]) != 0 ||
        (recovering && dqlite_node_recover(nodes[i], infos, NODES) != 0) || dqlite_node_set_bind_address(nodes[i], infos[i].address) != 0 ||
        dqlite_node_set_network_latency_ms(nodes[i], 50) != 0 || dqlite_node_set_connect_func(nodes[i], connect_abstract, NULL) != 0 ||
        dqlite_node_start(nodes[i]) != 0) {
        printf("node %d: %s\n", i, dqlite_node_errmsg(nodes[i]));
        exit(1);
    }
}

/* A client of the leader; which one that is. */
static int client_of_leader(int *leader)
{
    double limit = seconds() + 20;
    while (seconds() < limit) {
        for (*leader = 0; *leader < NODES; ++*leader) {
            int client = wire_client(own(addresses[*leader]));
            if (client >= 0 && wire_exec(client, "CREATE TABLE IF NOT EXISTS t(n)") == 0) {
                return client;
            }
            if (client >= 0) {
                close(client);
            }
        }
        pause_ms(20);
    }
    printf("no leader\n");
    exit(1);
}

static void section_jumps(void)
{
    static const long long years[] = {10, -20, 0, -56, 300, 1};
    int leader = 0;
    int rows = 0;
    for (int i = 0; i < NODES; i++) {
        begin(i, 1);
    }
    int client = client_of_leader(&leader);
    for (size_t jump = 0; jump < sizeof years / sizeof *years; jump++) {
        int failures = 0;
        __atomic_store_n(&shift_seconds, years[jump] * YEAR_SECONDS, __ATOMIC_RELAXED);
        double start_time = seconds();
        /* For longer than the timeout of an election: whoever takes the jump for silence has the time to act on it. */
        do {
            failures += wire_exec(client, "INSERT INTO t VALUES(1)") != 0;
            rows++;
        } while (seconds() - start_time < 2);
        printf("%+lld years: %d failures, all rows: %s\n", years[jump], failures,
               yes_or_no(wire_number(client, "SELECT count(*) AS n FROM t") == rows));
    }
    /* A start long before the log was written. */
    int follower = (leader + 1) % NODES;
    __atomic_store_n(&shift_seconds, -30 * YEAR_SECONDS, __ATOMIC_RELAXED);
    SHOW(dqlite_node_stop(nodes[follower]));
    dqlite_node_destroy(nodes[follower]);
    begin(follower, 0);
    printf("insert -> %d\n", wire_exec(client, "INSERT INTO t VALUES(1)"));
    close(client);
    SHOW(dqlite_node_stop(nodes[leader]));
    dqlite_node_destroy(nodes[leader]);
    int stopped = leader;
    client = client_of_leader(&leader);
    printf("all rows: %s\n", yes_or_no(wire_number(client, "SELECT count(*) AS n FROM t") == rows + 1));
    close(client);
    for (int i = 0; i < NODES; i++) {
        if (i != stopped) {
            SHOW(dqlite_node_stop(nodes[i]));
            dqlite_node_destroy(nodes[i]);
        }
    }
    printf("the library asked for the time: %s\n", yes_or_no(__atomic_load_n(&questions, __ATOMIC_RELAXED) > 0));
}

static const struct section sections[] = {
    {"jumps", section_jumps, SINCE_1_18_7},
};

int main(int argc, char **argv)
{
    return run_sections(sections, sizeof sections / sizeof *sections, argc, argv);
}
