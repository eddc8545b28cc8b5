/* Starts a node on loopback in a new folder, stops it, starts it again, and says what it saw. */
#define _DEFAULT_SOURCE
#include <dqlite.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what, dqlite_node *node)
{
    fprintf(stderr, "%s: %s\n", what, node == NULL ? "no node" : dqlite_node_errmsg(node));
    return 1;
}

static int start_and_stop(const char *directory)
{
    dqlite_node *node = NULL;
    const char *address;

    if (dqlite_node_create(1, "1", directory, &node) != DQLITE_OK) {
        return fail("create", node);
    }
    if (dqlite_node_set_bind_address(node, "127.0.0.1:0") != DQLITE_OK) {
        return fail("bind", node);
    }
    if (dqlite_node_start(node) != DQLITE_OK) {
        return fail("start", node);
    }
    address = dqlite_node_get_bind_address(node);
    printf("listening on %s\n", address);
    if (strncmp(address, "127.0.0.1:", 10) != 0) {
        return fail("address", node);
    }
    if (dqlite_node_stop(node) != DQLITE_OK) {
        return fail("stop", node);
    }
    dqlite_node_destroy(node);
    return 0;
}

int main(void)
{
    char directory[] = "/tmp/dqlite-test-XXXXXX";

    if (dqlite_version_number() != DQLITE_VERSION_NUMBER) {
        fprintf(stderr, "library %d, header %d\n", dqlite_version_number(), DQLITE_VERSION_NUMBER);
        return 1;
    }
    printf("version %d\n", dqlite_version_number());
    if (mkdtemp(directory) == NULL) {
        perror(directory);
        return 1;
    }
    return start_and_stop(directory) || start_and_stop(directory);
}
