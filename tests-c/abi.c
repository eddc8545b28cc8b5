/*
 * Calls every node function in and out of order and prints what it sees. Works in the current directory, which must be empty and writable.
 * spec: c-api 3, 7.
 */
#include "see.h"

static void create_in_vain(const char *directory)
{
    dqlite_node *n = create(1, "1", directory);
    if (n != NULL) {
        dqlite_node_destroy(n);
    }
}

/* conformance: c-api 15, 16, 17, 18, 19, 21 */
static void section_create(void)
{
    static const unsigned char ones[40] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    char path[1500];
    create_in_vain("missing");
    write_file("file", "x", 1);
    create_in_vain("file");
    mkdir("unwritable", 0555);
    create_in_vain("unwritable");
    memset(path, 'p', sizeof path);
    path[sizeof path - 1] = 0;
    create_in_vain(path);
    mkdir("long-metadata", 0755);
    write_file("long-metadata/metadata1", ones, 40);
    create_in_vain("long-metadata");
    mkdir("bad-metadata", 0755);
    write_file("bad-metadata/metadata1", ones, 32);
    create_in_vain("bad-metadata");
    mkdir("empty", 0755);
    dqlite_node *n = create(1, "garbage !!", "empty");
    printf("bind address %s\n", dqlite_node_get_bind_address(n) == NULL ? "NULL" : "set");
    dqlite_node_destroy(n);
    list("empty");
    mkdir("foreign", 0755);
    mkdir("foreign/folder", 0755);
    write_file("foreign/local.db", "x", 1);
    int before = count_entries("/proc/self/fd");
    for (int round = 0; round < 100; round++) {
        dqlite_node_create(1, "1", "foreign", &n);
        dqlite_node_destroy(n);
    }
    printf("descriptors %+d\n", count_entries("/proc/self/fd") - before);
    list("foreign");
    printf("errmsg(NULL) \"%s\"\n", dqlite_node_errmsg(NULL));
}

/* conformance: c-api 23 */
static void section_copies(void)
{
    char address[] = "one";
    char directory[] = "copies";
    char bound[64];
    snprintf(bound, sizeof bound, "%s", own("@abi-copies"));
    dqlite_node *n = NULL;
    mkdir(directory, 0755);
    SHOW(dqlite_node_create(1, address, directory, &n));
    memset(address, 'x', sizeof address - 1);
    memset(directory, 'x', sizeof directory - 1);
    SHOW(dqlite_node_set_bind_address(n, bound));
    memset(bound, 'x', strlen(bound));
    start(n);
    ask_leader(own("@abi-copies"));
    printf("bind address %s\n", shown(dqlite_node_get_bind_address(n)));
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
    list("copies");
}

/* conformance: c-api 21 (better: upstream does not return) */
static void section_destroy_null(void)
{
    dqlite_node_destroy(NULL);
    printf("destroy(NULL) returned\n");
}

static void section_null_handles(void)
{
    dqlite_node *n = NULL;
    SHOW(dqlite_node_start(n));
    SHOW(dqlite_node_stop(n));
    SHOW(dqlite_node_set_bind_address(n, "@"));
    SHOW(dqlite_node_set_connect_func(n, NULL, NULL));
    SHOW(dqlite_node_set_network_latency_ms(n, 1));
    SHOW(dqlite_node_set_failure_domain(n, 1));
    SHOW(dqlite_node_set_snapshot_params(n, 4, 4));
    SHOW(dqlite_node_recover(n, NULL, 1));
    printf("get_bind_address %s\n", dqlite_node_get_bind_address(n) == NULL ? "NULL" : "set");
    printf("generate_node_id(NULL) %llu\n", dqlite_generate_node_id(NULL));
    SHOW(dqlite_node_create(1, NULL, ".", &n));
    SHOW(dqlite_node_create(1, "1", NULL, &n));
}

/* conformance: c-api 25, 26, 27, 31 */
static void section_bind(void)
{
    static const char *addresses[] = {"@abc123", "@/tmp/foo", "127.0.0.1:0", "127.0.0.1:", "0.0.0.0:0", "127.0.0.1:abc", "127.1:0",
                                      "[::1]:0", "[::]:0", "[127.0.0.1]:0", "[::1]", "[::1", "", "garbage", "8080", ":8080", "localhost",
                                      "localhost:19003", "999.1.1.1:1", "1.2.3.4:0"};
    char name[128];
    dqlite_node *n;
    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        n = create_quietly("bind");
        int code = dqlite_node_set_bind_address(n, addresses[i][0] == '@' ? own(addresses[i]) : addresses[i]);
        printf("bind %s -> %d %s \"%s\"\n", addresses[i], code, shown(dqlite_node_get_bind_address(n)), dqlite_node_errmsg(n));
        dqlite_node_destroy(n);
    }
    for (size_t length = 107; length <= 108; length++) {
        memset(name, 'n', length);
        name[0] = '@';
        /* Nobody else has a name of this length that begins with this process. */
        memcpy(name + 1, suffix(), strlen(suffix()));
        name[length] = 0;
        n = create_quietly("bind");
        printf("bind a name of %zu -> %d\n", length, dqlite_node_set_bind_address(n, name));
        dqlite_node_destroy(n);
    }
    n = create_quietly("bind");
    int code = dqlite_node_set_bind_address(n, "@");
    const char *chosen = dqlite_node_get_bind_address(n);
    printf("bind @ -> %d, @ and %zu hex digits\n", code, strspn(chosen + 1, "0123456789abcdef"));
    char free_name[16];
    snprintf(free_name, sizeof free_name, "%s", chosen);
    printf("before start: ");
    ask_leader(chosen);
    dqlite_node *other = create_quietly("bind");
    printf("a taken name -> %d\n", dqlite_node_set_bind_address(other, chosen));
    dqlite_node_destroy(other);
    start(n);
    printf("after start: ");
    ask_leader(free_name);
    SHOW(dqlite_node_stop(n));
    printf("after stop: ");
    ask_leader(free_name);
    dqlite_node_destroy(n);
}

/* conformance: c-api 29 (better: upstream keeps the name until the process ends) */
static void section_bind_again(void)
{
    dqlite_node *n;
    int failures = 0;
    for (int round = 0; round < 5; round++) {
        n = create_quietly("bind");
        failures += dqlite_node_set_bind_address(n, own("@again")) != 0;
        dqlite_node_destroy(n);
    }
    printf("the same name five times: %d failures\n", failures);
}

/* conformance: c-api 29 (better: upstream keeps the name until the process ends) */
static void section_bind_after_failed_start(void)
{
    dqlite_node *n;
    dqlite_node *running = create_quietly("bind");
    dqlite_node_set_bind_address(running, own("@running"));
    start(running);
    for (int round = 0; round < 3; round++) {
        n = create_quietly("bind");
        printf("bind -> %d\n", dqlite_node_set_bind_address(n, own("@again-started")));
        start(n);
        dqlite_node_destroy(n);
    }
    SHOW(dqlite_node_stop(running));
    dqlite_node_destroy(running);
}

/* conformance: c-api 25 */
static void section_bind_taken(void)
{
    char name[128];
    struct sockaddr_in taken;
    memset(&taken, 0, sizeof taken);
    taken.sin_family = AF_INET;
    taken.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof taken;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&taken, size) == 0 && listen(listener, 1) == 0) {
        getsockname(listener, (struct sockaddr *)&taken, &size);
        snprintf(name, sizeof name, "127.0.0.1:%d", ntohs(taken.sin_port));
        dqlite_node *n = create_quietly("bind");
        printf("a taken port -> %d\n", dqlite_node_set_bind_address(n, name));
        dqlite_node_destroy(n);
    }
}

static int connect_nobody(void *argument, const char *address, int *fd)
{
    (void)argument;
    (void)address;
    (void)fd;
    return 1;
}

static void setters(dqlite_node *n)
{
    SHOW(dqlite_node_set_network_latency(n, 0));
    SHOW(dqlite_node_set_network_latency(n, 1));
    SHOW(dqlite_node_set_network_latency(n, 999999));
    SHOW(dqlite_node_set_network_latency(n, 1000000));
    SHOW(dqlite_node_set_network_latency(n, 3600000000000));
    SHOW(dqlite_node_set_network_latency(n, 3600000000001));
    SHOW(dqlite_node_set_network_latency_ms(n, 0));
    SHOW(dqlite_node_set_network_latency_ms(n, 3600001));
    SHOW(dqlite_node_set_network_latency_ms(n, 3600000));
    SHOW(dqlite_node_set_network_latency_ms(n, 1));
    SHOW(dqlite_node_set_network_latency_ms(n, 200));
    SHOW(dqlite_node_set_snapshot_params(n, 0, 3));
    SHOW(dqlite_node_set_snapshot_params(n, 0, 0));
    SHOW(dqlite_node_set_snapshot_params(n, 5, 4));
    SHOW(dqlite_node_set_snapshot_params(n, 8192, 1024));
    SHOW(dqlite_node_set_snapshot_params(n, 0, 4));
    SHOW(dqlite_node_set_snapshot_params(n, 4, 4));
    SHOW(dqlite_node_set_snapshot_params(n, 1024, 8192));
    SHOW(dqlite_node_set_connect_func(n, connect_nobody, NULL));
    SHOW(dqlite_node_set_failure_domain(n, 7));
    printf("errmsg \"%s\"\n", dqlite_node_errmsg(n));
}

/* Setters before and after a start. */
static void before_and_after(const char *directory, void (*set)(dqlite_node *))
{
    dqlite_node *n = create_quietly(directory);
    set(n);
    SHOW(dqlite_node_set_bind_address(n, own("@abi-setters")));
    start(n);
    set(n);
    SHOW(dqlite_node_set_bind_address(n, own("@abi-setters-2")));
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
}

/* conformance: c-api 33, 35, 37 */
static void section_setters(void)
{
    before_and_after("setters", setters);
}

static void later_setters(dqlite_node *n)
{
    static const size_t sizes[] = {512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144, 0, 1, 256, 511, 1000, 524288, 4096};
    int (*block)(dqlite_node *, size_t) = (int (*)(dqlite_node *, size_t))dlsym(RTLD_DEFAULT, "dqlite_node_set_block_size");
    int (*manage)(dqlite_node *) = (int (*)(dqlite_node *))dlsym(RTLD_DEFAULT, "dqlite_node_enable_role_management");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        printf("block_size(%zu) -> %d\n", sizes[i], block(n, sizes[i]));
    }
    OPTIONAL(dqlite_node_set_target_voters, int, -1);
    OPTIONAL(dqlite_node_set_target_voters, int, 3);
    OPTIONAL(dqlite_node_set_target_standbys, int, -1);
    OPTIONAL(dqlite_node_set_target_standbys, int, 0);
    OPTIONAL(dqlite_node_set_auto_recovery, bool, false);
    OPTIONAL(dqlite_node_set_auto_recovery, bool, true);
    OPTIONAL(dqlite_node_set_snapshot_compression, bool, false);
    OPTIONAL(dqlite_node_set_snapshot_compression, bool, true);
    OPTIONAL(dqlite_node_set_pool_thread_count, unsigned, 0);
    OPTIONAL(dqlite_node_set_pool_thread_count, unsigned, 4);
    printf("enable_role_management -> %d\n", manage(n));
    printf("errmsg \"%s\"\n", dqlite_node_errmsg(n));
}

/* conformance: c-api 36, 37 */
static void section_later_setters(void)
{
    before_and_after("later-setters", later_setters);
}

static void newest_setters(dqlite_node *n)
{
    int (*v2)(dqlite_node *, unsigned, unsigned, int) = (int (*)(dqlite_node *, unsigned, unsigned, int))dlsym(
        RTLD_DEFAULT, "dqlite_node_set_snapshot_params_v2");
    for (int strategy = -1; strategy <= 2; strategy++) {
        printf("params_v2(1024, 8192, %d) -> %d\n", strategy, v2(n, 1024, 8192, strategy));
    }
    printf("params_v2(5, 4, 1) -> %d\n", v2(n, 5, 4, 1));
    printf("params_v2(0, 3, 1) -> %d\n", v2(n, 0, 3, 1));
    OPTIONAL(dqlite_node_set_busy_timeout, unsigned, 0);
    OPTIONAL(dqlite_node_set_busy_timeout, unsigned, 10);
    printf("errmsg \"%s\"\n", dqlite_node_errmsg(n));
}

/* conformance: c-api 35, 37, 39 */
static void section_newest_setters(void)
{
    before_and_after("newest-setters", newest_setters);
}

static void disk_mode(dqlite_node *n)
{
    int (*disk)(dqlite_node *) = (int (*)(dqlite_node *))dlsym(RTLD_DEFAULT, "dqlite_node_enable_disk_mode");
    printf("enable_disk_mode -> %d\n", disk(n));
}

/* conformance: c-api 37, 38 */
static void section_disk_mode(void)
{
    before_and_after("disk-mode", disk_mode);
}

/* Lives of one directory and name in one process. */
#define ROUNDS 100

/* conformance: c-api 27, 32, 40, 45, 46, 51 */
static void section_first_start(void)
{
    dqlite_node *n = create_quietly("first");
    SHOW(dqlite_node_set_bind_address(n, own("@abi-first")));
    ask_leader(own("@abi-first"));
    start(n);
    ask_leader(own("@abi-first"));
    list("first");
    SHOW(dqlite_node_stop(n));
    ask_leader(own("@abi-first"));
    printf("bind address %s errmsg \"%s\"\n", shown(dqlite_node_get_bind_address(n)), dqlite_node_errmsg(n));
    dqlite_node_destroy(n);
    list("first");
    mkdir("bootstrap", 0755);
    n = create(0x2dc171858c3155beULL, "127.0.0.1:9001", "bootstrap");
    SHOW(dqlite_node_set_bind_address(n, own("@abi-bootstrap")));
    start(n);
    list("bootstrap");
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
    mkdir("five", 0755);
    n = create(5, "5", "five");
    SHOW(dqlite_node_set_bind_address(n, own("@abi-five")));
    start(n);
    ask_leader(own("@abi-five"));
    list("five");
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
    n = create(9, "other", "first");
    SHOW(dqlite_node_set_bind_address(n, own("@abi-first")));
    start(n);
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
    int failures = 0;
    for (int round = 0; round < ROUNDS; round++) {
        n = create_quietly("first");
        failures += dqlite_node_set_bind_address(n, own("@abi-first")) != 0 || dqlite_node_start(n) != 0 || dqlite_node_stop(n) != 0;
        dqlite_node_destroy(n);
    }
    printf("%d rounds: %d failures\n", ROUNDS, failures);
}

/* conformance: c-api 42 */
static void section_in_use(void)
{
    dqlite_node *first = create_quietly("in-use");
    dqlite_node *second = create_quietly("in-use");
    dqlite_node_set_bind_address(first, own("@abi-in-use-1"));
    dqlite_node_set_bind_address(second, own("@abi-in-use-2"));
    start(first);
    start(second);
    start(first);
    ask_leader(own("@abi-in-use-1"));
    SHOW(dqlite_node_stop(first));
    dqlite_node_destroy(second);
    second = create_quietly("in-use");
    dqlite_node_set_bind_address(second, own("@abi-in-use-3"));
    start(second);
    SHOW(dqlite_node_stop(second));
    dqlite_node_destroy(second);
    dqlite_node_destroy(first);
}

/* conformance: c-api 20 (better: the running node keeps its temporary files) */
static void section_create_in_use(void)
{
    dqlite_node *n = create_quietly("create-in-use");
    dqlite_node_set_bind_address(n, own("@abi-create-in-use"));
    start(n);
    write_file("create-in-use/tmp-snapshot", "half", 4);
    write_file("create-in-use/snapshot-1-1-1", "half", 4);
    dqlite_node *second = create_quietly("create-in-use");
    printf("temporary file %s, snapshot %s\n", access("create-in-use/tmp-snapshot", F_OK) == 0 ? "stays" : "is gone",
           access("create-in-use/snapshot-1-1-1", F_OK) == 0 ? "stays" : "is gone");
    list("create-in-use");
    dqlite_node_destroy(second);
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
}

/* conformance: c-api 47 */
static void section_stop_before_start(void)
{
    dqlite_node *n = create_quietly("early");
    SHOW(dqlite_node_stop(n));
    dqlite_node_set_bind_address(n, own("@abi-early"));
    start(n);
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
}

/* conformance: c-api 47 */
static void section_stop_twice(void)
{
    dqlite_node *n = create_quietly("twice");
    dqlite_node_set_bind_address(n, own("@abi-twice"));
    start(n);
    SHOW(dqlite_node_stop(n));
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
}

/* conformance: c-api 41 (better: upstream does not return) */
static void section_no_address(void)
{
    dqlite_node *n = create_quietly("no-address");
    start(n);
    dqlite_node_destroy(n);
}

/* Another socket listens where this one is bound. */
/* conformance: c-api 41 (better: upstream never answers) */
static void section_port_taken(void)
{
    char address[64];
    int on = 1;
    struct sockaddr_in taken;
    socklen_t size = sizeof taken;
    int other = socket(AF_INET, SOCK_STREAM, 0);
    dqlite_node *n = create_quietly("port-taken");
    memset(&taken, 0, sizeof taken);
    taken.sin_family = AF_INET;
    taken.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(other, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(other, (struct sockaddr *)&taken, size) != 0 || getsockname(other, (struct sockaddr *)&taken, &size) != 0) {
        printf("no port: %s\n", strerror(errno));
    }
    snprintf(address, sizeof address, "127.0.0.1:%d", ntohs(taken.sin_port));
    printf("bind -> %d\n", dqlite_node_set_bind_address(n, address));
    printf("listen -> %d\n", listen(other, 1));
    double begin = seconds();
    start(n);
    printf("within a second: %s\n", yes_or_no(seconds() - begin < 1));
    close(other);
    start(n);
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
}

static void section_start_again(void)
{
    dqlite_node *n = create_quietly("again");
    dqlite_node_set_bind_address(n, own("@abi-again"));
    start(n);
    SHOW(dqlite_node_stop(n));
    start(n);
    dqlite_node_destroy(n);
}

static void section_destroy_running(void)
{
    dqlite_node *n = create_quietly("running");
    dqlite_node_set_bind_address(n, own("@abi-running"));
    start(n);
    dqlite_node_destroy(n);
    printf("destroyed\n");
    ask_leader(own("@abi-running"));
}

/* conformance: c-api 47, 69 */
static void section_handover(void)
{
    int (*handover)(dqlite_node *) = (int (*)(dqlite_node *))dlsym(RTLD_DEFAULT, "dqlite_node_handover");
    dqlite_node *n = create_quietly("handover");
    dqlite_node_set_bind_address(n, own("@abi-handover"));
    if (handover != NULL) {
        SHOW(handover(n));
        start(n);
        SHOW(handover(n));
        SHOW(dqlite_node_stop(n));
    }
    dqlite_node_destroy(n);
}

/* conformance: c-api 52 (better: the default disposition of SIGPIPE ends a host of upstream) */
static void section_client_gone(void)
{
    dqlite_node *n = create_quietly("client-gone");
    signal(SIGPIPE, SIG_DFL);
    dqlite_node_set_bind_address(n, own("@abi-client-gone"));
    start(n);
    for (int round = 0; round < 50; round++) {
        int client = dial(own("@abi-client-gone"));
        send(client, leader_request, 8, MSG_NOSIGNAL);
        for (int request = 0; request < 20; request++) {
            send(client, leader_request + 8, 16, MSG_NOSIGNAL);
        }
        close(client);
    }
    ask_leader(own("@abi-client-gone"));
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
}

/* conformance: c-api 28 */
static void section_other_process(void)
{
    char byte;
    dqlite_node *n = create_quietly("other-process");
    dqlite_node_set_bind_address(n, own("@abi-other-process"));
    start(n);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int client = dial(own("@abi-other-process"));
        _exit(client >= 0 && recv(client, &byte, 1, 0) <= 0 ? 42 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    printf("other process: %s\n", WIFEXITED(status) && WEXITSTATUS(status) == 42 ? "closed without data" : "served");
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
}

static void section_server(void)
{
    int (*create_server)(const char *, dqlite_server **) =
        (int (*)(const char *, dqlite_server **))dlsym(RTLD_DEFAULT, "dqlite_server_create");
    int (*start_server)(dqlite_server *) = (int (*)(dqlite_server *))dlsym(RTLD_DEFAULT, "dqlite_server_start");
    int (*stop_server)(dqlite_server *) = (int (*)(dqlite_server *))dlsym(RTLD_DEFAULT, "dqlite_server_stop");
    int (*set_address)(dqlite_server *, const char *) =
        (int (*)(dqlite_server *, const char *))dlsym(RTLD_DEFAULT, "dqlite_server_set_address");
    void (*destroy)(dqlite_server *) = (void (*)(dqlite_server *))dlsym(RTLD_DEFAULT, "dqlite_server_destroy");
    dqlite_server *server = NULL;
    if (create_server == NULL) {
        printf("no server functions\n");
        return;
    }
    SHOW(create_server("no-such-directory", &server));
    SHOW(stop_server(server));
    SHOW(set_address(server, "127.0.0.1:1"));
    SHOW(start_server(server));
    SHOW(stop_server(server));
    destroy(server);
}

static const struct section sections[] = {
    {"create", section_create, EVERY_RELEASE},
    {"copies", section_copies, EVERY_RELEASE},
    {"destroy_null", section_destroy_null, ONLY_HERE},
    {"null_handles", section_null_handles, ONLY_HERE},
    {"bind", section_bind, EVERY_RELEASE},
    {"bind_again", section_bind_again, EVERY_RELEASE},
    {"bind_after_failed_start", section_bind_after_failed_start, SINCE_1_18_1},
    {"bind_taken", section_bind_taken, EVERY_RELEASE},
    {"setters", section_setters, EVERY_RELEASE},
    {"later_setters", section_later_setters, SINCE_1_18_1},
    {"newest_setters", section_newest_setters, SINCE_1_18_7},
    {"disk_mode", section_disk_mode, ONLY_1_18_1},
    {"first_start", section_first_start, EVERY_RELEASE},
    {"in_use", section_in_use, EVERY_RELEASE},
    {"create_in_use", section_create_in_use, EVERY_RELEASE},
    {"stop_before_start", section_stop_before_start, SINCE_1_18_7},
    {"stop_twice", section_stop_twice, SINCE_1_18_7},
    {"no_address", section_no_address, ONLY_HERE},
    {"port_taken", section_port_taken, ONLY_HERE},
    {"start_again", section_start_again, ONLY_HERE},
    {"destroy_running", section_destroy_running, ONLY_HERE},
    {"handover", section_handover, SINCE_1_18_7},
    {"client_gone", section_client_gone, ONLY_HERE},
    {"other_process", section_other_process, EVERY_RELEASE},
    {"server", section_server, SINCE_1_18_1},
};

int main(int argc, char **argv)
{
    return run_sections(sections, sizeof sections / sizeof *sections, argc, argv);
}
