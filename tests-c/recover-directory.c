/*
 * Makes a node the only voter of the cluster in a directory, at a new address, as an administrator does who has lost the others.
 * Usage: recover-directory DIRECTORY ID ADDRESS. spec: c-api 3.10, 5.1 "ReconfigureMembershipExt".
 */
#include <dqlite.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    dqlite_node *n = NULL;
    dqlite_node_info_ext info;
    if (argc != 4) {
        fprintf(stderr, "usage: recover-directory DIRECTORY ID ADDRESS\n");
        return 2;
    }
    int code = dqlite_node_create(1, "1", argv[1], &n);
    if (code == 0) {
        memset(&info, 0, sizeof info);
        info.size = sizeof info;
        info.id = strtoull(argv[2], NULL, 10);
        info.address = (uint64_t)(uintptr_t)argv[3];
        code = dqlite_node_recover_ext(n, &info, 1);
    }
    if (code != 0) {
        fprintf(stderr, "recover-directory: code %d: %s\n", code, dqlite_node_errmsg(n));
    }
    if (n != NULL) {
        dqlite_node_destroy(n);
    }
    return code == 0 ? 0 : 1;
}
