/*
 * What a start, a recovery and a description make of a directory that is damaged, in use or empty. Works in the current directory, which must be
 * empty and writable. spec: c-api 3.8, 3.10, 3.12, 7.
 */
#include "see.h"

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
    if (damaged != NULL) {
        dqlite_node_destroy(damaged);
    }
    list(directory);
}

/* conformance: c-api 44 */
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

/* conformance: c-api 57, 58, 60, 63, 64 */
static void section_recover(void)
{
    static const char one[] = "1";
    static const char two[] = "2";
    dqlite_node *n = create_quietly("recover");
    describe(n);
    list("recover");
    dqlite_node_set_bind_address(n, own("@recover"));
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
    dqlite_node_set_bind_address(n, own("@recover"));
    start(n);
    ask_leader(own("@recover"));
    SHOW(dqlite_node_recover(n, &plain, 1));
    printf("errmsg \"%s\"\n", dqlite_node_errmsg(n));
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
}

/* A directory of one entry, and what stands for damage behind it. */
static void make_damaged(const char *directory, const char *name)
{
    char path[256];
    dqlite_node *n = create_quietly(directory);
    dqlite_node_set_bind_address(n, "@");
    dqlite_node_start(n);
    dqlite_node_stop(n);
    dqlite_node_destroy(n);
    snprintf(path, sizeof path, "%s/%s", directory, name);
    write_file(path, "no segment, by no means: 32 bytes", 32);
}

static void set_auto_recovery(dqlite_node *n, bool on)
{
    int (*set)(dqlite_node *, bool) = (int (*)(dqlite_node *, bool))dlsym(RTLD_DEFAULT, "dqlite_node_set_auto_recovery");
    if (set != NULL) {
        set(n, on);
    }
}

/* conformance: c-api 63 */
static void section_describe(void)
{
    make_damaged("describe", "0000000000000002-0000000000000002");
    dqlite_node *n = create_quietly("describe");
    set_auto_recovery(n, false);
    describe(n);
    describe(n);
    dqlite_node_destroy(n);
    list("describe");
    /* LXD asks for the parent of the data directory. */
    mkdir("database", 0755);
    mkdir("database/global", 0755);
    write_file("database/global/metadata1", "x", 1);
    write_file("database/local.db", "x", 1);
    n = create_quietly("database");
    describe(n);
    dqlite_node_destroy(n);
    list("database");
    list("database/global");
}

/* conformance: c-api 61 (better: upstream keeps the lock) */
static void section_failed_recover(void)
{
    dqlite_node_info info = {1, "1"};
    make_damaged("failed", "0000000000000007-0000000000000009");
    dqlite_node *n = create_quietly("failed");
    SHOW(dqlite_node_recover(n, &info, 1));
    printf("errmsg \"%s\"\n", dqlite_node_errmsg(n));
    dqlite_node_destroy(n);
    unlink("failed/0000000000000007-0000000000000009");
    n = create_quietly("failed");
    SHOW(dqlite_node_recover(n, &info, 1));
    dqlite_node_set_bind_address(n, "@");
    int code = dqlite_node_start(n);
    printf("start -> %d \"%s\"\n", code, dqlite_node_errmsg(n));
    if (code == 0) {
        SHOW(dqlite_node_stop(n));
    }
    dqlite_node_destroy(n);
}

/* conformance: c-api 42, 60 */
static void section_other_process(void)
{
    int ready[2];
    int end[2];
    char byte = 0;
    dqlite_node_info info = {1, "1"};
    if (pipe(ready) != 0 || pipe(end) != 0) {
        printf("pipe: %s\n", strerror(errno));
        return;
    }
    fflush(stdout);
    pid_t other = fork();
    if (other == 0) {
        close(end[1]);
        dqlite_node *n = create_quietly("other-process");
        dqlite_node_set_bind_address(n, "@");
        byte = dqlite_node_start(n) == 0 ? 'y' : 'n';
        if (write(ready[1], &byte, 1) == 1 && read(end[0], &byte, 1) == 0) {
            dqlite_node_stop(n);
        }
        dqlite_node_destroy(n);
        _exit(0);
    }
    close(end[0]);
    printf("other process runs: %s\n", read(ready[0], &byte, 1) == 1 && byte == 'y' ? "yes" : "no");
    dqlite_node *n = create_quietly("other-process");
    dqlite_node_set_bind_address(n, "@");
    SHOW(dqlite_node_recover(n, &info, 1));
    char holder[32];
    snprintf(holder, sizeof holder, "held by process %d ", (int)other);
    printf("errmsg names the process: %s\n", strstr(dqlite_node_errmsg(n), holder) != NULL ? "yes" : "no");
    start(n);
    dqlite_node_destroy(n);
    close(end[1]);
    waitpid(other, NULL, 0);
    n = create_quietly("other-process");
    dqlite_node_set_bind_address(n, "@");
    start(n);
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
}

/* conformance: c-api 62 (better: upstream does not return, or writes it) */
static void recover_wrongly(int count)
{
    dqlite_node *n = create_quietly("recover-wrongly");
    dqlite_node_info infos[2] = {{1, "1"}, {1, "2"}};
    if (count == 1) {
        infos[0].id = 0;
    }
    SHOW(dqlite_node_recover(n, infos, count));
    printf("errmsg \"%s\"\n", dqlite_node_errmsg(n));
    dqlite_node_destroy(n);
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
    dqlite_node_set_bind_address(n, own("@describe"));
    start(n);
    describe(n);
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
}

static const struct section sections[] = {
    {"damage", section_damage, EVERY_RELEASE},
    {"recover", section_recover, EVERY_RELEASE},
    {"describe", section_describe, SINCE_1_18_1},
    {"failed_recover", section_failed_recover, EVERY_RELEASE},
    {"other_process", section_other_process, SINCE_1_18_1},
    {"recover_none", section_recover_none, ONLY_HERE},
    {"recover_id_0", section_recover_id_0, ONLY_HERE},
    {"recover_twins", section_recover_twins, ONLY_HERE},
    {"describe_running", section_describe_running, ONLY_HERE},
};

int main(int argc, char **argv)
{
    return run_sections(sections, sizeof sections / sizeof *sections, argc, argv);
}
