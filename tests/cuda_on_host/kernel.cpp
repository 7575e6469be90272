/* One kernel as a library: MFP_FILE is its source, MFP_KERNEL its name. */
#include "emulation.h"

#include MFP_FILE

template <class Arguments> static unsigned long size(void (*)(Arguments)) { return sizeof(Arguments); }

template <class Arguments> static void call(void (*kernel)(Arguments), const void *arguments) {
    kernel(*static_cast<const Arguments *>(arguments));
}

static void start(const void *arguments) { call(&MFP_KERNEL, arguments); }

extern "C" unsigned long argument_size() { return size(&MFP_KERNEL); }

extern "C" const char *run_kernel(const void *arguments, const unsigned *grid, const unsigned *block,
                                  const unsigned long *ranges, unsigned count, unsigned resident, unsigned seed) {
    return run_grid(start, arguments, grid, block, ranges, count, resident, seed);
}
