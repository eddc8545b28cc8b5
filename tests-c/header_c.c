/* The header alone, as C. Compiled with -std=c99 and c11, -Wall -Wextra -Werror; links without the library, since nothing is called. */
#include <dqlite.h>
/* Twice: the guard holds. */
#include <dqlite.h>

/* spec: c-api 1.4: what go-dqlite's preamble defines after the header must not be taken. */
#define RAFT_NOCONNECTION 16
#define EMIT_BUF_LEN 1024
typedef unsigned long long nanoseconds_t;
typedef unsigned long long failure_domain_t;

/* spec: c-api 5.1: these prototypes must agree with the header's. */
__attribute__((weak)) int dqlite_node_set_auto_recovery(dqlite_node *t, bool on);
__attribute__((weak)) int dqlite_node_set_snapshot_params_v2(dqlite_node *n, unsigned, unsigned, int);
__attribute__((weak)) int dqlite_node_enable_disk_mode(dqlite_node *n);
__attribute__((weak)) int dqlite_node_set_busy_timeout(dqlite_node *n, unsigned);

#if DQLITE_VERSION_NUMBER < 11802
#error "the version is usable in #if"
#endif

#if __STDC_VERSION__ >= 201112L
/* conformance: c-api 7 */
_Static_assert(sizeof(dqlite_node_id) == 8, "dqlite_node_id");
_Static_assert(offsetof(dqlite_node_info, id) == 0, "id");
_Static_assert(offsetof(dqlite_node_info, address) == 8, "address");
_Static_assert(sizeof(void *) != 8 || sizeof(dqlite_node_info) == 16, "dqlite_node_info");
_Static_assert(sizeof(dqlite_node_info_ext) == 32, "dqlite_node_info_ext");
_Static_assert(offsetof(dqlite_node_info_ext, size) == 0, "size");
_Static_assert(offsetof(dqlite_node_info_ext, id) == 8, "id");
_Static_assert(offsetof(dqlite_node_info_ext, address) == 16, "address");
_Static_assert(offsetof(dqlite_node_info_ext, dqlite_role) == 24, "dqlite_role");
_Static_assert(sizeof(struct dqlite_node_info_ext) == DQLITE_NODE_INFO_EXT_SZ_ORIG, "original size");
_Static_assert(sizeof(void *) != 8 || sizeof(struct dqlite_buffer) == 16, "dqlite_buffer");
_Static_assert(offsetof(struct dqlite_buffer, base) == 0, "base");
_Static_assert(DQLITE_OK == 0 && DQLITE_ERROR == 1 && DQLITE_MISUSE == 2 && DQLITE_NOMEM == 3, "codes");
_Static_assert(DQLITE_SNAPSHOT_TRAILING_STATIC == 0 && DQLITE_SNAPSHOT_TRAILING_DYNAMIC == 1, "strategies");
_Static_assert(SQLITE_IOERR_NOT_LEADER == 10250 && SQLITE_IOERR_LEADERSHIP_LOST == 10506, "SQLite codes");
_Static_assert(DQLITE_NODE_INFO_EXT_SZ_ORIG == 32, "size");
#endif

/* Opaque handles with tag and typedef. */
struct holder {
    struct dqlite_node *node;
    dqlite_server *server;
    dqlite_connect_func connect;
};

int main(void)
{
    dqlite_node_id id = 1;
    struct holder holder = {0, 0, 0};
    return id == 1 && holder.node == 0 && DQLITE_VERSION_NUMBER == 11807 ? 0 : 1;
}
