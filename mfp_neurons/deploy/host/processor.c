/* Which of the instruction sets that the runtime is compiled for this processor has. */

/* Their names, the best first. */
const char *mfp_network_instructions(void);
const char *mfp_network_instructions(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
    const int avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                       __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512vnni");
    return avx2 && avx512 ? "avx512 avx2 baseline" : avx2 ? "avx2 baseline" : "baseline";
#elif defined(__aarch64__)
    return "neon baseline"; /* every one has it */
#else
    return "baseline";
#endif
}
