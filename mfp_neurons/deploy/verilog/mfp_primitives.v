// The parts of which every network is made. Written by hand, the same for all networks; Verilog-2005.
//
// One clock, synchronous reset, no latches, no multipliers, nothing that belongs to one vendor. Parts hand
// numbers on in streams: a number moves in every cycle in which its valid and its ready are both 1; a valid
// that is 1 stays 1, with its data, until then. A step of a network is so many numbers, one after the other.

// A memory that is only read, filled from a file. Data comes one cycle after its address.
module mfp_rom #(
    parameter WIDTH = 1,
    parameter DEPTH = 1,
    parameter ADDRESS_BITS = 1,
    parameter FILE = ""
) (
    input  wire                    clk,
    input  wire                    enable,
    input  wire [ADDRESS_BITS-1:0] address,
    output reg  [WIDTH-1:0]        data
);
    reg [WIDTH-1:0] memory [0:DEPTH-1];

    generate
        if (FILE != "") begin : filled
            initial $readmemh(FILE, memory);
        end
    endgenerate

    always @(posedge clk)
        if (enable) data <= memory[address];
endmodule


// A memory with a port to write and a port to read. Data comes one cycle after its address. What is written is
// not read in the same cycle.
module mfp_ram #(
    parameter WIDTH = 1,
    parameter DEPTH = 1,
    parameter ADDRESS_BITS = 1
) (
    input  wire                    clk,
    input  wire                    write,
    input  wire [ADDRESS_BITS-1:0] write_address,
    input  wire [WIDTH-1:0]        write_data,
    input  wire                    read,
    input  wire [ADDRESS_BITS-1:0] read_address,
    output reg  [WIDTH-1:0]        read_data
);
    reg [WIDTH-1:0] memory [0:DEPTH-1];

    always @(posedge clk) begin
        if (write) memory[write_address] <= write_data;
        if (read) read_data <= memory[read_address];
        // said so that no tool builds logic for it
        if (read && write && read_address == write_address) read_data <= {WIDTH{1'bx}};
    end
endmodule


// Counts to COUNT and begins again: `ends` is `advance` at every COUNT-th time.
module mfp_counter #(
    parameter COUNT = 1
) (
    input  wire clk,
    input  wire rst,
    input  wire advance,
    output wire ends
);
    localparam BITS = (COUNT > 1) ? $clog2(COUNT) : 1;
    localparam [BITS-1:0] LAST = COUNT[BITS-1:0] - 1'b1;

    reg [BITS-1:0] count;

    assign ends = advance && count == LAST;

    always @(posedge clk)
        if (rst || ends) count <= {BITS{1'b0}};
        else if (advance) count <= count + 1'b1;
endmodule


// Loops in loops: where one ends the next one advances.
module mfp_loops #(
    parameter LOOPS = 2,
    parameter [LOOPS*32-1:0] COUNTS = 1    // rounds of each, the innermost in the lowest bits
) (
    input  wire             clk,
    input  wire             rst,
    input  wire             advance,
    output wire [LOOPS-1:0] ends           // a loop is in its last round, and so are all inside of it
);
    wire [LOOPS-1:0] lasts;                // known with the rounds, so that all ends are soon there
    wire [LOOPS-1:0] advances = {ends[LOOPS-2:0], 1'b1};
    genvar           i;

    generate
        for (i = 0; i < LOOPS; i = i + 1) begin : each
            localparam [31:0] COUNT = COUNTS[i*32 +: 32];
            localparam BITS = (COUNT > 1) ? $clog2(COUNT) : 1;
            localparam [31:0] BEFORE_LAST = COUNT - 2;

            reg [BITS-1:0] round;
            reg            is_last;

            assign lasts[i] = is_last;
            assign ends[i] = &lasts[i:0];

            always @(posedge clk)
                if (rst || (advance && ends[i])) begin
                    round <= {BITS{1'b0}};
                    is_last <= COUNT == 32'd1;
                end else if (advance && advances[i]) begin
                    round <= round + 1'b1;
                    is_last <= round == BEFORE_LAST[BITS-1:0];
                end
        end
    endgenerate
endmodule


// A number that moves by STRIDES[i] in each round of loop i: FIRST plus the sum of rounds times strides. From
// one round to the next it is a constant distance, so that an adder is enough.
module mfp_walk #(
    parameter LOOPS = 1,
    parameter [LOOPS*32-1:0] COUNTS = 1,
    parameter [LOOPS*32-1:0] STRIDES = 1,
    parameter [31:0] FIRST = 0,
    parameter BITS = 1                     // of the number; below 0 it is in two's complement
) (
    input  wire             clk,
    input  wire             rst,
    input  wire             advance,
    input  wire [LOOPS-1:0] ends,
    output reg  [BITS-1:0]  number
);
    // The stride of a loop, less what the loops inside of it went.
    function [31:0] distance(input integer loop);
        integer inner;
        begin
            distance = STRIDES[loop*32 +: 32];
            for (inner = 0; inner < loop; inner = inner + 1)
                distance = distance - (COUNTS[inner*32 +: 32] - 1) * STRIDES[inner*32 +: 32];
        end
    endfunction

    wire [LOOPS*BITS-1:0] distances;
    reg  [BITS-1:0]       step;
    integer               i;
    genvar                loop;

    generate
        for (loop = 0; loop < LOOPS; loop = loop + 1) begin : each
            localparam [31:0] DISTANCE = distance(loop);
            assign distances[loop*BITS +: BITS] = DISTANCE[BITS-1:0];
        end
    endgenerate

    always @* begin
        step = distances[0 +: BITS];
        for (i = 1; i < LOOPS; i = i + 1)
            if (ends[i-1]) step = distances[i*BITS +: BITS];
    end

    always @(posedge clk)
        if (rst || (advance && ends[LOOPS-1])) number <= FIRST[BITS-1:0];
        else if (advance) number <= number + step;
endmodule


// The sum of numbers times codes: a code is the bits that it has in all planes of `plus`, the lowest plane first,
// less 2**MINUS_SHIFT where its bit in `minus` is 1. Of eight lanes each the sum is there after one cycle.
module mfp_gated_sum #(
    parameter LANES = 1,
    parameter PLANES = 1,              // bits of each number
    parameter PLUS_PLANES = 1,
    parameter SIGNED = 0,              // 0: there is no minus
    parameter MINUS_SHIFT = 0,
    parameter SUM_BITS = 1
) (
    input  wire                         clk,
    input  wire                         enable,
    input  wire [LANES*PLANES-1:0]      numbers,
    input  wire [PLUS_PLANES*LANES-1:0] plus,
    input  wire [LANES-1:0]             minus,
    output reg  [SUM_BITS-1:0]          sum    // of what was there in the cycle before
);
    localparam EIGHTS = (LANES + 7) / 8;
    localparam PART_BITS = PLANES + 3 + ((SIGNED != 0) ? MINUS_SHIFT + 1 : 0);
    // -n is ~n less a number of ones, which of all lanes together are one constant: the rest is added alone.
    localparam ONES = (SIGNED != 0) ? LANES * ((1 << PLANES) - 1) << MINUS_SHIFT : 0;

    reg [EIGHTS*PART_BITS-1:0] parts, next_parts;
    reg [PART_BITS-1:0]        part, number;
    integer                    eight, lane, plane, i;

    always @* begin
        next_parts = {EIGHTS*PART_BITS{1'b0}};
        for (eight = 0; eight < EIGHTS; eight = eight + 1) begin
            part = {PART_BITS{1'b0}};
            for (lane = 8 * eight; lane < 8 * eight + 8 && lane < LANES; lane = lane + 1) begin
                number = {{(PART_BITS - PLANES){1'b0}}, numbers[lane*PLANES +: PLANES]};
                for (plane = 0; plane < PLUS_PLANES; plane = plane + 1)
                    part = part + ((number & {PART_BITS{plus[plane*LANES + lane]}}) << plane);
                if (SIGNED != 0) begin
                    number[PLANES-1:0] = ~(number[PLANES-1:0] & {PLANES{minus[lane]}});
                    part = part + (number << MINUS_SHIFT);
                end
            end
            next_parts[eight*PART_BITS +: PART_BITS] = part;
        end
    end

    always @(posedge clk)
        if (enable) parts <= next_parts;

    always @* begin
        sum = {SUM_BITS{1'b0}} - ONES[SUM_BITS-1:0];
        for (i = 0; i < EIGHTS; i = i + 1)
            sum = sum + {{(SUM_BITS - PART_BITS){1'b0}}, parts[i*PART_BITS +: PART_BITS]};
    end
endmodule


// The last steps of a stream, LANES numbers to a word, in a ring of SLOTS steps: those that are looked at, and
// the one that comes in meanwhile. A step moves no bit of the older ones.
module mfp_history #(
    parameter PLANES = 1,              // bits of a number
    parameter LANES = 1,               // numbers of a word
    parameter CHANNELS = 1,            // numbers after which a new word begins in any case
    parameter STEP_WORDS = 1,
    parameter SLOTS = 2,
    parameter ADDRESS_BITS = 1,        // of SLOTS * STEP_WORDS
    parameter STEP_BITS = 1,           // of SLOTS - 1
    parameter LATE = 0                 // 1: after rst comes a step without any number
) (
    input  wire                    clk,
    input  wire                    rst,
    input  wire                    in_valid,
    output wire                    in_ready,
    input  wire [PLANES-1:0]       in_data,
    output reg                     step_valid,     // a whole step is there,
    output reg  [ADDRESS_BITS-1:0] step_address,   // which begins here,
    output reg  [STEP_BITS-1:0]    steps,          // and is the last of so many, SLOTS - 1 at most,
    input  wire                    step_taken,     // and is computed from now on
    input  wire                    read,
    input  wire [ADDRESS_BITS-1:0] read_address,
    output wire [LANES*PLANES-1:0] read_data
);
    localparam DEPTH = SLOTS * STEP_WORDS;
    localparam ALL_STEPS = SLOTS - 1;
    localparam [ADDRESS_BITS-1:0] LAST_ADDRESS = DEPTH[ADDRESS_BITS-1:0] - 1'b1;

    // The newest number is in the highest lane. A word that ends early has 0 in its lowest lanes.
    reg  [LANES*PLANES-1:0] gathered;
    reg  [ADDRESS_BITS-1:0] write_address;
    wire [LANES*PLANES-1:0] word = shifted_in(gathered, in_data);
    wire                    accept = in_valid && in_ready;
    wire                    lanes_end, channels_end, step_ends;
    wire                    word_ends = lanes_end || channels_end;

    function [LANES*PLANES-1:0] shifted_in(input [LANES*PLANES-1:0] older, input [PLANES-1:0] newest);
        begin
            shifted_in = older >> PLANES;
            shifted_in[(LANES-1)*PLANES +: PLANES] = newest;
        end
    endfunction

    assign in_ready = !step_valid;

    mfp_counter #(.COUNT(LANES)) lanes (
        .clk(clk), .rst(rst || channels_end), .advance(accept), .ends(lanes_end)
    );
    mfp_counter #(.COUNT(CHANNELS)) channels (.clk(clk), .rst(rst), .advance(accept), .ends(channels_end));
    mfp_counter #(.COUNT(STEP_WORDS)) words (.clk(clk), .rst(rst), .advance(word_ends), .ends(step_ends));

    always @(posedge clk)
        if (rst) begin
            gathered <= {LANES*PLANES{1'b0}};
            write_address <= {ADDRESS_BITS{1'b0}};
            step_address <= {ADDRESS_BITS{1'b0}};
            step_valid <= LATE != 0;
            steps <= {STEP_BITS{1'b0}};
        end else begin
            if (accept) gathered <= word_ends ? {LANES*PLANES{1'b0}} : word;
            if (word_ends)
                write_address <= (write_address == LAST_ADDRESS) ? {ADDRESS_BITS{1'b0}} : write_address + 1'b1;
            if (step_ends) begin
                step_valid <= 1'b1;
                if (steps != ALL_STEPS[STEP_BITS-1:0]) steps <= steps + 1'b1;
            end
            if (step_taken) begin
                step_valid <= 1'b0;
                step_address <= write_address;
            end
        end

    mfp_ram #(.WIDTH(LANES * PLANES), .DEPTH(DEPTH), .ADDRESS_BITS(ADDRESS_BITS)) ring (
        .clk(clk), .write(word_ends), .write_address(write_address), .write_data(word),
        .read(read), .read_address(read_address), .read_data(read_data)
    );
endmodule


// Whether the row and the column to which loops move are outside of a map of ROWS * COLUMNS.
module mfp_outside #(
    parameter LOOPS = 1,
    parameter [LOOPS*32-1:0] COUNTS = 1,
    parameter [LOOPS*32-1:0] ROW_MOVES = 0,
    parameter [LOOPS*32-1:0] COLUMN_MOVES = 0,
    parameter [31:0] FIRST_ROW = 0,        // 0 or less
    parameter [31:0] FIRST_COLUMN = 0,
    parameter [31:0] ROWS = 1,
    parameter [31:0] COLUMNS = 1,
    parameter ROW_BITS = 1,                // of all numbers that occur, and a sign
    parameter COLUMN_BITS = 1
) (
    input  wire             clk,
    input  wire             rst,
    input  wire             advance,
    input  wire [LOOPS-1:0] ends,
    output wire             outside
);
    wire [ROW_BITS-1:0]    row;
    wire [COLUMN_BITS-1:0] column;

    // what is below 0 is a large number in two's complement
    assign outside = row >= ROWS[ROW_BITS-1:0] || column >= COLUMNS[COLUMN_BITS-1:0];

    mfp_walk #(.LOOPS(LOOPS), .COUNTS(COUNTS), .STRIDES(ROW_MOVES), .FIRST(FIRST_ROW), .BITS(ROW_BITS)) rows (
        .clk(clk), .rst(rst), .advance(advance), .ends(ends), .number(row)
    );

    mfp_walk #(
        .LOOPS(LOOPS), .COUNTS(COUNTS), .STRIDES(COLUMN_MOVES), .FIRST(FIRST_COLUMN), .BITS(COLUMN_BITS)
    ) columns (
        .clk(clk), .rst(rst), .advance(advance), .ends(ends), .number(column)
    );
endmodule


// Signed numbers, COUNT at a time: the largest of them, or their sum.
module mfp_reduce #(
    parameter COUNT = 1,
    parameter SUM = 0,
    parameter BITS = 1
) (
    input  wire            clk,
    input  wire            rst,
    input  wire            in_valid,
    output wire            in_ready,
    input  wire [BITS-1:0] in_data,
    output reg             out_valid,
    input  wire            out_ready,
    output reg  [BITS-1:0] out_data
);
    reg  opens;
    wire accept = in_valid && in_ready;
    wire ends;

    assign in_ready = !out_valid || out_ready;

    mfp_counter #(.COUNT(COUNT)) numbers (.clk(clk), .rst(rst), .advance(accept), .ends(ends));

    always @(posedge clk)
        if (rst) begin
            opens <= 1'b1;
            out_valid <= 1'b0;
        end else begin
            if (in_ready) out_valid <= ends;
            if (accept) begin
                opens <= ends;
                if (opens || (SUM == 0 && $signed(in_data) > $signed(out_data))) out_data <= in_data;
                else if (SUM != 0) out_data <= out_data + in_data;
            end
        end
endmodule


// What a layer of neurons hears of one stream: for each output, one number for each of the last TAPS steps,
//
//     dot[o][j] = sum over the window of code[o][i] * input[i], of the step j steps ago
//
// at each place in turn, the newest step first. Of steps before the first one, and outside of the map, inputs
// are 0. A linear layer is a window over a map of one place. With POOL it is the largest such number, or the
// sum, of all places in a window over them.
//
// LANES inputs a cycle are gated by codes and added: by all bits of the codes at once, or by one plane of them
// after the other, the highest first, so that the step from one to the next is a doubling (Horner's rule). A
// step takes TAPS * POOL_ROWS * POOL_COLUMNS * CODE_PLANES * ROWS * COLUMNS *
// WORDS cycles for each output, always; the next one is taken in meanwhile.
module mfp_synapse #(
    parameter PLANES = 1,              // bits of an input
    parameter LANES = 1,               // inputs a cycle
    parameter CHANNELS = 1,            // of a place of the map, in each of
    parameter [31:0] GROUPS = 1,       // groups: an output looks at one of them
    parameter [31:0] WORDS = 1,        // CHANNELS / LANES, rounded up
    parameter [31:0] MAP_ROWS = 1,
    parameter [31:0] MAP_COLUMNS = 1,
    parameter [31:0] ROWS = 1,         // of a window
    parameter [31:0] COLUMNS = 1,
    parameter [31:0] ROW_STRIDE = 1,
    parameter [31:0] COLUMN_STRIDE = 1,
    parameter [31:0] ROW_DILATION = 1,
    parameter [31:0] COLUMN_DILATION = 1,
    parameter [31:0] ROW_PADDING = 0,  // rows above the map,
    parameter [31:0] COLUMN_PADDING = 0,   // columns to its left
    parameter POOL = 0,                // 1: the largest number, 2: the sum of a window over DOT_ROWS * DOT_COLUMNS
    parameter [31:0] DOT_ROWS = 1,
    parameter [31:0] DOT_COLUMNS = 1,
    parameter [31:0] POOL_ROWS = 1,
    parameter [31:0] POOL_COLUMNS = 1,
    parameter [31:0] POOL_ROW_STRIDE = 1,
    parameter [31:0] POOL_COLUMN_STRIDE = 1,
    parameter [31:0] POOL_ROW_DILATION = 1,
    parameter [31:0] POOL_COLUMN_DILATION = 1,
    parameter [31:0] POOL_ROW_PADDING = 0,
    parameter [31:0] POOL_COLUMN_PADDING = 0,
    parameter [31:0] OUT_ROWS = 1,
    parameter [31:0] OUT_COLUMNS = 1,
    parameter [31:0] OUTPUTS = 1,      // of a place, in each group
    parameter [31:0] TAPS = 1,         // steps that are looked at, this one included
    parameter LATE = 0,                // 1: inputs are those of the step before, as own spikes are
    parameter [31:0] CODE_PLANES = 1,  // of codes, that come one after the other, the highest first,
    parameter WORD_PLANES = 1,         // or side by side in a word, the lowest first; in two's complement
    parameter BINARY = 0,              // 1: one plane, 1 stands for +1 and 0 for -1
    parameter TERNARY = 0,             // 1: two planes in a word, of +1 and of -1
    parameter DOT_BITS = 2,            // of dot, with its sign
    parameter CODE_FILE = ""           // [GROUPS][OUTPUTS][CODE_PLANES][ROWS][COLUMNS][WORDS]
) (
    input  wire                clk,
    input  wire                rst,
    input  wire                in_valid,       // place by place, channels of a place one after the other
    output wire                in_ready,
    input  wire [PLANES-1:0]   in_data,
    output wire                dot_valid,
    input  wire                dot_ready,
    output wire [DOT_BITS-1:0] dot
);
    localparam [31:0] PLACE_WORDS = GROUPS * WORDS;
    localparam [31:0] ROW_WORDS = MAP_COLUMNS * PLACE_WORDS;
    localparam [31:0] STEP_WORDS = MAP_ROWS * ROW_WORDS;
    localparam [31:0] OLDEST = TAPS * STEP_WORDS;
    localparam [31:0] OUTPUT_CODES = CODE_PLANES * ROWS * COLUMNS * WORDS;
    localparam [31:0] CODES = GROUPS * OUTPUTS * OUTPUT_CODES;
    localparam ADDRESS_BITS = $clog2(OLDEST + STEP_WORDS);
    localparam CODE_BITS = (CODES > 1) ? $clog2(CODES) : 1;
    localparam CODE_WIDTH = WORD_PLANES * LANES;
    localparam PLUS_PLANES = (WORD_PLANES > 1) ? WORD_PLANES - 1 : 1;
    localparam MINUS_SHIFT = (TERNARY != 0) ? 0 : WORD_PLANES - 1;
    localparam TAP_BITS = $clog2(TAPS + 1);
    localparam SIGNED = (BINARY != 0 || WORD_PLANES > 1) ? 1 : 0;
    localparam COUNT_BITS = SIGNED + PLANES + ((LANES > 7) ? $clog2(LANES + 1) : 3) + MINUS_SHIFT;

    // The loops, the outermost first, and by how much in each of them something moves: row and column of the
    // input, and of the place that is pooled; the words of inputs and of codes.
    localparam LOOPS = 11;

    function [LOOPS*32-1:0] list(
        input [31:0] out_row, input [31:0] out_column, input [31:0] group, input [31:0] of_group, input [31:0] tap,
        input [31:0] pool_row, input [31:0] pool_column, input [31:0] code_plane,
        input [31:0] row, input [31:0] column, input [31:0] word
    );
        list = {out_row, out_column, group, of_group, tap, pool_row, pool_column, code_plane, row, column, word};
    endfunction

    localparam [31:0] POOL_ROW_STEP = POOL_ROW_DILATION * ROW_STRIDE;
    localparam [31:0] POOL_COLUMN_STEP = POOL_COLUMN_DILATION * COLUMN_STRIDE;
    localparam [31:0] OUT_ROW_STEP = POOL_ROW_STRIDE * ROW_STRIDE;
    localparam [31:0] OUT_COLUMN_STEP = POOL_COLUMN_STRIDE * COLUMN_STRIDE;
    localparam [LOOPS*32-1:0] COUNTS = list(
        OUT_ROWS, OUT_COLUMNS, GROUPS, OUTPUTS, TAPS, POOL_ROWS, POOL_COLUMNS, CODE_PLANES, ROWS, COLUMNS, WORDS
    );
    localparam [LOOPS*32-1:0] ROW_MOVES = list(OUT_ROW_STEP, 0, 0, 0, 0, POOL_ROW_STEP, 0, 0, ROW_DILATION, 0, 0);
    localparam [LOOPS*32-1:0] COLUMN_MOVES = list(
        0, OUT_COLUMN_STEP, 0, 0, 0, 0, POOL_COLUMN_STEP, 0, 0, COLUMN_DILATION, 0
    );
    localparam [LOOPS*32-1:0] DOT_ROW_MOVES = list(
        POOL_ROW_STRIDE, 0, 0, 0, 0, POOL_ROW_DILATION, 0, 0, 0, 0, 0
    );
    localparam [LOOPS*32-1:0] DOT_COLUMN_MOVES = list(
        0, POOL_COLUMN_STRIDE, 0, 0, 0, 0, POOL_COLUMN_DILATION, 0, 0, 0, 0
    );
    localparam [LOOPS*32-1:0] WORD_MOVES = list(
        OUT_ROW_STEP * ROW_WORDS, OUT_COLUMN_STEP * PLACE_WORDS, WORDS, 0, 0,
        POOL_ROW_STEP * ROW_WORDS, POOL_COLUMN_STEP * PLACE_WORDS, 0,
        ROW_DILATION * ROW_WORDS, COLUMN_DILATION * PLACE_WORDS, 1
    );
    localparam [LOOPS*32-1:0] CODE_MOVES = list(
        0, 0, OUTPUTS * OUTPUT_CODES, OUTPUT_CODES, 0, 0, 0, ROWS * COLUMNS * WORDS, COLUMNS * WORDS, WORDS, 1
    );
    localparam [31:0] FIRST_ROW = 0 - ROW_PADDING - POOL_ROW_PADDING * ROW_STRIDE;
    localparam [31:0] FIRST_COLUMN = 0 - COLUMN_PADDING - POOL_COLUMN_PADDING * COLUMN_STRIDE;
    localparam [31:0] FIRST_WORD = FIRST_ROW * ROW_WORDS + FIRST_COLUMN * PLACE_WORDS;

    // How far they move altogether.
    localparam [31:0] DOT_ROW_WAY = (OUT_ROWS - 1) * POOL_ROW_STRIDE + (POOL_ROWS - 1) * POOL_ROW_DILATION;
    localparam [31:0] DOT_COLUMN_WAY =
        (OUT_COLUMNS - 1) * POOL_COLUMN_STRIDE + (POOL_COLUMNS - 1) * POOL_COLUMN_DILATION;
    localparam [31:0] ROW_WAY = DOT_ROW_WAY * ROW_STRIDE + (ROWS - 1) * ROW_DILATION;
    localparam [31:0] COLUMN_WAY = DOT_COLUMN_WAY * COLUMN_STRIDE + (COLUMNS - 1) * COLUMN_DILATION;

    // All stages stand still while a sum waits to be taken.
    reg  sum_valid;
    wire sum_ready;
    wire run = !sum_valid || sum_ready;

    // --- Stage 0: which word of which step, and the codes that it meets.

    reg                     busy;
    reg  [ADDRESS_BITS-1:0] newest;            // where the step begins that is computed,
    reg  [ADDRESS_BITS-1:0] slot;              // and the one that the tap looks at
    reg  [TAP_BITS-1:0]     steps;             // that there are to look at, TAPS at most,
    reg  [TAP_BITS-1:0]     steps_left;        // and those from that one on
    reg                     opens_sum, opens_plane, highest_plane;

    wire                    step_valid;
    wire [ADDRESS_BITS-1:0] step_address;
    wire [TAP_BITS-1:0]     steps_in;
    wire [ADDRESS_BITS-1:0] position;          // of the word in its step
    wire [CODE_BITS-1:0]    code_address;
    wire                    outside;           // of the map,
    wire                    no_place;          // and of the places that are pooled
    wire                    issue = busy && run;
    wire                    begin_step = step_valid && !busy && run;
    wire [LOOPS-1:0]        ends;
    wire                    window_ends = ends[2];
    wire                    sum_ends = ends[3];    // over all planes of codes
    wire                    pool_ends = ends[5];
    wire                    taps_end = ends[6];
    wire                    step_ends = ends[10];

    mfp_loops #(.LOOPS(LOOPS), .COUNTS(COUNTS)) loops (
        .clk(clk), .rst(rst), .advance(issue), .ends(ends)
    );

    mfp_walk #(
        .LOOPS(LOOPS), .COUNTS(COUNTS), .STRIDES(WORD_MOVES), .FIRST(FIRST_WORD), .BITS(ADDRESS_BITS)
    ) input_walk (
        .clk(clk), .rst(rst), .advance(issue), .ends(ends), .number(position)
    );

    mfp_walk #(.LOOPS(LOOPS), .COUNTS(COUNTS), .STRIDES(CODE_MOVES), .BITS(CODE_BITS)) code_walk (
        .clk(clk), .rst(rst), .advance(issue), .ends(ends), .number(code_address)
    );

    // Built where windows reach outside.
    generate
        if (FIRST_ROW != 0 || FIRST_COLUMN != 0 || ROW_WAY >= MAP_ROWS || COLUMN_WAY >= MAP_COLUMNS)
        begin : padded
            mfp_outside #(
                .LOOPS(LOOPS), .COUNTS(COUNTS), .ROW_MOVES(ROW_MOVES), .COLUMN_MOVES(COLUMN_MOVES),
                .FIRST_ROW(FIRST_ROW), .FIRST_COLUMN(FIRST_COLUMN), .ROWS(MAP_ROWS), .COLUMNS(MAP_COLUMNS),
                .ROW_BITS(1 + $clog2(ROW_WAY + MAP_ROWS)), .COLUMN_BITS(1 + $clog2(COLUMN_WAY + MAP_COLUMNS))
            ) map (
                .clk(clk), .rst(rst), .advance(issue), .ends(ends), .outside(outside)
            );
        end else begin : not_padded
            assign outside = 1'b0;
        end

        if (POOL != 0 && (POOL_ROW_PADDING != 0 || POOL_COLUMN_PADDING != 0
            || DOT_ROW_WAY >= DOT_ROWS || DOT_COLUMN_WAY >= DOT_COLUMNS))
        begin : pool_padded
            mfp_outside #(
                .LOOPS(LOOPS), .COUNTS(COUNTS),
                .ROW_MOVES(DOT_ROW_MOVES), .COLUMN_MOVES(DOT_COLUMN_MOVES),
                .FIRST_ROW(0 - POOL_ROW_PADDING), .FIRST_COLUMN(0 - POOL_COLUMN_PADDING),
                .ROWS(DOT_ROWS), .COLUMNS(DOT_COLUMNS),
                .ROW_BITS(1 + $clog2(DOT_ROW_WAY + DOT_ROWS)),
                .COLUMN_BITS(1 + $clog2(DOT_COLUMN_WAY + DOT_COLUMNS))
            ) dots (
                .clk(clk), .rst(rst), .advance(issue), .ends(ends), .outside(no_place)
            );
        end else begin : pool_not_padded
            assign no_place = 1'b0;
        end
    endgenerate

    always @(posedge clk)
        if (rst) begin
            busy <= 1'b0;
            opens_sum <= 1'b1;
            opens_plane <= 1'b1;
            highest_plane <= 1'b1;
        end else begin
            if (begin_step) begin
                busy <= 1'b1;
                newest <= step_address;
                slot <= step_address;
                steps <= steps_in;
                steps_left <= steps_in;
            end
            if (issue) begin
                opens_sum <= sum_ends;
                opens_plane <= window_ends;
                if (window_ends) highest_plane <= sum_ends;
                if (pool_ends) begin
                    slot <= (slot == {ADDRESS_BITS{1'b0}})
                        ? OLDEST[ADDRESS_BITS-1:0] : slot - STEP_WORDS[ADDRESS_BITS-1:0];
                    if (steps_left != {TAP_BITS{1'b0}}) steps_left <= steps_left - 1'b1;
                end
                if (taps_end) begin
                    slot <= newest;
                    steps_left <= steps;
                end
                if (step_ends) busy <= 1'b0;
            end
        end

    // --- Stage 1: both words are there. What they are for travels with them.

    wire [LANES*PLANES-1:0] inputs_1;
    wire [CODE_WIDTH-1:0]   codes_1;
    reg                     nothing_1;         // of a step before the first one, or outside of the map
    reg                     opens_sum_1, opens_plane_1, negative_1, no_place_1, last_1;

    mfp_history #(
        .PLANES(PLANES), .LANES(LANES), .CHANNELS(CHANNELS), .STEP_WORDS(STEP_WORDS), .SLOTS(TAPS + 1),
        .ADDRESS_BITS(ADDRESS_BITS), .STEP_BITS(TAP_BITS), .LATE(LATE)
    ) history (
        .clk(clk), .rst(rst), .in_valid(in_valid), .in_ready(in_ready), .in_data(in_data),
        .step_valid(step_valid), .step_address(step_address), .steps(steps_in), .step_taken(begin_step),
        .read(run), .read_address(slot + position), .read_data(inputs_1)
    );

    mfp_rom #(.WIDTH(CODE_WIDTH), .DEPTH(CODES), .ADDRESS_BITS(CODE_BITS), .FILE(CODE_FILE)) codes (
        .clk(clk), .enable(run), .address(code_address), .data(codes_1)
    );

    always @(posedge clk)
        if (rst) last_1 <= 1'b0;
        else if (run) begin
            last_1 <= issue && sum_ends;
            nothing_1 <= !issue || outside || steps_left == {TAP_BITS{1'b0}};
            no_place_1 <= no_place;
            {opens_sum_1, opens_plane_1} <= {opens_sum, opens_plane};
            // the highest plane of two's complement is negative
            negative_1 <= highest_plane && SIGNED == 0;
        end

    // --- Stages 2 and 3: the inputs of a word, times their codes.

    wire [LANES-1:0]      minus_1 = (BINARY != 0) ? ~codes_1[LANES-1:0] : codes_1[CODE_WIDTH-LANES +: LANES];
    wire [COUNT_BITS-1:0] count_2;
    reg  [COUNT_BITS-1:0] count_3;
    reg                   opens_sum_2, opens_plane_2, negative_2, no_place_2, nothing_2, last_2;
    reg                   opens_sum_3, opens_plane_3, negative_3, no_place_3, last_3;

    mfp_gated_sum #(
        .LANES(LANES), .PLANES(PLANES), .PLUS_PLANES(PLUS_PLANES), .SIGNED(SIGNED), .MINUS_SHIFT(MINUS_SHIFT),
        .SUM_BITS(COUNT_BITS)
    ) gated (
        .clk(clk), .enable(run), .numbers(inputs_1), .plus(codes_1[PLUS_PLANES*LANES-1:0]), .minus(minus_1),
        .sum(count_2)
    );

    always @(posedge clk)
        if (rst) {last_2, last_3} <= 2'b00;
        else if (run) begin
            {opens_sum_2, opens_plane_2, last_2} <= {opens_sum_1, opens_plane_1, last_1};
            {negative_2, no_place_2, nothing_2} <= {negative_1, no_place_1, nothing_1};
            count_3 <= nothing_2 ? {COUNT_BITS{1'b0}} : count_2;
            {opens_sum_3, opens_plane_3, last_3} <= {opens_sum_2, opens_plane_2, last_2};
            {negative_3, no_place_3} <= {negative_2, no_place_2};
        end

    // --- Stage 4: the sum over words, places and planes of codes.

    // What is no place never is the largest, and adds 0.
    localparam [DOT_BITS-1:0] NO_PLACE = (POOL == 1) ? {1'b1, {(DOT_BITS - 1){1'b0}}} : {DOT_BITS{1'b0}};

    wire [DOT_BITS-1:0] wide_count =
        {{(DOT_BITS - COUNT_BITS){SIGNED != 0 && count_3[COUNT_BITS-1]}}, count_3};
    reg  [DOT_BITS-1:0] sum_4;
    reg  [DOT_BITS-1:0] so_far;

    always @* begin
        so_far = sum_4;
        if (opens_plane_3) so_far = sum_4 << 1;
        if (opens_sum_3) so_far = {DOT_BITS{1'b0}};
    end

    always @(posedge clk)
        if (rst) sum_valid <= 1'b0;
        else if (run) begin
            sum_4 <= no_place_3 ? NO_PLACE : negative_3 ? so_far - wide_count : so_far + wide_count;
            sum_valid <= last_3;
        end

    generate
        if (POOL != 0) begin : pooled
            mfp_reduce #(.COUNT(POOL_ROWS * POOL_COLUMNS), .SUM(POOL == 2 ? 1 : 0), .BITS(DOT_BITS)) reduce (
                .clk(clk), .rst(rst), .in_valid(sum_valid), .in_ready(sum_ready), .in_data(sum_4),
                .out_valid(dot_valid), .out_ready(dot_ready), .out_data(dot)
            );
        end else begin : not_pooled
            assign dot_valid = sum_valid;
            assign sum_ready = dot_ready;
            assign dot = sum_4;
        end
    endgenerate
endmodule


// Streams of numbers in turn: TAPS numbers of the first, TAPS of the second, and so on.
module mfp_turns #(
    parameter SOURCES = 2,
    parameter TAPS = 1,
    parameter BITS = 1
) (
    input  wire                    clk,
    input  wire                    rst,
    input  wire [SOURCES-1:0]      in_valid,
    output wire [SOURCES-1:0]      in_ready,
    input  wire [SOURCES*BITS-1:0] in_data,
    output wire                    out_valid,
    input  wire                    out_ready,
    output reg  [BITS-1:0]         out_data
);
    reg  [SOURCES-1:0] turn;           // one bit is 1
    wire               turn_ends;
    integer            s;

    assign in_ready = out_ready ? turn : {SOURCES{1'b0}};
    assign out_valid = (in_valid & turn) != {SOURCES{1'b0}};

    always @* begin
        out_data = {BITS{1'b0}};
        for (s = 0; s < SOURCES; s = s + 1)
            if (turn[s]) out_data = in_data[s*BITS +: BITS];
    end

    mfp_counter #(.COUNT(TAPS)) taps (
        .clk(clk), .rst(rst), .advance(out_valid && out_ready), .ends(turn_ends)
    );

    always @(posedge clk)
        if (rst) turn <= {{(SOURCES - 1){1'b0}}, 1'b1};
        else if (turn_ends) turn <= {turn[SOURCES-2:0], turn[SOURCES-1]};
endmodule


// The own spikes of the last STEPS steps of each neuron, one neuron after the other.
module mfp_own_spikes #(
    parameter NEURONS = 1,
    parameter STEPS = 1
) (
    input  wire             clk,
    input  wire             rst,
    output reg              past_valid,
    output reg  [STEPS-1:0] past,              // the newest in the lowest bit
    input  wire             past_taken,        // it is not looked at any more
    input  wire             spike_valid,       // later on: whether the neuron fires now
    input  wire             spike
);
    localparam ADDRESS_BITS = (NEURONS > 1) ? $clog2(NEURONS) : 1;
    localparam LAST = NEURONS - 1;

    reg  [ADDRESS_BITS-1:0] address;
    reg                     first_step;        // the memory has the spikes of another sequence
    reg                     reading, is_read;
    wire [STEPS-1:0]        stored;
    wire [STEPS-1:0]        with_spike = (past << 1) | {{(STEPS - 1){1'b0}}, spike};
    wire                    is_last = address == LAST[ADDRESS_BITS-1:0];

    mfp_ram #(.WIDTH(STEPS), .DEPTH(NEURONS), .ADDRESS_BITS(ADDRESS_BITS)) kept (
        .clk(clk), .write(spike_valid), .write_address(address), .write_data(with_spike),
        .read(reading), .read_address(address), .read_data(stored)
    );

    always @(posedge clk)
        if (rst) begin
            address <= {ADDRESS_BITS{1'b0}};
            first_step <= 1'b1;
            reading <= 1'b1;
            is_read <= 1'b0;
            past_valid <= 1'b0;
        end else begin
            if (spike_valid) begin
                address <= is_last ? {ADDRESS_BITS{1'b0}} : address + 1'b1;
                if (is_last) first_step <= 1'b0;
            end
            reading <= spike_valid;
            is_read <= reading;
            if (is_read) past <= first_step ? {STEPS{1'b0}} : stored;
            past_valid <= is_read || (past_valid && !past_taken);
        end
endmodule


// Neurons, or scores: what synapses hear, weighted and added up over the last TAPS steps.
//
//     sum = start + sum over synapses and taps of coefficient * (2**SHIFT * dot + bias)
//
// over the taps that reach a step of the sequence, so that a bias counts once for each; without biases SHIFT is
// 0. start is minus the threshold, so that a neuron fires where the sum is not negative, and that is what comes
// out; of all else the sum comes out, and start is what is added to each. No sum is kept from one step to the
// next.
//
// A coefficient is up to TERMS powers of two, added or subtracted; each takes one cycle.
//
// The own spikes of the last OWN_STEPS steps take part, by FEEDBACK:
//     1   sum also has coefficient * spike for each of them;
//     2   start is one of CHOICES: the spikes choose it, each by what it counts in OWN_TAPS;
//     3   taps reach no further back than to the step behind the last own spike, and start is chosen by how
//         many steps these are.
module mfp_neurons #(
    parameter SPIKES = 1,              // 1: neurons; 0: numbers
    parameter OUTPUTS = 1,             // of a place
    parameter PLACES = 1,
    parameter SYNAPSES = 1,
    parameter TAPS = 1,
    parameter TERMS = 1,               // powers of two of a coefficient
    parameter EXPONENT_BITS = 1,
    parameter SETS = 1,                // of coefficients: 1 for all outputs, or OUTPUTS
    parameter SET_ROWS = 1,            // of coefficients: 1, or one for each step
    parameter ROWS = 1,                // of starts: of the first step, the second, .., all later ones
    parameter CHOICES = 1,             // starts of each output in a row
    parameter CHOICE_BITS = 1,
    parameter START_BITS = 1,          // of a start as it is stored, with its sign,
    parameter START_ONES = 0,          // and how many bits below it are all 1
    parameter BIASED = 0,
    parameter SHIFT = 0,
    parameter BIAS_BITS = 1,
    parameter FEEDBACK = 0,
    parameter OWN_STEPS = 1,
    parameter NO_CHOICE = 0,           // the choice without an own spike, of FEEDBACK 2
    parameter [OWN_STEPS*CHOICE_BITS-1:0] OWN_TAPS = 0,
    parameter DOT_BITS = 2,            // of dot, with its sign
    parameter VALUE_BITS = 2,          // of what a coefficient is applied to, with its sign
    parameter SUM_BITS = 2,            // of sum, with its sign
    parameter OUT_SHIFT = 0,           // bits of the sum that are left out
    parameter OUT_BITS = 1,
    parameter COEFFICIENT_FILE = "",   // [SET_ROWS][SETS][synapse, tap; own spikes][TERMS]: {is 0, is negative, exponent}
    parameter START_FILE = "",         // [ROWS][OUTPUTS], or [ROWS][CHOICES][OUTPUTS up to a power of two]
    parameter BIAS_FILE = ""           // [OUTPUTS]
) (
    input  wire                clk,
    input  wire                rst,
    input  wire                dot_valid,      // place by place, output by output, synapse by synapse, tap by tap
    output wire                dot_ready,
    input  wire [DOT_BITS-1:0] dot,
    output reg                 out_valid,
    input  wire                out_ready,
    output wire [OUT_BITS-1:0] out_data
);
    localparam OWN_NUMBERS = (FEEDBACK == 1) ? OWN_STEPS : 0;
    localparam COEFFICIENTS = SETS * (SYNAPSES * TAPS + OWN_NUMBERS) * TERMS;   // of a row
    localparam ALL_COEFFICIENTS = SET_ROWS * COEFFICIENTS;
    localparam LAST_COEFFICIENTS = ALL_COEFFICIENTS - COEFFICIENTS;
    localparam COEFFICIENT_BITS = (ALL_COEFFICIENTS > 1) ? $clog2(ALL_COEFFICIENTS) : 1;
    localparam CHANNEL_BITS = (OUTPUTS > 1) ? $clog2(OUTPUTS) : 1;
    localparam STARTS = (CHOICES > 1) ? CHOICES << CHANNEL_BITS : OUTPUTS;      // of a row
    localparam LAST_STARTS = (ROWS - 1) * STARTS;
    localparam START_ADDRESS_BITS = (ROWS * STARTS > 1) ? $clog2(ROWS * STARTS) : 1;
    localparam TERM_BITS = (TERMS > 1) ? $clog2(TERMS) : 1;
    localparam TAP_BITS = (TAPS > 1) ? $clog2(TAPS) : 1;
    localparam TERMS_LEFT = TERMS - 1;
    localparam LAST_CHANNEL = OUTPUTS - 1;
    localparam LAST_TAP = TAPS - 1;

    // All stages stand still while a number waits to be taken.
    wire run = !out_valid || out_ready;

    // --- Stage 0: a number is taken, and what it is multiplied with is looked up.

    reg  [TERM_BITS-1:0]        terms;         // of it that are still to be looked up
    reg  [TAP_BITS-1:0]         tap;
    reg  [CHANNEL_BITS-1:0]     channel;
    reg  [COEFFICIENT_BITS-1:0] coefficient_address, coefficient_row;
    reg  [START_ADDRESS_BITS-1:0] start_row;
    reg                         opens;         // the first term of an output

    wire                        own_ready;     // own spikes are known, if they take part
    wire                        own_turn;      // one of them is the number
    wire                        own_spike;
    wire                        own_end;
    wire                        reaches;       // the tap does not look at a step too far back
    wire [VALUE_BITS-1:0]       wide_dot = {{(VALUE_BITS - DOT_BITS){dot[DOT_BITS-1]}}, dot};
    wire [VALUE_BITS-1:0]       biased_dot;
    wire [START_ADDRESS_BITS-1:0] start_address;

    wire take = run && own_ready && terms == {TERM_BITS{1'b0}} && (own_turn || dot_valid);
    wire look_up = take || (run && terms != {TERM_BITS{1'b0}});
    wire number_ends = (TERMS == 1) ? take : run && terms == {{(TERM_BITS - 1){1'b0}}, 1'b1};
    wire taps_end = number_ends && !own_turn && tap == LAST_TAP[TAP_BITS-1:0];
    wire synapses_end;
    wire output_ends = (OWN_NUMBERS > 0) ? own_end : synapses_end;
    wire place_ends = output_ends && channel == LAST_CHANNEL[CHANNEL_BITS-1:0];
    wire step_ends;
    wire [CHANNEL_BITS-1:0] next_channel =
        (rst || place_ends) ? {CHANNEL_BITS{1'b0}} : output_ends ? channel + 1'b1 : channel;
    wire set_ends = (SETS > 1) ? place_ends : output_ends;

    assign dot_ready = run && own_ready && terms == {TERM_BITS{1'b0}} && !own_turn;

    mfp_counter #(.COUNT(SYNAPSES)) synapses (.clk(clk), .rst(rst), .advance(taps_end), .ends(synapses_end));
    mfp_counter #(.COUNT(PLACES)) places (.clk(clk), .rst(rst), .advance(place_ends), .ends(step_ends));

    always @(posedge clk)
        if (rst) begin
            terms <= {TERM_BITS{1'b0}};
            tap <= {TAP_BITS{1'b0}};
            channel <= {CHANNEL_BITS{1'b0}};
            coefficient_address <= {COEFFICIENT_BITS{1'b0}};
            coefficient_row <= {COEFFICIENT_BITS{1'b0}};
            start_row <= {START_ADDRESS_BITS{1'b0}};
            opens <= 1'b1;
        end else begin
            channel <= next_channel;
            if (take) terms <= TERMS_LEFT[TERM_BITS-1:0];
            else if (look_up) terms <= terms - 1'b1;
            if (look_up) begin
                opens <= output_ends;
                coefficient_address <= coefficient_address + 1'b1;
            end
            if (number_ends && !own_turn) tap <= taps_end ? {TAP_BITS{1'b0}} : tap + 1'b1;
            if (set_ends) coefficient_address <= coefficient_row;
            if (step_ends) begin
                // the last row holds for all later steps
                if (start_row != LAST_STARTS[START_ADDRESS_BITS-1:0])
                    start_row <= start_row + STARTS[START_ADDRESS_BITS-1:0];
                if (coefficient_row != LAST_COEFFICIENTS[COEFFICIENT_BITS-1:0]) begin
                    coefficient_row <= coefficient_row + COEFFICIENTS[COEFFICIENT_BITS-1:0];
                    coefficient_address <= coefficient_row + COEFFICIENTS[COEFFICIENT_BITS-1:0];
                end
            end
        end

    // Own spikes, and how many steps lie behind the one that is computed: only so far back do taps reach.
    wire [OWN_STEPS-1:0] past;
    reg  [TAP_BITS-1:0]  steps_before;
    reg  [TAP_BITS-1:0]  since;
    integer              lag;

    always @(posedge clk)
        if (rst) steps_before <= {TAP_BITS{1'b0}};
        else if (step_ends && steps_before != LAST_TAP[TAP_BITS-1:0]) steps_before <= steps_before + 1'b1;

    always @* begin
        since = steps_before;
        if (FEEDBACK == 3)
            for (lag = OWN_STEPS - 1; lag >= 0; lag = lag - 1)
                if (past[lag]) since = lag[TAP_BITS-1:0];
    end

    assign reaches = tap <= since;

    generate
        if (FEEDBACK != 0) begin : own
            mfp_own_spikes #(.NEURONS(OUTPUTS * PLACES), .STEPS(OWN_STEPS)) spikes (
                .clk(clk), .rst(rst), .past_valid(own_ready), .past(past), .past_taken(output_ends),
                .spike_valid(out_valid && out_ready), .spike(out_data[0])
            );
        end else begin : no_own
            assign own_ready = 1'b1;
            assign past = {OWN_STEPS{1'b0}};
        end

        if (OWN_NUMBERS > 0) begin : own_numbers
            reg                 is_turn;
            reg [OWN_STEPS-1:0] left;

            mfp_counter #(.COUNT(OWN_NUMBERS)) lags (
                .clk(clk), .rst(rst), .advance(number_ends && is_turn), .ends(own_end)
            );

            always @(posedge clk)
                if (rst || own_end) is_turn <= 1'b0;
                else if (synapses_end) is_turn <= 1'b1;

            always @(posedge clk)
                if (synapses_end) left <= past;
                else if (number_ends) left <= left >> 1;

            assign own_turn = is_turn;
            assign own_spike = left[0];
        end else begin : no_own_numbers
            assign {own_turn, own_spike, own_end} = 3'b000;
        end

        if (CHOICES > 1) begin : choices
            wire [CHOICE_BITS-1:0] choice;

            if (FEEDBACK == 3) begin : by_age
                assign choice = since;
            end else begin : by_count
                reg [CHOICE_BITS-1:0] count;
                integer               step;

                always @* begin
                    count = NO_CHOICE[CHOICE_BITS-1:0];
                    for (step = 0; step < OWN_STEPS; step = step + 1)
                        if (past[step]) count = count + OWN_TAPS[step*CHOICE_BITS +: CHOICE_BITS];
                end
                assign choice = count;
            end

            assign start_address = start_row
                + {{(START_ADDRESS_BITS - CHOICE_BITS - CHANNEL_BITS){1'b0}}, choice, channel};
        end else begin : no_choice
            assign start_address = start_row + {{(START_ADDRESS_BITS - CHANNEL_BITS){1'b0}}, channel};
        end

        if (BIASED != 0) begin : biased
            wire [BIAS_BITS-1:0] bias;         // of `channel`: read one cycle ahead

            mfp_rom #(.WIDTH(BIAS_BITS), .DEPTH(OUTPUTS), .ADDRESS_BITS(CHANNEL_BITS), .FILE(BIAS_FILE)) biases (
                .clk(clk), .enable(1'b1), .address(next_channel), .data(bias)
            );
            assign biased_dot = (wide_dot << SHIFT) + {{(VALUE_BITS - BIAS_BITS){bias[BIAS_BITS-1]}}, bias};
        end else begin : unbiased
            assign biased_dot = wide_dot;
        end
    endgenerate

    // --- Stage 1: the value, times one power of two of its coefficient.

    reg  [VALUE_BITS-1:0]    value_1;
    wire [EXPONENT_BITS+1:0] coefficient_1;
    wire [START_BITS-1:0]    start_1;
    wire                     is_zero_1 = coefficient_1[EXPONENT_BITS+1];
    wire [SUM_BITS-1:0]      wide_value = {{(SUM_BITS - VALUE_BITS){value_1[VALUE_BITS-1]}}, value_1};
    wire [SUM_BITS-1:0]      wide_start =
        {{(SUM_BITS - START_BITS - START_ONES){start_1[START_BITS-1]}}, start_1, {START_ONES{1'b1}}};
    reg                      term_1, opens_1, last_1;

    mfp_rom #(
        .WIDTH(EXPONENT_BITS + 2), .DEPTH(ALL_COEFFICIENTS), .ADDRESS_BITS(COEFFICIENT_BITS),
        .FILE(COEFFICIENT_FILE)
    ) coefficients (
        .clk(clk), .enable(run), .address(coefficient_address), .data(coefficient_1)
    );

    mfp_rom #(
        .WIDTH(START_BITS), .DEPTH(ROWS * STARTS), .ADDRESS_BITS(START_ADDRESS_BITS), .FILE(START_FILE)
    ) starts (
        .clk(clk), .enable(run), .address(start_address), .data(start_1)
    );

    always @(posedge clk)
        if (rst) term_1 <= 1'b0;
        else if (run) begin
            if (take) begin
                value_1 <= biased_dot;
                if ((BIASED != 0 || FEEDBACK == 3) && !reaches) value_1 <= {VALUE_BITS{1'b0}};
                if (own_turn) value_1 <= {{(VALUE_BITS - 1){1'b0}}, own_spike};
            end
            {term_1, opens_1, last_1} <= {look_up, opens, output_ends};
        end

    // --- Stage 2: that power of two, and whether it is subtracted.

    reg [SUM_BITS-1:0] shifted_2, start_2;
    reg                negative_2, term_2, opens_2, last_2;

    always @(posedge clk)
        if (rst) term_2 <= 1'b0;
        else if (run) begin
            shifted_2 <= is_zero_1 ? {SUM_BITS{1'b0}} : wide_value << coefficient_1[EXPONENT_BITS-1:0];
            negative_2 <= coefficient_1[EXPONENT_BITS];
            start_2 <= wide_start;
            {term_2, opens_2, last_2} <= {term_1, opens_1, last_1};
        end

    // --- Stage 3: the sum.

    reg  [SUM_BITS-1:0] sum_3;
    wire [SUM_BITS-1:0] so_far = opens_2 ? start_2 : sum_3;

    always @(posedge clk)
        if (rst) out_valid <= 1'b0;
        else if (run) begin
            out_valid <= term_2 && last_2;
            if (term_2) sum_3 <= negative_2 ? so_far - shifted_2 : so_far + shifted_2;
        end

    generate
        if (SPIKES != 0) begin : spikes
            assign out_data = !sum_3[SUM_BITS-1];
        end else begin : numbers
            assign out_data = sum_3[OUT_SHIFT +: OUT_BITS];
        end
    endgenerate
endmodule
