// SPDX-License-Identifier: MIT OR Apache-2.0

/// Follows a scatter gather list (NVM Express 1.4 §4.4).
///
/// Supported are Data Block, Bit Bucket, Segment and Last Segment descriptors with an address;
/// data blocks with DW alignment and granularity (SGLS 10b); no list longer than the data. A
/// list of more than `MaxDescriptors` descriptors ends the transfer: one that points at itself
/// would have no end.
///
/// Handshake kind: ready/valid on pieces and quad-words; `start_i` only when idle.
module ep_dma_sgl #(
  /// Descriptors of one list.
  parameter int unsigned MaxDescriptors = 8192
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// Begin a descriptor.
  input logic start_i,
  /// Low half of the SGL descriptor, length and place in local memory.
  input ep_pkg::extent_t extent_i,
  /// Its identifier and length.
  input logic [39:0] high_i,
  /// The device writes memory: the list describes a destination.
  input logic write_i,

  /// Fetch a segment.
  output logic fetch_o,
  /// Its address.
  output logic [63:3] fetch_addr_o,
  /// Its length in quad-words.
  output logic [28:0] fetch_words_o,
  /// A half of a descriptor, or the failure of its read.
  input logic word_valid_i,
  /// It is taken.
  output logic word_ready_o,
  /// The half.
  input logic [63:0] word_i,
  /// Status of its read.
  input logic [2:0] word_status_i,

  /// A piece.
  output logic piece_valid_o,
  /// The piece is taken.
  input logic piece_ready_i,
  /// The piece.
  output ep_pkg::piece_t piece_o
);
  import ep_pkg::*;

  localparam int unsigned CountW = $clog2(MaxDescriptors + 1);

  // SGL Descriptor Type.
  localparam logic [3:0] DataBlock = 4'h0;
  localparam logic [3:0] BitBucket = 4'h1;
  localparam logic [3:0] Segment = 4'h2;
  localparam logic [3:0] LastSegment = 4'h3;

  typedef struct packed {
    logic [3:0] kind;
    logic [3:0] subtype;
    logic [31:0] len;
    logic [63:0] addr;
  } sgl_t;

  typedef enum logic [2:0] {
    Idle,
    Low,  // low half of the next descriptor
    High,
    Eval,  // `sgl_q` is whole
    End
  } state_e;

  state_e state_q;
  sgl_t sgl_q;
  len_t left_q;  // data
  mem_dw_t local_q;
  logic [27:0] after_q;  // descriptors of the segment after this one
  logic in_command_q;  // the one in the registers: a segment of its own
  logic in_last_q;  // in the last segment
  logic [CountW-1:0] count_q;

  logic data;
  logic bucket;
  logic link;
  logic closing;  // the last of the list
  logic [31:0] n;  // bytes of data that it stands for
  list_code_e code;

  assign data = sgl_q.kind == DataBlock;
  assign bucket = sgl_q.kind == BitBucket;
  assign link = sgl_q.kind inside {Segment, LastSegment};
  assign closing = after_q == '0 && !link;
  // A bit bucket takes nothing from a source.
  assign n = (bucket && !write_i) ? '0 : sgl_q.len;

  always_comb begin
    code = ListOk;
    if (32'(count_q) > MaxDescriptors) begin
      code = ListNumber;
    end else if (sgl_q.subtype != '0 || !(data || bucket || link)) begin
      code = ListType;
    end else if (link) begin
      if (in_last_q) code = ListSegment;
      else if (after_q != '0) code = ListNumber;
      else if (sgl_q.len == '0 || sgl_q.len[3:0] != '0 || sgl_q.addr[2:0] != '0) code = ListSegment;
    end else if (closing && !in_last_q && !in_command_q) begin
      code = ListSegment;
    end else if (n[1:0] != '0 || (data && n != '0 && sgl_q.addr[1:0] != '0)) begin
      code = ListGranularity;
    end else if (n > 32'(left_q)) begin
      code = ListLength;
    end
  end

  assign fetch_o = state_q == Eval && link && code == ListOk;
  assign fetch_addr_o = sgl_q.addr[63:3];
  assign fetch_words_o = sgl_q.len[31:3];

  logic reading;
  logic failed;
  logic move;
  logic fire;

  assign reading = state_q inside {Low, High};
  assign failed = reading && word_valid_i && word_status_i != '0;
  assign move = state_q == Eval && code == ListOk && data && n != '0;
  assign piece_valid_o = failed || move || state_q == End || (state_q == Eval && code != ListOk);
  assign fire = piece_valid_o && piece_ready_i;
  assign word_ready_o = reading && (word_status_i == '0 || piece_ready_i);

  always_comb begin
    piece_o = '0;
    piece_o.extent = '{local_dw: local_q, len: n[22:0], addr: sgl_q.addr};
    piece_o.move = move;
    piece_o.last = !move;
    if (failed) begin
      piece_o.status = word_status_i;
      piece_o.code = ListReadFailed;
    end else if (state_q == End) begin
      piece_o.code = (left_q == '0) ? ListOk : ListLength;
    end else if (!move) begin
      piece_o.code = code;
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= Idle;
      sgl_q <= '0;
      left_q <= '0;
      local_q <= '0;
      after_q <= '0;
      in_command_q <= 1'b0;
      in_last_q <= 1'b0;
      count_q <= '0;
    end else begin
      unique case (state_q)
        Idle: begin
          if (start_i) begin
            state_q <= Eval;
            sgl_q <= {high_i, extent_i.addr};
            left_q <= extent_i.len;
            local_q <= extent_i.local_dw;
            after_q <= '0;
            in_command_q <= 1'b1;
            in_last_q <= 1'b0;
            count_q <= CountW'(1);
          end
        end
        Low: begin
          if (word_valid_i && !failed) begin
            state_q <= High;
            sgl_q[63:0] <= word_i;
          end
        end
        High: begin
          if (word_valid_i && !failed) begin
            state_q <= Eval;
            // Reserved bits are not looked at.
            sgl_q[103:64] <= {word_i[63:56], word_i[31:0]};
            after_q <= after_q - 28'd1;
            count_q <= count_q + CountW'(1);
          end
        end
        Eval: begin
          if (fetch_o) begin
            state_q <= Low;
            after_q <= sgl_q.len[31:4];
            in_command_q <= 1'b0;
            in_last_q <= sgl_q.kind == LastSegment;
          end else if (code == ListOk && (fire || !move)) begin
            state_q <= closing ? End : Low;
            left_q <= left_q - n[22:0];
            local_q <= local_q + mem_dw_t'(n >> 2);
          end
        end
        default: ;
      endcase
      if (fire && piece_o.last) state_q <= Idle;
    end
  end

  assert property (@(posedge clk_i) disable iff (!rst_ni) !start_i || state_q == Idle);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !reading || word_valid_i || !fire);
  assert property (@(posedge clk_i) disable iff (!rst_ni) state_q != High || after_q != '0);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !move || n <= 32'(left_q));

endmodule
