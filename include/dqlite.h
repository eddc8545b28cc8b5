/*
 * Replicated SQLite. A node is created, set up, started, stopped and destroyed, in this order; while it runs, clients reach it at its bind address.
 *
 * Functions that can fail return DQLITE_OK or another code. Strings and structs given to a function are copied before it returns. Returned strings
 * belong to the node and stay valid until it is destroyed. Any thread may call, several at once: docs/c-api.md.
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


/*
 A node.
 */
typedef struct dqlite_node dqlite_node;

/*
 A server: a node that keeps its id and the addresses of its cluster in its directory.
 */
typedef struct dqlite_server dqlite_server;

/*
 Id of a node.
 */
typedef unsigned long long dqlite_node_id;

/*
 Connects to `address` and puts a connected stream socket into `*fd`, which the library closes; nonzero if it cannot.
 */
typedef int (*dqlite_connect_func)(void *arg, const char *address, int *fd);

/*
 A node of the cluster.
 */
typedef struct dqlite_node_info {
    /*
     Id.
     */
    dqlite_node_id id;
    /*
     What others dial.
     */
    const char *address;
} dqlite_node_info;

/*
 A node of the cluster with its role; the same on all machines.
 */
typedef struct dqlite_node_info_ext {
    /*
     Bytes of this struct; what lies behind its four words is zero.
     */
    uint64_t size;
    /*
     Id.
     */
    uint64_t id;
    /*
     Pointer to what others dial.
     */
    uint64_t address;
    /*
     0 voter, 1 stand-by, 2 spare.
     */
    uint64_t dqlite_role;
} dqlite_node_info_ext;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Version of the library as one number; `DQLITE_VERSION_NUMBER` is the header's.
 */
DQLITE_API int dqlite_version_number(void);

/*
 A new id for a node that others will dial at `address`; another one with every call, 0 without an address.
 */
DQLITE_API dqlite_node_id dqlite_generate_node_id(const char *address);

/*
 Makes a node with an id (1 for the first of a cluster), the address that others dial, and an existing directory for its data.
 */
DQLITE_API
int dqlite_node_create(dqlite_node_id id,
                       const char *address,
                       const char *data_dir,
                       struct dqlite_node **n);

/*
 Frees a node, one whose creation failed too; stops it first if it runs. Null is allowed.
 */
DQLITE_API void dqlite_node_destroy(struct dqlite_node *n);

/*
 Binds the address that clients and other nodes connect to: `IP`, `IPv4:PORT`, `[IPv6]:PORT`, `@NAME`, or `@` for any free name.
 */
DQLITE_API
int dqlite_node_set_bind_address(struct dqlite_node *n,
                                 const char *address);

/*
 The bound address, null before one is set; of `@` with the name that was found.
 */
DQLITE_API const char *dqlite_node_get_bind_address(struct dqlite_node *n);

/*
 Starts the node and returns when it serves clients; its directory is in use until it is stopped.
 */
DQLITE_API int dqlite_node_start(struct dqlite_node *n);

/*
 Closes all connections and stops the node, which cannot be started again. Returns when nothing of it runs any more, or fails.
 */
DQLITE_API
int dqlite_node_stop(struct dqlite_node *n);

/*
 Gives leadership and vote to other nodes, as is good before a stop; fails if there are none, which does no harm.
 */
DQLITE_API
int dqlite_node_handover(struct dqlite_node *n);

/*
 Why the last call failed, empty if it did not; of a node that has stopped by itself since, why. Never null.
 */
DQLITE_API const char *dqlite_node_errmsg(struct dqlite_node *n);

/*
 Sets who connects to other nodes; `f` is called on threads of the library, several at once, and may block for seconds.
 */
DQLITE_API
int dqlite_node_set_connect_func(struct dqlite_node *n,
                                 dqlite_connect_func f,
                                 void *arg);

/*
 Derives heartbeats and elections from the network's latency in nanoseconds, 1 ms to 1 h. Deprecated: use `..._ms`.
 */
DQLITE_API
int dqlite_node_set_network_latency(struct dqlite_node *n,
                                    unsigned long long nanoseconds);

/*
 Derives heartbeats (1.5 times) and elections (15 times) from the network's latency, 1 ms to 1 h.
 */
DQLITE_API int dqlite_node_set_network_latency_ms(struct dqlite_node *n, unsigned int milliseconds);

/*
 Sets a number that is the same for nodes that fail together; voters are spread over the numbers. Default 0.
 */
DQLITE_API int dqlite_node_set_failure_domain(struct dqlite_node *n, unsigned long long code);

/*
 Sets after how many log entries a snapshot is taken (1024) and how many stay behind it (8192). Deprecated: use `..._v2`.
 */
DQLITE_API
int dqlite_node_set_snapshot_params(struct dqlite_node *n,
                                    unsigned int snapshot_threshold,
                                    unsigned int snapshot_trailing);

/*
 Sets after how many log entries a snapshot is taken, how many (4 or more, no less than that) stay behind it, and the strategy.
 */
DQLITE_API
int dqlite_node_set_snapshot_params_v2(struct dqlite_node *n,
                                       unsigned int snapshot_threshold,
                                       unsigned int snapshot_trailing,
                                       int trailing_strategy);

/*
 Sets the block size of the disk, a power of two from 512 to 262144 bytes. The library does without.
 */
DQLITE_API int dqlite_node_set_block_size(struct dqlite_node *n, size_t size);

/*
 Sets whether a start renames damaged segments at the log's end (`corrupt-...`) and goes on without. Default on.
 */
DQLITE_API
int dqlite_node_set_auto_recovery(struct dqlite_node *n,
                                  bool enabled);

/*
 Sets whether snapshots on disk are compressed, from the next one on. Default on.
 */
DQLITE_API int dqlite_node_set_snapshot_compression(struct dqlite_node *n, bool enabled);

/*
 Sets how many voters role management aims at. Default 3.
 */
DQLITE_API int dqlite_node_set_target_voters(struct dqlite_node *n, int voters);

/*
 Sets how many stand-bys role management aims at. Default 0.
 */
DQLITE_API int dqlite_node_set_target_standbys(struct dqlite_node *n, int standbys);

/*
 Sets how many statements run at once, from the next start on; 0 counts as 1. Default 4.
 */
DQLITE_API int dqlite_node_set_pool_thread_count(struct dqlite_node *n, unsigned int thread_count);

/*
 Sets how long a write waits for another client's open transaction before it fails with SQLITE_BUSY. Default 0.
 */
DQLITE_API
int dqlite_node_set_busy_timeout(struct dqlite_node *n,
                                 unsigned int msecs);

/*
 Keeps pages in an unlinked file of the data directory: databases may be larger than memory. Before the start only.
 */
DQLITE_API
int dqlite_node_enable_disk_mode(struct dqlite_node *n);

/*
 Lets the leader change roles so that the targets are met. To be called before the start.
 */
DQLITE_API int dqlite_node_enable_role_management(struct dqlite_node *n);

/*
 Makes `infos` the cluster's members, all voters, by an entry behind the log. Deprecated: use `..._ext`.
 */
DQLITE_API int dqlite_node_recover(struct dqlite_node *n, struct dqlite_node_info *infos, int n_info);

/*
 Makes `infos` the cluster's members by an entry behind the log. The node does not run, nor any other on its directory.
 */
DQLITE_API
int dqlite_node_recover_ext(struct dqlite_node *n,
                            struct dqlite_node_info_ext *infos,
                            int n_info);

/*
 Gives index and term of the last log entry of a node that does not run; 0 and 0 if there is none.
 */
DQLITE_API
int dqlite_node_describe_last_entry(struct dqlite_node *n,
                                    uint64_t *last_entry_index,
                                    uint64_t *last_entry_term);

/*
 Makes a server: a node that keeps its id and its cluster's members in the directory `path`, which must exist at start.
 */
DQLITE_API
int dqlite_server_create(const char *path,
                         struct dqlite_server **server);

/*
 Sets the address that others dial. Needed at the first start of the directory; later ones go by its `server-info`.
 */
DQLITE_API
int dqlite_server_set_address(struct dqlite_server *server,
                              const char *address);

/*
 Sets whether the first start of the directory makes a new cluster. Not together with auto join: the start fails then.
 */
DQLITE_API
int dqlite_server_set_auto_bootstrap(struct dqlite_server *server,
                                     bool on);

/*
 Adds addresses of members of the cluster to join, at most 4096. They count while the directory has no `node-store`.
 */
DQLITE_API
int dqlite_server_set_auto_join(struct dqlite_server *server,
                                const char *const *addrs,
                                unsigned int n);

/*
 Sets where the server listens, if that is not its address. Not kept in the directory: set it before each start.
 */
DQLITE_API
int dqlite_server_set_bind_address(struct dqlite_server *server,
                                   const char *addr);

/*
 Sets who connects to other nodes, as `dqlite_node_set_connect_func` does.
 */
DQLITE_API int dqlite_server_set_connect_func(struct dqlite_server *server, dqlite_connect_func f, void *arg);

/*
 Starts the server; waits 30 s at most for a cluster that takes it in, with a vote while fewer than three have one.
 */
DQLITE_API
int dqlite_server_start(struct dqlite_server *server);

/*
 The id of the server: 0 before a start that got as far as the node. It stays after the stop.
 */
DQLITE_API dqlite_node_id dqlite_server_get_id(struct dqlite_server *server);

/*
 Gives leadership and vote to other nodes, as is good before a stop; fails if no other node can take the vote.
 */
DQLITE_API int dqlite_server_handover(struct dqlite_server *server);

/*
 Stops the server, which may be started again; fails if it does not run.
 */
DQLITE_API int dqlite_server_stop(struct dqlite_server *server);

/*
 Frees a server; stops it first if it runs. Null is allowed.
 */
DQLITE_API void dqlite_server_destroy(struct dqlite_server *server);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* DQLITE_H */
