#define OWN(name) name##_avx2
#include "avx2.h"
#define COUNT_WORDS avx2_counts
#define MULTIPLY_BYTES avx2_products
#define FIRED avx2_fired
#define COUNT_ONES plain_ones
#define REGISTER 32 /* bytes */
#include "runtime.h"
