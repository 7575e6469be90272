/* Start of a Cortex-M without a C library, and semihosting. */
#include "board.h"

#include <stddef.h>

enum { SYS_WRITE0 = 0x04, SYS_EXIT = 0x18 };
enum { APPLICATION_EXIT = 0x20026, RUN_TIME_ERROR = 0x20023 };

#define UNUSED_STACK UINT32_C(0xdeadbeef)
#define COPROCESSORS (*(volatile uint32_t *)0xe000ed88)
#define TIMER_CONTROL (*(volatile uint32_t *)0xe000e010)
#define TIMER_RELOAD (*(volatile uint32_t *)0xe000e014)
#define TIMER_VALUE (*(volatile uint32_t *)0xe000e018)
#define TIMER_LARGEST UINT32_C(0xffffff)

extern uint32_t data_begin[], data_end[], data_source[], bss_begin[], bss_end[], stack_top[];

int main(void);

static void call_host(uint32_t operation, const void *argument)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

void print(const char *text)
{
    call_host(SYS_WRITE0, text);
}

void timer_start(void)
{
    TIMER_RELOAD = TIMER_LARGEST;
    TIMER_VALUE = 0;
    TIMER_CONTROL = 5; /* on, the processor's clock, no interrupt */
}

uint32_t timer_ticks(void)
{
    return TIMER_LARGEST - TIMER_VALUE;
}

uint32_t stack_used(void)
{
    const uint32_t *deepest = bss_end;
    while (deepest < stack_top && *deepest == UNUSED_STACK) deepest++;
    return (uint32_t)((stack_top - deepest) * 4);
}

static void fail(void)
{
    call_host(SYS_EXIT, (const void *)RUN_TIME_ERROR);
    for (;;) {}
}

void reset(void)
{
    volatile uint32_t here;
#ifdef __ARM_FP
    COPROCESSORS |= 0xfu << 20; /* the floating-point unit is off after a reset */
#endif
    for (uint32_t *to = data_begin, *from = data_source; to < data_end; to++, from++) *to = *from;
    for (uint32_t *to = bss_begin; to < bss_end; to++) *to = 0;
    for (uint32_t *to = bss_end; to < (uint32_t *)&here; to++) *to = UNUSED_STACK;
    if (main() != 0) fail();
    call_host(SYS_EXIT, (const void *)APPLICATION_EXIT);
    for (;;) {}
}

/* Exceptions 1 to 15: the reset, and what should not happen. */
__attribute__((section(".vectors"), used)) static const struct {
    const void *stack;
    void (*handler[15])(void);
} vectors = {stack_top, {reset, fail, fail, fail, fail, fail, fail, fail, fail, fail, fail, fail, fail, fail, fail}};

/* compilers put calls of these where they see such loops */
void *memset(void *to, int value, size_t count)
{
    for (size_t i = 0; i < count; i++) ((unsigned char *)to)[i] = (unsigned char)value;
    return to;
}

void *memcpy(void *to, const void *from, size_t count)
{
    for (size_t i = 0; i < count; i++) ((unsigned char *)to)[i] = ((const unsigned char *)from)[i];
    return to;
}

void *memmove(void *to, const void *from, size_t count)
{
    unsigned char *a = to;
    const unsigned char *b = from;
    if (a < b)
        for (size_t i = 0; i < count; i++) a[i] = b[i];
    else
        for (size_t i = count; i-- > 0;) a[i] = b[i];
    return to;
}
