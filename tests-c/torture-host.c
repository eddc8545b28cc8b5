/*
 * Breaks the system calls of a node's life, one at a time. A life runs in a traced child: nodes are made and started, take writes, take snapshots, join,
 * lose their leader and stop. A first life is counted; then in each life one call fails with an errno that its manual names, returns less than it was asked
 * for, or is interrupted. After each, the directories are started again without faults: every acknowledged row is there, and nothing else was touched.
 * Only calls of the library's own threads are broken: the host's thread is the client. x86-64. docs/testing.md.
 *
 *   torture-host FOLDER [--failures N] [--workers N] [--only NAME] [--life lone | cluster]
 */
#include "wire.h"

#include <elf.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>

/* The answer to a change of the cluster. */
#define WIRE_EMPTY 8

/* A life that takes longer hangs; so does a call of the library that takes longer than its own. */
#define LIFE_SECONDS 60
#define CALL_SECONDS 20.0
/* Rows that a client tries to write in a life, and how long it tries for each. */
#define ROWS_MAX 60
#define ROW_SECONDS 20.0
#define NODES_MAX 3
#define SYSCALLS 512
#define TEXT_BYTES 300

enum kind { LONE, CLUSTER, KINDS };
static const char *const kind_names[] = {"lone", "cluster"};

/* What a life did, in memory that it shares with its tracer. */
struct life {
    int stage;
    int rows;
    int gave_up;
    char acknowledged[ROWS_MAX];
    char wrong[TEXT_BYTES];
    char refused[TEXT_BYTES];
};

/* How a call is broken. */
enum way { FAILS, FAILS_AFTERWARDS, IS_SHORT };

struct fault {
    int number;
    int error;
    enum way way;
    int nth;
};

static struct life *life;
static char address[NODES_MAX + 1][32];

/* ---------------------------------------------------------------------------------------------------------------------------- what may fail, and how */

struct rule {
    const char *name;
    int number;
    int errors[10];
    int may_be_short;
};

#define CALL(name) #name, SYS_##name
/* Not EAGAIN of a socket: who waits for its next event after that waits for one that the kernel does not owe. */
static const struct rule rules[] = {
    {CALL(openat), {EACCES, EMFILE, ENFILE, ENOSPC, EDQUOT, ENOMEM, EROFS, EINTR, EIO}, 0},
    {CALL(read), {EIO, EINTR}, 1},
    {CALL(pread64), {EIO, EINTR, ENOMEM}, 1},
    {CALL(preadv), {EIO, EINTR}, 1},
    {CALL(write), {EIO, ENOSPC, EDQUOT, EFBIG, EINTR}, 1},
    {CALL(pwrite64), {EIO, ENOSPC, EDQUOT, EFBIG, EINTR}, 1},
    {CALL(writev), {EIO, ENOSPC, EDQUOT, EFBIG, EINTR}, 1},
    {CALL(pwritev), {EIO, ENOSPC, EDQUOT, EFBIG, EINTR}, 1},
    {CALL(pwritev2), {EIO, ENOSPC, EDQUOT, EFBIG, EINTR, EOPNOTSUPP}, 1},
    {CALL(fsync), {EIO, ENOSPC, EDQUOT, EINTR}, 0},
    {CALL(fdatasync), {EIO, ENOSPC, EDQUOT, EINTR}, 0},
    {CALL(sync_file_range), {EIO, ENOSPC, ENOMEM}, 0},
    {CALL(ftruncate), {EIO, EFBIG, EINTR, EPERM}, 0},
    {CALL(fallocate), {EOPNOTSUPP, ENOSPC, EIO, EINTR, EFBIG, ENOSYS}, 0},
    {CALL(rename), {EIO, ENOSPC, EDQUOT, EACCES, EROFS}, 0},
    {CALL(renameat), {EIO, ENOSPC, EDQUOT, EACCES, EROFS}, 0},
    {CALL(renameat2), {EIO, ENOSPC, EDQUOT, EACCES, EROFS}, 0},
    {CALL(unlink), {EIO, EACCES, EBUSY, EROFS, ENOMEM}, 0},
    {CALL(unlinkat), {EIO, EACCES, EBUSY, EROFS, ENOMEM}, 0},
    {CALL(linkat), {EIO, EPERM, ENOSPC, EDQUOT, EACCES, EROFS}, 0},
    {CALL(flock), {EINTR, ENOLCK}, 0},
    {CALL(statx), {EACCES, EIO, ENOMEM}, 0},
    {CALL(newfstatat), {EACCES, EIO, ENOMEM}, 0},
    {CALL(fstat), {EIO, ENOMEM}, 0},
    {CALL(fstatfs), {EIO, EINTR, ENOMEM, ENOSYS}, 0},
    {CALL(getdents64), {EIO, ENOMEM}, 0},
    {CALL(lseek), {EIO}, 0},
    {CALL(fadvise64), {ENOSYS}, 0},
    {CALL(close), {EIO, EINTR, ENOSPC}, 0},
    {CALL(fcntl), {EMFILE, EINTR}, 0},
    {CALL(socket), {EMFILE, ENFILE, ENOBUFS, ENOMEM, EACCES}, 0},
    {CALL(bind), {EADDRINUSE, EACCES, EADDRNOTAVAIL}, 0},
    {CALL(listen), {EADDRINUSE, EOPNOTSUPP}, 0},
    {CALL(connect), {ECONNREFUSED, ETIMEDOUT, EINTR, ENETUNREACH, EADDRNOTAVAIL}, 0},
    {CALL(accept4), {EINTR, EMFILE, ENFILE, ENOMEM, ENOBUFS, ECONNABORTED, EPROTO, EPERM}, 0},
    {CALL(sendmsg), {EPIPE, ECONNRESET, ENOBUFS, ENOMEM, EINTR}, 1},
    {CALL(sendto), {EPIPE, ECONNRESET, ENOBUFS, ENOMEM, EINTR}, 1},
    {CALL(recvfrom), {ECONNRESET, EINTR, ENOMEM}, 1},
    {CALL(recvmsg), {ECONNRESET, EINTR, ENOMEM}, 1},
    {CALL(shutdown), {ENOTCONN}, 0},
    {CALL(setsockopt), {ENOBUFS, ENOMEM, ENOPROTOOPT}, 0},
    {CALL(getsockopt), {ENOBUFS, ENOMEM}, 0},
    {CALL(getsockname), {ENOBUFS}, 0},
    {CALL(ioctl), {ENOTTY}, 0},
    {CALL(poll), {EINTR, ENOMEM}, 0},
    {CALL(epoll_create1), {EMFILE, ENFILE, ENOMEM}, 0},
    {CALL(epoll_ctl), {ENOMEM, ENOSPC}, 0},
    {CALL(epoll_wait), {EINTR}, 0},
    {CALL(epoll_pwait), {EINTR}, 0},
    {CALL(eventfd2), {EMFILE, ENFILE, ENOMEM}, 0},
    {CALL(clone3), {EAGAIN, ENOMEM, EPERM}, 0},
    {CALL(mmap), {ENOMEM, EAGAIN}, 0},
    {CALL(mprotect), {ENOMEM}, 0},
    {CALL(brk), {ENOMEM}, 0},
    {CALL(mremap), {ENOMEM, EAGAIN}, 0},
    {CALL(getrandom), {EINTR, ENOSYS}, 0},
    {CALL(sched_getaffinity), {EPERM}, 0},
    {CALL(setpriority), {EPERM, EACCES}, 0},
    {CALL(clock_nanosleep), {EINTR}, 0},
};
#define RULES (sizeof rules / sizeof *rules)

/* ------------------------------------------------------------------------------------------------------------------------------------------- a life */

static void wrong(const char *what, int code, const char *text)
{
    if (life->wrong[0] == 0) {
        snprintf(life->wrong, sizeof life->wrong, "%s: %d \"%s\"", what, code, text);
    }
}

/* A call that failed: it has a text. */
static void refused(const char *what, int code, const char *text)
{
    if (text == NULL || strlen(text) < 5) {
        wrong(what, code, "no text");
    }
    if (life->refused[0] == 0) {
        snprintf(life->refused, sizeof life->refused, "%s: %d %s", what, code, text);
    }
}

static void within(const char *what, double begin)
{
    if (seconds() - begin > CALL_SECONDS) {
        wrong(what, (int)(seconds() - begin), "seconds");
    }
}

/* A client of the node at a place. */
static int client_at(int at)
{
    struct sockaddr_in name;
    struct timeval patience = {5, 0};
    char where[32];
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(where, sizeof where, "%.*s", (int)strcspn(address[at], ":"), address[at]);
    memset(&name, 0, sizeof name);
    name.sin_family = AF_INET;
    name.sin_port = htons(9001);
    inet_pton(AF_INET, where, &name.sin_addr);
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(client, (struct sockaddr *)&name, sizeof name) != 0 || wire_open(client) != 0) {
        close(client);
        return -1;
    }
    return client;
}

/* Executes on whichever node takes it, for as long as a row is tried. */
static int execute(const char *sql, int nodes)
{
    double begin = seconds();
    for (int at = 0; seconds() - begin < ROW_SECONDS; at = (at + 1) % nodes) {
        int client = client_at(at);
        int code = client < 0 ? -1 : wire_exec(client, sql);
        close(client);
        if (code == 0) {
            return 1;
        }
        pause_ms(nodes == 1 ? 20 : 5);
    }
    return 0;
}

static dqlite_node *made(int number, const char *folder)
{
    char directory[PATH_MAX + 64];
    dqlite_node *n = NULL;
    int code = 0;
    snprintf(directory, sizeof directory, "%s/node-%d", folder, number);
    /* Of a single fault the second try knows nothing. */
    for (int attempt = 0; attempt < 2; attempt++) {
        code = dqlite_node_create((dqlite_node_id)number, address[number - 1], directory, &n);
        if (code == 0) {
            break;
        }
        refused("create", code, dqlite_node_errmsg(n));
        dqlite_node_destroy(n);
        n = NULL;
    }
    if (n == NULL) {
        wrong("a second create", code, "refused");
        return NULL;
    }
    dqlite_node_set_network_latency_ms(n, 10);
    dqlite_node_set_snapshot_params_v2(n, 8, 4, DQLITE_SNAPSHOT_TRAILING_STATIC);
    for (int attempt = 0; attempt < 2 && (code = dqlite_node_set_bind_address(n, address[number - 1])) != 0; attempt++) {
        refused("bind", code, dqlite_node_errmsg(n));
    }
    for (int attempt = 0; attempt < 2; attempt++) {
        double begin = seconds();
        code = dqlite_node_start(n);
        within("start", begin);
        if (code == 0) {
            return n;
        }
        refused("start", code, dqlite_node_errmsg(n));
    }
    wrong("a second start", code, dqlite_node_errmsg(n));
    dqlite_node_destroy(n);
    return NULL;
}

static void ended(dqlite_node *n)
{
    if (n == NULL) {
        return;
    }
    double begin = seconds();
    int code = dqlite_node_stop(n);
    within("stop", begin);
    if (code != 0) {
        refused("stop", code, dqlite_node_errmsg(n));
    }
    dqlite_node_destroy(n);
}

/* A request of one or two numbers, and perhaps a text, to the leader. */
static void ask(unsigned char type, unsigned long long first, unsigned long long second, const char *text, int nodes)
{
    double begin = seconds();
    for (int at = 0; seconds() - begin < ROW_SECONDS; at = (at + 1) % nodes) {
        if (life->gave_up) {
            return;
        }
        unsigned char message[8 + 8 + 32] = {0}, body[ANSWER_MAX_BYTES];
        size_t size = 0, length = text == NULL ? 8 : (strlen(text) + 8) / 8 * 8;
        message[0] = (unsigned char)(1 + length / 8);
        message[4] = type;
        memcpy(message + 8, &first, 8);
        if (text == NULL) {
            memcpy(message + 16, &second, 8);
        } else {
            memcpy(message + 16, text, strlen(text));
        }
        int client = client_at(at);
        int answer = client < 0 || send_all(client, message, 16 + length) != 0 ? -1 : receive_answer(client, body, &size);
        close(client);
        unsigned long long code = answer == WIRE_FAILURE ? word_at(body, 0) : 0;
        int is_later = code == 10250 || code == 10506 || code == 5;
        if (answer == WIRE_EMPTY || (answer == WIRE_FAILURE && !is_later)) {
            return;
        }
        pause_ms(10);
    }
    life->gave_up = 1;
}

static void write_rows(int count, int nodes)
{
    char sql[128];
    for (int i = 0; i < count && life->rows < ROWS_MAX && !life->gave_up; i++) {
        int row = life->rows++;
        snprintf(sql, sizeof sql, "INSERT OR IGNORE INTO t VALUES(%d, zeroblob(%d))", row, row % 8 == 7 ? 200000 : 100);
        life->acknowledged[row] = (char)execute(sql, nodes);
        if (!life->acknowledged[row]) {
            /* Nobody takes anything any more: one of the nodes has to say why. */
            life->gave_up = 1;
            return;
        }
    }
}

/* After writes: whether they went on, or a node that does not say why. */
static void told(dqlite_node *const *nodes, int count)
{
    const char *text = "";
    for (int i = 0; i < count; i++) {
        text = nodes[i] != NULL && text[0] == 0 ? dqlite_node_errmsg(nodes[i]) : text;
    }
    if (life->gave_up && text[0] == 0) {
        wrong("writes", 0, "none is taken, and nothing is said");
    } else if (life->gave_up) {
        refused("writes", 0, text);
    }
}

/* One node of the log, and another node of the process that nobody asks for much. */
static void lone(const char *folder)
{
    dqlite_node *n = made(1, folder);
    dqlite_node *other = made(2, folder);
    life->stage = 1;
    execute("CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, b)", 1);
    write_rows(24, 1);
    life->stage = 2;
    told(&n, 1);
    ended(other);
    ended(n);
    life->stage = 3;
}

/* Three nodes; the first one leads, and goes. */
static void cluster(const char *folder)
{
    dqlite_node *nodes[NODES_MAX];
    for (int number = 1; number <= NODES_MAX; number++) {
        nodes[number - 1] = made(number, folder);
    }
    life->stage = 1;
    for (int number = 2; number <= NODES_MAX; number++) {
        ask(12, (unsigned long long)number, 0, address[number - 1], NODES_MAX);
        ask(13, (unsigned long long)number, 0, NULL, NODES_MAX);
    }
    if (!life->gave_up) {
        execute("CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, b)", NODES_MAX);
    }
    write_rows(14, NODES_MAX);
    life->stage = 2;
    told(nodes, NODES_MAX);
    ended(nodes[0]);
    nodes[0] = NULL;
    if (!life->gave_up) {
        write_rows(6, NODES_MAX);
        told(nodes, NODES_MAX);
    }
    life->stage = 3;
    ended(nodes[1]);
    ended(nodes[2]);
    life->stage = 4;
}

static void live(enum kind kind, const char *folder)
{
    signal(SIGPIPE, SIG_IGN);
    (kind == LONE ? lone : cluster)(folder);
}

/* What has become of the directories: 0, or a text in `life->wrong`. */
static void look_again(enum kind kind, const char *folder)
{
    int nodes = kind == LONE ? 2 : NODES_MAX, rows = life->rows;
    dqlite_node *running[NODES_MAX];
    char sql[128];
    signal(SIGPIPE, SIG_IGN);
    life->refused[0] = 0;
    for (int number = 1; number <= nodes; number++) {
        running[number - 1] = made(number, folder);
    }
    if (life->refused[0] != 0) {
        wrong("after a restart", 0, life->refused);
    }
    int asked = kind == LONE ? 1 : NODES_MAX;
    if (!execute("CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, b)", asked)) {
        wrong("after a restart", 0, "nobody takes a write");
    }
    for (int row = 0; row < rows; row++) {
        if (!life->acknowledged[row]) {
            continue;
        }
        int found = 0;
        snprintf(sql, sizeof sql, "SELECT count(*) AS n FROM t WHERE n = %d", row);
        double begin = seconds();
        for (int at = 0; !found && seconds() - begin < ROW_SECONDS; at = (at + 1) % asked) {
            int client = client_at(at);
            long long count = client < 0 ? -1 : wire_number(client, sql);
            close(client);
            found = count == 1;
            if (count == 0) {
                break;
            }
        }
        if (!found) {
            wrong("a row that was acknowledged is lost", row, "");
        }
    }
    for (int number = 1; number <= nodes; number++) {
        ended(running[number - 1]);
    }
}

/* ----------------------------------------------------------------------------------------------------------------------------------------- the tracer */

/* Hands every call that has a rule to the tracer. */
static void be_traced(void)
{
    struct sock_filter filter[RULES + 3];
    struct sock_fprog program;
    size_t length = 0;
    struct sock_filter load = BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    filter[length++] = load;
    for (size_t i = 0; i < RULES; i++) {
        struct sock_filter jump = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)rules[i].number, (unsigned char)(RULES - i), 0);
        filter[length++] = jump;
    }
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_filter trace = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
    filter[length++] = allow;
    filter[length++] = trace;
    program.len = (unsigned short)length;
    program.filter = filter;
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    raise(SIGSTOP);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        wrong("seccomp", errno, strerror(errno));
        _exit(1);
    }
}

/* A word of the tracee that is put back when its call returns. */
struct patch {
    pid_t thread;
    unsigned long place;
    long word;
    int error;
};

/* Makes a call ask for half as much; 0 if it asks for too little. */
static int shorten(pid_t thread, struct user_regs_struct *registers, struct patch *patch)
{
    unsigned long vector = registers->rsi;
    switch (registers->orig_rax) {
    case SYS_sendmsg:
    case SYS_recvmsg:
        vector = (unsigned long)ptrace(PTRACE_PEEKDATA, thread, registers->rsi + offsetof(struct msghdr, msg_iov), NULL);
        break;
    case SYS_writev:
    case SYS_pwritev:
    case SYS_pwritev2:
    case SYS_preadv:
        break;
    default:
        if (registers->rdx < 2) {
            return 0;
        }
        registers->rdx /= 2;
        ptrace(PTRACE_SETREGS, thread, NULL, registers);
        return 1;
    }
    patch->place = vector + offsetof(struct iovec, iov_len);
    patch->word = ptrace(PTRACE_PEEKDATA, thread, patch->place, NULL);
    if (patch->word < 2) {
        return 0;
    }
    /* What follows in the vector is left out, too. */
    if (registers->orig_rax != SYS_sendmsg && registers->orig_rax != SYS_recvmsg) {
        registers->rdx = 1;
        ptrace(PTRACE_SETREGS, thread, NULL, registers);
    }
    ptrace(PTRACE_POKEDATA, thread, patch->place, patch->word / 2);
    patch->thread = thread;
    return 1;
}

/* A call is about to be made; whether the tracer has to hear of its return. */
static int at_call(pid_t thread, const struct fault *fault, int *counts, int *broken, struct patch *patch)
{
    struct user_regs_struct registers;
    ptrace(PTRACE_GETREGS, thread, NULL, &registers);
    if (registers.orig_rax >= SYSCALLS) {
        return 0;
    }
    /* What wakes a thread of a runtime: a number of 64 bits for an eventfd, which takes it or says EAGAIN. */
    if (registers.orig_rax == SYS_write && registers.rdx == 8) {
        return 0;
    }
    int nth = ++counts[registers.orig_rax];
    if (fault == NULL || *broken || (int)registers.orig_rax != fault->number || nth < fault->nth) {
        return 0;
    }
    if (fault->way == IS_SHORT) {
        *broken = shorten(thread, &registers, patch);
        return patch->thread != 0;
    }
    *broken = 1;
    if (fault->way == FAILS_AFTERWARDS) {
        patch->thread = thread;
        patch->error = fault->error;
        return 1;
    }
    registers.orig_rax = (unsigned long long)-1;
    /* The kernel's own brk knows no errors: it says where the heap ends, which is too low. */
    registers.rax = fault->number == SYS_brk ? 0 : (unsigned long long)-fault->error;
    ptrace(PTRACE_SETREGS, thread, NULL, &registers);
    return 0;
}

static void at_return(pid_t thread, struct patch *patch)
{
    if (patch->error != 0) {
        struct user_regs_struct registers;
        ptrace(PTRACE_GETREGS, thread, NULL, &registers);
        registers.rax = (unsigned long long)-patch->error;
        ptrace(PTRACE_SETREGS, thread, NULL, &registers);
    } else if (patch->place != 0) {
        ptrace(PTRACE_POKEDATA, thread, patch->place, patch->word);
    }
    memset(patch, 0, sizeof *patch);
}

static volatile sig_atomic_t late;

static void on_alarm(int number)
{
    (void)number;
    late = 1;
}

/* Runs a life under a fault, or none; its status, or -1 if it hangs. */
static int traced(enum kind kind, const char *folder, const struct fault *fault, int *counts, int *broken)
{
    struct patch patch;
    struct sigaction action;
    int status = 0;
    memset(&patch, 0, sizeof patch);
    memset(&action, 0, sizeof action);
    memset(counts, 0, SYSCALLS * sizeof *counts);
    *broken = 0;
    action.sa_handler = on_alarm;
    sigaction(SIGALRM, &action, NULL);
    late = 0;
    pid_t child = fork();
    if (child == 0) {
        be_traced();
        live(kind, folder);
        _exit(0);
    }
    waitpid(child, &status, 0);
    ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL);
    ptrace(PTRACE_CONT, child, NULL, NULL);
    alarm(LIFE_SECONDS);
    for (;;) {
        pid_t thread = waitpid(-1, &status, __WALL);
        if (late || (thread < 0 && errno != EINTR)) {
            kill(child, SIGKILL);
            while (waitpid(-1, &status, __WALL) > 0) {
            }
            alarm(0);
            return -1;
        }
        if (thread < 0) {
            continue;
        }
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (thread != child) {
                continue;
            }
            alarm(0);
            int end = status;
            while (waitpid(-1, &status, __WALL) > 0) {
            }
            return end;
        }
        long number = 0;
        int hear = 0;
        if (status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8)) {
            hear = thread != child && at_call(thread, fault, counts, broken, &patch);
        } else if (WSTOPSIG(status) == SIGTRAP && thread == patch.thread) {
            at_return(thread, &patch);
        } else if (WSTOPSIG(status) != SIGTRAP && WSTOPSIG(status) != SIGSTOP) {
            number = WSTOPSIG(status);
        }
        ptrace(hear ? PTRACE_SYSCALL : PTRACE_CONT, thread, NULL, number);
    }
}

/* Starts the directories again in a process that nobody disturbs. */
static int looked_at(enum kind kind, const char *folder)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        alarm(LIFE_SECONDS);
        look_again(kind, folder);
        _exit(0);
    }
    waitpid(child, &status, 0);
    return status;
}

/* A file of somebody else, in a folder of its own and in the node's neighbourhood. */
static const char foreign_text[] = "not a file of the library\n";

static void prepare(const char *folder)
{
    char name[PATH_MAX + 64];
    mkdir(folder, 0755);
    for (int number = 1; number <= NODES_MAX; number++) {
        snprintf(name, sizeof name, "%s/node-%d", folder, number);
        mkdir(name, 0755);
    }
    snprintf(name, sizeof name, "%s/foreign", folder);
    mkdir(name, 0755);
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, i == 0 ? "%s/foreign/open-1" : "%s/metadata1", folder);
        write_file(name, foreign_text, sizeof foreign_text - 1);
    }
}

static int is_untouched(const char *folder)
{
    int untouched = 1;
    char name[PATH_MAX + 64], text[64];
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, i == 0 ? "%s/foreign/open-1" : "%s/metadata1", folder);
        FILE *file = fopen(name, "r");
        size_t size = file == NULL ? 0 : fread(text, 1, sizeof text, file);
        untouched = untouched && size == sizeof foreign_text - 1 && memcmp(text, foreign_text, size) == 0;
        if (file != NULL) {
            fclose(file);
        }
    }
    snprintf(name, sizeof name, "%s/foreign", folder);
    return untouched && count_entries(name) == 3;
}

static void remove_tree(const char *folder)
{
    char command[PATH_MAX + 64];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command) != 0) {
        printf("cannot remove %s\n", folder);
    }
}

/* Tells runs at the same time apart, more often than not. */
static int run_number;

/* Addresses of a life that no other one has at the same time. */
static void take_addresses(int worker, int turn)
{
    for (int number = 0; number <= NODES_MAX; number++) {
        snprintf(address[number], sizeof address[number], "127.%d.%d.%d:9001", 1 + (run_number + worker) % 250, 1 + turn / 60 % 250, 1 + turn % 60 * 4 + number);
    }
}

/* ------------------------------------------------------------------------------------------------------------------------------------------- the plan */

struct planned {
    enum kind kind;
    size_t rule;
    struct fault fault;
};

struct totals {
    int lives, broken, refused, hangs, ended, wrong, touched;
};

static int count_ways(const struct rule *rule)
{
    int ways = rule->may_be_short ? 1 : 0;
    for (size_t i = 0; i < sizeof rule->errors / sizeof *rule->errors; i++) {
        ways += rule->errors[i] != 0;
    }
    return ways;
}

/* The n-th way in which a call can be broken. */
static struct fault way_of(const struct rule *rule, int way, int nth)
{
    struct fault fault;
    memset(&fault, 0, sizeof fault);
    fault.number = rule->number;
    fault.nth = nth;
    if (rule->may_be_short && way == count_ways(rule) - 1) {
        fault.way = IS_SHORT;
        return fault;
    }
    fault.error = rule->errors[way];
    /* A descriptor is closed whatever the call says. */
    fault.way = rule->number == SYS_close ? FAILS_AFTERWARDS : FAILS;
    return fault;
}

/* Spreads so many failures over the calls of a life: every way of every call at least once where they are enough, then more of those that are made often. */
static int plan(enum kind kind, const int *counts, int failures, const char *only, struct planned *planned)
{
    int length = 0;
    for (int round = 0; length < failures && round < 1000; round++) {
        int before = length;
        for (size_t rule = 0; rule < RULES; rule++) {
            int made_ = counts[rules[rule].number];
            int ways = count_ways(&rules[rule]);
            if (only != NULL && strcmp(only, rules[rule].name) != 0) {
                continue;
            }
            /* The first calls one by one, the later ones further and further apart: what is done again and again is alike. */
            int nth = round < 12 ? round + 1 : 12 + (round - 11) * (round - 11) / 3 + 1;
            for (int way = 0; way < ways && nth <= made_ && length < failures; way++) {
                planned[length].kind = kind;
                planned[length].rule = rule;
                planned[length].fault = way_of(&rules[rule], way, nth);
                length++;
            }
        }
        if (length == before && round > 200) {
            break;
        }
    }
    return length;
}

static void tell(const struct planned *one, const char *what)
{
    const struct fault *fault = &one->fault;
    printf("%s: %s %d of %s: %s: %s\n", what, rules[one->rule].name, fault->nth, kind_names[one->kind],
           fault->way == IS_SHORT ? "short" : strerror(fault->error), life->wrong[0] != 0 ? life->wrong : life->refused);
    fflush(stdout);
}

static void run_one(const char *base, int worker, int turn, const struct planned *one, struct totals *totals)
{
    char folder[PATH_MAX];
    int counts[SYSCALLS], broken = 0;
    snprintf(folder, sizeof folder, "%s/%d-%d", base, worker, turn);
    take_addresses(worker, turn);
    memset(life, 0, sizeof *life);
    prepare(folder);
    int status = traced(one->kind, folder, &one->fault, counts, &broken);
    totals->lives++;
    totals->broken += broken;
    totals->refused += life->refused[0] != 0;
    if (status == -1) {
        totals->hangs++;
        tell(one, "HANGS");
    } else if (status != 0) {
        totals->ended++;
        snprintf(life->wrong, sizeof life->wrong, "%s", WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "exit");
        tell(one, "ENDED");
        life->wrong[0] = 0;
    }
    if (life->wrong[0] == 0) {
        status = looked_at(one->kind, folder);
        if (status != 0) {
            wrong("the restart ends", status, WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "exit");
        }
    }
    if (life->wrong[0] != 0) {
        totals->wrong++;
        tell(one, "WRONG");
    }
    if (!is_untouched(folder)) {
        totals->touched++;
        tell(one, "TOUCHED");
    }
    if (life->wrong[0] == 0) {
        remove_tree(folder);
    }
}

int main(int argc, char **argv)
{
    int failures = 3000, workers = 2;
    const char *only = NULL, *only_kind = NULL;
    if (argc < 2) {
        fprintf(stderr, "torture-host FOLDER [--failures N] [--workers N] [--only NAME] [--life lone | cluster]\n");
        return 2;
    }
    for (int i = 2; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--failures") == 0) {
            failures = atoi(argv[i + 1]);
        } else if (strcmp(argv[i], "--workers") == 0) {
            workers = atoi(argv[i + 1]);
        } else if (strcmp(argv[i], "--only") == 0) {
            only = argv[i + 1];
        } else if (strcmp(argv[i], "--life") == 0) {
            only_kind = argv[i + 1];
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    life = (struct life *)mmap(NULL, sizeof *life, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct totals *totals =
        (struct totals *)mmap(NULL, sizeof *totals * 64, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct planned *planned = (struct planned *)calloc((size_t)failures + 1, sizeof *planned);
    mkdir(argv[1], 0755);
    run_number = (int)getpid();
    int length = 0;
    for (int kind = LONE; kind < KINDS; kind++) {
        if (only_kind != NULL && strcmp(only_kind, kind_names[kind]) != 0) {
            continue;
        }
        char folder[PATH_MAX];
        int counts[SYSCALLS], broken;
        snprintf(folder, sizeof folder, "%s/counted-%s", argv[1], kind_names[kind]);
        take_addresses(63, kind);
        memset(life, 0, sizeof *life);
        prepare(folder);
        double begin = seconds();
        int status = traced((enum kind)kind, folder, NULL, counts, &broken);
        int end = looked_at((enum kind)kind, folder);
        if (status != 0 || end != 0 || life->wrong[0] != 0 || life->refused[0] != 0) {
            printf("a life without faults: %d, %d, %s %s\n", status, end, life->wrong, life->refused);
            return 1;
        }
        remove_tree(folder);
        printf("a life (%s, %.1f s):", kind_names[kind], seconds() - begin);
        for (size_t rule = 0; rule < RULES; rule++) {
            if (counts[rules[rule].number] > 0) {
                printf(" %s %d", rules[rule].name, counts[rules[rule].number]);
            }
        }
        printf("\n");
        int share = kind == LONE && only_kind == NULL ? failures * 5 / 6 : failures - length;
        length += plan((enum kind)kind, counts, share, only, planned + length);
    }
    for (int worker = 0; worker < workers; worker++) {
        fflush(stdout);
        if (fork() == 0) {
            life = (struct life *)mmap(NULL, sizeof *life, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
            for (int turn = worker; turn < length; turn += workers) {
                run_one(argv[1], worker, turn, &planned[turn], &totals[worker]);
            }
            _exit(0);
        }
    }
    while (wait(NULL) > 0) {
    }
    struct totals sum;
    memset(&sum, 0, sizeof sum);
    for (int worker = 0; worker < workers; worker++) {
        sum.lives += totals[worker].lives;
        sum.broken += totals[worker].broken;
        sum.refused += totals[worker].refused;
        sum.hangs += totals[worker].hangs;
        sum.ended += totals[worker].ended;
        sum.wrong += totals[worker].wrong;
        sum.touched += totals[worker].touched;
    }
    printf("lives: %d, calls broken: %d, refused with a text: %d, hangs: %d, hosts ended: %d, wrong: %d, touched others: %d\n", sum.lives, sum.broken,
           sum.refused, sum.hangs, sum.ended, sum.wrong, sum.touched);
    return sum.hangs + sum.ended + sum.wrong + sum.touched == 0 && sum.lives == length && sum.broken > 0 ? 0 : 1;
}
