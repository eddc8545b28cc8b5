/*
 * What the disk and SQLite themselves take, for comparison: appends of 16 KiB with fdatasync into a file of zeros, and inserts of 1 KiB rows
 * with plain SQLite (WAL, synchronous=FULL) in this process. Usage: floor FOLDER SECONDS. Prints one "name: value" a line.
 */
#define _GNU_SOURCE
#include <sqlite3.h>

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MOST 2000000
#define APPEND_BYTES 16384
#define FILE_BYTES (64L << 20)

static double times[MOST];

static double now_us(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

static void print(const char *name, size_t count, double seconds)
{
    static const struct {
        const char *name;
        double share;
    } shares[] = {{"p50 us", 0.5}, {"p99 us", 0.99}, {"p99.9 us", 0.999}, {"longest us", 1.0}};
    size_t i, place;

    if (count == 0) {
        return;
    }
    qsort(times, count, sizeof times[0], compare);
    printf("%s: per second: %f\n", name, (double)count / seconds);
    for (i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        place = (size_t)((double)count * shares[i].share);
        printf("%s: %s: %f\n", name, shares[i].name, times[place < count ? place : count - 1]);
    }
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void sync_loop(const char *folder, double seconds)
{
    static char block[1 << 20];
    char path[4096];
    double begin, before;
    long offset;
    size_t count = 0;
    int file;

    snprintf(path, sizeof path, "%s/floor-file", folder);
    file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0) {
        fail(path);
    }
    for (offset = 0; offset < FILE_BYTES; offset += (long)sizeof block) {
        if (pwrite(file, block, sizeof block, offset) != (ssize_t)sizeof block) {
            fail("write");
        }
    }
    if (fsync(file) != 0) {
        fail("fsync");
    }
    memset(block, 'x', sizeof block);
    begin = now_us();
    for (offset = 0; count < MOST && now_us() - begin < seconds * 1e6; offset = (offset + APPEND_BYTES) % FILE_BYTES) {
        before = now_us();
        if (pwrite(file, block, APPEND_BYTES, offset) != APPEND_BYTES || fdatasync(file) != 0) {
            fail("append");
        }
        times[count++] = now_us() - before;
    }
    print("append of 16 KiB with fdatasync", count, (now_us() - begin) / 1e6);
    close(file);
    unlink(path);
}

static void check(sqlite3 *database, int code, int wanted)
{
    if (code != wanted) {
        fprintf(stderr, "floor: %s\n", sqlite3_errmsg(database));
        exit(1);
    }
}

static void sqlite_loop(const char *folder, double seconds)
{
    static const char row[1024] = {'x'};
    char path[4096];
    sqlite3 *database;
    sqlite3_stmt *insert;
    double begin, before;
    size_t count = 0;

    snprintf(path, sizeof path, "%s/floor.db", folder);
    check(NULL, sqlite3_open(path, &database), SQLITE_OK);
    check(database, sqlite3_exec(database, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)", NULL, NULL, NULL),
          SQLITE_OK);
    check(database, sqlite3_prepare_v2(database, "INSERT INTO t(v) VALUES(?)", -1, &insert, NULL), SQLITE_OK);
    check(database, sqlite3_bind_blob(insert, 1, row, sizeof row, SQLITE_STATIC), SQLITE_OK);
    begin = now_us();
    while (count < MOST && now_us() - begin < seconds * 1e6) {
        before = now_us();
        check(database, sqlite3_step(insert), SQLITE_DONE);
        check(database, sqlite3_reset(insert), SQLITE_OK);
        times[count++] = now_us() - before;
    }
    print("plain SQLite in one process, insert 1 KiB", count, (now_us() - begin) / 1e6);
    sqlite3_finalize(insert);
    check(database, sqlite3_close(database), SQLITE_OK);
    unlink(path);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: floor FOLDER SECONDS\n");
        return 2;
    }
    sync_loop(argv[1], atof(argv[2]));
    sqlite_loop(argv[1], atof(argv[2]));
    return 0;
}
