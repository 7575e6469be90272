#define OWN(name) name##_neon
#include "neon.h"
#define COUNT_WORDS neon_counts
#define MULTIPLY_BYTES neon_products
#define FIRED plain_fired
#define COUNT_ONES plain_ones
#define REGISTER 16 /* bytes */
#include "runtime.h"
