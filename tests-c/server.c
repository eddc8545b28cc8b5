/*
 * Calls every server function in and out of order and prints what it sees: `server HOST FIRST-PORT SECTION...`, in an empty directory. Runs with any
 * libdqlite.so.0 from 1.15.1 on. `server HOST FIRST-PORT serve NUMBER` is one server, which takes orders from its standard input. Addresses and ids are printed as letters. Each section is a process of its own, so that one that dies or hangs says so
 * and the others go on. C99, C11 and C++17 alike. spec: c-api 4.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dqlite.h>

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

#define SECTION_SECONDS 90
#define SERVERS 4
#define FILE_MAX_BYTES 4096

#define SHOW(call) printf("%s -> %d\n", #call, call)

static char address[SERVERS][32];
static unsigned long long id[SERVERS];

/* A directory that is there, and a server in it. */
static dqlite_server *make(const char *directory)
{
    dqlite_server *server = NULL;
    if (mkdir(directory, 0755) != 0 && errno != EEXIST) {
        printf("mkdir %s: %s\n", directory, strerror(errno));
    }
    if (dqlite_server_create(directory, &server) != 0) {
        printf("no server in %s\n", directory);
        exit(1);
    }
    return server;
}

static dqlite_server *make_founder(const char *directory)
{
    dqlite_server *server = make(directory);
    dqlite_server_set_address(server, address[0]);
    dqlite_server_set_auto_bootstrap(server, true);
    return server;
}

static const char *directory_of(int number)
{
    static const char *const directories[SERVERS] = {"a", "b", "c", "d"};
    return directories[number];
}

/* Number `number` of a cluster: the first makes it, the next two join over it and the last over the third. With upstream nobody can join over a spare. */
static dqlite_server *make_member(int number)
{
    if (number == 0) {
        return make_founder("a");
    }
    dqlite_server *server = make(directory_of(number));
    const char *members[] = {"127.0.0.1:1", address[number == 3 ? 2 : 0]};
    dqlite_server_set_address(server, address[number]);
    dqlite_server_set_auto_join(server, members, 1);
    dqlite_server_set_auto_join(server, members + 1, 1);
    return server;
}

static void print_line(const char *line)
{
    for (int number = 0; number < SERVERS; number++) {
        char text[32];
        snprintf(text, sizeof text, "%llu", id[number]);
        if (strcmp(line, address[number]) == 0) {
            printf(" address-%c", 'A' + number);
            return;
        }
        if (id[number] != 0 && strcmp(line, text) == 0) {
            printf(" id-%c", 'A' + number);
            return;
        }
    }
    printf(" %s", line);
}

static void print_file(const char *directory, const char *name)
{
    char path[256], text[FILE_MAX_BYTES];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "r");
    size_t bytes = file == NULL ? 0 : fread(text, 1, sizeof text - 1, file);
    if (file != NULL) {
        fclose(file);
    }
    text[bytes] = '\0';
    printf("%s:", path);
    /* A missing file and an empty one mean the same. */
    if (bytes == 0) {
        printf(" nothing\n");
        return;
    }
    char *line = text;
    for (char *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = '\0';
        print_line(line);
    }
    printf("%s\n", *line == '\0' ? "" : " without an end");
}

static void print_files(const char *directory)
{
    print_file(directory, "server-info");
    print_file(directory, "node-store");
}

static void put_file(const char *directory, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    if (file == NULL || fputs(text, file) < 0 || fclose(file) != 0) {
        printf("cannot write %s\n", path);
        exit(1);
    }
}

static void section_create(void)
{
    dqlite_server *server = NULL;
    SHOW(dqlite_server_create("never-made", &server));
    SHOW((int)dqlite_server_get_id(server));
    SHOW(dqlite_server_stop(server));
    SHOW(dqlite_server_set_address(server, "no address"));
    SHOW(dqlite_server_set_address(server, address[0]));
    SHOW(dqlite_server_set_bind_address(server, "no address"));
    SHOW(dqlite_server_set_auto_bootstrap(server, true));
    SHOW(dqlite_server_set_auto_bootstrap(server, false));
    SHOW(dqlite_server_set_auto_join(server, NULL, 0));
    SHOW(dqlite_server_set_connect_func(server, NULL, NULL));
    dqlite_server_destroy(server);
}

/* conformance: c-api 66 */
static void section_bootstrap(void)
{
    dqlite_server *server = make_founder("founder");
    SHOW(dqlite_server_start(server));
    printf("id %llu\n", (unsigned long long)dqlite_server_get_id(server));
    id[0] = dqlite_server_get_id(server);
    SHOW(dqlite_server_start(server));
    print_files("founder");
    SHOW(dqlite_server_stop(server));
    SHOW(dqlite_server_stop(server));
    printf("id %llu\n", (unsigned long long)dqlite_server_get_id(server));
    print_files("founder");
    dqlite_server_destroy(server);

    /* The file wins over what is set; settings are not needed any more. */
    server = make("founder");
    dqlite_server_set_address(server, address[1]);
    SHOW(dqlite_server_start(server));
    print_files("founder");
    SHOW(dqlite_server_stop(server));
    SHOW(dqlite_server_start(server));
    SHOW(dqlite_server_stop(server));
    print_files("founder");
    dqlite_server_destroy(server);
}

static void section_destroy_running(void)
{
    dqlite_server *server = make_founder("destroyed");
    SHOW(dqlite_server_start(server));
    id[0] = dqlite_server_get_id(server);
    SHOW(dqlite_server_stop(server));
    dqlite_server_destroy(server);
    server = make("destroyed");
    SHOW(dqlite_server_start(server));
    dqlite_server_destroy(server);
    server = make("destroyed");
    SHOW(dqlite_server_start(server));
    SHOW(dqlite_server_stop(server));
    print_files("destroyed");
    dqlite_server_destroy(server);
}

/* conformance: c-api 66, 67 */
static void section_senseless(void)
{
    const char *members[] = {"127.0.0.1:1"};
    dqlite_server *server = make_founder("both");
    dqlite_server_set_auto_join(server, members, 1);
    SHOW(dqlite_server_start(server));
    SHOW(dqlite_server_stop(server));
    print_files("both");
    dqlite_server_destroy(server);

    dqlite_server_create("missing", &server);
    dqlite_server_set_address(server, address[0]);
    dqlite_server_set_auto_bootstrap(server, true);
    SHOW(dqlite_server_start(server));
    dqlite_server_destroy(server);

    server = make("nobody");
    dqlite_server_set_address(server, address[0]);
    SHOW(dqlite_server_start(server));
    dqlite_server_destroy(server);

    server = make_founder("bad-bind");
    dqlite_server_set_bind_address(server, "no address");
    SHOW(dqlite_server_start(server));
    dqlite_server_destroy(server);
}

/* conformance: c-api 67 (better: upstream dies) */
static void section_no_address(void)
{
    dqlite_server *server = make("no-address");
    SHOW(dqlite_server_start(server));
    dqlite_server_set_auto_bootstrap(server, true);
    SHOW(dqlite_server_start(server));
    print_files("no-address");
    dqlite_server_destroy(server);
}

/* conformance: c-api 66 (better: upstream dies at some of these calls) */
static void section_null(void)
{
    dqlite_server *server = NULL;
    const char *members[] = {NULL};
    SHOW(dqlite_server_create(NULL, &server));
    SHOW(dqlite_server_create("x", NULL));
    SHOW(dqlite_server_set_address(NULL, "x"));
    SHOW(dqlite_server_set_auto_bootstrap(NULL, true));
    SHOW(dqlite_server_set_auto_join(NULL, NULL, 0));
    SHOW(dqlite_server_set_bind_address(NULL, "x"));
    SHOW(dqlite_server_set_connect_func(NULL, NULL, NULL));
    SHOW(dqlite_server_start(NULL));
    SHOW((int)dqlite_server_get_id(NULL));
    SHOW(dqlite_server_handover(NULL));
    SHOW(dqlite_server_stop(NULL));
    dqlite_server_destroy(NULL);
    server = make("null");
    SHOW(dqlite_server_set_address(server, NULL));
    SHOW(dqlite_server_set_bind_address(server, NULL));
    SHOW(dqlite_server_set_auto_join(server, NULL, 1));
    SHOW(dqlite_server_set_auto_join(server, members, 1));
    SHOW(dqlite_server_handover(server));
    SHOW(dqlite_server_start(server));
    SHOW(dqlite_server_handover(server));
    dqlite_server_destroy(server);
}

static void try_file(const char *name, const char *text)
{
    dqlite_server *server = make_founder("bad-files");
    put_file("bad-files", name, text);
    int code = dqlite_server_start(server);
    printf("%s \"", name);
    for (const char *character = text; *character != '\0'; character++) {
        printf(*character == '\n' ? "\\n" : *character == '\r' ? "\\r" : "%c", *character);
    }
    printf("\" -> %d\n", code);
    if (code == 0) {
        dqlite_server_stop(server);
    }
    dqlite_server_destroy(server);
}

/* conformance: c-api 66 */
static void section_bad_files(void)
{
    static const char *const infos[] = {
        "v1",       "\n",           "v2\na\n1\n",  "v1 \na\n1\n",  "v1\r\na\r\n1\r\n", "v1\n",        "v1\na",
        "v1\na\n",  "v1\na\n1",     "v1\na\n-1\n", "v1\na\n+1\n",  "v1\na\n1 \n",      "v1\na\n0x1\n", "v1\na\n18446744073709551616\n",
        "v1\na\n1\n\n", "v1\na\n1\nvoter\n",
    };
    static const char *const stores[] = {
        "v1", "v0\n", "v1\na\n", "v1\na\n1\n", "v1\na\n1\nking\n", "v1\na\n1\nvoter", "v1\na\n1\nvoter\n\n",
        "v1\na\n1\nvoter\nb\nx\n", "v1\na\n1\nvoter\nb\n2\n",
    };
    dqlite_server_destroy(make("bad-files"));
    for (size_t number = 0; number < sizeof infos / sizeof infos[0]; number++) {
        try_file("server-info", infos[number]);
    }
    char info[64];
    snprintf(info, sizeof info, "v1\n%s\n1\n", address[0]);
    put_file("bad-files", "server-info", info);
    for (size_t number = 0; number < sizeof stores / sizeof stores[0]; number++) {
        try_file("node-store", stores[number]);
    }
    put_file("bad-files", "server-info", "");
    try_file("node-store", "v1\na\n1\nvoter\n");
}

/* conformance: c-api 66 */
static void section_empty_files(void)
{
    dqlite_server *server = make_founder("empty-files");
    put_file("empty-files", "server-info", "");
    put_file("empty-files", "node-store", "");
    put_file("empty-files", "node-store-tmp", "left over by a crash");
    SHOW(dqlite_server_start(server));
    id[0] = dqlite_server_get_id(server);
    SHOW(dqlite_server_stop(server));
    print_files("empty-files");
    dqlite_server_destroy(server);
}

struct connections {
    bool refuse;
    int asked;
};

static int connect_function(void *argument, const char *to, int *descriptor)
{
    struct connections *connections = (struct connections *)argument;
    __atomic_add_fetch(&connections->asked, 1, __ATOMIC_SEQ_CST);
    const char *colon = strchr(to, ':');
    if (connections->refuse || colon == NULL) {
        return 1;
    }
    char host[32] = "";
    struct sockaddr_in peer;
    memset(&peer, 0, sizeof peer);
    peer.sin_family = AF_INET;
    peer.sin_port = htons((unsigned short)atoi(colon + 1));
    memcpy(host, to, (size_t)(colon - to) < sizeof host ? (size_t)(colon - to) : 0);
    int socket_descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (inet_pton(AF_INET, host, &peer.sin_addr) != 1 ||
        connect(socket_descriptor, (struct sockaddr *)&peer, sizeof peer) != 0) {
        close(socket_descriptor);
        return 1;
    }
    *descriptor = socket_descriptor;
    return 0;
}

static void section_connect_function(void)
{
    struct connections connections = {true, 0};
    dqlite_server *server = make_founder("connects");
    SHOW(dqlite_server_set_connect_func(server, connect_function, &connections));
    SHOW(dqlite_server_start(server));
    printf("asked: %s\n", __atomic_load_n(&connections.asked, __ATOMIC_SEQ_CST) > 0 ? "yes" : "no");
    id[0] = dqlite_server_get_id(server);
    print_file("connects", "server-info");
    dqlite_server_destroy(server);

    server = make_founder("connects-too");
    connections.refuse = false;
    connections.asked = 0;
    dqlite_server_set_connect_func(server, connect_function, &connections);
    SHOW(dqlite_server_start(server));
    printf("asked: %s\n", __atomic_load_n(&connections.asked, __ATOMIC_SEQ_CST) > 0 ? "yes" : "no");
    SHOW(dqlite_server_stop(server));
    dqlite_server_destroy(server);
}

/* A founder that could not be reached at its first start is reached at the next. */
static void section_founder_again(void)
{
    struct connections connections = {true, 0};
    dqlite_server *server = make_founder("again");
    dqlite_server_set_connect_func(server, connect_function, &connections);
    SHOW(dqlite_server_start(server));
    dqlite_server_destroy(server);
    server = make_founder("again");
    SHOW(dqlite_server_start(server));
    id[0] = dqlite_server_get_id(server);
    print_files("again");
    dqlite_server_destroy(server);
}

/* conformance: c-api 66 */
static void section_cluster(void)
{
    dqlite_server *servers[3];
    for (int number = 0; number < 3; number++) {
        servers[number] = make_member(number);
        printf("%c: start -> %d\n", 'A' + number, dqlite_server_start(servers[number]));
        id[number] = dqlite_server_get_id(servers[number]);
    }
    print_files("a");
    print_files("b");
    print_files("c");
    /* Those that only joined first: with upstream the first is the only voter. */
    for (int number = 2; number >= 0; number--) {
        printf("%c: stop -> %d\n", 'A' + number, dqlite_server_stop(servers[number]));
        dqlite_server_destroy(servers[number]);
        servers[number] = make(directory_of(number));
        printf("%c: start -> %d\n", 'A' + number, dqlite_server_start(servers[number]));
        print_files(directory_of(number));
    }
    for (int number = 2; number >= 0; number--) {
        printf("%c: stop -> %d\n", 'A' + number, dqlite_server_stop(servers[number]));
        dqlite_server_destroy(servers[number]);
    }
}

/* A server in a process of its own, which does what it is told: one letter in, one code out. */
struct remote {
    pid_t pid;
    int orders;
    int codes;
};

static void serve_orders(int number, int orders, int codes)
{
    dqlite_server *server = make_member(number);
    char order;
    while (read(orders, &order, 1) == 1 && order != 'q') {
        unsigned long long answer = 0;
        switch (order) {
        case 's':
            answer = (unsigned long long)dqlite_server_start(server);
            break;
        case 'h':
            answer = (unsigned long long)dqlite_server_handover(server);
            break;
        case 'x':
            answer = (unsigned long long)dqlite_server_stop(server);
            break;
        default:
            answer = dqlite_server_get_id(server);
        }
        if (write(codes, &answer, sizeof answer) != sizeof answer) {
            break;
        }
    }
    dqlite_server_destroy(server);
    _exit(0);
}

static struct remote begin(int number)
{
    int orders[2], codes[2];
    if (pipe(orders) != 0 || pipe(codes) != 0) {
        printf("pipe: %s\n", strerror(errno));
        exit(1);
    }
    fflush(stdout);
    struct remote remote = {fork(), orders[1], codes[0]};
    if (remote.pid == 0) {
        alarm(SECTION_SECONDS);
        close(orders[1]);
        close(codes[0]);
        serve_orders(number, orders[0], codes[1]);
    }
    close(orders[0]);
    close(codes[1]);
    return remote;
}

static void order(struct remote *remote, char what)
{
    if (write(remote->orders, &what, 1) != 1) {
        printf("order: %s\n", strerror(errno));
    }
}

static long long answer_of(struct remote *remote)
{
    unsigned long long answer = 0;
    return read(remote->codes, &answer, sizeof answer) == sizeof answer ? (long long)answer : -1;
}

static long long ask(struct remote *remote, char what)
{
    order(remote, what);
    return answer_of(remote);
}

/* Servers that were begun later hold the other end of the pipe, too: its end would not be seen. */
static void end(struct remote *remote)
{
    if (write(remote->orders, "q", 1) != 1 && errno != EPIPE) {
        printf("end: %s\n", strerror(errno));
    }
    close(remote->orders);
    close(remote->codes);
    waitpid(remote->pid, NULL, 0);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void start_all(struct remote *remotes, int count)
{
    for (int number = 0; number < count; number++) {
        remotes[number] = begin(number);
    }
    for (int number = 0; number < count; number++) {
        printf("%c: start -> %lld\n", 'A' + number, ask(&remotes[number], 's'));
        id[number] = (unsigned long long)ask(&remotes[number], 'i');
    }
}

/* conformance: c-api 66 (better: upstream's start does not wait for a leader) */
static void section_all_at_once(void)
{
    struct remote remotes[3];
    start_all(remotes, 3);
    /* As after a power cut: nobody is told. */
    for (int number = 0; number < 3; number++) {
        kill(remotes[number].pid, SIGKILL);
    }
    for (int number = 0; number < 3; number++) {
        end(&remotes[number]);
        remotes[number] = begin(number);
    }
    for (int number = 0; number < 3; number++) {
        order(&remotes[number], 's');
    }
    for (int number = 0; number < 3; number++) {
        printf("%c: start -> %lld\n", 'A' + number, answer_of(&remotes[number]));
        print_file(directory_of(number), "server-info");
    }
    print_file("c", "node-store");
    for (int number = 0; number < 3; number++) {
        printf("%c: stop -> %lld\n", 'A' + number, ask(&remotes[number], 'x'));
        end(&remotes[number]);
    }
}

/* conformance: c-api 66 (better: upstream's cluster has one voter) */
static void section_leader_killed(void)
{
    struct remote remotes[SERVERS];
    start_all(remotes, 3);
    kill(remotes[0].pid, SIGKILL);
    end(&remotes[0]);
    remotes[3] = begin(3);
    printf("D: start without A -> %lld\n", ask(&remotes[3], 's'));
    remotes[0] = begin(0);
    printf("A: start again -> %lld\n", ask(&remotes[0], 's'));
    printf("A: the same id: %s\n", (unsigned long long)ask(&remotes[0], 'i') == id[0] ? "yes" : "no");
    for (int number = 0; number < SERVERS; number++) {
        printf("%c: stop -> %lld\n", 'A' + number, ask(&remotes[number], 'x'));
        end(&remotes[number]);
    }
}

/* conformance: c-api 68 (better: upstream hangs) */
static void section_handover(void)
{
    struct remote remotes[SERVERS];
    start_all(remotes, SERVERS);
    print_file("d", "node-store");
    double start = now();
    printf("D: handover of a spare -> %lld\n", ask(&remotes[3], 'h'));
    printf("within five seconds: %s\n", now() - start < 5 ? "yes" : "no");
    printf("A: handover of the leader -> %lld\n", ask(&remotes[0], 'h'));
    for (int number = 0; number < SERVERS; number++) {
        printf("%c: stop -> %lld\n", 'A' + number, ask(&remotes[number], 'x'));
        end(&remotes[number]);
    }
}

struct section {
    const char *name;
    void (*run)(void);
};

#define SECTION(name) {#name, section_##name}

static const struct section sections[] = {
    SECTION(create),      SECTION(bootstrap),        SECTION(destroy_running), SECTION(senseless),
    SECTION(no_address),  SECTION(null),             SECTION(bad_files),       SECTION(empty_files),
    SECTION(cluster),     SECTION(connect_function), SECTION(all_at_once),     SECTION(leader_killed),
    SECTION(handover),    SECTION(founder_again),
};

static void run(const struct section *section)
{
    int status = 0;
    printf("== %s\n", section->name);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(SECTION_SECONDS);
        if (mkdir(section->name, 0755) != 0 || chdir(section->name) != 0) {
            printf("%s: %s\n", section->name, strerror(errno));
            _exit(1);
        }
        section->run();
        fflush(stdout);
#ifdef __SANITIZE_ADDRESS__
        _exit(__lsan_do_recoverable_leak_check() == 0 ? 0 : 23);
#endif
        _exit(0);
    }
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) {
        printf("%s: %s\n", section->name, WTERMSIG(status) == SIGALRM ? "hangs" : strsignal(WTERMSIG(status)));
    } else if (WEXITSTATUS(status) != 0) {
        printf("%s: exit %d\n", section->name, WEXITSTATUS(status));
    }
}

int main(int count, char **arguments)
{
    if (count < 4) {
        fprintf(stderr, "usage: server HOST FIRST-PORT all|SECTION...|serve NUMBER\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    int port = atoi(arguments[2]);
    if (count == 5 && strcmp(arguments[3], "serve") == 0) {
        for (int server = 0; server < SERVERS; server++) {
            snprintf(address[server], sizeof address[server], "%s:%d", arguments[1], port + server);
        }
        serve_orders(atoi(arguments[4]) % SERVERS, STDIN_FILENO, STDOUT_FILENO);
    }
    for (int argument = 3; argument < count; argument++) {
        bool all = strcmp(arguments[argument], "all") == 0;
        for (size_t number = 0; number < sizeof sections / sizeof sections[0]; number++) {
            if (all || strcmp(arguments[argument], sections[number].name) == 0) {
                for (int server = 0; server < SERVERS; server++) {
                    snprintf(address[server], sizeof address[server], "%s:%d", arguments[1], port++);
                }
                run(&sections[number]);
            }
        }
    }
    return 0;
}
