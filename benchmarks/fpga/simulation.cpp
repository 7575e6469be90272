// Runs samples through a network in Verilator and compares every number of every stream with those expected.
//
//     Vprobe FOLDER SAMPLES INPUTS NUMBERS_1 NUMBERS_2 ..
//
// INPUTS and NUMBERS_i are those of a sample; the numbers stand in FOLDER/inputs.bin and FOLDER/expected_i.bin,
// 64 bits each.
// The last stream is the scores. Inputs are offered and scores taken in every cycle; each sample follows a reset.
// Prints: how many numbers differ, cycles of all samples with their resets, and cycles from the first step of
// scores of a sample to its last one, over all samples.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "Vprobe.h"
#include "verilated.h"

static std::vector<int64_t> read_numbers(const std::string &name, size_t count)
{
    std::vector<int64_t> numbers(count);
    FILE *file = std::fopen(name.c_str(), "rb");
    if (file == nullptr || std::fread(numbers.data(), sizeof(int64_t), count, file) != count) {
        std::fprintf(stderr, "%s: shorter than %zu numbers\n", name.c_str(), count);
        std::exit(2);
    }
    std::fclose(file);
    return numbers;
}

int main(int argc, char **argv)
{
    // a sample that has not ended after so many cycles for each of its numbers hangs
    const uint64_t patience = 1000000;
    const std::string folder = argv[1];
    const size_t samples = std::strtoull(argv[2], nullptr, 10);
    const size_t inputs = std::strtoull(argv[3], nullptr, 10);
    std::vector<size_t> counts;
    std::vector<std::vector<int64_t>> expected;
    for (int i = 4; i < argc; i++) {
        counts.push_back(std::strtoull(argv[i], nullptr, 10));
        const std::string name = folder + "/expected_" + std::to_string(i - 3) + ".bin";
        expected.push_back(read_numbers(name, samples * counts.back()));
    }
    const std::vector<int64_t> offered = read_numbers(folder + "/inputs.bin", samples * inputs);
    const size_t streams = counts.size();

    Vprobe network;
    uint64_t cycles = 0, spread = 0, different = 0;
    for (size_t sample = 0; sample < samples; sample++) {
        std::vector<size_t> at(streams, 0);
        size_t in_at = 0;
        uint64_t first_step = 0;
        const uint64_t begin = cycles;
        for (bool ended = false; !ended; cycles++) {
            network.rst = cycles == begin;
            network.in_valid = !network.rst && in_at < inputs;
            if (network.in_valid) network.in_data = offered[sample * inputs + in_at];
            network.out_ready = 1;
            network.clk = 0;
            network.eval();
            if (!network.rst) {
                in_at += network.in_valid && network.in_ready;
                ended = true;
                for (size_t i = 0; i < streams; i++) {
                    if (network.moves[i]) {
                        if (at[i] == counts[i]) {
                            std::fprintf(stderr, "stream %zu: more than %zu numbers\n", i + 1, counts[i]);
                            return 1;
                        }
                        different += (int64_t)network.numbers[i] != expected[i][sample * counts[i] + at[i]];
                        at[i]++;
                    }
                    ended = ended && at[i] == counts[i];
                }
                if (network.moves[streams - 1] && at[streams - 1] == SCORES) first_step = cycles;
            }
            network.clk = 1;
            network.eval();
            if (cycles - begin > patience * inputs) {
                std::fprintf(stderr, "sample %zu: no end after %zu cycles\n", sample, (size_t)(cycles - begin));
                return 1;
            }
        }
        spread += cycles - 1 - first_step;
    }
    std::printf("%llu %llu %llu\n", (unsigned long long)different, (unsigned long long)cycles,
                (unsigned long long)spread);
    return 0;
}
