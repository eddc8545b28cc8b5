/*
 * Lives of a node for programs whose host is odd: bound to an abstract address, running, with rows. What fails is printed.
 */
#ifndef LIFE_H
#define LIFE_H

#include "wire.h"

static inline dqlite_node *bound(const char *directory, const char *address)
{
    dqlite_node *n = create_quietly(directory);
    int code = dqlite_node_set_bind_address(n, address);
    if (code != 0) {
        printf("bind -> %d \"%s\"\n", code, dqlite_node_errmsg(n));
    }
    return n;
}

static inline dqlite_node *running(const char *directory, const char *address)
{
    dqlite_node *n = bound(directory, address);
    int code = dqlite_node_start(n);
    if (code != 0) {
        printf("start -> %d \"%s\"\n", code, dqlite_node_errmsg(n));
    }
    return n;
}

/* Inserts rows until one is not acknowledged; how many were. */
static inline int insert(const char *address, int rows, int size)
{
    char sql[128];
    int client = wire_client(address);
    int done = 0;
    snprintf(sql, sizeof sql, "INSERT INTO t(b) VALUES(zeroblob(%d))", size);
    if (client >= 0 && wire_exec(client, "CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, b)") == 0) {
        while (done < rows && wire_exec(client, sql) == 0) {
            done++;
        }
    }
    close(client);
    return done;
}

static inline long long rows_after_restart(const char *directory, const char *address)
{
    dqlite_node *n = running(directory, address);
    int client = wire_client(address);
    long long rows = wire_number(client, "SELECT count(*) AS n FROM t");
    close(client);
    dqlite_node_stop(n);
    dqlite_node_destroy(n);
    return rows;
}

#endif
