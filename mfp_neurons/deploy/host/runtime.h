/* The compiled runtime of integer networks behind a plain C interface; deploy/host/compiled.py calls it. Each file of
 * an instruction set (avx512.c, avx2.c, neon.c, baseline.c) includes this once, behind its kernels and OWN(name), which
 * makes the names of the functions its own. */
#ifndef MFP_RUNTIME_H
#define MFP_RUNTIME_H

#include "layer.h"
#include "maps.h"
#include "matmul.h"
#include "past.h"
#include "scatter.h"

static int has_synapses(const Op *op) { return op->kind == NEURONS || op->kind == CURRENTS || op->kind == SCORES; }

/* The steps of an operation's sources that end within those of a call on the input. */
static Call of_sources(const Call *call, const Op *op)
{
    const int64_t period = call->maps[has_synapses(op) ? op->synapses[0].source : op->sources[0]].period;
    Call own = *call;
    own.first = call->first / period;
    own.count = (call->first + call->count) / period - own.first;
    return own;
}

/* Runs all operations for the steps of a call. */
void OWN(mfp_network_run)(const Call *call)
{
    put_levels(call);
    if (call->past) recall(call);
    for (int64_t i = 0; i < call->op_count; i++) {
        const Op *op = call->ops + i;
        const Call own = of_sources(call, op);
        if (own.count == 0) continue;
        if (has_synapses(op))
            layer(&own, op);
        else if (op->kind == MATMUL)
            matmul(&own, op);
        else
            map_op(&own, op);
    }
    if (call->past) keep(call);
}

/* Adds up what events reach; returns how many operations that took. */
int64_t OWN(mfp_network_scatter)(const Scatter *scatter)
{
    int64_t operations = 0;
    for (int64_t event = 0; event < scatter->count; event++) operations += scatter_event(scatter, event);
    return operations;
}

/* Bytes of scratch that a call needs for each thread. */
int64_t OWN(mfp_network_scratch)(const Call *call)
{
    int64_t most = 64;
    for (int64_t i = 0; i < call->op_count; i++) {
        const Op *op = call->ops + i;
        Call own = of_sources(call, op);
        if (own.count == 0) own.count = 1; /* a stream comes to it later */
        const int64_t bytes = has_synapses(op)        ? layer_bytes(&own, op)
                              : op->kind == MATMUL ? matmul_bytes(&own, op)
                                                   : map_bytes(&own, op);
        if (bytes > most) most = bytes;
    }
    return most;
}

int64_t OWN(mfp_network_max_threads)(void) { return MAX_THREADS; }

#endif
