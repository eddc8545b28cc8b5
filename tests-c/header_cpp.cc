// The header as C++17, as it is and inside extern "C".
extern "C" {
#include <dqlite.h>
}
#include <dqlite.h>
#include <type_traits>

static_assert(sizeof(dqlite_node_info_ext) == DQLITE_NODE_INFO_EXT_SZ_ORIG, "size");
static_assert(std::is_same<dqlite_node_id, unsigned long long>::value, "id");
static_assert(std::is_same<decltype(&dqlite_node_set_snapshot_params_v2), int (*)(dqlite_node *, unsigned, unsigned, int)>::value, "v2");
static_assert(SQLITE_IOERR_NOT_LEADER == 10250, "code");

int main()
{
    dqlite_node_info_ext info = {sizeof(dqlite_node_info_ext), 1, 0, 0};
    return info.size == 32 ? 0 : 1;
}
