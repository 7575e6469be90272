#define OWN(name) name##_avx512
#include "avx512.h"
#define COUNT_WORDS avx512_counts
#define MULTIPLY_BYTES avx512_products
#define FIRED avx512_fired
#define COUNT_ONES plain_ones
#define REGISTER 64 /* bytes */
#include "runtime.h"
