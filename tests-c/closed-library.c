/*
 * A host that loads the library by dlopen, as a plugin does, and closes it again: between lives, beside a node that runs, and while a thread that
 * has called it lives on. It is not linked with it: what it calls is looked up. Works in the current directory, which must be empty and writable.
 */
#include "wire.h"

#define LIBRARY "libdqlite.so.0"

/* What is called of a library that was loaded. */
struct calls {
    void *handle;
    int (*create)(dqlite_node_id, const char *, const char *, dqlite_node **);
    int (*bind)(dqlite_node *, const char *);
    int (*start)(dqlite_node *);
    int (*stop)(dqlite_node *);
    void (*destroy)(dqlite_node *);
    const char *(*errmsg)(dqlite_node *);
};

static struct calls load(void)
{
    struct calls calls;
    memset(&calls, 0, sizeof calls);
    calls.handle = dlopen(LIBRARY, RTLD_LOCAL | RTLD_NOW);
    if (calls.handle == NULL) {
        printf("dlopen: %s\n", dlerror());
        exit(1);
    }
    *(void **)&calls.create = dlsym(calls.handle, "dqlite_node_create");
    *(void **)&calls.bind = dlsym(calls.handle, "dqlite_node_set_bind_address");
    *(void **)&calls.start = dlsym(calls.handle, "dqlite_node_start");
    *(void **)&calls.stop = dlsym(calls.handle, "dqlite_node_stop");
    *(void **)&calls.destroy = dlsym(calls.handle, "dqlite_node_destroy");
    *(void **)&calls.errmsg = dlsym(calls.handle, "dqlite_node_errmsg");
    return calls;
}

/* A node that runs in `directory`. */
static dqlite_node *begin(const struct calls *calls, const char *directory, const char *address)
{
    dqlite_node *n = NULL;
    mkdir(directory, 0755);
    int created = calls->create(1, "1", directory, &n), bound = calls->bind(n, address), started = calls->start(n);
    printf("create %d, bind %d, start %d \"%s\"\n", created, bound, started, calls->errmsg(n));
    return n;
}

static void rows(const char *address)
{
    int client = wire_client(address);
    wire_exec(client, "CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY)");
    int code = wire_exec(client, "INSERT INTO t DEFAULT VALUES");
    printf("insert %d, rows: %lld\n", code, wire_number(client, "SELECT count(*) AS n FROM t"));
    close(client);
}

static void end(const struct calls *calls, dqlite_node *n)
{
    printf("stop %d \"%s\"\n", calls->stop(n), calls->errmsg(n));
    calls->destroy(n);
}

static void section_two_lives(void)
{
    const char *address = own("@closed-lives");
    int threads = count_entries("/proc/self/task"), descriptors = count_entries("/proc/self/fd");
    for (int life = 0; life < 2; life++) {
        struct calls calls = load();
        dqlite_node *n = begin(&calls, "lives", address);
        rows(address);
        end(&calls, n);
        printf("dlclose %d, descriptors left: %d\n", dlclose(calls.handle), count_entries("/proc/self/fd") - descriptors);
    }
    double since = seconds();
    while (count_entries("/proc/self/task") != threads && seconds() - since < 5) {
        pause_ms(1);
    }
    printf("threads left: %d\n", count_entries("/proc/self/task") - threads);
}

/* The code of a node that runs stays where it is. */
static void section_closed_beside_a_node(void)
{
    const char *address = own("@closed-beside");
    struct calls calls = load();
    dqlite_node *n = begin(&calls, "beside", address);
    rows(address);
    printf("dlclose %d\n", dlclose(calls.handle));
    rows(address);
    void *again = dlopen(LIBRARY, RTLD_NOW | RTLD_NOLOAD);
    printf("it is there: %s\n", yes_or_no(again != NULL && dlsym(again, "dqlite_node_stop") == *(void **)&calls.stop));
    end(&calls, n);
    printf("dlclose %d\n", again == NULL ? -1 : dlclose(again));
}

struct caller {
    const char *address;
    int ends[2];
    int has_closed;
};

/* What a thread has of the library ends with the thread, when nobody has it open any more. */
static void *call_and_wait(void *argument)
{
    struct caller *caller = (struct caller *)argument;
    char byte;
    struct calls calls = load();
    dqlite_node *n = begin(&calls, "thread", caller->address);
    rows(caller->address);
    end(&calls, n);
    printf("dlclose %d\n", dlclose(calls.handle));
    __sync_fetch_and_add(&caller->has_closed, 1);
    return read(caller->ends[0], &byte, 1) == 0 ? argument : NULL;
}

static void section_a_thread_ends_afterwards(void)
{
    struct caller caller = {own("@closed-thread"), {-1, -1}, 0};
    pthread_t thread;
    void *ended = NULL;
    if (pipe(caller.ends) != 0) {
        return;
    }
    pthread_create(&thread, NULL, call_and_wait, &caller);
    while (__sync_fetch_and_add(&caller.has_closed, 0) == 0) {
        pause_ms(1);
    }
    close(caller.ends[1]);
    pthread_join(thread, &ended);
    printf("ended: %s\n", yes_or_no(ended == &caller));
    struct calls calls = load();
    dqlite_node *n = begin(&calls, "thread", caller.address);
    rows(caller.address);
    end(&calls, n);
    printf("dlclose %d\n", dlclose(calls.handle));
}

static const struct section sections[] = {
    {"two_lives", section_two_lives, ONLY_HERE},
    {"closed_beside_a_node", section_closed_beside_a_node, ONLY_HERE},
    {"a_thread_ends_afterwards", section_a_thread_ends_afterwards, ONLY_HERE},
};

int main(int argc, char **argv)
{
    return run_sections(sections, sizeof sections / sizeof *sections, argc, argv);
}
