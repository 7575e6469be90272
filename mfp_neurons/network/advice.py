"""Words for the functions that are not in the grammar: what to use instead."""

TIME_LOOP = (
    "A loop over time is followed only around neurons that take single steps (snn.Leaky, SpikingJelly's in "
    "step mode 's'), not around those written by hand: give whole sequences [T, N, *] to neurons that take "
    "them (MFPLeakyParallel for snnTorch, step mode 'm' for SpikingJelly, MFP for plain torch). x[-1] and "
    "x[-k:] read the last steps, x[k:] all but the first, x.mean(0) all of them"
)
OWN_LOOP = (
    "It is a module of a framework with a loop over time of its own, which is not read. The neurons that "
    "are: LIFNode, IFNode, ParametricLIFNode, Leaky, RLeaky, Lapicque and those of this package. To read "
    "out a potential, return the v of a LIFNode(v_threshold=float('inf')), which never fires"
)
LOOPS = "A loop over time runs once for each step, first to last, and calls every neuron once a step"
PRODUCT = (
    "Products of two signals are read place by place (x * y) and of matrices (x @ y, einsum), at every step"
)
UNLIKE_STEPS = (
    "What is added or put side by side needs equal steps: pool all of it over time with the same windows "
    "(TimePool)"
)
PART = "Parts are chosen by slices, chunk, split or index_select of features, not by numbers of the network"
OTHERWISE = (
    "The grammar is convolutions, transposed or not, Linear, BatchNorm, the neurons, max and average pools, "
    "TimePool, Flatten, Dropout, sums, products, concatenation, padding and other moves of features, and the "
    "mean, sum or largest over time"
)
INPUT = (
    "Here it is called on the input: what checks, prepares or encodes one, such as spikegen, can stay "
    "outside of the model, which is lowered with an example of what it gets then"
)

_ADVICE = [
    (TIME_LOOP, "__iter__ unbind"),
    (
        "The largest over time is torch.stack(steps).amax(0)",
        "maximum fmax",
    ),
    (
        PRODUCT,
        "baddbmm bilinear and or xor logical_and logical_or logical_not pow square",
    ),
    (
        "Attention on spikes needs no softmax: (q @ k.mT) @ v * scale, with a neuron behind it",
        "scaled_dot_product_attention multi_head_attention_forward",
    ),
    (PART, "gather take_along_dim masked_select"),
    (
        "It normalizes with statistics of its input (GroupNorm, LayerNorm, InstanceNorm). Use BatchNorm1d or "
        "BatchNorm2d, whose statistics are fixed",
        "layer_norm group_norm instance_norm rms_norm normalize local_response_norm",
    ),
    (
        "Only a spiking neuron stands between two layers; use MFPNode, MFPLeakyParallel or MFP instead, or "
        "nothing",
        "relu relu6 rrelu leaky_relu prelu elu celu selu gelu silu mish hardtanh hardswish hardsigmoid "
        "tanh softplus softsign clamp clip sigmoid logsigmoid threshold abs",
    ),
    (
        "Lower the model without it, where it is at the end: the class of the largest score is the same. "
        "Attention on spikes needs none: (q @ k.mT) @ v * scale, with a neuron behind it",
        "softmax log_softmax softmin argmax logsumexp topk",
    ),
    (
        "What the model does may not depend on the numbers of a tensor",
        "item tolist numpy __bool__ __int__ __float__ __index__ __array__ __contains__ equal allclose "
        "is_nonzero nonzero any all isnan isinf isfinite",
    ),
    (
        "A threshold is part of a neuron: use MFPNode, MFPLeakyParallel or MFP",
        "ge gt le lt eq ne heaviside sign round floor ceil where masked_fill",
    ),
    ("Feed images, or events with a channel for each symbol", "embedding embedding_bag one_hot"),
    (
        "It keeps numbers between steps. Neurons remember by their order, or by spikes that come back to "
        "them: LinearRecurrentContainer of SpikingJelly, RLeaky of snnTorch",
        "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell",
    ),
    (
        "Use a stride, a pool, or nn.Upsample to change the resolution",
        "grid_sample unfold fold",
    ),
    ("Leave it out, or use a number", "full_like new_full"),
    (
        "Random numbers are drawn outside of the model: lower it without them",
        "rand_like randn_like randint_like bernoulli poisson multinomial normal uniform exponential",
    ),
]

ADVICE = {name: words for words, names in _ADVICE for name in names.split()}
