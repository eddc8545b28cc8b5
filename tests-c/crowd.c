/*
 * Many lives, one after the other and beside each other: nothing is left of them, no call is late, and every code is one of the interface. Works in the
 * current directory, which must be empty and writable; takes names of 127.0.0.1 alone. docs/testing.md.
 *
 *   crowd lives N                      creates, starts, uses, stops and destroys a node N times
 *   crowd calls NODES THREADS N SEED   threads make N calls at random, each on any of the nodes, which are destroyed and made again all the time
 */
#include "wire.h"

#include <sys/resource.h>

/* A call that takes longer is late. */
#define CALL_SECONDS 30.0
#define NODES_MAX 1024
#define THREADS_MAX 64
#define CALLS 12

static const char *const call_names[CALLS] = {"start",   "stop",    "handover",        "errmsg",       "get_bind_address", "set_busy_timeout",
                                              "latency", "bind",    "describe",        "recover",      "client",           "renewed"};

struct place {
    /* Destroying a handle is for one thread alone; all other calls are for any number. */
    pthread_rwlock_t lock;
    dqlite_node *node;
    int number;
};

static struct place places[NODES_MAX];
static int nodes, calls_of_each;
static unsigned long long codes[CALLS][4];
static int late, strange;

static unsigned long long next_random(unsigned long long *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static dqlite_node *new_node(int number)
{
    char directory[64];
    dqlite_node *n = NULL;
    snprintf(directory, sizeof directory, "node-%d", number);
    if (mkdir(directory, 0755) != 0 && errno != EEXIST) {
        printf("mkdir %s: %s\n", directory, strerror(errno));
    }
    if (dqlite_node_create(1, "1", directory, &n) != 0) {
        printf("create: %s\n", dqlite_node_errmsg(n));
        __sync_add_and_fetch(&strange, 1);
    }
    return n;
}

static dqlite_node *bound_node(int number)
{
    dqlite_node *n = new_node(number);
    if (dqlite_node_set_bind_address(n, "@") != 0) {
        printf("bind: %s\n", dqlite_node_errmsg(n));
        __sync_add_and_fetch(&strange, 1);
    }
    return n;
}

static int one_client(dqlite_node *n)
{
    const char *address = dqlite_node_get_bind_address(n);
    int client = address == NULL || address[0] != '@' ? -1 : wire_client(address);
    int code = client < 0 ? 1 : wire_exec(client, "CREATE TABLE IF NOT EXISTS t(n)") != 0 || wire_exec(client, "INSERT INTO t VALUES(1)") != 0;
    close(client);
    return code;
}

static int one_call(int call, struct place *place)
{
    dqlite_node *n = place->node;
    dqlite_node_info_ext info;
    uint64_t index, term;
    switch (call) {
    case 0: return dqlite_node_start(n);
    case 1: return dqlite_node_stop(n);
    case 2: return dqlite_node_handover(n);
    case 3: return strlen(dqlite_node_errmsg(n)) > 299;
    case 4: return dqlite_node_get_bind_address(n) == NULL;
    case 5: return dqlite_node_set_busy_timeout(n, 5);
    case 6: return dqlite_node_set_network_latency_ms(n, 10);
    case 7: return dqlite_node_set_bind_address(n, "@");
    case 8: return dqlite_node_describe_last_entry(n, &index, &term);
    case 9:
        memset(&info, 0, sizeof info);
        info.size = sizeof info;
        info.id = 1;
        info.address = (uint64_t)(uintptr_t) "1";
        return dqlite_node_recover_ext(n, &info, 1);
    default: return one_client(n);
    }
}

/* How often each call is made. */
static const unsigned char drawn[] = {0, 0, 0, 0, 0, 1, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10, 10, 10, 11};

static void *work(void *argument)
{
    unsigned long long state = *(unsigned long long *)argument;
    for (int i = 0; i < calls_of_each; i++) {
        struct place *place = &places[next_random(&state) % (unsigned long long)nodes];
        int call = drawn[next_random(&state) % sizeof drawn];
        double begin = seconds();
        int code = 0;
        if (call == CALLS - 1) {
            pthread_rwlock_wrlock(&place->lock);
            begin = seconds();
            dqlite_node_destroy(place->node);
            place->node = bound_node(place->number);
        } else {
            pthread_rwlock_rdlock(&place->lock);
            begin = seconds();
            code = one_call(call, place);
        }
        double took = seconds() - begin;
        pthread_rwlock_unlock(&place->lock);
        if (took > CALL_SECONDS) {
            __sync_add_and_fetch(&late, 1);
            printf("%s takes %.1f s\n", call_names[call], took);
        }
        if (code < 0 || code > 2) {
            __sync_add_and_fetch(&strange, 1);
        } else {
            __sync_add_and_fetch(&codes[call][code], 1);
        }
    }
    return NULL;
}

static int run_calls(int threads, unsigned long long seed)
{
    pthread_t started[THREADS_MAX];
    unsigned long long seeds[THREADS_MAX];
    /* A sanitizer makes a thread of its own beside the first one. */
    dqlite_node_destroy(new_node(0));
    int descriptors = count_entries("/proc/self/fd"), alone = count_entries("/proc/self/task");
    for (int i = 0; i < nodes; i++) {
        pthread_rwlock_init(&places[i].lock, NULL);
        places[i].number = i;
        places[i].node = bound_node(i);
    }
    for (int i = 0; i < threads; i++) {
        seeds[i] = (seed + (unsigned long long)i + 1) * 0x9e3779b97f4a7c15ULL | 1;
        pthread_create(&started[i], NULL, work, &seeds[i]);
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(started[i], NULL);
    }
    for (int i = 0; i < nodes; i++) {
        dqlite_node_destroy(places[i].node);
        pthread_rwlock_destroy(&places[i].lock);
    }
    for (int call = 0; call < CALLS; call++) {
        printf("%s: %llu well, %llu errors, %llu misuses\n", call_names[call], codes[call][0], codes[call][1], codes[call][2]);
    }
    int left = count_entries("/proc/self/fd") - descriptors, running = count_entries("/proc/self/task") - alone;
    printf("late: %d, strange: %d, descriptors left: %d, threads left: %d\n", late, strange, left, running);
    return late != 0 || strange != 0 || left != 0 || running != 0 || codes[0][0] == 0 || codes[1][0] == 0 || codes[10][0] == 0;
}

static int one_life(int number)
{
    char address[64];
    dqlite_node *n = new_node(number % 4);
    snprintf(address, sizeof address, "@crowd-%d-%d", (int)getpid(), number % 4);
    int failed = dqlite_node_set_bind_address(n, address) != 0 || dqlite_node_start(n) != 0 || one_client(n) != 0 || dqlite_node_stop(n) != 0;
    if (failed) {
        printf("life %d: %s\n", number, dqlite_node_errmsg(n));
    }
    dqlite_node_destroy(n);
    return failed;
}

static long resident_pages(void)
{
    long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%ld %ld", &size, &resident) != 2) {
        resident = 0;
    }
    if (file != NULL) {
        fclose(file);
    }
    return resident;
}

static int run_lives(int count)
{
    int failed = 0, tenth = count / 10 > 4 ? count / 10 : 4;
    for (int i = 0; i < tenth; i++) {
        failed += one_life(i);
    }
    int descriptors = count_entries("/proc/self/fd"), threads = count_entries("/proc/self/task");
    long pages = resident_pages();
    for (int i = tenth; i < count; i++) {
        failed += one_life(i);
    }
    descriptors = count_entries("/proc/self/fd") - descriptors;
    threads = count_entries("/proc/self/task") - threads;
    long grown = (resident_pages() - pages) * 4;
    printf("lives: %d, failed: %d, descriptors left: %d, threads left: %d, memory: %+ld KiB\n", count, failed, descriptors, threads, grown);
    return failed != 0 || descriptors != 0 || threads != 0;
}

int main(int argc, char **argv)
{
    struct rlimit limit;
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (argc == 3 && strcmp(argv[1], "lives") == 0) {
        return run_lives(atoi(argv[2]));
    }
    if (argc == 6 && strcmp(argv[1], "calls") == 0) {
        nodes = atoi(argv[2]);
        int threads = atoi(argv[3]);
        calls_of_each = atoi(argv[4]) / threads;
        if (nodes >= 1 && nodes <= NODES_MAX && threads >= 1 && threads <= THREADS_MAX) {
            return run_calls(threads, strtoull(argv[5], NULL, 10));
        }
    }
    fprintf(stderr, "crowd lives N | crowd calls NODES THREADS N SEED\n");
    return 2;
}
