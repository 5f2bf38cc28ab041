// SPDX-License-Identifier: Apache-2.0
/* The documents that are made from the tables in the code. */
#ifndef DOCS_DOCUMENT_H
#define DOCS_DOCUMENT_H

#include <stdio.h>

/* docs/reference.md: options and metrics, as Markdown. */
void print_reference(FILE *out);

/* dnsproxy(8), as roff. */
void print_manual(FILE *out);

#endif
