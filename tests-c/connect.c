/*
 * The connect function: who calls it, with what, how often; what it may return; what happens while it blocks. The node is one of two voters, so
 * that it dials the other. Works in the current directory, which must be empty and writable. spec: c-api 3.4.
 */
#include "wire.h"

/* What the functions below were called with, and what they are to do. */
struct peer {
    pthread_mutex_t lock;
    pthread_t caller_of_start;
    char address[64];
    int calls;
    int inside;
    int on_other_thread;
    int block_ms;
    int given;
};

static void peer_init(struct peer *peer)
{
    memset(peer, 0, sizeof *peer);
    pthread_mutex_init(&peer->lock, NULL);
    peer->caller_of_start = pthread_self();
    peer->given = -1;
}

/* A field under the lock. */
static int peer_look(struct peer *peer, const int *field)
{
    pthread_mutex_lock(&peer->lock);
    int value = *field;
    pthread_mutex_unlock(&peer->lock);
    return value;
}

/* Waits until a field reaches a value; whether it did in ten seconds. */
static int peer_wait(struct peer *peer, const int *field, int value)
{
    double end = seconds() + 10;
    while (peer_look(peer, field) < value && seconds() < end) {
        pause_ms(5);
    }
    return peer_look(peer, field) >= value;
}

static void peer_enter(struct peer *peer, const char *address)
{
    pthread_mutex_lock(&peer->lock);
    peer->calls++;
    peer->inside++;
    peer->on_other_thread = !pthread_equal(pthread_self(), peer->caller_of_start);
    snprintf(peer->address, sizeof peer->address, "%s", address);
    int block_ms = peer->block_ms;
    pthread_mutex_unlock(&peer->lock);
    if (block_ms > 0) {
        pause_ms(block_ms);
    }
}

static int peer_leave(struct peer *peer, int code)
{
    pthread_mutex_lock(&peer->lock);
    peer->inside--;
    pthread_mutex_unlock(&peer->lock);
    return code;
}

static int connect_refuses(void *argument, const char *address, int *fd)
{
    struct peer *peer = (struct peer *)argument;
    (void)fd;
    peer_enter(peer, address);
    return peer_leave(peer, 16);
}

/* One end of a pair of sockets; the other end is in `given`, the first time. */
static int connect_pair(void *argument, const char *address, int *fd)
{
    struct peer *peer = (struct peer *)argument;
    int pair[2];
    peer_enter(peer, address);
    if (peer_look(peer, &peer->given) >= 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) {
        return peer_leave(peer, 1);
    }
    pthread_mutex_lock(&peer->lock);
    peer->given = pair[1];
    pthread_mutex_unlock(&peer->lock);
    *fd = pair[0];
    return peer_leave(peer, 0);
}

/* A connected TCP socket of the loopback interface, whose other end is closed. */
static int tcp_socket(int flags)
{
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int client = socket(AF_INET, SOCK_STREAM | flags, 0);
    memset(&name, 0, sizeof name);
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&name, sizeof name) == 0 && listen(listener, 1) == 0 &&
        getsockname(listener, (struct sockaddr *)&name, &size) == 0 &&
        (connect(client, (struct sockaddr *)&name, sizeof name) == 0 || errno == EINPROGRESS)) {
        close(accept(listener, NULL, NULL));
    }
    close(listener);
    return client;
}

/* Something else at each call. */
static int connect_kinds(void *argument, const char *address, int *fd)
{
    struct peer *peer = (struct peer *)argument;
    int ends[2] = {-1, -1};
    peer_enter(peer, address);
    switch (peer_look(peer, &peer->calls) % 6) {
    case 1: *fd = open("/dev/null", O_RDWR); break;
    case 2:
        if (pipe(ends) == 0) {
            close(ends[0]);
        }
        *fd = ends[1];
        break;
    case 3: *fd = tcp_socket(0); break;
    case 4: *fd = tcp_socket(SOCK_NONBLOCK | SOCK_CLOEXEC); break;
    case 5:
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0) {
            close(ends[1]);
        }
        *fd = ends[0];
        break;
    default:
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0) {
            close(ends[1]);
        }
        *fd = ends[0];
    }
    return peer_leave(peer, 0);
}

/* A node that is one of two voters, both strangers to the log so far. */
static dqlite_node *one_of_two(const char *directory, const char *own, const char *other)
{
    dqlite_node *n = NULL;
    dqlite_node_info infos[2] = {{1, own}, {2, other}};
    mkdir(directory, 0755);
    dqlite_node_create(1, "seed", directory, &n);
    dqlite_node_set_bind_address(n, "@");
    dqlite_node_start(n);
    dqlite_node_stop(n);
    dqlite_node_destroy(n);
    n = NULL;
    if (dqlite_node_create(1, own, directory, &n) != 0 || dqlite_node_recover(n, infos, 2) != 0 ||
        dqlite_node_set_bind_address(n, "@") != 0 || dqlite_node_set_network_latency_ms(n, 20) != 0) {
        printf("no node: %s\n", dqlite_node_errmsg(n));
        exit(1);
    }
    return n;
}

/* Reads to the end of a stream; whether there is one. */
static int is_at_end(int stream)
{
    char bytes[4096];
    ssize_t got;
    do {
        got = recv(stream, bytes, sizeof bytes, 0);
    } while (got > 0);
    return got == 0;
}

/* conformance: c-api 53 */
static void section_first_words(void)
{
    struct peer peer;
    unsigned char first[32];
    peer_init(&peer);
    dqlite_node *n = one_of_two("first-words", "me", "the other one");
    SHOW(dqlite_node_set_connect_func(n, connect_pair, &peer));
    start(n);
    printf("called: %s\n", yes_or_no(peer_wait(&peer, &peer.given, 0)));
    printf("address %s, on %s thread\n", peer.address, peer_look(&peer, &peer.on_other_thread) ? "another" : "the caller's");
    if (receive_all(peer.given, first, sizeof first) == 0) {
        for (size_t at = 0; at < sizeof first; at++) {
            printf("%s%02x", at == 0 ? "" : at % 8 == 0 ? " " : "", first[at]);
        }
        printf("\n");
    }
    SHOW(dqlite_node_stop(n));
    printf("closed after stop: %s\n", yes_or_no(is_at_end(peer.given)));
    close(peer.given);
    dqlite_node_destroy(n);
}

/* conformance: c-api 53 */
static void section_again(void)
{
    struct peer peer;
    peer_init(&peer);
    dqlite_node *n = one_of_two("again", "me", "other");
    SHOW(dqlite_node_set_connect_func(n, connect_refuses, &peer));
    start(n);
    double begin = seconds();
    int came = peer_wait(&peer, &peer.calls, 5);
    double took = seconds() - begin;
    printf("five calls: %s, in three to eight seconds: %s\n", yes_or_no(came), yes_or_no(took >= 3 && took <= 8));
    SHOW(dqlite_node_stop(n));
    int calls = peer_look(&peer, &peer.calls);
    pause_ms(1200);
    printf("calls after stop: %d\n", peer_look(&peer, &peer.calls) - calls);
    dqlite_node_destroy(n);
}

/* conformance: c-api 54 */
static void section_kinds(void)
{
    struct peer peer;
    peer_init(&peer);
    dqlite_node *n = one_of_two("kinds", "me", "other");
    int before = count_entries("/proc/self/fd");
    SHOW(dqlite_node_set_connect_func(n, connect_kinds, &peer));
    start(n);
    printf("eight calls: %s\n", yes_or_no(peer_wait(&peer, &peer.calls, 8)));
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
    printf("descriptors left: %s\n", count_entries("/proc/self/fd") - before <= 0 ? "none" : "some");
}

/* conformance: c-api 49 */
static void section_stop_waits(void)
{
    struct peer peer;
    peer_init(&peer);
    peer.block_ms = 1500;
    dqlite_node *n = one_of_two("stop-waits", "me", "other");
    SHOW(dqlite_node_set_connect_func(n, connect_refuses, &peer));
    start(n);
    printf("inside: %s\n", yes_or_no(peer_wait(&peer, &peer.inside, 1)));
    SHOW(dqlite_node_stop(n));
    int calls = peer_look(&peer, &peer.calls);
    printf("inside after stop: %d\n", peer_look(&peer, &peer.inside));
    dqlite_node_destroy(n);
    pause_ms(1200);
    printf("calls after destroy: %d\n", peer_look(&peer, &peer.calls) - calls);
}

/* Addresses that listen on the loopback address of this process. */
static int listen_on(const char *host, int port, int *chosen)
{
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    memset(&name, 0, sizeof name);
    name.sin_family = AF_INET;
    name.sin_port = htons((unsigned short)port);
    inet_pton(AF_INET, host, &name.sin_addr);
    if (bind(listener, (struct sockaddr *)&name, sizeof name) != 0 || listen(listener, 8) != 0 ||
        getsockname(listener, (struct sockaddr *)&name, &size) != 0) {
        printf("listen on %s: %s\n", host, strerror(errno));
    }
    *chosen = ntohs(name.sin_port);
    return listener;
}

/* Whether a node with the default connect function comes to a listener within some seconds. */
static int is_dialled(const char *directory, const char *address, int listener, int wait_ms)
{
    struct pollfd source = {listener, POLLIN, 0};
    dqlite_node *n = one_of_two(directory, "me", address);
    start(n);
    int came = poll(&source, 1, wait_ms) == 1;
    if (came) {
        close(accept(listener, NULL, NULL));
    }
    dqlite_node_stop(n);
    dqlite_node_destroy(n);
    return came;
}

/* conformance: c-api 56 */
static void section_default_function(void)
{
    char host[32];
    char address[64];
    unsigned process = (unsigned)getpid();
    int port = 0;
    /* An address of the loopback network that belongs to this process, for the port that is implied. */
    snprintf(host, sizeof host, "127.%u.%u.%u", 64 + (process >> 16 & 63), process >> 8 & 255, process & 255);
    int listener = listen_on(host, 0, &port);
    snprintf(address, sizeof address, "%s:%d", host, port);
    printf("address and port: %s\n", is_dialled("with-port", address, listener, 10000) ? "dialled" : "not dialled");
    close(listener);
    listener = listen_on(host, 8080, &port);
    printf("address alone: %s\n", is_dialled("without-port", host, listener, 10000) ? "dialled" : "not dialled");
    close(listener);
    listener = listen_on("127.0.0.1", 0, &port);
    snprintf(address, sizeof address, "localhost:%d", port);
    printf("name: %s\n", is_dialled("name", address, listener, 2500) ? "dialled" : "not dialled");
    close(listener);
}

/* The addresses of the nodes of one process are abstract; those that begin with dead block and fail. */
static int connect_within(void *argument, const char *address, int *fd)
{
    struct peer *peer = (struct peer *)argument;
    if (strncmp(address, "dead", 4) == 0) {
        peer_enter(peer, address);
        return peer_leave(peer, 16);
    }
    *fd = dial(address);
    return *fd < 0;
}

#define LIVE 3

/* Writes to whoever leads; -1 if nobody does within ten seconds. */
static int client_of_leader(int *leader)
{
    static const char *addresses[LIVE] = {"@dead-peers-1", "@dead-peers-2", "@dead-peers-3"};
    double end = seconds() + 10;
    while (seconds() < end) {
        for (*leader = 0; *leader < LIVE; (*leader)++) {
            int client = wire_client(own(addresses[*leader]));
            if (client >= 0) {
                return client;
            }
        }
        pause_ms(20);
    }
    return -1;
}

/* conformance: c-api 55 (better: in upstream functions that block hold up the disk) */
static void section_dead_peers(void)
{
    /* Copies: the search for a leader may ask for more names than own() keeps. */
    char names[LIVE][128];
    const char *addresses[LIVE + 2] = {names[0], names[1], names[2], "dead-4", "dead-5"};
    dqlite_node *nodes[LIVE];
    dqlite_node_info infos[LIVE + 2];
    struct peer peer;
    int leader = 0;
    peer_init(&peer);
    peer.block_ms = 5000;
    for (int i = 0; i < LIVE; i++) {
        char name[16];
        snprintf(name, sizeof name, "@dead-peers-%d", i + 1);
        snprintf(names[i], sizeof names[i], "%s", own(name));
    }
    for (int i = 0; i < LIVE + 2; i++) {
        infos[i].id = (dqlite_node_id)i + 2;
        infos[i].address = addresses[i];
    }
    for (int i = 0; i < LIVE; i++) {
        char directory[16];
        snprintf(directory, sizeof directory, "live-%d", i);
        mkdir(directory, 0755);
        if (dqlite_node_create(infos[i].id, addresses[i], directory, &nodes[i]) != 0 || dqlite_node_recover(nodes[i], infos, LIVE + 2) != 0 ||
            dqlite_node_set_bind_address(nodes[i], addresses[i]) != 0 || dqlite_node_set_network_latency_ms(nodes[i], 20) != 0 ||
            dqlite_node_set_connect_func(nodes[i], connect_within, &peer) != 0 || dqlite_node_start(nodes[i]) != 0) {
            printf("node %d: %s\n", i, dqlite_node_errmsg(nodes[i]));
        }
    }
    printf("a function blocks: %s\n", yes_or_no(peer_wait(&peer, &peer.inside, 1)));
    for (int round = 0; round < 2; round++) {
        int client = client_of_leader(&leader);
        int failures = round == 0 ? wire_exec(client, "CREATE TABLE t(n)") != 0 : 0;
        double begin = seconds();
        for (int row = 0; row < 50; row++) {
            failures += wire_exec(client, "INSERT INTO t VALUES(1)") != 0;
        }
        printf("50 rows: %d failures, within two seconds: %s\n", failures, yes_or_no(seconds() - begin < 2));
        close(client);
        if (round == 0) {
            /* Only two of five are left after the other one: a majority needs all three, so the leader comes back. */
            SHOW(dqlite_node_stop(nodes[leader]));
            dqlite_node_destroy(nodes[leader]);
            char directory[16];
            snprintf(directory, sizeof directory, "live-%d", leader);
            if (dqlite_node_create(infos[leader].id, addresses[leader], directory, &nodes[leader]) != 0 ||
                dqlite_node_set_bind_address(nodes[leader], addresses[leader]) != 0 ||
                dqlite_node_set_network_latency_ms(nodes[leader], 20) != 0 ||
                dqlite_node_set_connect_func(nodes[leader], connect_within, &peer) != 0) {
                printf("leader: %s\n", dqlite_node_errmsg(nodes[leader]));
            }
            start(nodes[leader]);
            client = client_of_leader(&leader);
            printf("a leader again: %s\n", yes_or_no(client >= 0));
            close(client);
        }
    }
    pthread_mutex_lock(&peer.lock);
    peer.block_ms = 0;
    pthread_mutex_unlock(&peer.lock);
    for (int i = 0; i < LIVE; i++) {
        SHOW(dqlite_node_stop(nodes[i]));
        dqlite_node_destroy(nodes[i]);
    }
}

static const struct section sections[] = {
    {"first_words", section_first_words, EVERY_RELEASE},
    {"again", section_again, EVERY_RELEASE},
    {"kinds", section_kinds, EVERY_RELEASE},
    {"stop_waits", section_stop_waits, EVERY_RELEASE},
    {"default_function", section_default_function, EVERY_RELEASE},
    {"dead_peers", section_dead_peers, ONLY_HERE},
};

int main(int argc, char **argv)
{
    return run_sections(sections, sizeof sections / sizeof *sections, argc, argv);
}
