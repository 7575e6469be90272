/* What every processor of this kind has. */
#define OWN(name) name##_baseline
#include "plain.h"
#define COUNT_WORDS plain_counts
#define MULTIPLY_BYTES plain_products
#define FIRED plain_fired
#define COUNT_ONES plain_ones
#define REGISTER 16 /* bytes */
#include "runtime.h"
