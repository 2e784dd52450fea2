/* tests/must.h - what must hold whatever the bytes are, in fuzz targets and in the models that they
 * share with unit tests. */
#ifndef TESTS_MUST_H
#define TESTS_MUST_H

#include <stdio.h>
#include <stdlib.h>

/* Says where and what does not hold, and aborts: the fuzzer keeps the input. */
#define MUST(what)                                                                                 \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #what);   \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

#endif
