/* One operation shared out among threads. */
#ifndef MFP_TASKS_H
#define MFP_TASKS_H

#include "network.h"
#include "threads.h"

typedef struct {
    const Call *call;
    const Op *op;
} Task;

/* Runs `work` on `items` items of an operation, for each of which about `words` words are counted, or bytes multiplied. */
static void share_task(const Call *call, const Op *op, int64_t items, int64_t words, Work work)
{
    const int64_t busy = items * words / call->words_a_thread;
    Task task = {call, op};
    share_items(items, call->threads < busy ? call->threads : busy, work, &task);
}

#endif
