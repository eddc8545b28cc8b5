/*
 * Replicated SQLite. A node is created, set up, started, stopped and destroyed, in this order; while it runs, clients reach it at its bind address.
 *
 * Functions that can fail return DQLITE_OK or another code. Strings and structs given to a function are copied before it returns. Returned strings
 * belong to the node and stay valid until it is destroyed. A node may be used from any thread, by one at a time.
 *
 * Written by cbindgen from src/ffi: do not edit.
 */

#ifndef DQLITE_H
#define DQLITE_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Attribute of every function. May be predefined. */
#ifndef DQLITE_API
#define DQLITE_API __attribute__((visibility("default")))
#endif

#ifndef DQLITE_VISIBLE_TO_TESTS
#define DQLITE_VISIBLE_TO_TESTS DQLITE_API
#endif

/* Marks what may change. */
#ifndef DQLITE_EXPERIMENTAL
#define DQLITE_EXPERIMENTAL
#endif

/* Version of this header; dqlite_version_number() tells the library's. */
#define DQLITE_VERSION_MAJOR 1
#define DQLITE_VERSION_MINOR 18
#define DQLITE_VERSION_RELEASE 7
#define DQLITE_VERSION_NUMBER (DQLITE_VERSION_MAJOR * 100 * 100 + DQLITE_VERSION_MINOR * 100 + DQLITE_VERSION_RELEASE)

/* Codes that functions return. */
enum {
    DQLITE_OK = 0,
    /* Something failed; dqlite_node_errmsg tells what. */
    DQLITE_ERROR = 1,
    /* A wrong argument or a call out of order. */
    DQLITE_MISUSE = 2,
    /* Out of memory. */
    DQLITE_NOMEM = 3
};

/* How many entries stay behind a snapshot: see dqlite_node_set_snapshot_params_v2. */
enum {
    DQLITE_SNAPSHOT_TRAILING_STATIC = 0,
    DQLITE_SNAPSHOT_TRAILING_DYNAMIC = 1
};

/* Codes that clients get in addition to SQLite's. */
#ifndef SQLITE_IOERR_NOT_LEADER
#define SQLITE_IOERR_NOT_LEADER (SQLITE_IOERR | (40 << 8))
#endif
#ifndef SQLITE_IOERR_LEADERSHIP_LOST
#define SQLITE_IOERR_LEADERSHIP_LOST (SQLITE_IOERR | (41 << 8))
#endif

/* Value of dqlite_node_info_ext.size for the struct as it was first. */
#define DQLITE_NODE_INFO_EXT_SZ_ORIG 32U

/* Unused; kept for sources that name it. */
struct dqlite_buffer {
    void *base;
    size_t len;
};

#ifdef __cplusplus
extern "C" {
#endif
/* "MAJOR.MINOR.RELEASE@" and what the build was made from. */
extern DQLITE_API const char *dqlite_version_string;
#ifdef __cplusplus
}
#endif


typedef struct dqlite_node dqlite_node;

typedef struct dqlite_server dqlite_server;

typedef unsigned long long dqlite_node_id;

/*
 Gives a connected stream socket.
 */
typedef int (*dqlite_connect_func)(void *arg, const char *address, int *fd);

typedef struct dqlite_node_info {
    /*
     Id.
     */
    dqlite_node_id id;
    const char *address;
} dqlite_node_info;

typedef struct dqlite_node_info_ext {
    uint64_t size;
    uint64_t id;
    uint64_t address;
    uint64_t dqlite_role;
} dqlite_node_info_ext;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Version.
 */
DQLITE_API int dqlite_version_number(void);

DQLITE_API
int dqlite_node_create(dqlite_node_id id,
                       const char *address,
                       const char *data_dir,
                       struct dqlite_node **n);

DQLITE_API void dqlite_node_destroy(struct dqlite_node *n);

DQLITE_API int dqlite_node_set_bind_address(struct dqlite_node *n, const char *address);

DQLITE_API const char *dqlite_node_get_bind_address(struct dqlite_node *n);

DQLITE_API int dqlite_node_set_connect_func(struct dqlite_node *n, dqlite_connect_func f, void *arg);

DQLITE_API int dqlite_node_set_network_latency(struct dqlite_node *n, unsigned long long nanoseconds);

DQLITE_API int dqlite_node_set_network_latency_ms(struct dqlite_node *n, unsigned int milliseconds);

DQLITE_API int dqlite_node_set_failure_domain(struct dqlite_node *n, unsigned long long code);

DQLITE_API
int dqlite_node_set_snapshot_params(struct dqlite_node *n,
                                    unsigned int snapshot_threshold,
                                    unsigned int snapshot_trailing);

DQLITE_API
int dqlite_node_set_snapshot_params_v2(struct dqlite_node *n,
                                       unsigned int snapshot_threshold,
                                       unsigned int snapshot_trailing,
                                       int trailing_strategy);

DQLITE_API int dqlite_node_set_block_size(struct dqlite_node *n, size_t size);

DQLITE_API int dqlite_node_set_auto_recovery(struct dqlite_node *n, bool enabled);

DQLITE_API int dqlite_node_set_snapshot_compression(struct dqlite_node *n, bool enabled);

DQLITE_API int dqlite_node_set_target_voters(struct dqlite_node *n, int voters);

DQLITE_API int dqlite_node_set_target_standbys(struct dqlite_node *n, int standbys);

DQLITE_API int dqlite_node_set_pool_thread_count(struct dqlite_node *n, unsigned int thread_count);

DQLITE_API int dqlite_node_set_busy_timeout(struct dqlite_node *n, unsigned int msecs);

DQLITE_API int dqlite_node_enable_disk_mode(struct dqlite_node *n);

DQLITE_API int dqlite_node_enable_role_management(struct dqlite_node *n);

DQLITE_API int dqlite_node_start(struct dqlite_node *n);

DQLITE_API int dqlite_node_stop(struct dqlite_node *n);

DQLITE_API int dqlite_node_handover(struct dqlite_node *n);

DQLITE_API int dqlite_node_recover(struct dqlite_node *n, struct dqlite_node_info *infos, int n_info);

DQLITE_API int dqlite_node_recover_ext(struct dqlite_node *n, struct dqlite_node_info_ext *infos, int n_info);

DQLITE_API
int dqlite_node_describe_last_entry(struct dqlite_node *n,
                                    uint64_t *last_entry_index,
                                    uint64_t *last_entry_term);

DQLITE_API const char *dqlite_node_errmsg(struct dqlite_node *n);

DQLITE_API dqlite_node_id dqlite_generate_node_id(const char *address);

DQLITE_API int dqlite_server_create(const char *path, struct dqlite_server **server);

DQLITE_API
int dqlite_server_set_auto_join(struct dqlite_server *server,
                                const char *const *addrs,
                                unsigned int n);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* DQLITE_H */
