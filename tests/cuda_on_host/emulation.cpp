/* The machine behind emulation.h: fibers, blocks, and the watch over memory. Not built with a sanitizer itself. */
#include "emulation.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

Index threadIdx, blockIdx, blockDim, gridDim;

namespace {

typedef unsigned long Address;
constexpr size_t STACK = 96 * 1024;
constexpr unsigned NOBODY = ~0u, SEVERAL = ~0u - 1;

enum State { READY, AT_BARRIER, DONE };

struct Fiber {
    ucontext_t context;
    char *stack;
    State state;
    int line;
};

struct Watched { /* four bytes of shared memory */
    bool written = false;
    unsigned writer = NOBODY, write_epoch = 0, reader = NOBODY, read_epoch = 0;
};

struct Shared {
    std::unique_ptr<char[]> memory;
    size_t bytes = 0;
    std::vector<Watched> words;
};

struct Block {
    Index index;
    std::vector<Fiber *> fibers;
    std::vector<Shared> shared; /* by site */
    unsigned alive, arrived = 0, epoch = 1;
};

struct Machine {
    Start start;
    const void *arguments;
    std::vector<std::pair<Address, Address>> ranges;
    ucontext_t scheduler;
    Block *block = nullptr;
    unsigned thread = 0;
    bool progress = false;
    std::string error;
} machine;

std::vector<char *> free_stacks;
int sites = 0;
bool paused = false; /* by the thread that ran last */

Fiber &current() { return *machine.block->fibers[machine.thread]; }

void to_scheduler() {
    Fiber &own = current();
    swapcontext(&own.context, &machine.scheduler);
}

[[noreturn]] void fail(const std::string &what) {
    if (machine.error.empty()) {
        char where[160];
        std::snprintf(where, sizeof where, " (block %u,%u,%u thread %u,%u)", blockIdx.x, blockIdx.y, blockIdx.z,
                      threadIdx.x, threadIdx.y);
        machine.error = what + where;
    }
    for (;;) to_scheduler();
}

void release(Block &block) {
    if (block.alive == 0 || block.arrived < block.alive) return;
    int line = 0;
    for (Fiber *fiber : block.fibers) {
        if (fiber->state != AT_BARRIER) continue;
        if (line != 0 && fiber->line != line) machine.error = "threads wait at different barriers";
        line = fiber->line;
        fiber->state = READY;
    }
    block.arrived = 0;
    block.epoch++;
}

void run_fiber() {
    machine.start(machine.arguments);
    Block &block = *machine.block;
    current().state = DONE;
    block.alive--;
    release(block);
    for (;;) to_scheduler();
}

Block *begin(const Index &index, unsigned threads) {
    Block *block = new Block;
    block->index = index;
    block->alive = threads;
    for (unsigned i = 0; i < threads; i++) {
        Fiber *fiber = new Fiber;
        if (free_stacks.empty()) {
            void *stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            free_stacks.push_back(static_cast<char *>(stack));
        }
        fiber->stack = free_stacks.back();
        free_stacks.pop_back();
        fiber->state = READY;
        getcontext(&fiber->context);
        fiber->context.uc_stack.ss_sp = fiber->stack;
        fiber->context.uc_stack.ss_size = STACK;
        fiber->context.uc_link = nullptr;
        makecontext(&fiber->context, run_fiber, 0);
        block->fibers.push_back(fiber);
    }
    return block;
}

void end(Block *block) {
    for (Fiber *fiber : block->fibers) {
        free_stacks.push_back(fiber->stack);
        delete fiber;
    }
    delete block;
}

/* Lets each thread of a block go on once, from a random one on. */
void step(Block &block, std::mt19937 &random) {
    machine.block = &block;
    blockIdx = block.index;
    const unsigned threads = block.fibers.size(), first = random() % threads;
    for (unsigned i = 0; i < threads && machine.error.empty(); i++) {
        machine.thread = (first + i) % threads;
        if (current().state != READY) continue;
        threadIdx = {machine.thread % blockDim.x, machine.thread / blockDim.x, 0};
        paused = false;
        swapcontext(&machine.scheduler, &current().context);
        machine.progress |= !paused;
    }
}

bool inside(Address address, Address bytes, const void *start, Address size) {
    const Address first = reinterpret_cast<Address>(start);
    return address >= first && address + bytes <= first + size;
}

void touch_shared(Shared &shared, Address address, Address bytes, bool write) {
    const Address offset = address - reinterpret_cast<Address>(shared.memory.get());
    const unsigned thread = machine.thread, epoch = machine.block->epoch;
    for (Address i = offset / 4; i <= (offset + bytes - 1) / 4; i++) {
        Watched &word = shared.words[i];
        if (!write && !word.written) fail("shared memory is read that nothing wrote");
        if (word.write_epoch == epoch && word.writer != thread) fail("a race: shared memory another thread writes");
        if (write && word.read_epoch == epoch && word.reader != thread) fail("a race: shared memory another reads");
        if (write) {
            word.written = true;
            word.writer = thread;
            word.write_epoch = epoch;
        } else {
            word.reader = word.read_epoch == epoch && word.reader != thread ? SEVERAL : thread;
            word.read_epoch = epoch;
        }
    }
}

void touch(Address address, Address bytes, bool write) {
    if (machine.block == nullptr) return;
    if (inside(address, bytes, current().stack, STACK)) return;
    for (Shared &shared : machine.block->shared)
        if (shared.memory && inside(address, bytes, shared.memory.get(), shared.bytes))
            return touch_shared(shared, address, bytes, write);
    for (const auto &range : machine.ranges)
        if (address >= range.first && address + bytes <= range.second) {
            if (bytes <= 16 && address % bytes) fail("an access is not aligned to its size");
            return;
        }
    const void *own[] = {&threadIdx, &blockIdx, &blockDim, &gridDim};
    for (const void *index : own)
        if (inside(address, bytes, index, sizeof(Index))) return;
    if (!write && address == 0) fail("a null pointer is read");
    char text[120];
    std::snprintf(text, sizeof text, "%s of %lu bytes outside every tensor", write ? "a write" : "a read", bytes);
    fail(text);
}

} // namespace

int new_site() { return sites++; }

void *shared_memory(int site, unsigned long bytes) {
    Block &block = *machine.block;
    if (block.shared.size() <= static_cast<size_t>(site)) block.shared.resize(site + 1);
    Shared &shared = block.shared[site];
    if (!shared.memory) {
        shared.bytes = bytes;
        shared.memory.reset(new char[bytes]);
        std::memset(shared.memory.get(), 0xff, bytes); /* NaN */
        shared.words.resize((bytes + 3) / 4);
    }
    return shared.memory.get();
}

void barrier(int line) {
    Fiber &own = current();
    own.state = AT_BARRIER;
    own.line = line;
    machine.block->arrived++;
    release(*machine.block);
    to_scheduler();
}

void pause_thread() {
    paused = true;
    to_scheduler();
}

unsigned atomicAdd(unsigned *to, unsigned value) {
    touch(reinterpret_cast<Address>(to), sizeof *to, true);
    const unsigned before = *to;
    *to += value;
    return before;
}

extern "C" {

const char *run_grid(Start start, const void *arguments, const unsigned *grid, const unsigned *block,
                     const unsigned long *ranges, unsigned count, unsigned resident, unsigned seed) {
    std::mt19937 random(seed);
    machine.start = start;
    machine.arguments = arguments;
    machine.error.clear();
    machine.ranges.clear();
    for (unsigned i = 0; i < count; i++) machine.ranges.emplace_back(ranges[2 * i], ranges[2 * i + 1]);
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    const unsigned long blocks = 1ul * grid[0] * grid[1] * grid[2];
    unsigned long next = 0, stuck = 0;
    std::vector<Block *> running;
    while ((next < blocks || !running.empty()) && machine.error.empty()) {
        while (running.size() < resident && next < blocks) {
            const Index index = {static_cast<unsigned>(next % grid[0]), static_cast<unsigned>(next / grid[0] % grid[1]),
                                 static_cast<unsigned>(next / grid[0] / grid[1])};
            running.push_back(begin(index, block[0] * block[1]));
            next++;
        }
        const unsigned chosen = random() % running.size();
        machine.progress = false;
        step(*running[chosen], random);
        stuck = machine.progress ? 0 : stuck + 1;
        if (stuck > 10000) machine.error = "every block waits";
        if (running[chosen]->alive == 0) {
            end(running[chosen]);
            running.erase(running.begin() + chosen);
        }
    }
    for (Block *left : running) end(left);
    machine.block = nullptr;
    return machine.error.empty() ? nullptr : machine.error.c_str();
}

#define WATCH(bytes)                                                                            \
    void __asan_load##bytes##_noabort(Address address) { touch(address, bytes, false); }        \
    void __asan_store##bytes##_noabort(Address address) { touch(address, bytes, true); }
WATCH(1)
WATCH(2)
WATCH(4)
WATCH(8)
WATCH(16)
void __asan_loadN_noabort(Address address, Address bytes) { touch(address, bytes, false); }
void __asan_storeN_noabort(Address address, Address bytes) { touch(address, bytes, true); }
void __asan_handle_no_return() {}
}
