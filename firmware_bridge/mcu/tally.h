/* Counters of what went wrong, for who looks for the cause. They stop at 65535 and say "at least". */
#ifndef TALLY_H
#define TALLY_H

#include <stdint.h>

void tally(uint16_t *count);

#endif
