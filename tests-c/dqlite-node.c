/*
 * One node, over the public interface alone. Runs with any libdqlite.so.0: what upstream's 1.11.1 lacks is looked up at run time.
 * Prints "ready" when clients can connect. SIGTERM and SIGINT stop it cleanly; with --stop-on-eof the end of standard input does too;
 * with --handover another node takes its leadership, and if need be its vote, before it stops. With --no-delay it connects to others
 * by a function of its own, as hosts in Go do, whose TCP connections send small messages at once. With --single-thread it puts SQLite
 * into single-thread mode first, as go-dqlite does.
 */
#define _GNU_SOURCE
#include <dqlite.h>

#include <dlfcn.h>
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

struct options {
    unsigned long long id;
    const char *address;
    const char *bind_address;
    const char *data_dir;
    unsigned snapshot_threshold;
    unsigned snapshot_trailing;
    int has_snapshot_params;
    unsigned latency_ms;
    unsigned busy_timeout_ms;
    int has_busy_timeout;
    int role_management;
    int voters;
    int standbys;
    unsigned long long failure_domain;
    int no_auto_recovery;
    int no_compression;
    int disk_mode;
    int stop_on_eof;
    int handover;
    int no_delay;
    int single_thread;
};

enum {
    OPTION_ID = 1,
    OPTION_ADDRESS,
    OPTION_BIND,
    OPTION_DATA_DIR,
    OPTION_SNAPSHOT_THRESHOLD,
    OPTION_SNAPSHOT_TRAILING,
    OPTION_LATENCY_MS,
    OPTION_BUSY_TIMEOUT,
    OPTION_ROLE_MANAGEMENT,
    OPTION_VOTERS,
    OPTION_STANDBYS,
    OPTION_FAILURE_DOMAIN,
    OPTION_NO_AUTO_RECOVERY,
    OPTION_NO_COMPRESSION,
    OPTION_DISK_MODE,
    OPTION_STOP_ON_EOF,
    OPTION_HANDOVER,
    OPTION_NO_DELAY,
    OPTION_SINGLE_THREAD
};

static const struct option option_names[] = {
    {"id", required_argument, NULL, OPTION_ID},
    {"address", required_argument, NULL, OPTION_ADDRESS},
    {"bind", required_argument, NULL, OPTION_BIND},
    {"data-dir", required_argument, NULL, OPTION_DATA_DIR},
    {"snapshot-threshold", required_argument, NULL, OPTION_SNAPSHOT_THRESHOLD},
    {"snapshot-trailing", required_argument, NULL, OPTION_SNAPSHOT_TRAILING},
    {"latency-ms", required_argument, NULL, OPTION_LATENCY_MS},
    {"busy-timeout", required_argument, NULL, OPTION_BUSY_TIMEOUT},
    {"role-management", no_argument, NULL, OPTION_ROLE_MANAGEMENT},
    {"voters", required_argument, NULL, OPTION_VOTERS},
    {"standbys", required_argument, NULL, OPTION_STANDBYS},
    {"failure-domain", required_argument, NULL, OPTION_FAILURE_DOMAIN},
    {"no-auto-recovery", no_argument, NULL, OPTION_NO_AUTO_RECOVERY},
    {"no-compression", no_argument, NULL, OPTION_NO_COMPRESSION},
    {"disk-mode", no_argument, NULL, OPTION_DISK_MODE},
    {"stop-on-eof", no_argument, NULL, OPTION_STOP_ON_EOF},
    {"handover", no_argument, NULL, OPTION_HANDOVER},
    {"no-delay", no_argument, NULL, OPTION_NO_DELAY},
    {"single-thread", no_argument, NULL, OPTION_SINGLE_THREAD},
    {NULL, 0, NULL, 0}};

static void usage(void)
{
    fprintf(stderr, "usage: dqlite-node --data-dir DIR [--id N] [--address A] [--bind A] [--snapshot-threshold N]\n"
                    "  [--snapshot-trailing N] [--latency-ms N] [--busy-timeout MS] [--role-management] [--voters N]\n"
                    "  [--standbys N] [--failure-domain N] [--no-auto-recovery] [--no-compression] [--disk-mode] [--stop-on-eof]\n"
                    "  [--handover] [--no-delay] [--single-thread]\n");
    exit(2);
}

static unsigned long long number(const char *text, unsigned long long most)
{
    char *end = NULL;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value > most) {
        fprintf(stderr, "dqlite-node: %s is not a number up to %llu\n", text, most);
        exit(2);
    }
    return value;
}

static void set_option(struct options *options, int option)
{
    switch (option) {
    case OPTION_ID: options->id = number(optarg, ~0ULL); break;
    case OPTION_ADDRESS: options->address = optarg; break;
    case OPTION_BIND: options->bind_address = optarg; break;
    case OPTION_DATA_DIR: options->data_dir = optarg; break;
    case OPTION_SNAPSHOT_THRESHOLD:
        options->snapshot_threshold = (unsigned)number(optarg, ~0U);
        options->has_snapshot_params = 1;
        break;
    case OPTION_SNAPSHOT_TRAILING:
        options->snapshot_trailing = (unsigned)number(optarg, ~0U);
        options->has_snapshot_params = 1;
        break;
    case OPTION_LATENCY_MS: options->latency_ms = (unsigned)number(optarg, ~0U); break;
    case OPTION_BUSY_TIMEOUT:
        options->busy_timeout_ms = (unsigned)number(optarg, ~0U);
        options->has_busy_timeout = 1;
        break;
    case OPTION_ROLE_MANAGEMENT: options->role_management = 1; break;
    case OPTION_VOTERS: options->voters = (int)number(optarg, 0x7fffffff); break;
    case OPTION_STANDBYS: options->standbys = (int)number(optarg, 0x7fffffff); break;
    case OPTION_FAILURE_DOMAIN: options->failure_domain = number(optarg, ~0ULL); break;
    case OPTION_NO_AUTO_RECOVERY: options->no_auto_recovery = 1; break;
    case OPTION_NO_COMPRESSION: options->no_compression = 1; break;
    case OPTION_DISK_MODE: options->disk_mode = 1; break;
    case OPTION_STOP_ON_EOF: options->stop_on_eof = 1; break;
    case OPTION_HANDOVER: options->handover = 1; break;
    case OPTION_NO_DELAY: options->no_delay = 1; break;
    case OPTION_SINGLE_THREAD: options->single_thread = 1; break;
    default: usage();
    }
}

static struct options parse(int argc, char *argv[])
{
    struct options options;
    int option;

    memset(&options, 0, sizeof options);
    options.id = 1;
    options.snapshot_threshold = 1024;
    options.snapshot_trailing = 8192;
    options.voters = -1;
    options.standbys = -1;
    while ((option = getopt_long(argc, argv, "", option_names, NULL)) != -1) {
        set_option(&options, option);
    }
    if (optind != argc || options.data_dir == NULL) {
        usage();
    }
    if (options.address == NULL) {
        options.address = options.bind_address != NULL ? options.bind_address : "1";
    }
    if (options.bind_address == NULL) {
        options.bind_address = options.address;
    }
    return options;
}

/* A function that not every release has; ends the program if this library does not. */
static void *function(const char *name)
{
    void *found = dlsym(RTLD_DEFAULT, name);

    if (found == NULL) {
        fprintf(stderr, "dqlite-node: this library has no %s\n", name);
        exit(1);
    }
    return found;
}

static int call_int(const char *name, dqlite_node *node, int value)
{
    int (*call)(dqlite_node *, int);

    *(void **)&call = function(name);
    return call(node, value);
}

static int call_unsigned(const char *name, dqlite_node *node, unsigned value)
{
    int (*call)(dqlite_node *, unsigned);

    *(void **)&call = function(name);
    return call(node, value);
}

static int call_bool(const char *name, dqlite_node *node, bool value)
{
    int (*call)(dqlite_node *, bool);

    *(void **)&call = function(name);
    return call(node, value);
}

static int call_plain(const char *name, dqlite_node *node)
{
    int (*call)(dqlite_node *);

    *(void **)&call = function(name);
    return call(node);
}

/* As sqlite3.h numbers it. */
#define CONFIG_SINGLE_THREAD 1

static void use_single_thread_mode(void)
{
    int (*config)(int, ...);

    *(void **)&config = function("sqlite3_config");
    if (config(CONFIG_SINGLE_THREAD) != 0) {
        fprintf(stderr, "dqlite-node: SQLite does not go into single-thread mode\n");
        exit(1);
    }
}

static void check(dqlite_node *node, const char *what, int code)
{
    if (code != 0) {
        fprintf(stderr, "dqlite-node: %s: code %d: %s\n", what, code, dqlite_node_errmsg(node));
        dqlite_node_destroy(node);
        exit(1);
    }
}

/* Connects to HOST:PORT without Nagle's algorithm, which makes a message wait until the one before it is acknowledged. */
static int connect_no_delay(void *argument, const char *address, int *fd)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    const char *colon = strrchr(address, ':');
    char host[256];
    int one = 1;
    int made;

    (void)argument;
    if (colon == NULL || (size_t)(colon - address) >= sizeof host) {
        return 1;
    }
    memcpy(host, address, (size_t)(colon - address));
    host[colon - address] = '\0';
    if (getaddrinfo(host, colon + 1, &hints, &found) != 0) {
        return 1;
    }
    made = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (made < 0 || connect(made, found->ai_addr, found->ai_addrlen) != 0 ||
        setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0) {
        if (made >= 0) {
            close(made);
        }
        made = -1;
    }
    freeaddrinfo(found);
    *fd = made;
    return made < 0 ? 1 : 0;
}

static void set_up(dqlite_node *node, const struct options *options)
{
    check(node, "bind address", dqlite_node_set_bind_address(node, options->bind_address));
    check(node, "failure domain", dqlite_node_set_failure_domain(node, options->failure_domain));
    if (options->no_delay) {
        check(node, "connect function", dqlite_node_set_connect_func(node, connect_no_delay, NULL));
    }
    if (options->latency_ms != 0) {
        check(node, "latency", dqlite_node_set_network_latency_ms(node, options->latency_ms));
    }
    if (options->has_snapshot_params) {
        check(node, "snapshot parameters",
              dqlite_node_set_snapshot_params(node, options->snapshot_threshold, options->snapshot_trailing));
    }
    if (options->has_busy_timeout) {
        check(node, "busy timeout", call_unsigned("dqlite_node_set_busy_timeout", node, options->busy_timeout_ms));
    }
    if (options->voters >= 0) {
        check(node, "voters", call_int("dqlite_node_set_target_voters", node, options->voters));
    }
    if (options->standbys >= 0) {
        check(node, "stand-bys", call_int("dqlite_node_set_target_standbys", node, options->standbys));
    }
    if (options->no_auto_recovery) {
        check(node, "auto recovery", call_bool("dqlite_node_set_auto_recovery", node, false));
    }
    if (options->no_compression) {
        check(node, "compression", call_bool("dqlite_node_set_snapshot_compression", node, false));
    }
    if (options->disk_mode) {
        check(node, "disk mode", call_plain("dqlite_node_enable_disk_mode", node));
    }
    if (options->role_management) {
        check(node, "role management", call_plain("dqlite_node_enable_role_management", node));
    }
}

/* Whether standard input is at its end. */
static int input_ended(void)
{
    char ignored[256];
    ssize_t count = read(STDIN_FILENO, ignored, sizeof ignored);

    return count == 0 || (count < 0 && errno != EINTR);
}

static void wait_for_end(int signals, int stop_on_eof)
{
    struct pollfd sources[2] = {{signals, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};

    for (;;) {
        if (poll(sources, stop_on_eof ? 2 : 1, -1) < 0) {
            if (errno == EINTR) {
                continue;
            }
            perror("dqlite-node: poll");
            return;
        }
        if (sources[0].revents != 0 || (stop_on_eof && sources[1].revents != 0 && input_ended())) {
            return;
        }
    }
}

int main(int argc, char *argv[])
{
    struct options options = parse(argc, argv);
    dqlite_node *node = NULL;
    sigset_t endings;
    int signals;
    int code;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&endings);
    sigaddset(&endings, SIGTERM);
    sigaddset(&endings, SIGINT);
    sigprocmask(SIG_BLOCK, &endings, NULL);
    signals = signalfd(-1, &endings, SFD_CLOEXEC);
    if (signals < 0) {
        perror("dqlite-node: signalfd");
        return 1;
    }

    if (options.single_thread) {
        use_single_thread_mode();
    }
    code = dqlite_node_create(options.id, options.address, options.data_dir, &node);
    if (code != 0) {
        fprintf(stderr, "dqlite-node: create: code %d: %s\n", code, node == NULL ? "" : dqlite_node_errmsg(node));
        if (node != NULL) {
            dqlite_node_destroy(node);
        }
        return 1;
    }
    set_up(node, &options);
    check(node, "start", dqlite_node_start(node));
    if (dqlite_node_errmsg(node)[0] != '\0') {
        /* A start that succeeds may have something to tell. */
        fprintf(stderr, "dqlite-node: start: %s\n", dqlite_node_errmsg(node));
    }
    puts("ready");
    fflush(stdout);

    wait_for_end(signals, options.stop_on_eof);
    if (options.handover) {
        code = call_plain("dqlite_node_handover", node);
        if (code != 0) {
            fprintf(stderr, "dqlite-node: handover: code %d; the node stops all the same\n", code);
        }
    }
    code = dqlite_node_stop(node);
    if (code != 0) {
        fprintf(stderr, "dqlite-node: stop: code %d: %s\n", code, dqlite_node_errmsg(node));
    }
    dqlite_node_destroy(node);
    close(signals);
    return code == 0 ? 0 : 1;
}
