/* What loading the library does to a process: nothing. And its version, in each of the ways to ask. */
#define _GNU_SOURCE
#include <dqlite.h>

#include <dirent.h>
#include <signal.h>
#include <stdio.h>

static int count(const char *path)
{
    DIR *directory = opendir(path);
    int entries = 0;

    if (directory == NULL) {
        return -1;
    }
    while (readdir(directory) != NULL) {
        entries++;
    }
    closedir(directory);
    return entries - 2;
}

int main(void)
{
    struct sigaction action;
    int threads = count("/proc/self/task");
    /* The directory that is being read is one of them. */
    int descriptors = count("/proc/self/fd") - 1;

    sigaction(SIGPIPE, NULL, &action);
    printf("%d %d %s\n", DQLITE_VERSION_NUMBER, dqlite_version_number(), dqlite_version_string);
    printf("threads %d, descriptors %d, SIGPIPE %s, config %d %d\n", threads, descriptors,
           action.sa_handler == SIG_DFL ? "default" : "changed", sqlite3_config(SQLITE_CONFIG_SINGLETHREAD),
           sqlite3_config(SQLITE_CONFIG_MULTITHREAD));
    return 0;
}
