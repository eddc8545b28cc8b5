/*
 * The library as a guest in its host's process: descriptors, signals, threads that cannot be had, small stacks, callbacks, forked children, standard
 * error, and calls beside each other. The host is unkind in every section; the library answers, refuses with a text, or stops, and nothing ends the
 * process or holds it up. Works in the current directory, which must be empty and writable. docs/c-api.md.
 */
#include "life.h"

#include <limits.h>
#include <sys/resource.h>

/* Where a section keeps what it prints, out of the way of what it closes. */
#define KEPT 900

/* A call that should come back at once. */
#define AT_ONCE 1.0

/* The n-th thread that the library asks for cannot be had; 0: all can. The host's own threads come through here, too. */
static int refused_thread;
static int asked_threads;

typedef int create_thread(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

#ifndef __SANITIZE_ADDRESS__
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *), void *argument)
{
    static create_thread *real;
    if (real == NULL) {
        real = (create_thread *)(uintptr_t)dlsym(RTLD_NEXT, "pthread_create");
    }
    if (refused_thread != 0 && __sync_add_and_fetch(&asked_threads, 1) == refused_thread) {
        return EAGAIN;
    }
    return real(thread, attributes, function, argument);
}
#endif

/* Descriptors below 3 that are open, but for /dev/null, with which SQLite fills them up before it opens a file of its own. */
static int low_descriptors(void)
{
    int found = 0;
    struct stat null, status;
    stat("/dev/null", &null);
    for (int number = 0; number < 3; number++) {
        found += fstat(number, &status) == 0 && (!S_ISCHR(status.st_mode) || status.st_rdev != null.st_rdev);
    }
    return found;
}

static void section_standard_descriptors_closed(void)
{
    const char *address = own("@guest-closed");
    int kept = fcntl(1, F_DUPFD_CLOEXEC, KEPT);
    for (int number = 0; number < 3; number++) {
        close(number);
    }
    dqlite_node *n = running("closed", address);
    int after_start = low_descriptors();
    int done = insert(address, 60, 300000);
    int after_rows = low_descriptors();
    int code = dqlite_node_stop(n);
    dqlite_node_destroy(n);
    long long rows = rows_after_restart("closed", address);
    dup2(kept, 1);
    printf("numbers below 3: %d, %d; rows: %d, after a restart %lld; stop -> %d\n", after_start, after_rows, done, rows, code);
}

static void section_all_descriptors_closed(void)
{
    const char *address = own("@guest-all-closed");
    dqlite_node *n = running("all-closed", address);
    insert(address, 1, 10);
    for (int number = 3; number < KEPT; number++) {
        close(number);
    }
    double begin = seconds();
    while (dqlite_node_errmsg(n)[0] == 0 && seconds() - begin < 10) {
        pause_ms(20);
    }
    printf("it says why: %s\n", yes_or_no(strlen(dqlite_node_errmsg(n)) > 5));
    begin = seconds();
    SHOW(dqlite_node_stop(n));
    printf("it says why: %s, within 15 s: %s\n", yes_or_no(strlen(dqlite_node_errmsg(n)) > 5), yes_or_no(seconds() - begin < 15));
    dqlite_node_destroy(n);
    dqlite_node *again = running("all-closed-again", own("@guest-all-closed-again"));
    printf("another node: %d rows\n", insert(own("@guest-all-closed-again"), 3, 10));
    SHOW(dqlite_node_stop(again));
    dqlite_node_destroy(again);
}

/* Descriptors of a node, by what the system tells of them. */
enum kind { LOCK, DIRECTORY, SEGMENT, PAGE_FILE, LISTENER, ACCEPTED, EPOLL, EVENTFD, KINDS };

static const char *const kinds[KINDS] = {"lock", "directory", "segment", "page file", "listener", "accepted", "epoll", "eventfd"};

static int is_kind(int number, enum kind kind, const char *directory)
{
    char path[64], target[600], full[512];
    int listens = 0;
    socklen_t size = sizeof listens;
    struct sockaddr_un peer;
    socklen_t peer_size = sizeof peer;
    snprintf(path, sizeof path, "/proc/self/fd/%d", number);
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0 || realpath(directory, full) == NULL) {
        return 0;
    }
    target[length] = 0;
    switch (kind) {
    case LOCK:
        return strstr(target, "/dqlite-lock") != NULL;
    case DIRECTORY:
        return strcmp(target, full) == 0;
    case SEGMENT:
        return strstr(target, "/open-") != NULL;
    case PAGE_FILE:
        return strncmp(target, full, strlen(full)) == 0 && strstr(target, "(deleted)") != NULL;
    case LISTENER:
        return getsockopt(number, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens;
    case ACCEPTED:
        return getsockopt(number, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && !listens &&
               getpeername(number, (struct sockaddr *)&peer, &peer_size) == 0;
    case EPOLL:
        return strstr(target, "[eventpoll]") != NULL;
    default:
        return strstr(target, "[eventfd]") != NULL;
    }
}

/* The n-th descriptor of a kind, but for one that is the host's. */
static int find_kind(enum kind kind, const char *directory, int not_this, int nth)
{
    for (int number = 3; number < KEPT; number++) {
        if (number != not_this && is_kind(number, kind, directory) && nth-- == 0) {
            return number;
        }
    }
    return -1;
}

/* What a host puts under a number that it has closed. */
static const char theirs[] = "a line of somebody else's\n";

static int somebody_elses_file(int number)
{
    int file = open("theirs", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int fails = write(file, theirs, sizeof theirs) != (ssize_t)sizeof theirs || dup2(file, number) != number;
    /* The lowest free number may have been that one. */
    if (file != number) {
        close(file);
    }
    return fails;
}

static int is_somebody_elses(int number)
{
    char text[sizeof theirs + 16];
    struct stat status, own_status;
    return fstat(number, &status) == 0 && stat("theirs", &own_status) == 0 && status.st_ino == own_status.st_ino &&
           pread(number, text, sizeof text, 0) == (ssize_t)sizeof theirs && memcmp(text, theirs, sizeof theirs) == 0;
}

/* The descriptor that a text names, without its number. */
static const char *named_in(const char *text)
{
    static char name[300];
    const char *begin = strchr(text, '('), *end = begin == NULL ? NULL : strchr(begin, ')');
    snprintf(name, sizeof name, "%.*s", end == NULL ? 10 : (int)(end - begin - 1), end == NULL ? text : begin + 1);
    return name;
}

/* A life whose n-th descriptor of a kind is closed, and taken for another file if so wished. It has exit code 3 if there is none. */
static void life_without(enum kind kind, int taken, int nth, const char *directory)
{
    const char *address = own("@guest-without");
    dqlite_node *n = bound(directory, address);
    dqlite_node_enable_disk_mode(n);
    if (dqlite_node_start(n) != 0) {
        printf("start: \"%s\"\n", dqlite_node_errmsg(n));
    }
    int client = wire_client(address);
    wire_exec(client, "CREATE TABLE t(n INTEGER PRIMARY KEY, b)");
    int done = wire_exec(client, "INSERT INTO t(b) VALUES(zeroblob(100))") == 0;
    /* Whatever is being prepared has come to rest. */
    pause_ms(300);
    int number = find_kind(kind, directory, client, nth);
    if (number < 0) {
        dqlite_node_stop(n);
        _exit(3);
    }
    close(number);
    int fails = taken && somebody_elses_file(number);
    /* Some are needed at once, and others hardly ever. */
    struct pollfd ended = {client, POLLIN, 0};
    double begin = seconds();
    while (send_request(client, 8, 1, "INSERT INTO t(b) VALUES(zeroblob(100))", 0) == 0 && poll(&ended, 1, 1000) == 1) {
        unsigned char body[ANSWER_MAX_BYTES];
        size_t size;
        int type = receive_answer(client, body, &size);
        done += type == WIRE_RESULT;
        if (type != WIRE_RESULT || seconds() - begin > 3) {
            break;
        }
    }
    while (dqlite_node_errmsg(n)[0] == 0 && seconds() - begin < 10) {
        pause_ms(20);
    }
    char name[300];
    snprintf(name, sizeof name, "%s", named_in(dqlite_node_errmsg(n)));
    /* Numbers of segments differ. */
    if (strncmp(name, "file open-", 10) == 0) {
        name[10] = 0;
    }
    begin = seconds();
    int code = dqlite_node_stop(n);
    double took = seconds() - begin;
    const char *after = strstr(dqlite_node_errmsg(n), " was closed by others") != NULL ? "" : dqlite_node_errmsg(n);
    /* A runtime has several, of which it may do without some; and it may write to what has the number of its eventfd by then. */
    int tells = kind != EPOLL && kind != EVENTFD;
    if (tells) {
        printf("%s%s: \"%s\", stop %d%s%s%s", kinds[kind], taken ? ", taken" : "", name, code, took < 25 ? "" : " late", after[0] ? " " : "", after);
    } else if (took >= 25) {
        printf("%s%s %d: stop took %.0f s\n", kinds[kind], taken ? ", taken" : "", nth, took);
    }
    if (fails || (tells && taken && !is_somebody_elses(number))) {
        printf(", somebody else's file is touched");
    }
    fflush(stdout);
    /* Another process begins where this one may not write any more. */
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        alarm(30);
        long long rows = rows_after_restart(directory, own("@guest-without-again"));
        if (rows < done) {
            printf("%s%s, %d rows acknowledged, %lld there", kinds[kind], taken ? ", taken" : "", done, rows);
        }
        printf(tells || rows < done ? "\n" : "");
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, &status, 0);
    _exit(status == 0 ? 0 : 2);
}

/* Lives without one of them each: of files the first of a kind, of others all. */
static void lives_without(enum kind first, enum kind last)
{
    alarm(900);
    for (int kind = first; kind <= (int)last; kind++) {
        for (int taken = 0; taken <= 1; taken++) {
            int status = 0;
            for (int nth = 0; status == 0 && (nth == 0 || kind > PAGE_FILE); nth++) {
                char directory[64];
                snprintf(directory, sizeof directory, "without-%d-%d-%d", kind, taken, nth);
                fflush(stdout);
                pid_t child = fork();
                if (child == 0) {
                    alarm(100);
                    life_without((enum kind)kind, taken, nth, directory);
                }
                waitpid(child, &status, 0);
                if (WIFSIGNALED(status) || WEXITSTATUS(status) == 2) {
                    printf("%s %d%s: %s\n", kinds[kind], nth, taken ? ", taken" : "", WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "the directory is not free");
                    status = 0;
                }
                if (WEXITSTATUS(status) == 3 && nth == 0) {
                    printf("%s: there is none\n", kinds[kind]);
                }
            }
        }
    }
}

static void section_one_descriptor_closed(void)
{
    lives_without(LOCK, ACCEPTED);
}

/* Whichever it is: no process ends, the stop returns, and no row is lost. */
static void section_runtime_descriptor_closed(void)
{
    lives_without(EPOLL, EVENTFD);
    printf("all were tried\n");
}

static void section_full_pipe(void)
{
    const char *address = own("@guest-pipe");
    static char text[1 << 20];
    int ends[2];
    size_t length = 0;
    ssize_t got;
    if (pipe(ends) != 0) {
        return;
    }
    fcntl(ends[1], F_SETPIPE_SZ, 4096);
    dup2(ends[1], 2);
    setenv("LIBDQLITE_TRACE", "0", 1);
    double begin = seconds();
    dqlite_node *n = running("pipe", address);
    printf("rows: %d, within 20 s: %s\n", insert(address, 50, 100), yes_or_no(seconds() - begin < 20));
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    for (int round = 0; round < 20; round++) {
        while ((got = read(ends[0], text + length, sizeof text - 1 - length)) > 0) {
            length += (size_t)got;
        }
        insert(address, 1, 100);
    }
    text[length] = 0;
    printf("dropped lines are counted: %s\n", yes_or_no(strstr(text, " lines were dropped") != NULL));
    close(ends[0]);
    printf("rows without a reader: %d\n", insert(address, 5, 100));
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
}

static void section_file_size(void)
{
    const char *address = own("@guest-file-size");
    struct rlimit limit;
    dqlite_node *n = running("file-size", address);
    insert(address, 1, 10);
    getrlimit(RLIMIT_FSIZE, &limit);
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = 1 << 20;
    setrlimit(RLIMIT_FSIZE, &limit);
    double begin = seconds();
    int done = insert(address, 100, 300000);
    printf("some are refused: %s, within 15 s: %s\n", yes_or_no(done < 100), yes_or_no(seconds() - begin < 15));
    limit.rlim_cur = before;
    setrlimit(RLIMIT_FSIZE, &limit);
    begin = seconds();
    while (insert(address, 1, 10) == 0 && seconds() - begin < 15) {
        pause_ms(100);
    }
    printf("writes are taken again: %s\n", yes_or_no(seconds() - begin < 15));
    begin = seconds();
    int code = dqlite_node_stop(n);
    printf("stop within 15 s: %s, a code without a text: %s\n", yes_or_no(seconds() - begin < 15),
           yes_or_no(code != 0 && dqlite_node_errmsg(n)[0] == 0));
    dqlite_node_destroy(n);
}

/* Signals that a thread's own instructions raise; the others have no business on the library's threads. */
static int takes_signals(unsigned long long blocked)
{
    static const int own_signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGKILL, SIGSTOP};
    for (size_t i = 0; i < sizeof own_signals / sizeof *own_signals; i++) {
        blocked |= 1ULL << (own_signals[i] - 1);
    }
    /* The C library keeps two for itself. */
    blocked |= 3ULL << 31;
    return ~blocked != 0;
}

static void section_signals_are_the_hosts(void)
{
    const char *address = own("@guest-signals");
    dqlite_node *n = running("signals", address);
    int threads = 0, taking = 0;
    insert(address, 10, 10);
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    while ((task = readdir(tasks)) != NULL) {
        char path[512], line[256], name[64] = "";
        unsigned long long blocked = 0;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", task->d_name);
        FILE *status = fopen(path, "r");
        while (status != NULL && fgets(line, sizeof line, status) != NULL) {
            sscanf(line, "Name: %63s", name);
            sscanf(line, "SigBlk: %llx", &blocked);
        }
        if (status != NULL) {
            fclose(status);
        }
        if (strncmp(name, "dqlite-", 7) == 0) {
            threads++;
            taking += takes_signals(blocked);
        }
    }
    closedir(tasks);
    printf("threads: %s, that take signals: %d\n", threads > 4 ? "several" : "few", taking);
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
}

/* A life on a thread with the smallest stack that there is. */
static void *small_life(void *argument)
{
    int *codes = (int *)argument;
    dqlite_node *n = NULL;
    uint64_t index = 0, term = 0;
    codes[0] = dqlite_node_create(1, "1", "small", &n);
    codes[1] = dqlite_node_set_bind_address(n, own("@guest-small"));
    codes[2] = dqlite_node_start(n);
    codes[3] = dqlite_node_handover(n);
    codes[4] = dqlite_node_stop(n);
    codes[5] = dqlite_node_describe_last_entry(n, &index, &term);
    dqlite_node_destroy(n);
    return NULL;
}

static void section_small_stack(void)
{
    int codes[6] = {-1, -1, -1, -1, -1, -1};
    pthread_attr_t attributes;
    pthread_t thread;
    mkdir("small", 0755);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, (size_t)PTHREAD_STACK_MIN);
    if (pthread_create(&thread, &attributes, small_life, codes) != 0) {
        printf("there are no such threads\n");
        return;
    }
    pthread_join(thread, NULL);
    printf("create %d, bind %d, start %d, handover %d, stop %d, describe %d\n", codes[0], codes[1], codes[2], codes[3], codes[4], codes[5]);
}

/* One thread after the other cannot be had, from the start on. */
static void section_each_thread(void)
{
    int descriptors, started = 0, refused = 0, wrong = 0, late = 0, leaking = 0;
    const char *address = own("@guest-thread");
    for (int nth = 1; nth <= 24; nth++) {
        dqlite_node *n = bound("thread", address);
        descriptors = count_entries("/proc/self/fd");
        asked_threads = 0;
        refused_thread = nth;
        double begin = seconds();
        int code = dqlite_node_start(n);
        late += seconds() - begin > 8;
        if (code == 0) {
            started++;
            int done = insert(address, 1, 10);
            /* A moment in which no thread can be had may cost the first. */
            wrong += done == 0 && insert(address, 1, 10) == 0 && insert(address, 1, 10) == 0;
            begin = seconds();
            wrong += dqlite_node_stop(n) != 0;
            late += seconds() - begin > 8;
        } else {
            refused++;
            wrong += strlen(dqlite_node_errmsg(n)) < 5;
            leaking += count_entries("/proc/self/fd") > descriptors;
            refused_thread = 0;
            /* What is free again may be had again. */
            wrong += dqlite_node_start(n) != 0 || insert(address, 1, 10) != 1 || dqlite_node_stop(n) != 0;
        }
        refused_thread = 0;
        dqlite_node_destroy(n);
    }
    printf("some start: %s, some are refused: %s, wrong: %d, late: %d, that leave descriptors: %s\n", yes_or_no(started > 0), yes_or_no(refused > 4), wrong,
           late, leaking <= 2 ? "none but the two that are made inside the runtime" : "several");
}

/* What a connect function does, and what came of it. */
struct unkind {
    dqlite_node *node;
    int what;
    int called;
    int codes[5];
    char text[300];
    const char *address;
};

enum { CALLS_BACK, NEVER_RETURNS, EXITS, IS_CANCELLED };

static int unkind_connect(void *argument, const char *address, int *fd)
{
    struct unkind *unkind = (struct unkind *)argument;
    (void)address;
    (void)fd;
    int first = __sync_add_and_fetch(&unkind->called, 1) == 1;
    if (unkind->what == NEVER_RETURNS) {
        for (;;) {
            pause();
        }
    }
    if (unkind->what == EXITS) {
        pthread_exit(NULL);
    }
    if (unkind->what == IS_CANCELLED) {
        pthread_cancel(pthread_self());
        pause_ms(1);
        for (;;) {
            pthread_testcancel();
        }
    }
    if (first) {
        dqlite_node_info_ext info;
        memset(&info, 0, sizeof info);
        info.size = sizeof info;
        info.id = 1;
        info.address = (uint64_t)(uintptr_t) "1";
        unkind->codes[0] = dqlite_node_stop(unkind->node);
        snprintf(unkind->text, sizeof unkind->text, "%s", dqlite_node_errmsg(unkind->node));
        unkind->codes[1] = dqlite_node_start(unkind->node);
        unkind->codes[2] = dqlite_node_handover(unkind->node);
        unkind->codes[3] = dqlite_node_recover_ext(unkind->node, &info, 1);
        dqlite_node_destroy(unkind->node);
        unkind->codes[4] = dqlite_node_set_busy_timeout(unkind->node, 10);
        unkind->address = dqlite_node_get_bind_address(unkind->node);
        __sync_synchronize();
        __sync_add_and_fetch(&unkind->called, 1);
    }
    return 1;
}

/* A node that dials another, which is not there. */
static dqlite_node *dialling(const char *directory, const char *address, struct unkind *unkind)
{
    dqlite_node *n = bound(directory, address);
    unkind->node = n;
    dqlite_node_set_network_latency_ms(n, 5);
    dqlite_node_set_connect_func(n, unkind_connect, unkind);
    if (dqlite_node_start(n) != 0) {
        printf("start: %s\n", dqlite_node_errmsg(n));
    }
    int client = wire_client(address);
    unsigned char add[8 + 8 + 8] = {2, 0, 0, 0, 12, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, '@', '9', 0, 0, 0, 0, 0, 0};
    unsigned char assign[8 + 16] = {2, 0, 0, 0, 13, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0};
    unsigned char body[ANSWER_MAX_BYTES];
    size_t size;
    send_all(client, add, sizeof add);
    receive_answer(client, body, &size);
    send_all(client, assign, sizeof assign);
    double begin = seconds();
    while (__sync_add_and_fetch(&unkind->called, 0) < 2 && seconds() - begin < 15 && (unkind->what != NEVER_RETURNS || unkind->called < 1)) {
        pause_ms(10);
    }
    close(client);
    return n;
}

static void section_calls_within_a_callback(void)
{
    struct unkind unkind;
    memset(&unkind, 0, sizeof unkind);
    unkind.what = CALLS_BACK;
    const char *address = own("@guest-within");
    dqlite_node *n = dialling("within", address, &unkind);
    printf("stop %d, start %d, handover %d, recover %d, busy timeout %d, address %s\n", unkind.codes[0], unkind.codes[1], unkind.codes[2], unkind.codes[3],
           unkind.codes[4], shown(unkind.address));
    printf("\"%s\"\n", unkind.text);
    printf("the node is there: %d rows\n", insert(address, 3, 10));
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
}

static void section_callback_never_returns(void)
{
    struct unkind unkind;
    memset(&unkind, 0, sizeof unkind);
    unkind.what = NEVER_RETURNS;
    dqlite_node *n = dialling("never", own("@guest-never"), &unkind);
    double begin = seconds();
    SHOW(dqlite_node_stop(n));
    printf("within 15 s: %s, says what is left: %s\n", yes_or_no(seconds() - begin < 15), yes_or_no(strstr(dqlite_node_errmsg(n), "connect function") != NULL));
    dqlite_node_destroy(n);
    n = running("never", own("@guest-never"));
    printf("the directory is free: %s\n", yes_or_no(dqlite_node_errmsg(n)[0] == 0));
    dqlite_node_stop(n);
    dqlite_node_destroy(n);
}

static void ends_its_thread(int what, const char *directory, const char *address)
{
    struct unkind unkind;
    memset(&unkind, 0, sizeof unkind);
    unkind.what = what;
    dqlite_node *n = dialling(directory, address, &unkind);
    printf("called again and again: %s, rows: %d\n", yes_or_no(unkind.called >= 2), insert(address, 3, 10));
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
}

static void section_callback_ends_its_thread(void)
{
    ends_its_thread(EXITS, "exits", own("@guest-exits"));
    ends_its_thread(IS_CANCELLED, "cancelled", own("@guest-cancelled"));
}

static void section_forked_child(void)
{
    const char *address = own("@guest-forked");
    int status = -1;
    dqlite_node *n = running("forked", address);
    insert(address, 1, 10);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(10);
        SHOW(dqlite_node_stop(n));
        printf("\"%s\"\n", dqlite_node_errmsg(n));
        SHOW(dqlite_node_start(n));
        SHOW(dqlite_node_handover(n));
        SHOW(dqlite_node_set_busy_timeout(n, 10));
        printf("address: %s\n", shown(dqlite_node_get_bind_address(n)));
        dqlite_node_destroy(n);
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, &status, 0);
    printf("child: %d, rows of the parent: %d\n", status, insert(address, 3, 10));
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
    /* A daemon forks first. */
    n = bound("daemon", own("@guest-daemon"));
    fflush(stdout);
    child = fork();
    if (child == 0) {
        alarm(20);
        SHOW(dqlite_node_start(n));
        printf("rows of a daemon: %d\n", insert(own("@guest-daemon"), 3, 10));
        SHOW(dqlite_node_stop(n));
        dqlite_node_destroy(n);
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, &status, 0);
    printf("daemon: %d\n", status);
    dqlite_node_destroy(n);
}

/* A child that lives on has copies of all descriptors of its parent. */
static void section_child_lives_on(void)
{
    int status = -1;
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%d", 20000 + (int)getpid() % 12000);
    dqlite_node *n = running("lives-on", address);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        pause();
        _exit(0);
    }
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
    n = NULL;
    SHOW(dqlite_node_create(1, "1", "lives-on", &n));
    SHOW(dqlite_node_set_bind_address(n, address));
    SHOW(dqlite_node_start(n));
    printf("\"%s\"\n", dqlite_node_errmsg(n));
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    /* A start that failed leaves the handle to whoever starts it next. */
    dqlite_node *other = running("starts-first", own("@guest-first"));
    dqlite_node *same = bound("starts-first", own("@guest-same"));
    SHOW(dqlite_node_start(same));
    fflush(stdout);
    child = fork();
    if (child == 0) {
        alarm(20);
        SHOW(dqlite_node_set_bind_address(same, own("@guest-child")));
        dqlite_node_destroy(same);
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, &status, 0);
    printf("child: %d\n", status);
    SHOW(dqlite_node_stop(other));
    dqlite_node_destroy(other);
    dqlite_node_destroy(same);
}

static void *start_of(void *node)
{
    return dqlite_node_start((dqlite_node *)node) == 0 ? node : NULL;
}

/* Processes that are forked while another thread is somewhere inside a start. */
static void section_forked_beside_a_start(void)
{
    int wrong = 0;
    for (int round = 0; round < 40; round++) {
        char directory[32];
        int status = -1;
        pthread_t thread;
        void *started = NULL;
        snprintf(directory, sizeof directory, "beside-%d", round);
        dqlite_node *n = bound(directory, own("@guest-beside"));
        pthread_create(&thread, NULL, start_of, n);
        usleep((useconds_t)(round % 8) * 50);
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            alarm(5);
            dqlite_node_errmsg(n);
            /* The node is the parent's, or was not being started yet. */
            int code = dqlite_node_set_busy_timeout(n, 10);
            _exit(code == 0 || code == DQLITE_MISUSE ? 0 : 1);
        }
        waitpid(child, &status, 0);
        wrong += status != 0;
        pthread_join(thread, &started);
        wrong += started == NULL || dqlite_node_stop(n) != 0;
        dqlite_node_destroy(n);
    }
    printf("wrong: %d\n", wrong);
}

/* A thread that is inside a call is cancelled: the call comes to its end first. */
static void section_cancelled_inside(void)
{
    pthread_t thread;
    void *ended = NULL;
    dqlite_node *n = bound("cancelled", own("@guest-cancelled"));
    pthread_create(&thread, NULL, start_of, n);
    usleep(1000);
    pthread_cancel(thread);
    pthread_join(thread, &ended);
    printf("ended: %s, rows: %d\n", yes_or_no(ended == PTHREAD_CANCELED || ended == n), insert(own("@guest-cancelled"), 3, 10));
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
}

static void section_arguments_that_make_no_sense(void)
{
    uint64_t index = 0;
    dqlite_node *n = bound("nonsense", own("@guest-nonsense"));
    struct dqlite_node_info info = {1, NULL};
    struct dqlite_node_info_ext larger = {.size = 7};
    SHOW(dqlite_node_set_bind_address(n, NULL));
    printf("\"%s\"\n", dqlite_node_errmsg(n));
    SHOW(dqlite_node_recover(n, NULL, 2));
    printf("\"%s\"\n", dqlite_node_errmsg(n));
    SHOW(dqlite_node_recover(n, &info, 1));
    printf("\"%s\"\n", dqlite_node_errmsg(n));
    SHOW(dqlite_node_recover_ext(n, &larger, 1));
    printf("\"%s\"\n", dqlite_node_errmsg(n));
    SHOW(dqlite_node_describe_last_entry(n, &index, NULL));
    printf("\"%s\"\n", dqlite_node_errmsg(n));
    SHOW(dqlite_node_describe_last_entry(n, &index, &index));
    printf("\"%s\"\n", dqlite_node_errmsg(n));
    dqlite_node_destroy(n);
    /* More than are allowed are refused without a look behind them. */
    static const char *addresses[4097];
    dqlite_server *server = NULL;
    for (int i = 0; i < 4097; i++) {
        addresses[i] = "127.0.0.1:1";
    }
    mkdir("nonsense-server", 0700);
    SHOW(dqlite_server_create("nonsense-server", &server));
    SHOW(dqlite_server_set_auto_join(server, NULL, 1));
    SHOW(dqlite_server_set_auto_join(server, addresses, UINT_MAX));
    SHOW(dqlite_server_set_auto_join(server, addresses, 4096));
    dqlite_server_destroy(server);
}

/* Why a server does not start is a line of the log. */
static void section_server_tells(void)
{
    char text[400] = "";
    int ends[2], standard = dup(2);
    dqlite_server *server = NULL;
    if (pipe(ends) != 0) return;
    mkdir("told", 0700);
    setenv("LIBDQLITE_TRACE", "4", 1);
    dup2(ends[1], 2);
    int created = dqlite_server_create("told", &server), started = dqlite_server_start(server);
    dup2(standard, 2);
    close(ends[1]);
    unsetenv("LIBDQLITE_TRACE");
    ssize_t length = read(ends[0], text, sizeof text - 1);
    close(ends[0]);
    close(standard);
    printf("create %d, start %d, says why: %s\n", created, started, yes_or_no(length > 0 && strstr(text, "no address has been set") != NULL));
    dqlite_server_destroy(server);
}

struct call {
    int (*call)(void *);
    void *of;
    int code;
    int done;
    double took;
    char text[300];
};

static void *call_run(void *argument)
{
    struct call *call = (struct call *)argument;
    double begin = seconds();
    call->code = call->call(call->of);
    call->took = seconds() - begin;
    __sync_synchronize();
    __sync_add_and_fetch(&call->done, 1);
    return NULL;
}

static int server_start(void *server)
{
    return dqlite_server_start((dqlite_server *)server);
}

static int server_stop(void *server)
{
    return dqlite_server_stop((dqlite_server *)server);
}

static int handover(void *node)
{
    return dqlite_node_handover((dqlite_node *)node);
}

static void section_calls_beside_each_other(void)
{
    dqlite_server *server = NULL;
    const char *members[] = {"127.0.0.1:1"};
    pthread_t threads[2];
    struct call start, stop;
    memset(&start, 0, sizeof start);
    memset(&stop, 0, sizeof stop);
    mkdir("beside", 0755);
    dqlite_server_create("beside", &server);
    dqlite_server_set_address(server, "127.0.0.1:0");
    dqlite_server_set_auto_join(server, members, 1);
    start.call = server_start;
    stop.call = server_stop;
    start.of = stop.of = server;
    SHOW(dqlite_server_stop(server));
    pthread_create(&threads[0], NULL, call_run, &start);
    pause_ms(700);
    double begin = seconds();
    printf("a second start -> %d, handover -> %d, at once: ", dqlite_server_start(server), dqlite_server_handover(server));
    printf("%s\n", yes_or_no(seconds() - begin < AT_ONCE));
    pthread_create(&threads[1], NULL, call_run, &stop);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    printf("start -> %d, stop -> %d, within 5 s: %s\n", start.code, stop.code, yes_or_no(stop.took < 5));
    dqlite_server_destroy(server);

    /* A handover waits for a leader; getters and a stop do not wait for it. */
    struct unkind unkind;
    memset(&unkind, 0, sizeof unkind);
    unkind.what = -1;
    dqlite_node *n = dialling("handing", own("@guest-handing"), &unkind);
    struct call handing;
    memset(&handing, 0, sizeof handing);
    handing.call = handover;
    handing.of = n;
    pthread_create(&threads[0], NULL, call_run, &handing);
    double longest = 0;
    for (int round = 0; round < 20; round++) {
        begin = seconds();
        dqlite_node_errmsg(n);
        dqlite_node_get_bind_address(n);
        dqlite_node_set_busy_timeout(n, 10);
        longest = seconds() - begin > longest ? seconds() - begin : longest;
        pause_ms(5);
    }
    begin = seconds();
    printf("getters at once: %s, stop -> %d", yes_or_no(longest < AT_ONCE), dqlite_node_stop(n));
    printf(", within 10 s: %s\n", yes_or_no(seconds() - begin < 10));
    pthread_join(threads[0], NULL);
    printf("handover -> %d\n", handing.code);
    dqlite_node_destroy(n);
}

static void section_texts(void)
{
    const char *addresses[] = {"192.0.2.1:9001", "nosuchhost.invalid:9001", "127.0.0.9:99999", "127.0.0.9:abc"};
    dqlite_node *n = create_quietly("texts");
    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        int code = dqlite_node_set_bind_address(n, addresses[i]);
        printf("%d \"%s\"\n", code, dqlite_node_errmsg(n));
    }
    SHOW(dqlite_node_stop(n));
    printf("\"%s\"\n", dqlite_node_errmsg(n));
    SHOW(dqlite_node_set_bind_address(n, own("@guest-texts")));
    printf("\"%s\"\n", dqlite_node_errmsg(n));
    SHOW(dqlite_node_start(n));
    SHOW(dqlite_node_set_network_latency_ms(n, 10));
    printf("\"%s\"\n", dqlite_node_errmsg(n));
    SHOW(dqlite_node_handover(n));
    printf("\"%s\"\n", dqlite_node_errmsg(n));
    SHOW(dqlite_node_stop(n));
    printf("\"%s\"\n", dqlite_node_errmsg(n));
    dqlite_node_destroy(n);
}

static const struct section sections[] = {
    {"standard_descriptors_closed", section_standard_descriptors_closed, ONLY_HERE},
    {"all_descriptors_closed", section_all_descriptors_closed, ONLY_HERE},
    {"one_descriptor_closed", section_one_descriptor_closed, ONLY_HERE},
    {"runtime_descriptor_closed", section_runtime_descriptor_closed, ONLY_HERE},
    {"full_pipe", section_full_pipe, ONLY_HERE},
    {"file_size", section_file_size, ONLY_HERE},
    {"signals_are_the_hosts", section_signals_are_the_hosts, ONLY_HERE},
    {"small_stack", section_small_stack, ONLY_HERE},
    {"each_thread", section_each_thread, ONLY_HERE},
    {"calls_within_a_callback", section_calls_within_a_callback, ONLY_HERE},
    {"callback_never_returns", section_callback_never_returns, ONLY_HERE},
    {"callback_ends_its_thread", section_callback_ends_its_thread, ONLY_HERE},
    {"forked_child", section_forked_child, ONLY_HERE},
    {"child_lives_on", section_child_lives_on, ONLY_HERE},
    {"forked_beside_a_start", section_forked_beside_a_start, ONLY_HERE},
    {"cancelled_inside", section_cancelled_inside, ONLY_HERE},
    {"arguments_that_make_no_sense", section_arguments_that_make_no_sense, ONLY_HERE},
    {"server_tells", section_server_tells, ONLY_HERE},
    {"calls_beside_each_other", section_calls_beside_each_other, ONLY_HERE},
    {"texts", section_texts, ONLY_HERE},
};

int main(int argc, char **argv)
{
    return run_sections(sections, sizeof sections / sizeof *sections, argc, argv);
}
