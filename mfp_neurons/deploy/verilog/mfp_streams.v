// The parts between the layers: what branches, joins, reorders and pools streams. Written by hand, the same
// for all networks; Verilog-2005. mfp_primitives.v says what a stream is, and has the memories.
//
// A step comes place by place, row after row, and of each place channel by channel. No valid depends on a
// ready, so that parts can stand behind each other in any order without a loop of logic. Parts of several
// sources have them side by side in one vector, the first one in the lowest bits.

// One stream for several readers. Each takes a number when it is ready; the number is gone when all have it.
module mfp_fork #(
    parameter READERS = 2
) (
    input  wire               clk,
    input  wire               rst,
    input  wire               in_valid,
    output wire               in_ready,
    output wire [READERS-1:0] out_valid,
    input  wire [READERS-1:0] out_ready
);
    reg [READERS-1:0] has_it;

    assign out_valid = {READERS{in_valid}} & ~has_it;
    assign in_ready = &(has_it | out_ready);

    always @(posedge clk)
        if (rst || (in_valid && in_ready)) has_it <= {READERS{1'b0}};
        else has_it <= has_it | (out_valid & out_ready);
endmodule


// A queue of DEPTH numbers, and one more at its end.
module mfp_fifo #(
    parameter PLANES = 1,              // bits of each number
    parameter DEPTH = 1
) (
    input  wire              clk,
    input  wire              rst,
    input  wire              in_valid,
    output wire              in_ready,
    input  wire [PLANES-1:0] in_data,
    output reg               out_valid,
    input  wire              out_ready,
    output wire [PLANES-1:0] out_data
);
    localparam ADDRESS_BITS = (DEPTH > 1) ? $clog2(DEPTH) : 1;
    localparam COUNT_BITS = $clog2(DEPTH + 1);
    localparam [ADDRESS_BITS-1:0] LAST = DEPTH[ADDRESS_BITS-1:0] - 1'b1;

    reg  [ADDRESS_BITS-1:0] write_at;
    reg  [ADDRESS_BITS-1:0] read_at;
    reg  [COUNT_BITS-1:0]   count;         // numbers in the memory
    wire                    push = in_valid && in_ready;
    wire                    pull = count != {COUNT_BITS{1'b0}} && (!out_valid || out_ready);

    assign in_ready = count != DEPTH[COUNT_BITS-1:0];

    mfp_ram #(.WIDTH(PLANES), .DEPTH(DEPTH), .ADDRESS_BITS(ADDRESS_BITS)) numbers (
        .clk(clk), .write(push), .write_address(write_at), .write_data(in_data),
        .read(pull), .read_address(read_at), .read_data(out_data)
    );

    always @(posedge clk)
        if (rst) begin
            write_at <= {ADDRESS_BITS{1'b0}};
            read_at <= {ADDRESS_BITS{1'b0}};
            count <= {COUNT_BITS{1'b0}};
            out_valid <= 1'b0;
        end else begin
            if (push) write_at <= (write_at == LAST) ? {ADDRESS_BITS{1'b0}} : write_at + 1'b1;
            if (pull) read_at <= (read_at == LAST) ? {ADDRESS_BITS{1'b0}} : read_at + 1'b1;
            if (push && !pull) count <= count + 1'b1;
            if (pull && !push) count <= count - 1'b1;
            if (pull || out_ready) out_valid <= pull;
        end
endmodule


// A number times a constant: as many additions as the constant has bits that are 1, and no multiplier.
module mfp_times #(
    parameter PLANES = 1,
    parameter WEIGHT_BITS = 1,
    parameter [WEIGHT_BITS-1:0] WEIGHT = 1,
    parameter OUT_PLANES = 1           // PLANES at least
) (
    input  wire [PLANES-1:0]     number,
    output reg  [OUT_PLANES-1:0] product
);
    integer b;

    always @* begin
        product = {OUT_PLANES{1'b0}};
        for (b = 0; b < WEIGHT_BITS; b = b + 1)
            if (WEIGHT[b]) product = product + ({{(OUT_PLANES - PLANES){1'b0}}, number} << b);
    end
endmodule


// The numbers of all sources, each times its weight, added up.
module mfp_sum #(
    parameter SOURCES = 2,
    parameter PLANES = 1,              // of the source with the most bits; OUT_PLANES at most
    parameter OUT_PLANES = 2,
    parameter WEIGHT_BITS = 1,
    parameter [SOURCES*WEIGHT_BITS-1:0] WEIGHTS = {SOURCES{1'b1}}
) (
    input  wire [SOURCES-1:0]        in_valid,
    output wire [SOURCES-1:0]        in_ready,
    input  wire [SOURCES*PLANES-1:0] in_data,
    output wire                      out_valid,
    input  wire                      out_ready,
    output reg  [OUT_PLANES-1:0]     out_data
);
    wire [SOURCES*OUT_PLANES-1:0] weighted;
    genvar                        s;
    integer                       i;

    assign out_valid = &in_valid;
    assign in_ready = {SOURCES{out_valid && out_ready}};

    generate
        for (s = 0; s < SOURCES; s = s + 1) begin : source
            mfp_times #(
                .PLANES(PLANES), .WEIGHT_BITS(WEIGHT_BITS), .OUT_PLANES(OUT_PLANES),
                .WEIGHT(WEIGHTS[s*WEIGHT_BITS +: WEIGHT_BITS])
            ) times (
                .number(in_data[s*PLANES +: PLANES]), .product(weighted[s*OUT_PLANES +: OUT_PLANES])
            );
        end
    endgenerate

    always @* begin
        out_data = {OUT_PLANES{1'b0}};
        for (i = 0; i < SOURCES; i = i + 1)
            out_data = out_data + weighted[i*OUT_PLANES +: OUT_PLANES];
    end
endmodule


// The channels of the first source, then those of the second, and so on, at each place; each source times its
// weight.
module mfp_concat #(
    parameter SOURCES = 2,
    parameter PLANES = 1,              // of the source with the most bits; OUT_PLANES at most
    parameter OUT_PLANES = 1,
    parameter CHANNEL_BITS = 1,
    parameter [SOURCES*CHANNEL_BITS-1:0] LAST_CHANNELS = {(SOURCES * CHANNEL_BITS){1'b0}},  // less 1
    parameter WEIGHT_BITS = 1,
    parameter [SOURCES*WEIGHT_BITS-1:0] WEIGHTS = {SOURCES{1'b1}}
) (
    input  wire                      clk,
    input  wire                      rst,
    input  wire [SOURCES-1:0]        in_valid,
    output wire [SOURCES-1:0]        in_ready,
    input  wire [SOURCES*PLANES-1:0] in_data,
    output wire                      out_valid,
    input  wire                      out_ready,
    output reg  [OUT_PLANES-1:0]     out_data
);
    wire [SOURCES*OUT_PLANES-1:0] weighted;
    reg  [SOURCES-1:0]            turn;        // whose it is: one bit is 1
    reg  [CHANNEL_BITS-1:0]       channel;
    reg  [CHANNEL_BITS-1:0]       last_channel;
    genvar                        s;
    integer                       i;

    assign out_valid = |(in_valid & turn);
    assign in_ready = turn & {SOURCES{out_ready}};

    generate
        for (s = 0; s < SOURCES; s = s + 1) begin : source
            mfp_times #(
                .PLANES(PLANES), .WEIGHT_BITS(WEIGHT_BITS), .OUT_PLANES(OUT_PLANES),
                .WEIGHT(WEIGHTS[s*WEIGHT_BITS +: WEIGHT_BITS])
            ) times (
                .number(in_data[s*PLANES +: PLANES]), .product(weighted[s*OUT_PLANES +: OUT_PLANES])
            );
        end
    endgenerate

    always @* begin
        out_data = {OUT_PLANES{1'b0}};
        last_channel = {CHANNEL_BITS{1'b0}};
        for (i = 0; i < SOURCES; i = i + 1)
            if (turn[i]) begin
                out_data = out_data | weighted[i*OUT_PLANES +: OUT_PLANES];
                last_channel = last_channel | LAST_CHANNELS[i*CHANNEL_BITS +: CHANNEL_BITS];
            end
    end

    always @(posedge clk)
        if (rst) begin
            turn <= {{(SOURCES - 1){1'b0}}, 1'b1};
            channel <= {CHANNEL_BITS{1'b0}};
        end else if (out_valid && out_ready) begin
            channel <= channel + 1'b1;
            if (channel == last_channel) begin
                channel <= {CHANNEL_BITS{1'b0}};
                turn <= {turn[SOURCES-2:0], turn[SOURCES-1]};
            end
        end
endmodule


// The numbers of two sources, multiplied: for each bit of left, the highest first, what is there is doubled and
// right is added or not. It takes a cycle for each bit of left; of spikes the product is AND, one a cycle.
module mfp_product #(
    parameter LEFT_PLANES = 1,         // bits of the source with fewer of them
    parameter RIGHT_PLANES = 1,        // OUT_PLANES at most
    parameter OUT_PLANES = 1
) (
    input  wire                    clk,
    input  wire                    rst,
    input  wire                    left_valid,
    output wire                    left_ready,
    input  wire [LEFT_PLANES-1:0]  left_data,
    input  wire                    right_valid,
    output wire                    right_ready,
    input  wire [RIGHT_PLANES-1:0] right_data,
    output reg                     out_valid,
    input  wire                    out_ready,
    output reg  [OUT_PLANES-1:0]   out_data
);
    localparam [LEFT_PLANES-1:0] HIGHEST = {1'b1, {(LEFT_PLANES - 1){1'b0}}};

    reg  [LEFT_PLANES-1:0] plane;          // the bit of left whose turn it is, from the highest to the lowest
    wire                   is_first = plane[LEFT_PLANES-1];
    wire                   is_last = plane[0];
    wire                   issue = left_valid && right_valid && (!out_valid || out_ready);
    wire [OUT_PLANES-1:0]  right = {{(OUT_PLANES - RIGHT_PLANES){1'b0}}, right_data};
    wire [OUT_PLANES-1:0]  before_bit = is_first ? {OUT_PLANES{1'b0}} : out_data << 1;

    assign left_ready = issue && is_last;
    assign right_ready = issue && is_last;

    always @(posedge clk)
        if (rst) begin
            plane <= HIGHEST;
            out_valid <= 1'b0;
        end else begin
            if (issue) begin
                plane <= is_last ? HIGHEST : plane >> 1;
                out_data <= |(left_data & plane) ? before_bit + right : before_bit;
            end
            if (issue || out_ready) out_valid <= issue && is_last;
        end
endmodule


// 1 for each number that comes.
module mfp_ones #(
    parameter PLANES = 1
) (
    input  wire              in_valid,
    output wire              in_ready,
    input  wire [PLANES-1:0] in_data,
    output wire              out_valid,
    input  wire              out_ready,
    output wire              out_data
);
    wire unused = &in_data;

    assign out_valid = in_valid;
    assign in_ready = out_ready;
    assign out_data = 1'b1;
endmodule


// The largest number, or the sum, of each window of a map, in each channel. What lies outside of the map is 0.
//
// The last rows are kept: those of a window, and those that the next row of windows needs more, which come in
// while the windows are read. All rows and columns are counted with the padding in front of them: the first row
// of the map is row PADDING_ROWS. One number of a window is read in a cycle, once it is there.
module mfp_pool #(
    parameter CHANNELS = 1,
    parameter ROWS = 1,                // of the map
    parameter COLUMNS = 1,
    parameter OUT_ROWS = 1,
    parameter OUT_COLUMNS = 1,
    parameter SIZE_ROWS = 1,           // of a window
    parameter SIZE_COLUMNS = 1,
    parameter STRIDE_ROWS = 1,
    parameter STRIDE_COLUMNS = 1,
    parameter PADDING_ROWS = 0,
    parameter PADDING_COLUMNS = 0,
    parameter DILATION_ROWS = 1,
    parameter DILATION_COLUMNS = 1,
    parameter ROW_BITS = 1,            // of a row's number, wherever a window looks
    parameter NUMBER_BITS = 1,         // of a column's number, times CHANNELS
    parameter LINE_BITS = 0,           // 2**LINE_BITS rows are kept
    parameter PLACE_BITS = 1,          // 2**PLACE_BITS numbers, or fewer, are a row
    parameter SUM = 0,                 // 1: the sum; 0: the largest number
    parameter PLANES = 1,              // bits of each number
    parameter OUT_PLANES = 1
) (
    input  wire                  clk,
    input  wire                  rst,
    input  wire                  in_valid,
    output wire                  in_ready,
    input  wire [PLANES-1:0]     in_data,
    output reg                   out_valid,
    input  wire                  out_ready,
    output reg  [OUT_PLANES-1:0] out_data
);
    localparam CHANNEL_BITS = (CHANNELS > 1) ? $clog2(CHANNELS) : 1;
    localparam OUT_ROW_BITS = (OUT_ROWS > 1) ? $clog2(OUT_ROWS) : 1;
    localparam OUT_COLUMN_BITS = (OUT_COLUMNS > 1) ? $clog2(OUT_COLUMNS) : 1;
    localparam SIZE_ROW_BITS = (SIZE_ROWS > 1) ? $clog2(SIZE_ROWS) : 1;
    localparam SIZE_COLUMN_BITS = (SIZE_COLUMNS > 1) ? $clog2(SIZE_COLUMNS) : 1;
    localparam [CHANNEL_BITS-1:0] LAST_CHANNEL = CHANNELS[CHANNEL_BITS-1:0] - 1'b1;
    localparam [OUT_ROW_BITS-1:0] LAST_OUT_ROW = OUT_ROWS[OUT_ROW_BITS-1:0] - 1'b1;
    localparam [OUT_COLUMN_BITS-1:0] LAST_OUT_COLUMN = OUT_COLUMNS[OUT_COLUMN_BITS-1:0] - 1'b1;
    localparam [SIZE_ROW_BITS-1:0] LAST_SIZE_ROW = SIZE_ROWS[SIZE_ROW_BITS-1:0] - 1'b1;
    localparam [SIZE_COLUMN_BITS-1:0] LAST_SIZE_COLUMN = SIZE_COLUMNS[SIZE_COLUMN_BITS-1:0] - 1'b1;
    localparam [ROW_BITS-1:0] FIRST_ROW = PADDING_ROWS[ROW_BITS-1:0];
    localparam [ROW_BITS-1:0] END_ROW = FIRST_ROW + ROWS[ROW_BITS-1:0];
    localparam [ROW_BITS-1:0] STRIDE_ROW = STRIDE_ROWS[ROW_BITS-1:0];
    localparam [ROW_BITS-1:0] DILATION_ROW = DILATION_ROWS[ROW_BITS-1:0];
    localparam [ROW_BITS-1:0] LINES = {{(ROW_BITS - 1){1'b0}}, 1'b1} << LINE_BITS;
    localparam FIRST_NUMBERS = PADDING_COLUMNS * CHANNELS;
    localparam MAP_NUMBERS = COLUMNS * CHANNELS;
    localparam END_NUMBERS = FIRST_NUMBERS + MAP_NUMBERS;
    localparam STRIDE_NUMBERS = STRIDE_COLUMNS * CHANNELS;
    localparam DILATION_NUMBERS = DILATION_COLUMNS * CHANNELS;
    localparam [NUMBER_BITS-1:0] FIRST_NUMBER = FIRST_NUMBERS[NUMBER_BITS-1:0];
    localparam [NUMBER_BITS-1:0] END_NUMBER = END_NUMBERS[NUMBER_BITS-1:0];
    localparam [NUMBER_BITS-1:0] STRIDE_NUMBER = STRIDE_NUMBERS[NUMBER_BITS-1:0];
    localparam [NUMBER_BITS-1:0] DILATION_NUMBER = DILATION_NUMBERS[NUMBER_BITS-1:0];
    localparam ADDRESS_BITS = LINE_BITS + PLACE_BITS;

    // --- Rows come in.

    reg  [ROW_BITS-1:0]    in_row;
    reg  [NUMBER_BITS-1:0] in_number;
    // --- Windows are read: the place where a window begins, and the place in it that is read.
    reg                    done;           // all windows of this step are read
    reg  [ROW_BITS-1:0]    top_row;
    reg  [ROW_BITS-1:0]    row;
    reg  [NUMBER_BITS-1:0] left_number;
    reg  [NUMBER_BITS-1:0] number;

    // no row is overwritten that a window has still to read
    wire [ROW_BITS-1:0] oldest_row = (top_row > FIRST_ROW) ? top_row : FIRST_ROW;
    wire is_in = in_row == END_ROW;
    wire has_room = done || in_row - oldest_row < LINES || in_row < oldest_row;
    wire accept = in_valid && in_ready;

    assign in_ready = !is_in && has_room;

    always @(posedge clk)
        if (rst || (is_in && done)) begin
            in_row <= FIRST_ROW;
            in_number <= FIRST_NUMBER;
        end else if (accept) begin
            in_number <= in_number + 1'b1;
            if (in_number == END_NUMBER - 1'b1) begin
                in_number <= FIRST_NUMBER;
                in_row <= in_row + 1'b1;
            end
        end

    reg  [CHANNEL_BITS-1:0]     channel;
    reg  [OUT_ROW_BITS-1:0]     out_row;
    reg  [OUT_COLUMN_BITS-1:0]  out_column;
    reg  [SIZE_ROW_BITS-1:0]    size_row;
    reg  [SIZE_COLUMN_BITS-1:0] size_column;

    wire run = !out_valid || out_ready;
    // what lies in front of the map is below 0, which is a large number here
    wire [ROW_BITS-1:0] map_row = row - FIRST_ROW;
    wire [NUMBER_BITS-1:0] map_number = number - FIRST_NUMBER;
    wire is_inside = map_row < ROWS[ROW_BITS-1:0] && map_number < MAP_NUMBERS[NUMBER_BITS-1:0];
    wire is_there = row < in_row || (row == in_row && number < in_number);
    // a window that sees nothing of the map waits for its step too
    wire has_begun = in_row != FIRST_ROW || in_number != FIRST_NUMBER;
    wire issue = !done && has_begun && (!is_inside || is_there);
    wire row_ends = size_column == LAST_SIZE_COLUMN;
    wire window_ends = row_ends && size_row == LAST_SIZE_ROW;
    wire channels_end = window_ends && channel == LAST_CHANNEL;
    wire columns_end = channels_end && out_column == LAST_OUT_COLUMN;
    wire rows_end = columns_end && out_row == LAST_OUT_ROW;
    // the window of the next channel, or of the next column
    wire [NUMBER_BITS-1:0] next_left = channels_end
        ? left_number + STRIDE_NUMBER - {{(NUMBER_BITS - CHANNEL_BITS){1'b0}}, LAST_CHANNEL}
        : left_number + 1'b1;

    always @(posedge clk)
        if (rst) begin
            done <= 1'b0;
            top_row <= {ROW_BITS{1'b0}};
            row <= {ROW_BITS{1'b0}};
            left_number <= {NUMBER_BITS{1'b0}};
            number <= {NUMBER_BITS{1'b0}};
            channel <= {CHANNEL_BITS{1'b0}};
            out_row <= {OUT_ROW_BITS{1'b0}};
            out_column <= {OUT_COLUMN_BITS{1'b0}};
            size_row <= {SIZE_ROW_BITS{1'b0}};
            size_column <= {SIZE_COLUMN_BITS{1'b0}};
        end else begin
            if (is_in && done) done <= 1'b0;
            if (run && issue) begin
                size_column <= row_ends ? {SIZE_COLUMN_BITS{1'b0}} : size_column + 1'b1;
                number <= row_ends ? left_number : number + DILATION_NUMBER;
                if (row_ends) begin
                    size_row <= window_ends ? {SIZE_ROW_BITS{1'b0}} : size_row + 1'b1;
                    row <= window_ends ? top_row : row + DILATION_ROW;
                end
                if (window_ends) begin
                    channel <= channels_end ? {CHANNEL_BITS{1'b0}} : channel + 1'b1;
                    left_number <= columns_end ? {NUMBER_BITS{1'b0}} : next_left;
                    number <= columns_end ? {NUMBER_BITS{1'b0}} : next_left;
                end
                if (channels_end)
                    out_column <= columns_end ? {OUT_COLUMN_BITS{1'b0}} : out_column + 1'b1;
                if (columns_end) begin
                    out_row <= rows_end ? {OUT_ROW_BITS{1'b0}} : out_row + 1'b1;
                    top_row <= rows_end ? {ROW_BITS{1'b0}} : top_row + STRIDE_ROW;
                    row <= rows_end ? {ROW_BITS{1'b0}} : top_row + STRIDE_ROW;
                    done <= rows_end;
                end
            end
        end

    wire [ADDRESS_BITS-1:0] write_address;
    wire [ADDRESS_BITS-1:0] read_address;
    wire [PLANES-1:0]       number_1;

    generate
        if (LINE_BITS > 0) begin : lines
            assign write_address = {in_row[LINE_BITS-1:0], in_number[PLACE_BITS-1:0]};
            assign read_address = {row[LINE_BITS-1:0], number[PLACE_BITS-1:0]};
        end else begin : line
            assign write_address = in_number[PLACE_BITS-1:0];
            assign read_address = number[PLACE_BITS-1:0];
        end
    endgenerate

    mfp_ram #(.WIDTH(PLANES), .DEPTH(1 << ADDRESS_BITS), .ADDRESS_BITS(ADDRESS_BITS)) kept_rows (
        .clk(clk), .write(accept), .write_address(write_address), .write_data(in_data),
        .read(run && issue && is_inside), .read_address(read_address), .read_data(number_1)
    );

    // --- The number is there.

    reg                   valid_1, inside_1, first_1, last_1;
    wire [OUT_PLANES-1:0] value = inside_1 ? {{(OUT_PLANES - PLANES){1'b0}}, number_1} : {OUT_PLANES{1'b0}};
    wire [OUT_PLANES-1:0] both = (SUM != 0) ? out_data + value : (out_data > value) ? out_data : value;

    always @(posedge clk)
        if (rst) begin
            valid_1 <= 1'b0;
            out_valid <= 1'b0;
        end else if (run) begin
            valid_1 <= issue;
            inside_1 <= is_inside;
            first_1 <= size_row == {SIZE_ROW_BITS{1'b0}} && size_column == {SIZE_COLUMN_BITS{1'b0}};
            last_1 <= window_ends;
            out_valid <= valid_1 && last_1;
            if (valid_1) out_data <= first_1 ? value : both;
        end
endmodule


// A memory of two steps: while the numbers of one are read, in any order, the next one comes in.
module mfp_step_memory #(
    parameter NUMBERS = 1,             // of a step
    parameter PLANES = 1,              // bits of each
    parameter ADDRESS_BITS = 1
) (
    input  wire                    clk,
    input  wire                    rst,
    input  wire                    in_valid,
    output wire                    in_ready,
    input  wire [PLANES-1:0]       in_data,
    output wire                    is_there,       // a step can be read
    input  wire                    release_step,   // it is not needed any more
    input  wire                    read,
    input  wire [ADDRESS_BITS-1:0] address,
    output wire [PLANES-1:0]       data            // one cycle later
);
    localparam [ADDRESS_BITS-1:0] LAST_NUMBER = NUMBERS[ADDRESS_BITS-1:0] - 1'b1;

    reg  [ADDRESS_BITS-1:0] in_number;
    reg                     in_slot, out_slot;
    reg  [1:0]              steps;         // that are there
    wire                    accept = in_valid && in_ready;
    wire                    step_ends = accept && in_number == LAST_NUMBER;

    assign in_ready = !steps[1];
    assign is_there = steps != 2'd0;

    mfp_ram #(
        .WIDTH(PLANES), .DEPTH(2 << ADDRESS_BITS), .ADDRESS_BITS(ADDRESS_BITS + 1)
    ) two_steps (
        .clk(clk), .write(accept), .write_address({in_slot, in_number}), .write_data(in_data),
        .read(read), .read_address({out_slot, address}), .read_data(data)
    );

    always @(posedge clk)
        if (rst) begin
            in_number <= {ADDRESS_BITS{1'b0}};
            in_slot <= 1'b0;
            out_slot <= 1'b0;
            steps <= 2'd0;
        end else begin
            if (accept) in_number <= step_ends ? {ADDRESS_BITS{1'b0}} : in_number + 1'b1;
            if (step_ends) in_slot <= !in_slot;
            if (release_step) out_slot <= !out_slot;
            if (step_ends && !release_step) steps <= steps + 2'd1;
            if (release_step && !step_ends) steps <= steps - 2'd1;
        end
endmodule


// The numbers of a step in other places: a memory says where each comes from, or that it is FILL.
module mfp_gather #(
    parameter NUMBERS = 1,             // of a step that comes in
    parameter OUTPUTS = 1,             // of one that goes out
    parameter PLANES = 1,
    parameter OUT_PLANES = 1,
    parameter ADDRESS_BITS = 1,        // of a number of a step
    parameter [OUT_PLANES-1:0] FILL = 0,
    parameter PLACE_FILE = ""          // [OUTPUTS]: {is FILL, which number}
) (
    input  wire                  clk,
    input  wire                  rst,
    input  wire                  in_valid,
    output wire                  in_ready,
    input  wire [PLANES-1:0]     in_data,
    output reg                   out_valid,
    input  wire                  out_ready,
    output wire [OUT_PLANES-1:0] out_data
);
    localparam OUTPUT_BITS = (OUTPUTS > 1) ? $clog2(OUTPUTS) : 1;
    localparam [OUTPUT_BITS-1:0] LAST_OUTPUT = OUTPUTS[OUTPUT_BITS-1:0] - 1'b1;

    reg  [OUTPUT_BITS-1:0]  out_number;
    reg                     all_issued;
    reg                     valid_1, last_1, fill_2;
    wire [ADDRESS_BITS:0]   place_1;
    wire                    is_there;
    wire [PLANES-1:0]       number_2;
    wire                    run = !out_valid || out_ready;
    wire                    issue = is_there && !all_issued;
    wire                    step_ends = run && valid_1 && last_1;

    assign out_data = fill_2 ? FILL : {{(OUT_PLANES - PLANES){1'b0}}, number_2};

    mfp_rom #(
        .WIDTH(ADDRESS_BITS + 1), .DEPTH(OUTPUTS), .ADDRESS_BITS(OUTPUT_BITS), .FILE(PLACE_FILE)
    ) places (
        .clk(clk), .enable(run), .address(out_number), .data(place_1)
    );

    mfp_step_memory #(.NUMBERS(NUMBERS), .PLANES(PLANES), .ADDRESS_BITS(ADDRESS_BITS)) numbers (
        .clk(clk), .rst(rst), .in_valid(in_valid), .in_ready(in_ready), .in_data(in_data),
        .is_there(is_there), .release_step(step_ends),
        .read(run && valid_1), .address(place_1[ADDRESS_BITS-1:0]), .data(number_2)
    );

    always @(posedge clk)
        if (rst) begin
            out_number <= {OUTPUT_BITS{1'b0}};
            all_issued <= 1'b0;
            valid_1 <= 1'b0;
            out_valid <= 1'b0;
        end else if (run) begin
            if (issue) begin
                out_number <= (out_number == LAST_OUTPUT) ? {OUTPUT_BITS{1'b0}} : out_number + 1'b1;
                all_issued <= out_number == LAST_OUTPUT;
            end
            if (step_ends) all_issued <= 1'b0;
            valid_1 <= issue;
            last_1 <= out_number == LAST_OUTPUT;
            fill_2 <= place_1[ADDRESS_BITS];
            out_valid <= valid_1;
        end
endmodule


// A product of matrices for each channel: out[i][j] = sum over k of left[i][k] * right[k][j].
//
// For each bit of the side with fewer bits, the highest first, what is there is doubled, and the numbers of the
// other side whose partner has that bit are added: one a cycle. Of spikes a product is AND.
module mfp_matmul #(
    parameter CHANNELS = 1,
    parameter ROWS = 1,                // of left, and of what comes out
    parameter INNER = 1,               // columns of left, rows of right
    parameter COLUMNS = 1,             // of right, and of what comes out
    parameter LEFT_PLANES = 1,
    parameter RIGHT_PLANES = 1,
    parameter OUT_PLANES = 1,          // as many as each of these, or more
    parameter LEFT_BITS = 1,           // of the address of a number of left
    parameter RIGHT_BITS = 1
) (
    input  wire                    clk,
    input  wire                    rst,
    input  wire                    left_valid,
    output wire                    left_ready,
    input  wire [LEFT_PLANES-1:0]  left_data,
    input  wire                    right_valid,
    output wire                    right_ready,
    input  wire [RIGHT_PLANES-1:0] right_data,
    output reg                     out_valid,
    input  wire                    out_ready,
    output reg  [OUT_PLANES-1:0]   out_data
);
    localparam CHANNEL_BITS = (CHANNELS > 1) ? $clog2(CHANNELS) : 1;
    localparam ROW_BITS = (ROWS > 1) ? $clog2(ROWS) : 1;
    localparam INNER_BITS = (INNER > 1) ? $clog2(INNER) : 1;
    localparam COLUMN_BITS = (COLUMNS > 1) ? $clog2(COLUMNS) : 1;
    localparam [CHANNEL_BITS-1:0] LAST_CHANNEL = CHANNELS[CHANNEL_BITS-1:0] - 1'b1;
    localparam [ROW_BITS-1:0] LAST_ROW = ROWS[ROW_BITS-1:0] - 1'b1;
    localparam [INNER_BITS-1:0] LAST_INNER = INNER[INNER_BITS-1:0] - 1'b1;
    localparam [COLUMN_BITS-1:0] LAST_COLUMN = COLUMNS[COLUMN_BITS-1:0] - 1'b1;
    localparam RIGHT_ROWS = COLUMNS * CHANNELS;
    localparam BITS = (LEFT_PLANES < RIGHT_PLANES) ? LEFT_PLANES : RIGHT_PLANES;
    localparam [BITS-1:0] HIGHEST = {1'b1, {(BITS - 1){1'b0}}};
    localparam [LEFT_BITS-1:0] LEFT_STEP = CHANNELS[LEFT_BITS-1:0];
    localparam [RIGHT_BITS-1:0] RIGHT_STEP = RIGHT_ROWS[RIGHT_BITS-1:0];

    reg  [CHANNEL_BITS-1:0] channel;
    reg  [ROW_BITS-1:0]     row;
    reg  [BITS-1:0]         plane;         // the bit whose turn it is
    reg  [INNER_BITS-1:0]   inner;
    reg  [COLUMN_BITS-1:0]  column;
    reg  [LEFT_BITS-1:0]    left_row;      // where this row begins
    reg  [LEFT_BITS-1:0]    left_start;    // where this channel of it begins
    reg  [LEFT_BITS-1:0]    left_address;
    reg  [RIGHT_BITS-1:0]   right_start;   // where this channel of this column begins
    reg  [RIGHT_BITS-1:0]   right_address;
    reg  [BITS-1:0]         plane_1;
    reg                     valid_1, first_1, twice_1, last_1;
    wire                    left_is_there, right_is_there;
    wire [LEFT_PLANES-1:0]  left_1;
    wire [RIGHT_PLANES-1:0] right_1;
    wire                    run = !out_valid || out_ready;
    wire                    issue = left_is_there && right_is_there;
    wire                    plane_ends = inner == LAST_INNER;
    wire                    sum_ends = plane_ends && plane[0];
    wire                    channels_end = sum_ends && channel == LAST_CHANNEL;
    wire                    columns_end = channels_end && column == LAST_COLUMN;
    wire                    rows_end = columns_end && row == LAST_ROW;
    wire                    step_ends = run && issue && rows_end;

    mfp_step_memory #(
        .NUMBERS(ROWS * INNER * CHANNELS), .PLANES(LEFT_PLANES), .ADDRESS_BITS(LEFT_BITS)
    ) left (
        .clk(clk), .rst(rst), .in_valid(left_valid), .in_ready(left_ready), .in_data(left_data),
        .is_there(left_is_there), .release_step(step_ends),
        .read(run && issue), .address(left_address), .data(left_1)
    );

    mfp_step_memory #(
        .NUMBERS(INNER * COLUMNS * CHANNELS), .PLANES(RIGHT_PLANES), .ADDRESS_BITS(RIGHT_BITS)
    ) right (
        .clk(clk), .rst(rst), .in_valid(right_valid), .in_ready(right_ready), .in_data(right_data),
        .is_there(right_is_there), .release_step(step_ends),
        .read(run && issue), .address(right_address), .data(right_1)
    );

    wire [OUT_PLANES-1:0] product;
    reg  [OUT_PLANES-1:0] before_product;

    generate
        if (LEFT_PLANES < RIGHT_PLANES) begin : bits_of_left
            assign product = {{(OUT_PLANES - RIGHT_PLANES){1'b0}}, |(left_1 & plane_1) ? right_1 : {RIGHT_PLANES{1'b0}}};
        end else begin : bits_of_right
            assign product = {{(OUT_PLANES - LEFT_PLANES){1'b0}}, |(right_1 & plane_1) ? left_1 : {LEFT_PLANES{1'b0}}};
        end
    endgenerate

    always @* begin
        before_product = twice_1 ? out_data << 1 : out_data;
        if (first_1) before_product = {OUT_PLANES{1'b0}};
    end

    always @(posedge clk)
        if (rst) begin
            channel <= {CHANNEL_BITS{1'b0}};
            row <= {ROW_BITS{1'b0}};
            plane <= HIGHEST;
            inner <= {INNER_BITS{1'b0}};
            column <= {COLUMN_BITS{1'b0}};
            left_row <= {LEFT_BITS{1'b0}};
            left_start <= {LEFT_BITS{1'b0}};
            left_address <= {LEFT_BITS{1'b0}};
            right_start <= {RIGHT_BITS{1'b0}};
            right_address <= {RIGHT_BITS{1'b0}};
            valid_1 <= 1'b0;
            out_valid <= 1'b0;
        end else if (run) begin
            if (issue) begin
                inner <= plane_ends ? {INNER_BITS{1'b0}} : inner + 1'b1;
                left_address <= plane_ends ? left_start : left_address + LEFT_STEP;
                right_address <= plane_ends ? right_start : right_address + RIGHT_STEP;
                if (plane_ends) plane <= sum_ends ? HIGHEST : plane >> 1;
                if (sum_ends) begin
                    channel <= channels_end ? {CHANNEL_BITS{1'b0}} : channel + 1'b1;
                    left_start <= left_start + 1'b1;
                    left_address <= left_start + 1'b1;
                    // the channels of a column lie side by side, and behind them those of the next
                    right_start <= right_start + 1'b1;
                    right_address <= right_start + 1'b1;
                end
                if (channels_end) begin
                    column <= columns_end ? {COLUMN_BITS{1'b0}} : column + 1'b1;
                    left_start <= left_row;
                    left_address <= left_row;
                end
                if (columns_end) begin
                    row <= rows_end ? {ROW_BITS{1'b0}} : row + 1'b1;
                    // behind the last number of this row
                    left_row <= rows_end ? {LEFT_BITS{1'b0}} : left_address + 1'b1;
                    left_start <= rows_end ? {LEFT_BITS{1'b0}} : left_address + 1'b1;
                    left_address <= rows_end ? {LEFT_BITS{1'b0}} : left_address + 1'b1;
                    right_start <= {RIGHT_BITS{1'b0}};
                    right_address <= {RIGHT_BITS{1'b0}};
                end
            end
            valid_1 <= issue;
            plane_1 <= plane;
            first_1 <= inner == {INNER_BITS{1'b0}} && plane[BITS-1];
            twice_1 <= inner == {INNER_BITS{1'b0}};
            last_1 <= sum_ends;
            out_valid <= valid_1 && last_1;
            if (valid_1) out_data <= before_product + product;
        end
endmodule


// The largest number of WINDOW steps, channel by channel: one step comes out of so many. Of spikes it is OR.
module mfp_time_pool #(
    parameter CHANNELS = 1,
    parameter PLANES = 1,              // bits of each number
    parameter WINDOW = 2
) (
    input  wire              clk,
    input  wire              rst,
    input  wire              in_valid,
    output wire              in_ready,
    input  wire [PLANES-1:0] in_data,
    output wire              out_valid,
    input  wire              out_ready,
    output wire [PLANES-1:0] out_data
);
    localparam CHANNEL_BITS = (CHANNELS > 1) ? $clog2(CHANNELS) : 1;
    localparam STEP_BITS = $clog2(WINDOW);
    localparam [CHANNEL_BITS-1:0] LAST_CHANNEL = CHANNELS[CHANNEL_BITS-1:0] - 1'b1;
    localparam [STEP_BITS-1:0] LAST_STEP = WINDOW[STEP_BITS-1:0] - 1'b1;

    reg  [CHANNEL_BITS-1:0] channel;
    reg  [STEP_BITS-1:0]    step;
    reg                     is_read;       // the largest number so far of this channel is there
    wire [PLANES-1:0]       largest;
    wire                    closes = step == LAST_STEP;
    wire                    keeps_old = step != {STEP_BITS{1'b0}} && largest > in_data;

    assign out_data = keeps_old ? largest : in_data;
    assign out_valid = is_read && in_valid && closes;
    assign in_ready = is_read && (!closes || out_ready);

    mfp_ram #(.WIDTH(PLANES), .DEPTH(CHANNELS), .ADDRESS_BITS(CHANNEL_BITS)) past (
        .clk(clk), .write(in_valid && in_ready), .write_address(channel), .write_data(out_data),
        .read(1'b1), .read_address(channel), .read_data(largest)
    );

    always @(posedge clk)
        if (rst) begin
            channel <= {CHANNEL_BITS{1'b0}};
            step <= {STEP_BITS{1'b0}};
            is_read <= 1'b0;
        end else begin
            is_read <= !(in_valid && in_ready);
            if (in_valid && in_ready) begin
                channel <= (channel == LAST_CHANNEL) ? {CHANNEL_BITS{1'b0}} : channel + 1'b1;
                if (channel == LAST_CHANNEL) step <= closes ? {STEP_BITS{1'b0}} : step + 1'b1;
            end
        end
endmodule
