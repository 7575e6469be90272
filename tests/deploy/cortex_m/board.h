/* What the programs need of a board; the emulator is the host of its semihosting calls. */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

void print(const char *text);

/* Starts, and reads, a timer of the processor's clock, 24 bits wide. */
void timer_start(void);
uint32_t timer_ticks(void);

/* Bytes of stack that have been used since the reset. */
uint32_t stack_used(void);

#endif
