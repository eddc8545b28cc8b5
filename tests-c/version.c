/* A program that is not position independent: the string's pointer is copied into it when it is loaded. */
#include <dqlite.h>

#include <stdio.h>

int main(void)
{
    printf("%s %d %d\n", dqlite_version_string, dqlite_version_number(), DQLITE_VERSION_NUMBER);
    return 0;
}
