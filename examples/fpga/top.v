// A network for a chip of few pins: its scores, which are wide, leave one after the other through one pin.
//
// Inputs go to the network as they come. A score is sent in SCORE_BITS cycles, its lowest bit first: out_valid is
// 1 in these cycles, and 0 in at least one cycle between two scores. Nobody has to be ready for them.
//
// INPUT_BITS and SCORE_BITS are the widths of in_data and out_data in the head of mfp_net.v; here, those of the
// zoo's network digits-rows. Another network needs its own.
module top #(
    parameter INPUT_BITS = 5,
    parameter SCORE_BITS = 36
) (
    input  wire                  clk,
    input  wire                  rst,       // one cycle or more, before each sequence
    input  wire                  in_valid,
    output wire                  in_ready,
    input  wire [INPUT_BITS-1:0] in_data,
    output wire                  out_valid,
    output wire                  out_bit
);
    localparam COUNT_BITS = $clog2(SCORE_BITS + 1);

    wire                  score_valid;
    wire [SCORE_BITS-1:0] score;
    reg  [SCORE_BITS-1:0] rest;             // bits that are still to be sent
    reg  [COUNT_BITS-1:0] left;             // how many these are

    assign out_valid = left != 0;
    assign out_bit = rest[0];

    mfp_net net (
        .clk(clk), .rst(rst),
        .in_valid(in_valid), .in_ready(in_ready), .in_data(in_data),
        .out_valid(score_valid), .out_ready(!out_valid), .out_data(score)
    );

    always @(posedge clk)
        if (rst) left <= 0;
        else if (out_valid) begin
            rest <= rest >> 1;
            left <= left - 1'b1;
        end else if (score_valid) begin
            rest <= score;
            left <= SCORE_BITS[COUNT_BITS-1:0];
        end
endmodule
