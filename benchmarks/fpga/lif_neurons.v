// Leaky integrate-and-fire neurons with potentials of 8 bits, in the place of an mfp_neurons that has one tap:
//
//     sum = v - (v >>> LEAK) + bias + (dot >>> SHIFT)
//     spike = sum >= threshold,    v = spike ? 0 : sum < -128 ? -128 : sum
//
// in whole numbers, v being 0 before the first step. This is the leak v * (1 - 2**-LEAK) and a reset to 0. Bias
// and threshold are those of a neuron, so that they can stand for a batch norm; a threshold is 1 to 127, so no
// sum above 127 is ever stored.
//
// Potentials lie in a memory that is read, and written two cycles later: one neuron a cycle, so that what feeds
// the neurons never waits for them.
module lif_neurons #(
    parameter NEURONS = 3,             // 3 or more: a neuron is not read before it is written
    parameter DOT_BITS = 9,            // of dot, with its sign
    parameter CURRENT_BITS = 9,        // of dot >>> SHIFT, with its sign; SHIFT + CURRENT_BITS is DOT_BITS at most
    parameter SHIFT = 0,
    parameter LEAK = 3,
    parameter CONSTANT_FILE = ""       // [NEURONS]: {threshold, 7 bits; bias, 8 bits}
) (
    input  wire                clk,
    input  wire                rst,
    input  wire                dot_valid,      // neuron by neuron
    output wire                dot_ready,
    input  wire [DOT_BITS-1:0] dot,
    output reg                 out_valid,
    input  wire                out_ready,
    output wire                out_data        // the spike
);
    localparam ADDRESS_BITS = $clog2(NEURONS);
    localparam [ADDRESS_BITS-1:0] LAST = NEURONS - 1;
    localparam SUM_BITS = ((CURRENT_BITS > 9) ? CURRENT_BITS : 9) + 1;

    // All stages stand still while a spike waits to be taken.
    wire run = !out_valid || out_ready;

    // --- Stage 0: a current is taken; its potential, bias and threshold are read.

    reg  [ADDRESS_BITS-1:0] neuron;
    reg                     first_step;        // the memory has the potentials of another sequence
    wire                    take = dot_valid && run;
    wire                    is_last = neuron == LAST;

    assign dot_ready = run;

    always @(posedge clk)
        if (rst) begin
            neuron <= {ADDRESS_BITS{1'b0}};
            first_step <= 1'b1;
        end else if (take) begin
            neuron <= is_last ? {ADDRESS_BITS{1'b0}} : neuron + 1'b1;
            if (is_last) first_step <= 1'b0;
        end

    // --- Stage 1: the sum.

    reg  [CURRENT_BITS-1:0] current_1;
    reg  [ADDRESS_BITS-1:0] neuron_1;
    reg                     valid_1, first_step_1;
    wire [7:0]              stored_1, bias_1;
    wire [6:0]              threshold_1;
    wire [7:0]              v_1 = first_step_1 ? 8'd0 : stored_1;
    wire [7:0]              left_1 = v_1 - {{LEAK{v_1[7]}}, v_1[7:LEAK]};

    mfp_rom #(.WIDTH(15), .DEPTH(NEURONS), .ADDRESS_BITS(ADDRESS_BITS), .FILE(CONSTANT_FILE)) constants (
        .clk(clk), .enable(run), .address(neuron), .data({threshold_1, bias_1})
    );

    always @(posedge clk)
        if (rst) valid_1 <= 1'b0;
        else if (run) begin
            valid_1 <= take;
            first_step_1 <= first_step;
            neuron_1 <= neuron;
            current_1 <= dot[SHIFT +: CURRENT_BITS];
        end

    // --- Stage 2: the spike, and what is kept of the sum.

    reg  [SUM_BITS-1:0]     sum_2;
    reg  [6:0]              threshold_2;
    reg  [ADDRESS_BITS-1:0] neuron_2;
    wire                    too_small = sum_2[SUM_BITS-1] && !(&sum_2[SUM_BITS-2:7]);
    wire [7:0]              kept_2 = out_data ? 8'd0 : too_small ? 8'h80 : sum_2[7:0];

    assign out_data = $signed(sum_2) >= $signed({{(SUM_BITS - 7){1'b0}}, threshold_2});

    always @(posedge clk)
        if (rst) out_valid <= 1'b0;
        else if (run) begin
            out_valid <= valid_1;
            neuron_2 <= neuron_1;
            threshold_2 <= threshold_1;
            sum_2 <= {{(SUM_BITS - 8){left_1[7]}}, left_1} + {{(SUM_BITS - 8){bias_1[7]}}, bias_1}
                + {{(SUM_BITS - CURRENT_BITS){current_1[CURRENT_BITS-1]}}, current_1};
        end

    mfp_ram #(.WIDTH(8), .DEPTH(NEURONS), .ADDRESS_BITS(ADDRESS_BITS)) potentials (
        .clk(clk), .write(out_valid), .write_address(neuron_2), .write_data(kept_2),
        .read(run), .read_address(neuron), .read_data(stored_1)
    );
endmodule
