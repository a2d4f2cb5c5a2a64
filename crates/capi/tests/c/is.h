/* Compares what a call returned with what was wanted, and ends the program with the reason if they differ. */
#include <stdio.h>
#include <stdlib.h>

#include <palisade.h>

#define IS(wanted, call) is(wanted, call, #call, __LINE__)

static void is(int wanted, int got, const char *call, int line)
{
    if (got == wanted)
        return;
    char *why = palisade_last_error();
    fprintf(stderr, "line %d: %s is %d, not %d (%s)\n", line, call, got, wanted, why ? why : "");
    exit(EXIT_FAILURE);
}
