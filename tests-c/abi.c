/*
 * Calls every node function in and out of order and prints what it sees. Works in the current directory, which must be empty and writable.
 * Runs with any libdqlite.so.0: functions that it may lack are looked up. Each section is a process of its own, so that one that dies or hangs
 * says so and the others go on. spec: c-api 3, 7.
 */
#define _GNU_SOURCE
#include <dqlite.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECTION_SECONDS 20

#define SHOW(call) printf("%s -> %d\n", #call, call)

/* A call with one argument beside the node, if the library has it. */
#define OPTIONAL(name, type, value)                                                                                    \
    do {                                                                                                               \
        int (*found)(dqlite_node *, type) = (int (*)(dqlite_node *, type))dlsym(RTLD_DEFAULT, #name);                  \
        if (found == NULL) {                                                                                           \
            printf(#name " missing\n");                                                                                \
        } else {                                                                                                       \
            printf(#name "(" #value ") -> %d\n", found(n, value));                                                     \
        }                                                                                                              \
    } while (0)

static dqlite_node *create(dqlite_node_id id, const char *address, const char *directory)
{
    dqlite_node *n = NULL;
    int code = dqlite_node_create(id, address, directory, &n);
    printf("create(%llu, %.20s, %.20s) -> %d %s \"%s\"\n", id, address, directory, code, n == NULL ? "NULL" : "node",
           dqlite_node_errmsg(n));
    return n;
}

static dqlite_node *create_quietly(const char *directory)
{
    dqlite_node *n = NULL;
    if (mkdir(directory, 0755) != 0 && errno != EEXIST) {
        printf("mkdir %s: %s\n", directory, strerror(errno));
    }
    if (dqlite_node_create(1, "1", directory, &n) != 0) {
        printf("create: %s\n", dqlite_node_errmsg(n));
        exit(1);
    }
    return n;
}

static void start(dqlite_node *n)
{
    int code = dqlite_node_start(n);
    printf("start -> %d \"%s\"\n", code, dqlite_node_errmsg(n));
}

static void write_file(const char *name, const void *bytes, size_t size)
{
    FILE *file = fopen(name, "w");
    if (file == NULL || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) {
        printf("cannot write %s\n", name);
    }
}

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.' || strncmp(entry->d_name, ".probe", 6) == 0;
}

/* Larger files are segments prepared ahead, whose number and size depend on the moment. */
#define LISTED_MAX_BYTES (1 << 16)

/* Names, sizes and modes; bytes of small files; numbers that are times are left out. */
static void list(const char *path)
{
    struct dirent **entries;
    int count = scandir(path, &entries, is_visible, alphasort);
    printf("files in %s:\n", path);
    for (int i = 0; i < count; i++) {
        char name[512];
        struct stat status;
        unsigned char bytes[128];
        int is_aside = strncmp(entries[i]->d_name, "corrupt-", 8) == 0;
        const char *shown = is_aside ? strchr(entries[i]->d_name + 8, '-') : entries[i]->d_name;
        snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
        if (strncmp(shown, "tmp-", 4) == 0 || stat(name, &status) != 0 || status.st_size > LISTED_MAX_BYTES) {
            continue;
        }
        printf("  %s%s %lld %o", is_aside ? "corrupt" : "", shown, S_ISDIR(status.st_mode) ? 0LL : (long long)status.st_size,
               status.st_mode & 0777);
        if (S_ISREG(status.st_mode) && status.st_size > 0 && status.st_size <= (long long)sizeof bytes) {
            FILE *file = fopen(name, "r");
            size_t size = file == NULL ? 0 : fread(bytes, 1, sizeof bytes, file);
            for (size_t at = 0; at < size; at++) {
                printf("%s%02x", at % 8 == 0 ? " " : "", bytes[at]);
            }
            if (file != NULL) {
                fclose(file);
            }
        }
        printf("\n");
    }
}

static int count_entries(const char *path)
{
    int found = 0;
    DIR *directory = opendir(path);
    while (directory != NULL && readdir(directory) != NULL) {
        found++;
    }
    if (directory != NULL) {
        closedir(directory);
    }
    return found;
}

/* Connects to an abstract address; -1 if that is refused. */
static int dial(const char *address)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int socket_ = socket(AF_UNIX, SOCK_STREAM, 0);
    memcpy(name.sun_path + 1, address + 1, strlen(address) - 1);
    if (connect(socket_, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(address))) != 0) {
        close(socket_);
        return -1;
    }
    return socket_;
}

static const unsigned char leader_request[] = {1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};

/* Asks who leads and prints the answer. */
static void ask_leader(const char *address)
{
    unsigned char answer[24];
    size_t filled = 0;
    int client = dial(address);
    if (client < 0) {
        printf("connect refused\n");
        return;
    }
    send(client, leader_request, sizeof leader_request, MSG_NOSIGNAL);
    while (filled < sizeof answer) {
        ssize_t got = recv(client, answer + filled, sizeof answer - filled, 0);
        if (got <= 0) {
            break;
        }
        filled += (size_t)got;
    }
    printf("leader:");
    for (size_t at = 0; at < filled; at++) {
        printf("%s%02x", at % 8 == 0 ? " " : "", answer[at]);
    }
    printf("\n");
    close(client);
}

/* checklist c-api 15, 16, 17, 18, 19, 21, 23 */
static void section_create(void)
{
    static const unsigned char ones[40] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    char path[1500];
    dqlite_node *n = create(1, "1", "missing");
    if (n != NULL) {
        dqlite_node_destroy(n);
    }
    write_file("file", "x", 1);
    n = create(1, "1", "file");
    mkdir("unwritable", 0555);
    n = create(1, "1", "unwritable");
    memset(path, 'p', sizeof path);
    path[sizeof path - 1] = 0;
    n = create(1, "1", path);
    mkdir("long-metadata", 0755);
    write_file("long-metadata/metadata1", ones, 40);
    n = create(1, "1", "long-metadata");
    mkdir("bad-metadata", 0755);
    write_file("bad-metadata/metadata1", ones, 32);
    n = create(1, "1", "bad-metadata");
    mkdir("empty", 0755);
    n = create(1, "garbage !!", "empty");
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

/* checklist c-api 21 and what upstream does not survive */
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

/* checklist c-api 25, 26, 31, 29 */
static void section_bind(void)
{
    static const char *addresses[] = {"@abc123", "@/tmp/foo", "127.0.0.1:0", "127.0.0.1:", "0.0.0.0:0", "127.0.0.1:abc", "127.1:0",
                                      "[::1]:0", "[::]:0", "[127.0.0.1]:0", "[::1]", "[::1", "", "garbage", "8080", ":8080", "localhost",
                                      "localhost:19003", "999.1.1.1:1", "1.2.3.4:0"};
    char name[128];
    dqlite_node *n;
    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        n = create_quietly("bind");
        int code = dqlite_node_set_bind_address(n, addresses[i]);
        const char *shown = dqlite_node_get_bind_address(n);
        printf("bind %s -> %d %s \"%s\"\n", addresses[i], code, shown == NULL ? "NULL" : shown, dqlite_node_errmsg(n));
        dqlite_node_destroy(n);
    }
    for (size_t length = 107; length <= 108; length++) {
        memset(name, 'n', length);
        name[0] = '@';
        name[length] = 0;
        n = create_quietly("bind");
        printf("bind a name of %zu -> %d\n", length, dqlite_node_set_bind_address(n, name));
        dqlite_node_destroy(n);
    }
    n = create_quietly("bind");
    int code = dqlite_node_set_bind_address(n, "@");
    const char *shown = dqlite_node_get_bind_address(n);
    printf("bind @ -> %d, @ and %zu hex digits\n", code, strspn(shown + 1, "0123456789abcdef"));
    printf("before start: ");
    ask_leader(shown);
    dqlite_node *other = create_quietly("bind");
    printf("a taken name -> %d\n", dqlite_node_set_bind_address(other, shown));
    dqlite_node_destroy(other);
    dqlite_node_destroy(n);
    int failures = 0;
    for (int round = 0; round < 5; round++) {
        n = create_quietly("bind");
        failures += dqlite_node_set_bind_address(n, "@again") != 0;
        dqlite_node_destroy(n);
    }
    printf("the same name five times: %d failures\n", failures);
    struct sockaddr_in taken = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof taken;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&taken, size) == 0 && listen(listener, 1) == 0) {
        getsockname(listener, (struct sockaddr *)&taken, &size);
        snprintf(name, sizeof name, "127.0.0.1:%d", ntohs(taken.sin_port));
        n = create_quietly("bind");
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
    int (*v2)(dqlite_node *, unsigned, unsigned, int) = (int (*)(dqlite_node *, unsigned, unsigned, int))dlsym(
        RTLD_DEFAULT, "dqlite_node_set_snapshot_params_v2");
    for (int strategy = -1; v2 != NULL && strategy <= 2; strategy++) {
        printf("params_v2(1024, 8192, %d) -> %d\n", strategy, v2(n, 1024, 8192, strategy));
    }
    static const size_t sizes[] = {512, 4096, 262144, 0, 1, 256, 511, 1000, 524288};
    int (*block)(dqlite_node *, size_t) = (int (*)(dqlite_node *, size_t))dlsym(RTLD_DEFAULT, "dqlite_node_set_block_size");
    for (size_t i = 0; block != NULL && i < sizeof sizes / sizeof *sizes; i++) {
        printf("block_size(%zu) -> %d\n", sizes[i], block(n, sizes[i]));
    }
    if (block != NULL) {
        printf("block_size(4096) -> %d\n", block(n, 4096));
    }
    OPTIONAL(dqlite_node_set_target_voters, int, -1);
    OPTIONAL(dqlite_node_set_target_voters, int, 3);
    OPTIONAL(dqlite_node_set_target_standbys, int, 0);
    OPTIONAL(dqlite_node_set_auto_recovery, bool, true);
    OPTIONAL(dqlite_node_set_snapshot_compression, bool, true);
    OPTIONAL(dqlite_node_set_pool_thread_count, unsigned, 4);
    OPTIONAL(dqlite_node_set_busy_timeout, unsigned, 10);
    int (*disk)(dqlite_node *) = (int (*)(dqlite_node *))dlsym(RTLD_DEFAULT, "dqlite_node_enable_disk_mode");
    printf("enable_disk_mode -> %d\n", disk == NULL ? -1 : disk(n));
    printf("errmsg \"%s\"\n", dqlite_node_errmsg(n));
}

/* checklist c-api 33, 35, 36, 37, 38, 39 */
/* conformance: c-api 38 (better: upstream gave disk mode up) */
static void section_setters(void)
{
    dqlite_node *n = create_quietly("setters");
    setters(n);
    SHOW(dqlite_node_set_bind_address(n, "@abi-setters"));
    start(n);
    setters(n);
    SHOW(dqlite_node_set_bind_address(n, "@abi-setters-2"));
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
}

/* checklist c-api 40, 27, 46, 32, 37, 45, 51 */
static void section_first_start(void)
{
    dqlite_node *n = create_quietly("first");
    SHOW(dqlite_node_set_bind_address(n, "@abi-first"));
    ask_leader("@abi-first");
    start(n);
    ask_leader("@abi-first");
    list("first");
    SHOW(dqlite_node_stop(n));
    ask_leader("@abi-first");
    printf("bind address %s errmsg \"%s\"\n", dqlite_node_get_bind_address(n), dqlite_node_errmsg(n));
    dqlite_node_destroy(n);
    list("first");
    mkdir("bootstrap", 0755);
    n = create(0x2dc171858c3155beULL, "127.0.0.1:9001", "bootstrap");
    SHOW(dqlite_node_set_bind_address(n, "@abi-bootstrap"));
    start(n);
    list("bootstrap");
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
    mkdir("five", 0755);
    n = create(5, "5", "five");
    SHOW(dqlite_node_set_bind_address(n, "@abi-five"));
    start(n);
    ask_leader("@abi-five");
    list("five");
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
    n = create(9, "other", "first");
    SHOW(dqlite_node_set_bind_address(n, "@abi-first"));
    start(n);
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
    int failures = 0;
    for (int round = 0; round < 10; round++) {
        n = create_quietly("first");
        failures += dqlite_node_set_bind_address(n, "@abi-first") != 0 || dqlite_node_start(n) != 0 || dqlite_node_stop(n) != 0;
        dqlite_node_destroy(n);
    }
    printf("ten rounds: %d failures\n", failures);
}

/* checklist c-api 42 */
static void section_in_use(void)
{
    dqlite_node *first = create_quietly("in-use");
    dqlite_node *second = create_quietly("in-use");
    dqlite_node_set_bind_address(first, "@abi-in-use-1");
    dqlite_node_set_bind_address(second, "@abi-in-use-2");
    start(first);
    start(second);
    start(first);
    ask_leader("@abi-in-use-1");
    SHOW(dqlite_node_stop(first));
    second = create_quietly("in-use");
    dqlite_node_set_bind_address(second, "@abi-in-use-3");
    start(second);
    SHOW(dqlite_node_stop(second));
}

static void section_stop_before_start(void)
{
    dqlite_node *n = create_quietly("early");
    SHOW(dqlite_node_stop(n));
    dqlite_node_set_bind_address(n, "@abi-early");
    start(n);
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
}

static void section_stop_twice(void)
{
    dqlite_node *n = create_quietly("twice");
    dqlite_node_set_bind_address(n, "@abi-twice");
    start(n);
    SHOW(dqlite_node_stop(n));
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
}

/* checklist c-api 41 */
static void section_no_address(void)
{
    dqlite_node *n = create_quietly("no-address");
    start(n);
}

static void section_start_again(void)
{
    dqlite_node *n = create_quietly("again");
    dqlite_node_set_bind_address(n, "@abi-again");
    start(n);
    SHOW(dqlite_node_stop(n));
    start(n);
}

static void section_destroy_running(void)
{
    dqlite_node *n = create_quietly("running");
    dqlite_node_set_bind_address(n, "@abi-running");
    start(n);
    dqlite_node_destroy(n);
    printf("destroyed\n");
    ask_leader("@abi-running");
}

/* checklist c-api 47, 69 */
static void section_handover(void)
{
    int (*handover)(dqlite_node *) = (int (*)(dqlite_node *))dlsym(RTLD_DEFAULT, "dqlite_node_handover");
    dqlite_node *n = create_quietly("handover");
    dqlite_node_set_bind_address(n, "@abi-handover");
    if (handover != NULL) {
        SHOW(handover(n));
        start(n);
        SHOW(handover(n));
        SHOW(dqlite_node_stop(n));
    }
}

/* A log of one entry with damage behind it. */
static void start_damaged(const char *directory, const char *name, const void *bytes, size_t size, bool auto_recovery)
{
    char path[256];
    dqlite_node *n = create_quietly(directory);
    int (*set)(dqlite_node *, bool) = (int (*)(dqlite_node *, bool))dlsym(RTLD_DEFAULT, "dqlite_node_set_auto_recovery");
    dqlite_node_set_bind_address(n, "@");
    dqlite_node_start(n);
    dqlite_node_stop(n);
    dqlite_node_destroy(n);
    snprintf(path, sizeof path, "%s/%s", directory, name);
    write_file(path, bytes, size);
    dqlite_node *damaged = NULL;
    int code = dqlite_node_create(1, "1", directory, &damaged);
    printf("%s, auto-recovery %d: create -> %d \"%s\"\n", name, auto_recovery, code, dqlite_node_errmsg(damaged));
    if (code == 0) {
        if (set != NULL) {
            set(damaged, auto_recovery);
        }
        dqlite_node_set_bind_address(damaged, "@");
        code = dqlite_node_start(damaged);
        printf("start -> %d \"%s\"\n", code, dqlite_node_errmsg(damaged));
        if (code == 0) {
            SHOW(dqlite_node_stop(damaged));
        }
    }
    list(directory);
}

/* checklist c-api 44 */
static void section_damage(void)
{
    static const char junk[] = "this is neither a segment nor a snapshot, not at all";
    start_damaged("closed-on", "0000000000000002-0000000000000006", junk, sizeof junk, true);
    start_damaged("closed-off", "0000000000000002-0000000000000006", junk, sizeof junk, false);
    start_damaged("open-on", "open-1", junk, sizeof junk, true);
    start_damaged("open-off", "open-1", junk, sizeof junk, false);
    start_damaged("empty-closed", "0000000000000002-0000000000000006", junk, 0, false);
    start_damaged("gap", "0000000000000005-0000000000000006", junk, sizeof junk, true);
    start_damaged("snapshot-without-meta", "snapshot-1-1-1", junk, sizeof junk, true);
    start_damaged("short-metadata", "metadata2", junk, 7, true);
}

static void describe(dqlite_node *n)
{
    int (*found)(dqlite_node *, uint64_t *, uint64_t *) =
        (int (*)(dqlite_node *, uint64_t *, uint64_t *))dlsym(RTLD_DEFAULT, "dqlite_node_describe_last_entry");
    uint64_t index = 77;
    uint64_t term = 77;
    if (found != NULL) {
        int code = found(n, &index, &term);
        printf("describe -> %d %llu %llu \"%s\"\n", code, (unsigned long long)index, (unsigned long long)term, dqlite_node_errmsg(n));
    }
}

/* checklist c-api 57, 58, 60, 63 */
static void section_recover(void)
{
    static const char one[] = "1";
    static const char two[] = "2";
    dqlite_node *n = create_quietly("recover");
    describe(n);
    list("recover");
    dqlite_node_set_bind_address(n, "@abi-recover");
    dqlite_node_start(n);
    dqlite_node_stop(n);
    dqlite_node_destroy(n);
    n = create_quietly("recover");
    describe(n);
    dqlite_node_info_ext infos[2] = {{sizeof *infos, 1, (uint64_t)(uintptr_t)one, 0}, {sizeof *infos, 2, (uint64_t)(uintptr_t)two, 7}};
    infos[0].size = 24;
    SHOW(dqlite_node_recover_ext(n, infos, 1));
    infos[0].size = 33;
    SHOW(dqlite_node_recover_ext(n, infos, 1));
    infos[0].size = 40;
    SHOW(dqlite_node_recover_ext(n, infos, 1));
    infos[0].size = 32;
    list("recover");
    SHOW(dqlite_node_recover_ext(n, infos, 2));
    list("recover");
    uint64_t larger[6] = {48, 1, (uint64_t)(uintptr_t)one, 0, 0, 0};
    SHOW(dqlite_node_recover_ext(n, (dqlite_node_info_ext *)larger, 1));
    dqlite_node_info plain = {1, one};
    SHOW(dqlite_node_recover(n, &plain, 1));
    describe(n);
    dqlite_node_set_bind_address(n, "@abi-recover");
    start(n);
    ask_leader("@abi-recover");
    SHOW(dqlite_node_recover(n, &plain, 1));
    printf("errmsg \"%s\"\n", dqlite_node_errmsg(n));
    SHOW(dqlite_node_stop(n));
}

/* checklist c-api 62 */
static void recover_wrongly(int count)
{
    dqlite_node *n = create_quietly("recover-wrongly");
    dqlite_node_info infos[2] = {{1, "1"}, {1, "2"}};
    if (count == 1) {
        infos[0].id = 0;
    }
    SHOW(dqlite_node_recover(n, infos, count));
    printf("errmsg \"%s\"\n", dqlite_node_errmsg(n));
}

static void section_recover_none(void)
{
    recover_wrongly(0);
}

static void section_recover_id_0(void)
{
    recover_wrongly(1);
}

static void section_recover_twins(void)
{
    recover_wrongly(2);
}

static void section_describe_running(void)
{
    dqlite_node *n = create_quietly("describe-running");
    dqlite_node_set_bind_address(n, "@abi-describe");
    start(n);
    describe(n);
    SHOW(dqlite_node_stop(n));
}

/* checklist c-api 52: default SIGPIPE disposition: client closes with a reply pending => host survives */
static void section_client_gone(void)
{
    dqlite_node *n = create_quietly("client-gone");
    signal(SIGPIPE, SIG_DFL);
    dqlite_node_set_bind_address(n, "@abi-client-gone");
    start(n);
    for (int round = 0; round < 50; round++) {
        int client = dial("@abi-client-gone");
        send(client, leader_request, 8, MSG_NOSIGNAL);
        for (int request = 0; request < 20; request++) {
            send(client, leader_request + 8, 16, MSG_NOSIGNAL);
        }
        close(client);
    }
    ask_leader("@abi-client-gone");
    SHOW(dqlite_node_stop(n));
}

/* checklist c-api 28 */
static void section_other_process(void)
{
    char byte;
    dqlite_node *n = create_quietly("other-process");
    dqlite_node_set_bind_address(n, "@abi-other-process");
    start(n);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int client = dial("@abi-other-process");
        _exit(client >= 0 && recv(client, &byte, 1, 0) <= 0 ? 42 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    printf("other process: %s\n", WIFEXITED(status) && WEXITSTATUS(status) == 42 ? "closed without data" : "served");
    SHOW(dqlite_node_stop(n));
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

static void run(const char *name, void (*section)(void))
{
    int status = 0;
    printf("== %s\n", name);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(SECTION_SECONDS);
        section();
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) {
        printf("%s: %s\n", name, WTERMSIG(status) == SIGALRM ? "hangs" : strsignal(WTERMSIG(status)));
    } else if (WEXITSTATUS(status) != 0) {
        printf("%s: exit %d\n", name, WEXITSTATUS(status));
    }
}

#define RUN(name) run(#name, section_##name)

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    umask(022);
    RUN(create);
    RUN(destroy_null);
    RUN(null_handles);
    RUN(bind);
    RUN(setters);
    RUN(first_start);
    RUN(in_use);
    RUN(stop_before_start);
    RUN(stop_twice);
    RUN(no_address);
    RUN(start_again);
    RUN(destroy_running);
    RUN(handover);
    RUN(damage);
    RUN(recover);
    RUN(recover_none);
    RUN(recover_id_0);
    RUN(recover_twins);
    RUN(describe_running);
    RUN(client_gone);
    RUN(other_process);
    RUN(server);
    return 0;
}
