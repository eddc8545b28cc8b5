/*
 * Loads the library named on the command line and shows that loading does nothing: no thread, no descriptor, no signal handler, no use of SQLite.
 * spec: c-api 3.0 "SQLite coupling", "Signals".
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>

static int count(const char *path)
{
    DIR *directory = opendir(path);
    int found = 0;
    while (directory != NULL && readdir(directory) != NULL) {
        found++;
    }
    if (directory != NULL) {
        closedir(directory);
    }
    return found;
}

static int handlers(void)
{
    int found = 0;
    for (int number = 1; number < NSIG; number++) {
        struct sigaction action;
        if (sigaction(number, NULL, &action) == 0 && action.sa_handler != SIG_DFL) {
            found++;
        }
    }
    return found;
}

int main(int argc, char **argv)
{
    int threads = count("/proc/self/task");
    int descriptors = count("/proc/self/fd");
    void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (library == NULL) {
        printf("dlopen: %s\n", argc == 2 ? dlerror() : "usage: load LIBRARY");
        return 1;
    }
    printf("threads %+d\n", count("/proc/self/task") - threads);
    printf("descriptors %+d\n", count("/proc/self/fd") - descriptors);
    printf("handlers %d\n", handlers());
    printf("single-thread %d\n", sqlite3_config(SQLITE_CONFIG_SINGLETHREAD));
    printf("multi-thread %d\n", sqlite3_config(SQLITE_CONFIG_MULTITHREAD));
    return 0;
}
