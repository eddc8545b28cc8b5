/*
 * What the C programs share: calls that print what they return, files of a directory, the first words of the client protocol, and sections.
 * Each section is a process of its own, so that one that dies or hangs says so and the others go on. A program runs with any libdqlite.so.0:
 * functions that it may lack are looked up. C99, C11 and C++17 alike.
 */
#ifndef SEE_H
#define SEE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dqlite.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

/* A section that takes longer hangs. */
#define SECTION_SECONDS 120

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

/* The process that runs the sections. */
static int root_process;

/* The suffix of names that belong to this run, so that several runs do not meet. */
static inline const char *suffix(void)
{
    static __thread char text[16];
    snprintf(text, sizeof text, "-%d", root_process);
    return text;
}

/* An abstract address of this run. Stays until a few more have been asked for. */
static inline const char *own(const char *name)
{
    static __thread char names[16][128];
    static __thread int next;
    char *place = names[next++ % 16];
    snprintf(place, sizeof names[0], "%s%s", name, suffix());
    return place;
}

/* Such an address without what belongs to this run; NULL is named. */
static inline const char *shown(const char *address)
{
    static __thread char text[160];
    if (address == NULL) {
        return "NULL";
    }
    snprintf(text, sizeof text, "%s", address);
    size_t length = strlen(text);
    size_t end = strlen(suffix());
    if (length > end && strcmp(text + length - end, suffix()) == 0) {
        text[length - end] = 0;
    }
    return text;
}

static inline dqlite_node *create(dqlite_node_id id, const char *address, const char *directory)
{
    dqlite_node *n = NULL;
    int code = dqlite_node_create(id, address, directory, &n);
    printf("create(%llu, %.20s, %.20s) -> %d %s \"%s\"\n", id, address, directory, code, n == NULL ? "NULL" : "node",
           dqlite_node_errmsg(n));
    return n;
}

static inline dqlite_node *create_quietly(const char *directory)
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

static inline void start(dqlite_node *n)
{
    int code = dqlite_node_start(n);
    printf("start -> %d \"%s\"\n", code, dqlite_node_errmsg(n));
}

static inline void write_file(const char *name, const void *bytes, size_t size)
{
    FILE *file = fopen(name, "w");
    if (file == NULL || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) {
        printf("cannot write %s\n", name);
    }
}

static inline int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.' || strncmp(entry->d_name, ".probe", 6) == 0;
}

/* Larger files are segments prepared ahead, whose number and size depend on the moment. */
#define LISTED_MAX_BYTES (1 << 16)

/* Names, sizes and modes; bytes of small files; numbers that are times are left out. */
static inline void list(const char *path)
{
    struct dirent **entries;
    int count = scandir(path, &entries, is_visible, alphasort);
    printf("files in %s:\n", path);
    for (int i = 0; i < count; i++) {
        char name[512];
        struct stat status;
        unsigned char bytes[128];
        int is_aside = strncmp(entries[i]->d_name, "corrupt-", 8) == 0;
        const char *listed = is_aside ? strchr(entries[i]->d_name + 8, '-') : entries[i]->d_name;
        snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
        if (strncmp(listed, "tmp-", 4) == 0 || stat(name, &status) != 0 || status.st_size > LISTED_MAX_BYTES) {
            free(entries[i]);
            continue;
        }
        printf("  %s%s %lld %o", is_aside ? "corrupt" : "", listed, S_ISDIR(status.st_mode) ? 0LL : (long long)status.st_size,
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
        free(entries[i]);
    }
    if (count >= 0) {
        free(entries);
    }
}

static inline int count_entries(const char *path)
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

/* Connects to a port of this machine; -1 if that is refused. */
static inline int dial_port(int port)
{
    struct sockaddr_in name;
    memset(&name, 0, sizeof name);
    name.sin_family = AF_INET;
    name.sin_port = htons((unsigned short)port);
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int socket_ = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(socket_, (struct sockaddr *)&name, sizeof name) != 0) {
        close(socket_);
        return -1;
    }
    return socket_;
}

/* Connects to an abstract address, or to IP:PORT on this machine; -1 if that is refused. */
static inline int dial(const char *address)
{
    if (address[0] != '@') {
        return dial_port(atoi(strrchr(address, ':') + 1));
    }
    struct sockaddr_un name;
    memset(&name, 0, sizeof name);
    name.sun_family = AF_UNIX;
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
static inline void ask_leader(const char *address)
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

/* Seconds of a clock that nobody sets. */
static inline double seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static inline void pause_ms(int milliseconds)
{
    struct timespec time;
    time.tv_sec = milliseconds / 1000;
    time.tv_nsec = (long)(milliseconds % 1000) * 1000000;
    nanosleep(&time, NULL);
}

static inline const char *yes_or_no(int condition)
{
    return condition ? "yes" : "no";
}

/* Releases of upstream whose library lives through a section and always prints the same. */
#define EVERY_RELEASE "1.11.1 1.18.1 1.18.7"
#define SINCE_1_18_1 "1.18.1 1.18.7"
#define SINCE_1_18_7 "1.18.7"
/* Disk mode went after it. */
#define ONLY_1_18_1 "1.18.1"
#define ONLY_HERE ""

struct section {
    const char *name;
    void (*run)(void);
    /* One of the words above. */
    const char *releases;
};

static inline void run_section(const struct section *section)
{
    int status = 0;
    printf("== %s\n", section->name);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(SECTION_SECONDS);
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

/* Runs all sections; after --for RELEASE those that upstream's release lives through; after --not all but the named ones; else the named ones. */
static inline int run_sections(const struct section *sections, size_t count, int argc, char **argv)
{
    const char *release = argc == 3 && strcmp(argv[1], "--for") == 0 ? argv[2] : NULL;
    int all_but = argc > 1 && strcmp(argv[1], "--not") == 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    umask(022);
    root_process = (int)getpid();
    if (release != NULL) {
        /* As every host of upstream's does. */
        signal(SIGPIPE, SIG_IGN);
    }
    for (size_t i = 0; i < count; i++) {
        int wanted = argc == 1 || all_but || (release != NULL && strstr(sections[i].releases, release) != NULL);
        for (int argument = 1; release == NULL && argument < argc; argument++) {
            wanted = strcmp(argv[argument], sections[i].name) == 0 ? !all_but : wanted;
        }
        if (wanted) {
            run_section(&sections[i]);
        }
    }
    return 0;
}

#endif
