/* Items of work shared out among threads: the caller, and helpers that sleep between calls.
 *
 * Items are taken in small parts, and the caller waits only for helpers that have begun. So a helper to which the
 * system gives no processor, because other programs or thread pools keep them busy, delays nothing; a team of OpenMP
 * would wait for it at every loop. A forked child has no helpers: it forgets its parent's and starts its own. A call
 * that finds the helpers at work for another thread of the program runs alone. */
#ifndef MFP_THREADS_H
#define MFP_THREADS_H

#include <pthread.h>

#include "network.h"

enum {
    MAX_THREADS = 256,
    PARTS = 8, /* of the items, for each thread: the last one to end is late by a part at most */
    LOOKS = 2000, /* before a thread sleeps, 20 to 50 us: often the next layer follows sooner than it would wake */
};

typedef struct {
    int64_t next, count, part;
} Items;

/* Called once on each thread that takes part, with its number, which is below the number of threads. */
typedef void (*Work)(void *context, int64_t thread, Items *items);

/* The next items, [*begin, *end); returns 0 if none are left. */
static int take_items(Items *items, int64_t *begin, int64_t *end)
{
    *begin = __atomic_fetch_add(&items->next, items->part, __ATOMIC_RELAXED);
    if (*begin >= items->count) return 0;
    *end = items->count - *begin < items->part ? items->count : *begin + items->part;
    return 1;
}

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t call_posted = PTHREAD_COND_INITIALIZER, helpers_done = PTHREAD_COND_INITIALIZER;

/* Read and written under the lock; `calls` and `running` are also watched without it. */
static struct {
    int64_t helpers; /* threads that exist */
    int64_t calls; /* posted so far */
    int64_t busy; /* 1 while a call is running */
    int64_t seats; /* helpers that may still join it */
    int64_t running; /* helpers that have, and are not done */
    Work work;
    void *context;
    Items *items;
} pool;

/* Waits a moment for a number to become another. */
static void watch(const int64_t *number, int64_t old)
{
    for (int look = 0; look < LOOKS && __atomic_load_n(number, __ATOMIC_RELAXED) == old; look++) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
    }
}

static void *help(void *unused)
{
    int64_t call = 0; /* the last one joined */
    pthread_mutex_lock(&pool_lock);
    for (;;) {
        while (pool.seats == 0 || pool.calls == call) {
            const int64_t calls = pool.calls;
            pthread_mutex_unlock(&pool_lock);
            watch(&pool.calls, calls);
            pthread_mutex_lock(&pool_lock);
            if (pool.calls == calls) pthread_cond_wait(&call_posted, &pool_lock);
        }
        call = pool.calls;
        const int64_t thread = pool.seats--;
        const Work work = pool.work;
        void *const context = pool.context;
        Items *const items = pool.items;
        __atomic_store_n(&pool.running, pool.running + 1, __ATOMIC_RELAXED);
        pthread_mutex_unlock(&pool_lock);
        work(context, thread, items);
        pthread_mutex_lock(&pool_lock);
        __atomic_store_n(&pool.running, pool.running - 1, __ATOMIC_RELAXED);
        if (pool.running == 0) pthread_cond_signal(&helpers_done);
    }
    return unused;
}

/* Starts helpers until there are as many, or the system has no more. */
static void start_helpers(int64_t wanted)
{
    for (pthread_t thread; pool.helpers < wanted && pthread_create(&thread, NULL, help, NULL) == 0; pool.helpers++)
        pthread_detach(thread);
}

/* In a forked child, in which no thread but the one that forked goes on. */
static void forget_helpers(void)
{
    pthread_mutex_init(&pool_lock, NULL);
    pthread_cond_init(&call_posted, NULL);
    pthread_cond_init(&helpers_done, NULL);
    pool.helpers = pool.calls = pool.busy = pool.seats = pool.running = 0;
}

__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(NULL, NULL, forget_helpers); }

/* Calls work(context, thread, items) on at most `threads` threads, the caller among them, until no items are left. */
static void share_items(int64_t count, int64_t threads, Work work, void *context)
{
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    if (threads > count) threads = count;
    Items items = {0, count, count};
    if (threads > 1) {
        items.part = count > threads * PARTS ? count / (threads * PARTS) : 1;
        pthread_mutex_lock(&pool_lock);
        if (pool.busy) {
            threads = 1;
        } else {
            start_helpers(threads - 1);
            pool.busy = 1;
            pool.seats = pool.helpers < threads - 1 ? pool.helpers : threads - 1;
            pool.work = work;
            pool.context = context;
            pool.items = &items;
            __atomic_store_n(&pool.calls, pool.calls + 1, __ATOMIC_RELAXED);
            pthread_cond_broadcast(&call_posted);
        }
        pthread_mutex_unlock(&pool_lock);
    }
    work(context, 0, &items);
    if (threads > 1) {
        pthread_mutex_lock(&pool_lock);
        pool.seats = 0;
        while (pool.running > 0) {
            const int64_t running = pool.running;
            pthread_mutex_unlock(&pool_lock);
            watch(&pool.running, running);
            pthread_mutex_lock(&pool_lock);
            if (pool.running == running) pthread_cond_wait(&helpers_done, &pool_lock);
        }
        pool.busy = 0;
        pthread_mutex_unlock(&pool_lock);
    }
}

/* One operation shared out. */
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
