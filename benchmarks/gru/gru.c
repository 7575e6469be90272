/* PyTorch's nn.GRU of one layer, a frame a call, and nn.Linear on its state:
 *
 *     r = sigma(W_ir x + W_hr h + b_r)          z = sigma(W_iz x + W_hz h + b_z)
 *     n = tanh(W_in x + b_in + r (W_hn h + b_hn))
 *     h = n + z (h - n)
 *
 * Rows of a weight are those of r, z and n, one behind the other. Inputs are bytes; that samples are divided by 255
 * is in the weights, and the two biases of r and of z are one. */
#include "gru.h"

static float state[GRU_WIDTH];

/* e^x to about an ulp: 2^k e^r with |r| <= ln(2) / 2, the Taylor series of e^r up to r^6. A C library's expf looks
 * for special cases as well, which cannot come here. */
static float exponential(float x)
{
    union { uint32_t bits; float value; } power;
    if (x > 80.0f) x = 80.0f;
    if (x < -80.0f) x = -80.0f;
    const int32_t k = (int32_t)(x * 1.44269504f + (x < 0.0f ? -0.5f : 0.5f));
    const float r = (x - (float)k * 0.693359375f) + (float)k * 2.12194440e-4f;
    const float high = 1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720));
    power.bits = (uint32_t)(k + 127) << 23;
    return power.value * (1.0f + r * (1.0f + r * (0.5f + r * (1.0f / 6 + r * high))));
}

static float sigma(float x)
{
    return 1.0f / (1.0f + exponential(-x));
}

static float of_input(uint32_t row, const float x[GRU_INPUTS])
{
    float sum = gru_input_bias[row];
    for (uint32_t i = 0; i < GRU_INPUTS; i++) sum += gru_input_weight[row][i] * x[i];
    return sum;
}

static float of_state(uint32_t row)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < GRU_WIDTH; i++) sum += gru_state_weight[row][i] * state[i];
    return sum;
}

void gru_reset(void)
{
    for (uint32_t i = 0; i < GRU_WIDTH; i++) state[i] = 0.0f;
}

void gru_step(const uint8_t frame[GRU_INPUTS])
{
    float x[GRU_INPUTS], next[GRU_WIDTH];
    for (uint32_t i = 0; i < GRU_INPUTS; i++) x[i] = (float)frame[i];
    for (uint32_t i = 0; i < GRU_WIDTH; i++) {
        const float r = sigma(of_input(i, x) + of_state(i));
        const float z = sigma(of_input(GRU_WIDTH + i, x) + of_state(GRU_WIDTH + i));
        const float kept = r * (of_state(2 * GRU_WIDTH + i) + gru_state_bias[i]);
        const float n = 2.0f * sigma(2.0f * (of_input(2 * GRU_WIDTH + i, x) + kept)) - 1.0f; /* tanh */
        next[i] = n + z * (state[i] - n);
    }
    for (uint32_t i = 0; i < GRU_WIDTH; i++) state[i] = next[i];
}

void gru_scores(float scores[GRU_CLASSES])
{
    for (uint32_t c = 0; c < GRU_CLASSES; c++) {
        scores[c] = gru_readout_bias[c];
        for (uint32_t i = 0; i < GRU_WIDTH; i++) scores[c] += gru_readout_weight[c][i] * state[i];
    }
}
