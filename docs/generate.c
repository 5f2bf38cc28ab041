// SPDX-License-Identifier: Apache-2.0
/* Prints the documents that are made from the tables in the code: `reference` is docs/reference.md,
 * `manual` is dnsproxy(8). */
#include <stdio.h>
#include <string.h>

#include "document.h"

int main(int argc, char *argv[])
{
    if (argc == 2 && strcmp(argv[1], "reference") == 0)
        print_reference(stdout);
    else if (argc == 2 && strcmp(argv[1], "manual") == 0)
        print_manual(stdout);
    else {
        fputs("usage: generate-docs reference|manual\n", stderr);
        return 1;
    }
    return fflush(stdout) == 0 ? 0 : 1;
}
