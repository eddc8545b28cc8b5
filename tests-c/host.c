/*
 * A process that hosts nodes: its threads and signals, its SQLite, clients that stay while a node stops, and what is left of a node that was
 * destroyed. Works in the current directory, which must be empty and writable. spec: c-api 3.0, 3.9, 5.
 */
#include "wire.h"

#include <sqlite3.h>

/* Nodes in one process, clients of each, rows of each client. */
#define NODES 2
#define CLIENTS 4
#define ROWS 25

static dqlite_node *running(const char *directory, const char *address)
{
    dqlite_node *n = create_quietly(directory);
    if (dqlite_node_set_bind_address(n, address) != 0 || dqlite_node_start(n) != 0) {
        printf("no node: %s\n", dqlite_node_errmsg(n));
        exit(1);
    }
    return n;
}

static void end(dqlite_node *n)
{
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
}

static void ignore_signal(int number)
{
    (void)number;
}

struct storm {
    pthread_t target;
    pthread_mutex_t lock;
    int ended;
};

static void *storm_run(void *argument)
{
    struct storm *storm = (struct storm *)argument;
    int ended = 0;
    struct timespec pause;
    pause.tv_sec = 0;
    pause.tv_nsec = 50000;
    while (!ended) {
        pthread_kill(storm->target, SIGURG);
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&storm->lock);
        ended = storm->ended;
        pthread_mutex_unlock(&storm->lock);
    }
    return NULL;
}

/* conformance: c-api 22 (better: in upstream a signal may interrupt what create does) */
static void section_signals(void)
{
    struct storm storm;
    struct sigaction action;
    pthread_t thread;
    int failures = 0;
    memset(&action, 0, sizeof action);
    /* No SA_RESTART, as Go's runtime would have it for C code: calls are interrupted. */
    action.sa_handler = ignore_signal;
    sigaction(SIGURG, &action, NULL);
    storm.target = pthread_self();
    storm.ended = 0;
    pthread_mutex_init(&storm.lock, NULL);
    pthread_create(&thread, NULL, storm_run, &storm);
    mkdir("signals", 0755);
    for (int round = 0; round < 200; round++) {
        dqlite_node *n = NULL;
        failures += dqlite_node_create(1, "1", "signals", &n) != 0;
        dqlite_node_destroy(n);
    }
    dqlite_node *n = create_quietly("signals");
    failures += dqlite_node_set_bind_address(n, own("@host-signals")) != 0 || dqlite_node_start(n) != 0;
    failures += dqlite_node_stop(n) != 0;
    dqlite_node_destroy(n);
    pthread_mutex_lock(&storm.lock);
    storm.ended = 1;
    pthread_mutex_unlock(&storm.lock);
    pthread_join(thread, NULL);
    printf("failures under signals: %d\n", failures);
}

/* One step of a node's life, on a thread of its own. */
struct step {
    dqlite_node *node;
    int (*call)(dqlite_node *);
    int code;
};

static void *step_run(void *argument)
{
    struct step *step = (struct step *)argument;
    step->code = step->call(step->node);
    return NULL;
}

static int elsewhere(dqlite_node *n, int (*call)(dqlite_node *))
{
    struct step step;
    pthread_t thread;
    step.node = n;
    step.call = call;
    step.code = -1;
    pthread_create(&thread, NULL, step_run, &step);
    pthread_join(thread, NULL);
    return step.code;
}

static int destroy(dqlite_node *n)
{
    dqlite_node_destroy(n);
    return 0;
}

/* conformance: c-api 50 */
static void section_threads(void)
{
    dqlite_node *n = create_quietly("threads");
    SHOW(dqlite_node_set_bind_address(n, own("@host-threads")));
    printf("start elsewhere -> %d\n", elsewhere(n, dqlite_node_start));
    ask_leader(own("@host-threads"));
    printf("stop elsewhere -> %d\n", elsewhere(n, dqlite_node_stop));
    printf("destroy elsewhere -> %d\n", elsewhere(n, destroy));
}

static void *lives_run(void *argument)
{
    const char *directory = (const char *)argument;
    int *failures = (int *)calloc(1, sizeof *failures);
    mkdir(directory, 0755);
    for (int round = 0; round < ROWS; round++) {
        dqlite_node *n = NULL;
        *failures += dqlite_node_create(1, "1", directory, &n) != 0;
        *failures += dqlite_node_set_bind_address(n, "@") != 0 || dqlite_node_start(n) != 0;
        *failures += dqlite_node_stop(n) != 0;
        dqlite_node_destroy(n);
    }
    return failures;
}

/* conformance: c-api 24 */
static void section_lives_at_once(void)
{
    static const char *directories[NODES] = {"life-1", "life-2"};
    pthread_t threads[NODES];
    for (int i = 0; i < NODES; i++) {
        pthread_create(&threads[i], NULL, lives_run, (void *)(uintptr_t)directories[i]);
    }
    for (int i = 0; i < NODES; i++) {
        void *failures = NULL;
        pthread_join(threads[i], &failures);
        printf("failures of %s: %d\n", directories[i], *(int *)failures);
        free(failures);
    }
}

/* Sockets that a child inherits. */
static int inherited_sockets(void)
{
    char line[512];
    int found = 0;
    FILE *listing = popen("ls -l /proc/self/fd", "r");
    while (listing != NULL && fgets(line, sizeof line, listing) != NULL) {
        found += strstr(line, "socket:") != NULL;
    }
    if (listing != NULL) {
        pclose(listing);
    }
    return found;
}

/* conformance: c-api 30 (better: releases before 1.17.3 and 1.18.6 pass the listening socket on) */
static void section_children(void)
{
    int before = inherited_sockets();
    dqlite_node *n = running("children", own("@host-children"));
    printf("sockets of a child: %+d\n", inherited_sockets() - before);
    end(n);
}

static void *client_run(void *argument)
{
    const char *address = (const char *)argument;
    int *failures = (int *)calloc(1, sizeof *failures);
    int client = wire_client(address);
    for (int row = 0; row < ROWS; row++) {
        int code;
        /* A release that lets writers collide answers 5: again. */
        while ((code = wire_exec(client, "INSERT INTO t(s) VALUES(hex(randomblob(200)))")) == 5) {
            pause_ms(1);
        }
        *failures += code != 0;
        *failures += wire_number(client, "SELECT count(*) AS n FROM t") <= 0;
    }
    close(client);
    return failures;
}

/* Two nodes with clients, SQLite's threads as configured. */
static void in_mode(int mode, const char *first, const char *second)
{
    const char *addresses[NODES] = {own("@host-mode-1"), own("@host-mode-2")};
    dqlite_node *nodes[NODES];
    pthread_t threads[NODES * CLIENTS];
    int failures = 0;
    printf("sqlite3_config -> %d\n", sqlite3_config(mode));
    nodes[0] = running(first, addresses[0]);
    nodes[1] = running(second, addresses[1]);
    for (int i = 0; i < NODES; i++) {
        int client = wire_client(addresses[i]);
        printf("create -> %d\n", wire_exec(client, "CREATE TABLE t(n INTEGER PRIMARY KEY, s TEXT)"));
        close(client);
    }
    for (int i = 0; i < NODES * CLIENTS; i++) {
        pthread_create(&threads[i], NULL, client_run, (void *)(uintptr_t)addresses[i % NODES]);
    }
    for (int i = 0; i < NODES * CLIENTS; i++) {
        void *failed = NULL;
        pthread_join(threads[i], &failed);
        failures += *(int *)failed;
        free(failed);
    }
    printf("failures: %d\n", failures);
    for (int i = 0; i < NODES; i++) {
        int client = wire_client(addresses[i]);
        printf("rows: %lld, sound: %lld\n", wire_number(client, "SELECT count(*) AS n FROM t"),
               wire_number(client, "SELECT count(*) AS n FROM pragma_integrity_check WHERE integrity_check = 'ok'"));
        close(client);
        end(nodes[i]);
    }
}

/* conformance: c-api 72 */
static void section_single_thread(void)
{
    in_mode(SQLITE_CONFIG_SINGLETHREAD, "single-1", "single-2");
}

static void section_multi_thread(void)
{
    in_mode(SQLITE_CONFIG_MULTITHREAD, "multi-1", "multi-2");
}

static void section_serialized(void)
{
    in_mode(SQLITE_CONFIG_SERIALIZED, "serialized-1", "serialized-2");
}

static void double_it(sqlite3_context *context, int count, sqlite3_value **values)
{
    (void)count;
    sqlite3_result_int64(context, 2 * sqlite3_value_int64(values[0]));
}

static int add_functions(sqlite3 *db, char **error, const void *api)
{
    (void)error;
    (void)api;
    return sqlite3_create_function_v2(db, "double_it", 1, SQLITE_UTF8 | SQLITE_DETERMINISTIC, NULL, double_it, NULL, NULL, NULL);
}

static void section_user_functions(void)
{
    printf("sqlite3_auto_extension -> %d\n", sqlite3_auto_extension((void (*)(void))add_functions));
    dqlite_node *n = running("functions", own("@host-functions"));
    int client = wire_client(own("@host-functions"));
    printf("query: %lld\n", wire_number(client, "SELECT double_it(21) AS n"));
    printf("create -> %d\n", wire_exec(client, "CREATE TABLE t(n, d AS (double_it(n)) STORED)"));
    printf("insert -> %d\n", wire_exec(client, "INSERT INTO t(n) VALUES(double_it(4))"));
    printf("index -> %d\n", wire_exec(client, "CREATE INDEX i ON t(double_it(n))"));
    printf("stored: %lld\n", wire_number(client, "SELECT d AS n FROM t WHERE double_it(n) = 16"));
    close(client);
    end(n);
    n = running("functions", own("@host-functions"));
    client = wire_client(own("@host-functions"));
    printf("after a restart: %lld\n", wire_number(client, "SELECT d AS n FROM t WHERE double_it(n) = 16"));
    close(client);
    end(n);
}

/* What a timer that counts milliseconds may be early. */
#define TIMER_SECONDS 0.01

/* conformance: c-api 39 */
static void section_busy_timeout(void)
{
    int (*set)(dqlite_node *, unsigned) = (int (*)(dqlite_node *, unsigned))dlsym(RTLD_DEFAULT, "dqlite_node_set_busy_timeout");
    dqlite_node *n = running("busy", own("@host-busy"));
    int holder = wire_client(own("@host-busy"));
    int other = wire_client(own("@host-busy"));
    printf("create -> %d\n", wire_exec(holder, "CREATE TABLE t(n)"));
    printf("begin -> %d\n", wire_exec(holder, "BEGIN IMMEDIATE"));
    printf("insert -> %d\n", wire_exec(holder, "INSERT INTO t VALUES(1)"));
    for (unsigned timeout = 0; timeout <= 600; timeout += 300) {
        double begin = seconds();
        printf("busy_timeout(%u) -> %d\n", timeout, set(n, timeout));
        int code = wire_exec(other, "INSERT INTO t VALUES(2)");
        double took = seconds() - begin;
        printf("insert -> %d, not earlier: %s, not much later: %s\n", code, yes_or_no(took >= timeout / 1000.0 - TIMER_SECONDS),
               yes_or_no(took < timeout / 1000.0 + 2));
    }
    printf("commit -> %d\n", wire_exec(holder, "COMMIT"));
    printf("insert -> %d\n", wire_exec(other, "INSERT INTO t VALUES(2)"));
    printf("rows: %lld\n", wire_number(other, "SELECT count(*) AS n FROM t"));
    close(holder);
    close(other);
    end(n);
}

#define READERS 20
#define WRITERS 4
#define ENDLESS "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c"

/* How far the clients have come. */
struct progress {
    pthread_mutex_t lock;
    int reading;
    int writing;
    int at_end;
};

static void progress_add(struct progress *progress, int *field)
{
    pthread_mutex_lock(&progress->lock);
    ++*field;
    pthread_mutex_unlock(&progress->lock);
}

static void *reader_run(void *argument)
{
    struct progress *progress = (struct progress *)argument;
    char bytes[65536];
    int client = wire_client(own("@host-stop"));
    ssize_t got = -1;
    if (client >= 0 && send_request(client, 9, 1, ENDLESS, 0) == 0 && (got = recv(client, bytes, sizeof bytes, 0)) > 0) {
        progress_add(progress, &progress->reading);
        while (got > 0) {
            got = recv(client, bytes, sizeof bytes, 0);
        }
    }
    if (got == 0 || errno == ECONNRESET) {
        progress_add(progress, &progress->at_end);
    }
    close(client);
    return NULL;
}

static void *writer_run(void *argument)
{
    struct progress *progress = (struct progress *)argument;
    int client = wire_client(own("@host-stop"));
    int code = wire_exec(client, "INSERT INTO t VALUES(1)");
    progress_add(progress, &progress->writing);
    /* 5: a release that lets writers collide. */
    while (code == 0 || code == 5) {
        code = wire_exec(client, "INSERT INTO t VALUES(1)");
    }
    progress_add(progress, &progress->at_end);
    close(client);
    return NULL;
}

/* conformance: c-api 48 */
static void section_stop_under_load(void)
{
    struct progress progress;
    pthread_t threads[READERS + WRITERS];
    int all = 0;
    memset(&progress, 0, sizeof progress);
    pthread_mutex_init(&progress.lock, NULL);
    dqlite_node *n = running("stop", own("@host-stop"));
    int client = wire_client(own("@host-stop"));
    printf("create -> %d\n", wire_exec(client, "CREATE TABLE t(n)"));
    close(client);
    for (int i = 0; i < READERS + WRITERS; i++) {
        pthread_create(&threads[i], NULL, i < READERS ? reader_run : writer_run, &progress);
    }
    for (double limit = seconds() + 30; !all && seconds() < limit; pause_ms(5)) {
        pthread_mutex_lock(&progress.lock);
        all = progress.reading == READERS && progress.writing == WRITERS;
        pthread_mutex_unlock(&progress.lock);
    }
    printf("all busy: %s\n", yes_or_no(all));
    double begin = seconds();
    SHOW(dqlite_node_stop(n));
    printf("within five seconds: %s\n", yes_or_no(seconds() - begin < 5));
    for (int i = 0; i < READERS + WRITERS; i++) {
        pthread_join(threads[i], NULL);
    }
    printf("clients at the end of their stream: %d\n", progress.at_end);
    dqlite_node_destroy(n);
}

/* Creates, binds, starts, uses, stops and destroys; nothing is left. */
static void life(const char *directory)
{
    dqlite_node *n = running(directory, own("@host-life"));
    int client = wire_client(own("@host-life"));
    wire_exec(client, "CREATE TABLE IF NOT EXISTS t(n)");
    wire_exec(client, "INSERT INTO t VALUES(1)");
    if (wire_number(client, "SELECT count(*) AS n FROM t") <= 0) {
        printf("no rows\n");
    }
    /* This one stays until the node has stopped. */
    int idle = wire_client(own("@host-life"));
    dqlite_node_stop(n);
    dqlite_node_destroy(n);
    close(idle);
    close(client);
}

static void section_leaves_nothing(void)
{
    /* What is made once for the process is there after the first life. */
    life("leaves");
    int descriptors = count_entries("/proc/self/fd");
    int threads = count_entries("/proc/self/task");
    for (int round = 0; round < 5; round++) {
        life("leaves");
    }
    printf("descriptors %+d, threads %+d\n", count_entries("/proc/self/fd") - descriptors, count_entries("/proc/self/task") - threads);
}

static const struct section sections[] = {
    {"signals", section_signals, ONLY_HERE},
    {"threads", section_threads, EVERY_RELEASE},
    {"lives_at_once", section_lives_at_once, SINCE_1_18_7},
    {"children", section_children, EVERY_RELEASE},
    {"single_thread", section_single_thread, ONLY_HERE},
    {"multi_thread", section_multi_thread, EVERY_RELEASE},
    {"serialized", section_serialized, EVERY_RELEASE},
    {"user_functions", section_user_functions, EVERY_RELEASE},
    {"busy_timeout", section_busy_timeout, SINCE_1_18_7},
    {"stop_under_load", section_stop_under_load, SINCE_1_18_1},
    {"leaves_nothing", section_leaves_nothing, EVERY_RELEASE},
};

int main(int argc, char **argv)
{
    return run_sections(sections, sizeof sections / sizeof *sections, argc, argv);
}
