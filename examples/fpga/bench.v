// Gives top a sequence of inputs, one each cycle, and prints the scores that it sends: a step on a line.
`timescale 1ns / 1ps
module bench;
    parameter STEPS = 8;            // of a sequence; the sizes of the zoo's network digits-rows
    parameter INPUTS = 8;           // of a step
    parameter SCORES = 10;
    parameter INPUT_BITS = 5;
    parameter SCORE_BITS = 36;

    reg  clk = 1'b0;
    reg  rst = 1'b1;
    reg  [INPUT_BITS-1:0] inputs [0:STEPS*INPUTS-1];
    reg  [SCORE_BITS-1:0] score;
    wire in_ready, out_valid, out_bit;
    integer in_at = 0;              // inputs that were taken
    integer bits = 0;               // of the score that comes
    integer scores = 0;             // that came
    wire in_valid = !rst && in_at < STEPS * INPUTS;

    top #(.INPUT_BITS(INPUT_BITS), .SCORE_BITS(SCORE_BITS)) top (
        .clk(clk), .rst(rst), .in_valid(in_valid), .in_ready(in_ready), .in_data(inputs[in_at]),
        .out_valid(out_valid), .out_bit(out_bit)
    );

    initial $readmemh("inputs.hex", inputs);
    always #5 clk = !clk;

    always @(posedge clk) begin
        rst <= 1'b0;
        if (in_valid && in_ready) in_at <= in_at + 1;
        if (out_valid) begin
            score = {out_bit, score[SCORE_BITS-1:1]};
            bits = bits + 1;
            if (bits == SCORE_BITS) begin
                bits = 0;
                scores = scores + 1;
                $write("%0d%s", $signed(score), scores % SCORES == 0 ? "\n" : " ");
                if (scores == STEPS * SCORES) $finish(0);
            end
        end
    end
endmodule
