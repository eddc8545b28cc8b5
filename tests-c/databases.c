/*
 * Databases of one node as hosts use them: hundreds at once, and the PRAGMAs that LXD, k8s-dqlite and others send, allowed and refused.
 * Works in the current directory, which must be empty and writable. spec: client-protocol 11.3, state-machine 4.3.
 */
#include "wire.h"

#define DATABASES 300

static dqlite_node *running(const char *directory, const char *address)
{
    dqlite_node *n = create_quietly(directory);
    if (dqlite_node_set_bind_address(n, address) != 0 || dqlite_node_start(n) != 0) {
        printf("no node: %s\n", dqlite_node_errmsg(n));
        exit(1);
    }
    return n;
}

static int client_of(const char *address, int number)
{
    char name[32];
    int client = dial(address);
    snprintf(name, sizeof name, "database-%d", number);
    if (client >= 0 && wire_open_database(client, name) != 0) {
        close(client);
        return -1;
    }
    return client;
}

/* Each database has a connection of its own, and all are open at once. */
static void section_hundreds(void)
{
    static int clients[DATABASES];
    int failures = 0;
    dqlite_node *n = running("hundreds", own("@databases-hundreds"));
    for (int i = 0; i < DATABASES; i++) {
        clients[i] = client_of(own("@databases-hundreds"), i);
        failures += clients[i] < 0;
    }
    printf("clients without a database: %d\n", failures);
    failures = 0;
    for (int i = 0; i < DATABASES; i++) {
        char sql[128];
        failures += wire_exec(clients[i], "CREATE TABLE t(n INTEGER PRIMARY KEY, s TEXT)") != 0;
        snprintf(sql, sizeof sql, "INSERT INTO t VALUES(%d, hex(zeroblob(%d)))", i, i * 10);
        failures += wire_exec(clients[i], sql) != 0;
    }
    /* Open transactions of all of them beside each other: none waits for another's. */
    for (int i = 0; i < DATABASES; i++) {
        failures += wire_exec(clients[i], "BEGIN IMMEDIATE") != 0;
    }
    for (int i = DATABASES - 1; i >= 0; i--) {
        failures += wire_exec(clients[i], "UPDATE t SET s = s || 'x'") != 0;
        failures += wire_exec(clients[i], i % 2 == 0 ? "COMMIT" : "ROLLBACK") != 0;
    }
    printf("failures: %d\n", failures);
    for (int i = 0; i < DATABASES; i++) {
        close(clients[i]);
    }
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
    /* What is made once for the process is there. */
    int descriptors = count_entries("/proc/self/fd");

    n = running("hundreds", own("@databases-hundreds"));
    failures = 0;
    for (int i = 0; i < DATABASES; i++) {
        int client = client_of(own("@databases-hundreds"), i);
        failures += wire_number(client, "SELECT n FROM t") != i;
        failures += wire_number(client, "SELECT length(s) AS n FROM t") != i * 20 + (i % 2 == 0);
        close(client);
    }
    printf("databases without their row after a restart: %d\n", failures);
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
    printf("descriptors %+d\n", count_entries("/proc/self/fd") - descriptors);
}

/* The first value of the first row, as text. */
static void show_value(const unsigned char *body, size_t size)
{
    unsigned long long columns = word_at(body, 0);
    size_t at = 8;
    for (unsigned long long column = 0; column < columns && at < size; column++) {
        at += (strlen((const char *)body + at) + 8) / 8 * 8;
    }
    if (columns == 0 || at + 16 > size) {
        printf("nothing\n");
        return;
    }
    switch (body[at] & 15) {
    case 1: printf("%lld\n", (long long)word_at(body, at + (columns + 15) / 16 * 8)); break;
    case 3: printf("%s\n", (const char *)body + at + (columns + 15) / 16 * 8); break;
    default: printf("a value of type %d\n", body[at] & 15); break;
    }
}

/* What a statement gives through QUERY_SQL, or through EXEC_SQL if it is to be executed. */
static void show(int client, int executed, const char *sql)
{
    unsigned char body[ANSWER_MAX_BYTES];
    size_t size = 0;
    printf("%s%s -> ", executed ? "exec " : "", sql);
    if (send_request(client, executed ? 8 : 9, 1, sql, 0) != 0) {
        printf("not sent\n");
        return;
    }
    switch (receive_answer(client, body, &size)) {
    case WIRE_FAILURE: printf("failure %llu \"%s\"\n", word_at(body, 0), (const char *)body + 8); break;
    case WIRE_RESULT: printf("done\n"); break;
    case WIRE_ROWS: show_value(body, size); break;
    default: printf("no answer\n"); break;
    }
}

static void show_all(int client, int executed, const char *const *statements, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        show(client, executed, statements[i]);
    }
}

#define SHOW_ALL(client, executed, statements) show_all(client, executed, statements, sizeof statements / sizeof *statements)

/* conformance: client-protocol S2, S3 */
static void section_pragmas(void)
{
    static const char *const refused[] = {
        "PRAGMA journal_mode=delete", "PRAGMA journal_mode=wal", "PRAGMA main.journal_mode=memory", "PRAGMA page_size=8192",
        "PRAGMA wal_checkpoint", "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA wal_autocheckpoint=10", "PRAGMA synchronous=FULL",
        "PRAGMA busy_timeout=100", "PRAGMA busy_timeout", "PRAGMA locking_mode=EXCLUSIVE", "PRAGMA locking_mode",
        "PRAGMA read_uncommitted=1", "PRAGMA read_uncommitted", "PRAGMA delete_database",
    };
    static const char *const executed[] = {
        "PRAGMA cache_size=-50000", "PRAGMA cache_spill=0", "PRAGMA cache_spill=1", "PRAGMA ignore_check_constraints=on",
        "PRAGMA ignore_check_constraints=off", "PRAGMA foreign_keys = OFF; PRAGMA legacy_alter_table = ON", "PRAGMA legacy_alter_table = OFF",
        "PRAGMA foreign_keys=1", "PRAGMA user_version=7", "PRAGMA application_id=9", "PRAGMA recursive_triggers=1", "PRAGMA optimize",
    };
    static const char *const asked[] = {
        "PRAGMA journal_mode", "PRAGMA page_size", "PRAGMA cache_size", "PRAGMA foreign_keys", "PRAGMA user_version", "PRAGMA application_id",
        "PRAGMA integrity_check", "PRAGMA quick_check", "PRAGMA foreign_key_check", "PRAGMA table_info(t)", "PRAGMA index_list(t)",
        "PRAGMA encoding", "PRAGMA auto_vacuum", "PRAGMA page_count", "PRAGMA freelist_count", "PRAGMA wal_autocheckpoint",
        "SELECT page_size FROM pragma_page_size", "SELECT user_version FROM pragma_user_version", "SELECT count(*) FROM pragma_table_info('t')",
        "PRAGMA nonsense", "PRAGMA nonsense=1",
    };
    dqlite_node *n = running("pragmas", own("@databases-pragmas"));
    int client = wire_client(own("@databases-pragmas"));
    show(client, 1, "CREATE TABLE t(n INTEGER PRIMARY KEY, s TEXT UNIQUE, CHECK(n < 100))");
    SHOW_ALL(client, 1, refused);
    SHOW_ALL(client, 1, executed);
    SHOW_ALL(client, 0, asked);
    /* What was set holds on this connection, and the file's own settings for all. */
    show(client, 1, "INSERT INTO t VALUES(100, 'x')");
    show(client, 1, "PRAGMA ignore_check_constraints=1");
    show(client, 1, "INSERT INTO t VALUES(100, 'x')");
    int other = wire_client(own("@databases-pragmas"));
    show(other, 1, "INSERT INTO t VALUES(101, 'y')");
    show(other, 0, "PRAGMA user_version");
    show(other, 0, "PRAGMA foreign_keys");
    close(other);
    close(client);
    SHOW(dqlite_node_stop(n));
    dqlite_node_destroy(n);
}

static const struct section sections[] = {
    {"hundreds", section_hundreds, EVERY_RELEASE},
    {"pragmas", section_pragmas, SINCE_1_18_7},
};

int main(int argc, char **argv)
{
    return run_sections(sections, sizeof sections / sizeof *sections, argc, argv);
}
