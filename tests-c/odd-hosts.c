/*
 * Hosts that are odd rather than unkind (those are guest.c): other languages, small limits, daemons, another root or user, a low priority, no
 * environment, processes that they start, all descriptors closed. The library starts, or refuses with a text that names the call and leaves nothing;
 * nothing ends the process or holds it up. Works in the current directory, which must be empty and writable. docs/c-api.md.
 *
 * A section that this system or user cannot have prints "skipped: REASON" as its first line.
 */
#include "life.h"

#include <grp.h>
#include <libintl.h>
#include <locale.h>
#include <netinet/in.h>
#include <sched.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/syscall.h>

extern char **environ;

/* Who owns nothing. */
#define NOBODY 65534

/* A life with three rows, and what is there afterwards. */
static void life(const char *directory, const char *address)
{
    dqlite_node *n = running(directory, address);
    int rows = insert(address, 3, 10);
    int code = dqlite_node_stop(n);
    printf("rows: %d, stop -> %d \"%s\"\n", rows, code, dqlite_node_errmsg(n));
    dqlite_node_destroy(n);
}

/* What a process of its own does; says so unless it ends with 0. */
static int apart(int (*work)(void *), void *argument)
{
    int status = -1;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(SECTION_SECONDS);
        int code = work(argument);
        fflush(stdout);
        _exit(code);
    }
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) {
        printf("%s\n", WTERMSIG(status) == SIGALRM ? "it hangs" : strsignal(WTERMSIG(status)));
    }
    return WIFSIGNALED(status) ? -1 : WEXITSTATUS(status);
}

/* A port of this section, which other processes may dial. */
static const char *own_port(void)
{
    static char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%d", 20000 + (int)getpid() % 12000);
    return address;
}

static int is_root(void)
{
    if (geteuid() != 0) {
        printf("skipped: needs root\n");
    }
    return geteuid() == 0;
}

/* Gives up root, and all that goes with it. */
static void become_nobody(void)
{
    if (setgroups(0, NULL) != 0 || setgid(NOBODY) != 0 || setuid(NOBODY) != 0) {
        printf("setuid: %s\n", strerror(errno));
    }
}

/* A directory of nobody's below this one, which nobody may then pass. */
static void nobodys(const char *directory)
{
    if (mkdir(directory, 0700) != 0 || chown(directory, NOBODY, NOBODY) != 0 || chmod(".", 0711) != 0) {
        printf("%s: %s\n", directory, strerror(errno));
    }
}

/* --- Locales --- */

/* A life whose host has this locale, before create, and changes it between calls and on a thread. */
static void life_in(const char *locale, const char *directory, const char *address)
{
    setlocale(LC_ALL, locale);
    dqlite_node *n = bound(directory, address);
    setlocale(LC_ALL, "C");
    printf("start -> %d \"%s\"\n", dqlite_node_start(n), dqlite_node_errmsg(n));
    setlocale(LC_ALL, locale);
    int client = wire_client(address);
    printf("rows: %d, 2.5 * 2: %lld, length of 1.5: %lld, of printf's: %lld\n", insert(address, 3, 10),
           wire_number(client, "SELECT CAST('2.5' * 2 AS INTEGER) AS n"), wire_number(client, "SELECT instr(CAST(1.5 AS TEXT), '.') AS n"),
           wire_number(client, "SELECT instr(printf('%.2f', 1234.5), '.50') AS n"));
    close(client);
    locale_t own_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0), before = uselocale(own_locale);
    SHOW(dqlite_node_set_bind_address(n, "nobody"));
    uselocale(before);
    freelocale(own_locale);
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
    /* What the system says is in the host's language. */
    n = bound(directory, address);
    char name[64];
    snprintf(name, sizeof name, "%s/dqlite-lock", directory);
    unlink(name);
    if (symlink("dqlite-lock", name) != 0) {
        printf("symlink: %s\n", strerror(errno));
    }
    int code = dqlite_node_start(n);
    printf("start -> %d \"%s\"\n", code, dqlite_node_errmsg(n));
    dqlite_node_destroy(n);
}

static void section_locale(void)
{
    if (setlocale(LC_ALL, "C.UTF-8") == NULL) {
        printf("skipped: there is no locale C.UTF-8\n");
        return;
    }
    life_in("C.UTF-8", "locale", own("@odd-locale"));
}

/* A catalogue of one message of the C library's, in Latin-1, as gettext reads it. */
static void write_catalogue(const char *path)
{
    static const char header[] = "Content-Type: text/plain; charset=ISO-8859-1\n", original[] = "Too many levels of symbolic links",
                      translated[] = "Zu viele Verkn\xfcpfungen";
    unsigned words[11] = {0x950412de, 0, 2, 28, 44, 0, 0, 0, 60, sizeof original - 1, 61};
    unsigned translations[4] = {sizeof header - 1, 61 + sizeof original, sizeof translated - 1, 61 + sizeof original + sizeof header};
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        return;
    }
    fwrite(words, 4, 11, file);
    fwrite(translations, 4, 4, file);
    fwrite("", 1, 1, file);
    fwrite(original, 1, sizeof original, file);
    fwrite(header, 1, sizeof header, file);
    fwrite(translated, 1, sizeof translated, file);
    fclose(file);
}

/* A comma in numbers, and texts of the system that are no UTF-8. */
static void section_locale_with_a_comma(void)
{
    char path[600], here[400];
    mkdir("locales", 0755);
    mkdir("locales/de", 0755);
    mkdir("locales/de/LC_MESSAGES", 0755);
    int made = system("localedef -i de_DE -f ISO-8859-1 ./locales/de_DE.ISO-8859-1 >/dev/null 2>&1");
    if (getcwd(here, sizeof here) == NULL) {
        return;
    }
    snprintf(path, sizeof path, "%s/locales", here);
    setenv("LOCPATH", path, 1);
    if (setlocale(LC_ALL, "de_DE.ISO-8859-1") == NULL) {
        printf("skipped: localedef makes no de_DE (status %d)\n", made);
        return;
    }
    write_catalogue("locales/de/LC_MESSAGES/libc.mo");
    bindtextdomain("libc", path);
    printf("comma: %s, message: %s\n", localeconv()->decimal_point, yes_or_no(strstr(strerror(ELOOP), "Verkn\xfcpf") != NULL));
    life_in("de_DE.ISO-8859-1", "comma", own("@odd-comma"));
}

/* --- Limits --- */

struct limited {
    const char *name;
    int resource;
    rlim_t value;
    const char *directory;
    const char *address;
    int by_nobody;
    /* A byte when it runs, and one when it may stop. */
    int started[2], may_stop[2];
};

/* Ends of a life under a limit. */
enum { RAN = 10, REFUSED = 11, WRONG = 12, DEAF = 13 };

/* A client's patience with a node that has nothing left to take it with. */
#define PATIENCE_MS 300

/* A row by a client that does not wait for long; how many were acknowledged. */
static int insert_soon(const char *address)
{
    struct timeval patience = {0, PATIENCE_MS * 1000};
    int client = dial(address), done = 0;
    if (client >= 0 && setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0 && wire_open(client) == 0 &&
        wire_exec(client, "CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, b)") == 0) {
        done = wire_exec(client, "INSERT INTO t(b) VALUES(zeroblob(10))") == 0;
    }
    if (client >= 0) {
        close(client);
    }
    return done;
}

/* Threads of this process; those that have just ended may be seen for a moment. */
static int threads_left(void)
{
    double begin = seconds();
    while (count_entries("/proc/self/task") != 3 && seconds() - begin < 5) {
        pause_ms(1);
    }
    return count_entries("/proc/self/task") - 3;
}

/* Whether a text says what was refused and why. SHOW_TEXTS in the environment shows all of them. */
static int is_right_refusal(const struct limited *limited, const char *call, int code, const char *text)
{
    if (getenv("SHOW_TEXTS") != NULL) {
        fprintf(stderr, "%s %llu: %s -> %d \"%s\"\n", limited->name, (unsigned long long)limited->value, call, code, text);
    }
    return code == DQLITE_ERROR && strstr(text, " (os error ") != NULL;
}

static int life_under(void *argument)
{
    struct limited *limited = (struct limited *)argument;
    struct rlimit lifted, limit;
    char text[301] = "", byte = 0;
    const char *call = "create";
    dqlite_node *n = NULL;
    close(limited->started[0]);
    close(limited->may_stop[1]);
    if (limited->by_nobody) {
        become_nobody();
    }
    int descriptors = count_entries("/proc/self/fd");
    getrlimit(limited->resource, &lifted);
    limit = lifted;
    limit.rlim_cur = limited->value;
    if (setrlimit(limited->resource, &limit) != 0) {
        printf("setrlimit: %s\n", strerror(errno));
    }
    int code = dqlite_node_create(1, "1", limited->directory, &n);
    if (code == 0) {
        call = "bind";
        code = dqlite_node_set_bind_address(n, limited->address);
    }
    if (code == 0) {
        call = "start";
        code = dqlite_node_start(n);
    }
    snprintf(text, sizeof text, "%s", dqlite_node_errmsg(n));
    if (code == 0) {
        /* The client is another process. */
        if (write(limited->started[1], &byte, 1) != 1 || read(limited->may_stop[0], &byte, 1) != 1) {
            return WRONG;
        }
        int stopped = dqlite_node_stop(n);
        snprintf(text, sizeof text, "%s", dqlite_node_errmsg(n));
        dqlite_node_destroy(n);
        setrlimit(limited->resource, &lifted);
        if ((stopped != 0 && text[0] == 0) || threads_left() != 0 || count_entries("/proc/self/fd") != descriptors) {
            printf("stop -> %d \"%s\", threads left: %d, descriptors %+d\n", stopped, text, threads_left(), count_entries("/proc/self/fd") - descriptors);
            return WRONG;
        }
        return RAN;
    }
    setrlimit(limited->resource, &lifted);
    int right = is_right_refusal(limited, call, code, text);
    /* The same handle if there is a whole one. */
    if (strcmp(call, "start") != 0) {
        dqlite_node_destroy(n);
        right = right && threads_left() == 0 && count_entries("/proc/self/fd") == descriptors;
        dqlite_node_create(1, "1", limited->directory, &n);
        dqlite_node_set_bind_address(n, limited->address);
    }
    /* The socket, and the directory if it was opened. */
    right = right && threads_left() == 0 && count_entries("/proc/self/fd") <= descriptors + 2;
    int again = dqlite_node_start(n);
    if (again != 0) {
        printf("started again -> %d \"%s\"\n", again, dqlite_node_errmsg(n));
    }
    int rows = insert(limited->address, 1, 10), stopped = dqlite_node_stop(n);
    dqlite_node_destroy(n);
    right = right && again == 0 && rows == 1 && stopped == 0 && threads_left() == 0 && count_entries("/proc/self/fd") == descriptors;
    if (!right) {
        printf("%s of %llu: %s -> %d \"%s\"; again %d, rows %d, stop %d, threads left %d, descriptors %+d\n", limited->name, (unsigned long long)limited->value,
               call, code, text, again, rows, stopped, threads_left(), count_entries("/proc/self/fd") - descriptors);
    }
    return right ? REFUSED : WRONG;
}

/* A life under one limit, and a client of it; how it ended. */
static int try_under(struct limited *limited, long long *rows)
{
    int status = -1, done = 0;
    char byte = 0;
    if (pipe(limited->started) != 0 || pipe(limited->may_stop) != 0) {
        return WRONG;
    }
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        int code = life_under(limited);
        fflush(stdout);
        _exit(code);
    }
    close(limited->started[1]);
    close(limited->may_stop[0]);
    if (read(limited->started[0], &byte, 1) == 1) {
        done = insert_soon(limited->address);
        *rows += done;
        if (write(limited->may_stop[1], &byte, 1) != 1) {
            printf("it does not wait\n");
        }
    } else {
        /* It was refused, and took one row when the limit was lifted. */
        *rows += 1;
    }
    close(limited->started[0]);
    close(limited->may_stop[1]);
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) {
        printf("%s of %llu: %s\n", limited->name, (unsigned long long)limited->value, WTERMSIG(status) == SIGALRM ? "it hangs" : strsignal(WTERMSIG(status)));
    }
    int end = WIFSIGNALED(status) ? WRONG : WEXITSTATUS(status);
    return end == RAN && done == 0 ? DEAF : end;
}

/* One life after the other, with more each time, until some have started. */
static void lives_under(struct limited limited, rlim_t first, rlim_t step, int at_most)
{
    int refused = 0, ran = 0, deaf = 0, wrong = 0;
    long long rows = 0;
    if (mkdir(limited.directory, 0755) != 0) {
        printf("mkdir: %s\n", strerror(errno));
    }
    if (limited.by_nobody && (chown(limited.directory, NOBODY, NOBODY) != 0 || chmod(".", 0711) != 0)) {
        printf("chown: %s\n", strerror(errno));
    }
    for (int nth = 0; nth < at_most && ran < 2; nth++) {
        /* Where one has started others do, too. */
        nth += ran + deaf > 0 ? 3 : 0;
        limited.value = first + (rlim_t)nth * step;
        int end = try_under(&limited, &rows);
        refused += end == REFUSED;
        ran += end == RAN;
        deaf += end == DEAF;
        wrong += end == WRONG;
    }
    if (getenv("SHOW_TEXTS") != NULL) {
        fprintf(stderr, "%s: refused %d, ran %d, deaf %d, wrong %d, last %llu\n", limited.name, refused, ran, deaf, wrong, (unsigned long long)limited.value);
    }
    /* Rows of a life that is wrong were not. */
    printf("some are refused: %s, some run: %s, wrong: %d, all rows are there: %s\n", yes_or_no(refused > 0), yes_or_no(ran > 0), wrong,
           yes_or_no(wrong > 0 || rows_after_restart(limited.directory, limited.address) >= rows));
}

static void section_few_descriptors(void)
{
    struct limited limited = {"NOFILE", RLIMIT_NOFILE, 0, "few-descriptors", own_port(), 0, {0, 0}, {0, 0}};
    lives_under(limited, 3, 1, 100);
}

/* Others' processes of the same user count, too. */
static void section_few_threads(void)
{
    struct limited limited = {"NPROC", RLIMIT_NPROC, 0, "few-threads", own_port(), 1, {0, 0}, {0, 0}};
    if (is_root()) {
        lives_under(limited, 0, 1, 200);
    }
}

static rlim_t address_space(void)
{
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file != NULL) {
        if (fscanf(file, "%llu", &pages) != 1) {
            pages = 0;
        }
        fclose(file);
    }
    return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

static void section_address_space(void)
{
    struct limited limited = {"AS", RLIMIT_AS, 0, "address-space", own_port(), 0, {0, 0}, {0, 0}};
    lives_under(limited, address_space(), 40 << 20, 60);
}

static int life_with_none(void *argument)
{
    struct limited *limited = (struct limited *)argument;
    struct rlimit none = {0, 0};
    setrlimit(limited->resource, &none);
    life(limited->directory, limited->address);
    return 0;
}

static void section_nothing_locked_no_core(void)
{
    struct limited memory = {"MEMLOCK", RLIMIT_MEMLOCK, 0, "no-lock", own("@odd-lock"), 0, {0, 0}, {0, 0}};
    struct limited core = {"CORE", RLIMIT_CORE, 0, "no-core", own("@odd-core"), 0, {0, 0}, {0, 0}};
    printf("MEMLOCK 0: %d\n", apart(life_with_none, &memory));
    printf("CORE 0: %d\n", apart(life_with_none, &core));
}

static int life_without_files(void *argument)
{
    (void)argument;
    struct rlimit lifted, none;
    getrlimit(RLIMIT_FSIZE, &lifted);
    none = lifted;
    none.rlim_cur = 0;
    dqlite_node *n = bound("no-files", own("@odd-no-files"));
    setrlimit(RLIMIT_FSIZE, &none);
    int code = dqlite_node_start(n);
    char text[301];
    snprintf(text, sizeof text, "%s", dqlite_node_errmsg(n));
    setrlimit(RLIMIT_FSIZE, &lifted);
    printf("start -> %d \"%s\"\n", code, text);
    printf("start -> %d \"%s\"\n", dqlite_node_start(n), dqlite_node_errmsg(n));
    printf("rows: %d\n", insert(own("@odd-no-files"), 3, 10));
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
    return 0;
}

static void section_no_files(void)
{
    printf("FSIZE 0: %d\n", apart(life_without_files, NULL));
}

/* The C library reads the limit when a program begins: it is the size of the first thread's stack, and of others by default. */
static int life_with_stack(void *argument)
{
    struct rlimit limit;
    getrlimit(RLIMIT_STACK, &limit);
    limit.rlim_cur = *(rlim_t *)argument;
    if (setrlimit(RLIMIT_STACK, &limit) != 0) {
        printf("setrlimit: %s\n", strerror(errno));
    }
    char path[32];
    snprintf(path, sizeof path, "%llu", (unsigned long long)limit.rlim_cur);
    fflush(stdout);
    execl("/proc/self/exe", "odd-hosts", "--life", path, (char *)NULL);
    printf("exec: %s\n", strerror(errno));
    return 1;
}

static void *three_rows(void *address)
{
    return (void *)(intptr_t)insert((const char *)address, 3, 10);
}

/* The program that it begins. */
static int life_alone(const char *name)
{
    char directory[64], address[64];
    root_process = (int)getpid();
    snprintf(directory, sizeof directory, "stack-%s", name);
    snprintf(address, sizeof address, "@odd-stack-%s", name);
    alarm(SECTION_SECONDS);
    dqlite_node *n = running(directory, own(address));
    /* A client of this program needs more stack than its first thread may have. */
    pthread_attr_t attributes;
    pthread_t thread;
    void *rows = NULL;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 1 << 20);
    pthread_create(&thread, &attributes, three_rows, (char *)(uintptr_t)own(address));
    pthread_join(thread, &rows);
    int code = dqlite_node_stop(n);
    printf("rows: %d, stop -> %d \"%s\"\n", (int)(intptr_t)rows, code, dqlite_node_errmsg(n));
    dqlite_node_destroy(n);
    return 0;
}

static void section_stack_limits(void)
{
    rlim_t sizes[] = {64 << 10, 8 << 20, RLIM_INFINITY};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        printf("%d\n", apart(life_with_stack, &sizes[i]));
    }
}

/* --- Descriptors --- */

static int close_from(unsigned first)
{
    return (int)syscall(SYS_close_range, first, ~0U, 0U);
}

static void section_closed_from_3_after_a_stop(void)
{
    life("closed-after", own("@odd-closed-after"));
    close_from(3);
    int before = count_entries("/proc/self/fd");
    life("closed-after", own("@odd-closed-after"));
    printf("descriptors left: %d\n", count_entries("/proc/self/fd") - before);
}

static void section_closed_from_3_while_running(void)
{
    const char *address = own("@odd-closed");
    dqlite_node *n = running("closed", address);
    int rows = insert(address, 3, 10);
    printf("close_range -> %d\n", close_from(3));
    double begin = seconds();
    while (dqlite_node_errmsg(n)[0] == 0 && seconds() - begin < 10) {
        pause_ms(20);
    }
    printf("it says why: %s\n", yes_or_no(strlen(dqlite_node_errmsg(n)) > 5));
    begin = seconds();
    int code = dqlite_node_stop(n);
    printf("stop -> %d, within 30 s: %s\n", code, yes_or_no(seconds() - begin < 30));
    dqlite_node_destroy(n);
    printf("all rows are there: %s\n", yes_or_no(rows_after_restart("closed", own("@odd-closed-again")) >= rows));
}

static void *many_rows(void *address)
{
    insert(address, 300, 9000);
    return NULL;
}

static void *stop_of(void *n)
{
    dqlite_node_stop(n);
    return n;
}

/* Everything is closed while another thread is inside a stop, at a moment that differs in each round. */
static int closed_beside_a_stop(void *argument)
{
    char directory[64];
    pthread_t writer, stopper;
    int round = *(int *)argument;
    root_process = (int)getpid();
    snprintf(directory, sizeof directory, "beside-a-stop-%d", round);
    dqlite_node *n = running(directory, own("@odd-beside-a-stop"));
    pthread_create(&writer, NULL, many_rows, (char *)(uintptr_t)own("@odd-beside-a-stop"));
    pause_ms(20 + 37 * round);
    double begin = seconds();
    pthread_create(&stopper, NULL, stop_of, n);
    usleep((useconds_t)(round * 1700));
    syscall(SYS_close_range, 3U, 200U, 0U);
    pthread_join(stopper, NULL);
    return seconds() - begin < 30 ? 0 : 1;
}

static void section_closed_from_3_beside_a_stop(void)
{
    int wrong = 0;
    for (int round = 0; round < 14; round++) {
        wrong += apart(closed_beside_a_stop, &round) != 0;
    }
    printf("wrong: %d\n", wrong);
}

/* --- What daemons do --- */

/* Modes of all files below a directory, each once. */
static void modes(const char *path)
{
    struct dirent **entries;
    unsigned seen[16];
    int kinds = 0, count = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char name[512];
        struct stat status;
        snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
        if (strcmp(entries[i]->d_name, "..") != 0 && strcmp(entries[i]->d_name, ".") != 0 && stat(name, &status) == 0) {
            int known = 0;
            for (int at = 0; at < kinds; at++) {
                known = known || seen[at] == status.st_mode;
            }
            if (!known && kinds < 16) {
                seen[kinds++] = status.st_mode;
                printf(" %o", status.st_mode & 07777);
            }
        }
        free(entries[i]);
    }
    if (count >= 0) {
        free(entries);
    }
}

static void section_umask(void)
{
    static const mode_t masks[] = {077, 0};
    for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
        char directory[32];
        snprintf(directory, sizeof directory, "umask-%03o", (unsigned)masks[i]);
        mkdir(directory, 0755);
        umask(masks[i]);
        life(directory, own("@odd-umask"));
        printf("umask %03o:", (unsigned)umask(022));
        modes(directory);
        printf("\n");
        life(directory, own("@odd-umask"));
    }
}

static int life_in_another_root(void *moment)
{
    const char *when = (const char *)moment;
    int before = strcmp(when, "before") == 0;
    char jail[32];
    snprintf(jail, sizeof jail, "jail-%s", when);
    mkdir(jail, 0755);
    if (before && (chroot(jail) != 0 || chdir("/") != 0)) {
        printf("chroot: %s\n", strerror(errno));
    }
    dqlite_node *n = running(before ? "/data" : "data", own("@odd-root"));
    if (!before && (chroot(jail) != 0 || chdir("/") != 0)) {
        printf("chroot: %s\n", strerror(errno));
    }
    /* More than a segment, and a sort that does not fit into memory: files are made. */
    int rows = insert(own("@odd-root"), 12, 1 << 20), client = wire_client(own("@odd-root"));
    int vacuum = wire_exec(client, "VACUUM");
    close(client);
    printf("%s create: rows: %d, VACUUM -> %d\n", when, rows, vacuum);
    SHOW(dqlite_node_stop(n));
    printf("\"%s\"\n", dqlite_node_errmsg(n));
    dqlite_node_destroy(n);
    printf("entries of the new root: %d\n", count_entries("/") - 2);
    return 0;
}

static void section_another_root(void)
{
    if (is_root()) {
        printf("%d\n", apart(life_in_another_root, (char *)"before"));
        printf("%d\n", apart(life_in_another_root, (char *)"after"));
        printf("rows: %lld\n", rows_after_restart("data", own("@odd-root")));
    }
}

/* Double fork, a session of its own, nothing of the terminal, no place in the file system. */
static void section_a_daemon(void)
{
    int ends[2];
    char here[400], directory[440], text[200] = "";
    if (pipe(ends) != 0 || getcwd(here, sizeof here) == NULL) {
        return;
    }
    snprintf(directory, sizeof directory, "%s/daemon", here);
    mkdir(directory, 0755);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        setsid();
        if (fork() != 0) {
            _exit(0);
        }
        alarm(SECTION_SECONDS);
        close(0);
        close(1);
        close(2);
        umask(0);
        if (chdir("/") != 0) {
            _exit(1);
        }
        dqlite_node *n = NULL;
        int codes[3] = {dqlite_node_create(1, "1", directory, &n), dqlite_node_set_bind_address(n, own("@odd-daemon")), dqlite_node_start(n)};
        int rows = insert(own("@odd-daemon"), 3, 10), stopped = dqlite_node_stop(n);
        int length = snprintf(text, sizeof text, "create %d, bind %d, start %d, rows: %d, stop %d \"%s\"", codes[0], codes[1], codes[2], rows, stopped,
                              dqlite_node_errmsg(n));
        dqlite_node_destroy(n);
        _exit(write(ends[1], text, (size_t)length) != length);
    }
    close(ends[1]);
    waitpid(child, NULL, 0);
    if (read(ends[0], text, sizeof text - 1) < 0) {
        printf("read: %s\n", strerror(errno));
    }
    close(ends[0]);
    printf("%s\n", text);
}

static int drop_between(void *argument)
{
    (void)argument;
    dqlite_node *n = bound("dropped", own("@odd-dropped"));
    become_nobody();
    printf("start -> %d \"%s\"\n", dqlite_node_start(n), dqlite_node_errmsg(n));
    printf("rows: %d\n", insert(own("@odd-dropped"), 3, 10));
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
    return 0;
}

/* The C library tells every thread of it, the library's too. */
static int drop_while_running(void *argument)
{
    (void)argument;
    dqlite_node *n = running("dropped-later", own("@odd-later"));
    printf("rows: %d\n", insert(own("@odd-later"), 3, 10));
    become_nobody();
    printf("rows: %d\n", insert(own("@odd-later"), 12, 1 << 20));
    SHOW(dqlite_node_stop(n));
    printf("\"%s\"\n", dqlite_node_errmsg(n));
    dqlite_node_destroy(n);
    return 0;
}

static int drop_without_a_directory(void *argument)
{
    (void)argument;
    mkdir("roots", 0700);
    dqlite_node *n = bound("roots", own("@odd-roots"));
    become_nobody();
    printf("start -> %d \"%s\"\n", dqlite_node_start(n), dqlite_node_errmsg(n));
    dqlite_node_destroy(n);
    return 0;
}

static void section_root_is_dropped(void)
{
    if (!is_root()) {
        return;
    }
    nobodys("dropped");
    nobodys("dropped-later");
    printf("between create and start: %d\n", apart(drop_between, NULL));
    printf("while it runs: %d\n", apart(drop_while_running, NULL));
    printf("the directory is root's: %d\n", apart(drop_without_a_directory, NULL));
    life("roots", own("@odd-roots"));
    printf("afterwards, as root: %lld rows\n", rows_after_restart("dropped", own("@odd-dropped")));
}

static void section_low_priority(void)
{
    struct sched_param param = {0};
    if (setpriority(PRIO_PROCESS, 0, 19) != 0 || sched_setscheduler(0, SCHED_IDLE, &param) != 0) {
        printf("skipped: %s\n", strerror(errno));
        return;
    }
    life("idle", own("@odd-idle"));
    printf("policy is the host's: %s\n", yes_or_no(sched_getscheduler(0) == SCHED_IDLE));
}

static void section_no_environment(void)
{
    clearenv();
    life("no-environment", own("@odd-no-environment"));
    static char *empty[] = {NULL};
    environ = empty;
    life("no-environment", own("@odd-no-environment"));
    /* A variable that is no name and value, and two of one name. */
    static char *strange[] = {(char *)"LIBDQLITE_TRACE", (char *)"=", (char *)"", (char *)"LIBDQLITE_DELETE_DATABASE=\xff\xfe", NULL};
    environ = strange;
    life("no-environment", own("@odd-no-environment"));
}

/* --- Processes that the host starts --- */

/* What a process that was started tells of its descriptors and signals. A shell would tell of its own: it blocks signals while it forks. */
static int tell(void)
{
    char line[256];
    for (int number = 0; number < 1024; number++) {
        if (fcntl(number, F_GETFD) >= 0) {
            printf("%d ", number);
        }
    }
    FILE *status = fopen("/proc/self/status", "r");
    while (status != NULL && fgets(line, sizeof line, status) != NULL) {
        if (strncmp(line, "SigBlk", 6) == 0 || strncmp(line, "SigIgn", 6) == 0) {
            printf("%s", line);
        }
    }
    return 0;
}

static char *program(void)
{
    static char path[400];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    return path;
}

/* Reads to the end; what is told is a text. */
static void read_told(FILE *file, char *text, size_t size)
{
    text[file == NULL ? 0 : fread(text, 1, size - 1, file)] = 0;
}

static void by_posix_spawn(char *text, size_t size)
{
    posix_spawn_file_actions_t actions;
    char *arguments[] = {program(), (char *)"--tell", NULL};
    pid_t child = -1;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "told", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int code = posix_spawn(&child, arguments[0], &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (code != 0 || waitpid(child, NULL, 0) != child) {
        printf("posix_spawn -> %d\n", code);
    }
    FILE *file = fopen("told", "r");
    read_told(file, text, size);
    if (file != NULL) {
        fclose(file);
    }
}

static void by_system(char *text, size_t size)
{
    char command[500];
    snprintf(command, sizeof command, "exec %s --tell >told", program());
    if (system(command) != 0) {
        printf("system fails\n");
    }
    FILE *file = fopen("told", "r");
    read_told(file, text, size);
    if (file != NULL) {
        fclose(file);
    }
}

static void by_popen(char *text, size_t size)
{
    char command[500];
    snprintf(command, sizeof command, "exec %s --tell", program());
    FILE *file = popen(command, "r");
    read_told(file, text, size);
    if (file != NULL) {
        pclose(file);
    }
}

static void *start_of(void *node)
{
    return dqlite_node_start((dqlite_node *)node) == 0 ? node : NULL;
}

static void section_processes_that_it_starts(void)
{
    static void (*const ways[])(char *, size_t) = {by_posix_spawn, by_system, by_popen};
    const char *address = own("@odd-starts");
    char before[600], text[600];
    int other = 0;
    /* What the host was given by its own parent would be told, too. */
    close_from(3);
    by_posix_spawn(before, sizeof before);
    dqlite_node *n = running("starts", address);
    insert(address, 3, 10);
    for (size_t way = 0; way < sizeof ways / sizeof *ways; way++) {
        ways[way](text, sizeof text);
        printf("same: %s", strcmp(text, before) == 0 ? "yes\n" : text);
    }
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
    /* Beside starts on another thread: every descriptor is close-on-exec from its first moment on. */
    for (int round = 0; round < 10; round++) {
        pthread_t thread;
        n = bound("starts", address);
        pthread_create(&thread, NULL, start_of, n);
        for (int child = 0; child < 6; child++) {
            by_posix_spawn(text, sizeof text);
            other += strcmp(text, before) != 0;
        }
        pthread_join(thread, NULL);
        dqlite_node_stop(n);
        dqlite_node_destroy(n);
    }
    printf("told otherwise: %d\n", other);
}

static void section_a_child_outlives_the_node(void)
{
    const char *address = own_port(), *arguments[] = {"sleep", "60", NULL};
    pid_t child = -1;
    dqlite_node *n = running("outlived", address);
    int code = posix_spawnp(&child, "sleep", NULL, NULL, (char *const *)(uintptr_t)arguments, environ);
    printf("spawn -> %d\n", code);
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
    n = running("outlived", address);
    printf("\"%s\", the child lives: %s\n", dqlite_node_errmsg(n), yes_or_no(waitpid(child, NULL, WNOHANG) == 0));
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

static const struct section sections[] = {
    {"locale", section_locale, ONLY_HERE},
    {"locale_with_a_comma", section_locale_with_a_comma, ONLY_HERE},
    {"few_descriptors", section_few_descriptors, ONLY_HERE},
    {"few_threads", section_few_threads, ONLY_HERE},
    {"address_space", section_address_space, ONLY_HERE},
    {"nothing_locked_no_core", section_nothing_locked_no_core, ONLY_HERE},
    {"no_files", section_no_files, ONLY_HERE},
    {"stack_limits", section_stack_limits, ONLY_HERE},
    {"closed_from_3_after_a_stop", section_closed_from_3_after_a_stop, ONLY_HERE},
    {"closed_from_3_while_running", section_closed_from_3_while_running, ONLY_HERE},
    {"closed_from_3_beside_a_stop", section_closed_from_3_beside_a_stop, ONLY_HERE},
    {"umask", section_umask, ONLY_HERE},
    {"another_root", section_another_root, ONLY_HERE},
    {"a_daemon", section_a_daemon, ONLY_HERE},
    {"root_is_dropped", section_root_is_dropped, ONLY_HERE},
    {"low_priority", section_low_priority, ONLY_HERE},
    {"no_environment", section_no_environment, ONLY_HERE},
    {"processes_that_it_starts", section_processes_that_it_starts, ONLY_HERE},
    {"a_child_outlives_the_node", section_a_child_outlives_the_node, ONLY_HERE},
};

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--life") == 0) {
        return life_alone(argv[2]);
    }
    if (argc == 2 && strcmp(argv[1], "--tell") == 0) {
        return tell();
    }
    return run_sections(sections, sizeof sections / sizeof *sections, argc, argv);
}
