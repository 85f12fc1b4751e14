// SPDX-License-Identifier: MIT OR Apache-2.0

/// Sends one TLP for each job, in order: fetches the payload from the local memory or makes it,
/// one beat a cycle.
///
/// Handshake kind: ready/valid on jobs and memory reads (data one cycle after the handshake). The
/// output is stable until taken; `tx_ready_i` is the ready bit of the class of the TLP shown.
module ep_tlp_source #(
  /// Beat type.
  parameter type beat_t = tlp_pkg::tlp_beat256_t,
  /// Beat width in bits, as in `beat_t`.
  parameter int unsigned DataW = $bits(beat_t) - $bits(tlp_pkg::tlp_head_t) - 2
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// A job is offered.
  input logic job_valid_i,
  /// The job is taken.
  output logic job_ready_o,
  /// The job.
  input ep_pkg::src_job_t job_i,

  /// Memory read request.
  output logic rd_valid_o,
  /// The request is taken.
  input logic rd_ready_i,
  /// DW address of lane 0.
  output ep_pkg::mem_dw_t rd_dw_o,
  /// Data, one cycle after the handshake.
  input logic [DataW-1:0] rd_data_i,

  /// Beat out.
  output beat_t tx_beat_o,
  /// Beat out is valid.
  output logic tx_valid_o,
  /// Beat out is taken.
  input logic tx_ready_i
);
  import tlp_pkg::*;
  import ep_pkg::*;

  localparam int unsigned Lanes = DataW / 32;
  // Covers the two cycles from a memory request to the beat's leaving.
  localparam int unsigned Depth = 4;

  typedef struct packed {
    logic sop;
    logic eop;
    logic [DataW-1:0] data;
  } payload_t;

  // Walk: one beat a cycle.
  logic busy_q;
  logic first_q;
  src_job_t job_q;
  logic last;
  logic room;
  logic step;
  logic [$clog2(Depth+1)-1:0] level;

  // Fetch: the beat whose memory data is there.
  logic fetch_q;
  logic fetch_sop_q;
  logic fetch_eop_q;
  src_kind_e fetch_kind_q;
  logic [31:0] fetch_n_q;
  logic [31:0] fetch_seed_q;
  logic [63:0] fetch_imm_q;

  assign last = job_q.len_dw <= 11'(Lanes);
  assign room = 32'(level) + 32'(fetch_q) < Depth;
  assign rd_valid_o = busy_q && room && job_q.kind == SrcMem;
  assign rd_dw_o = job_q.local_dw;
  assign step = busy_q && room && (job_q.kind != SrcMem || rd_ready_i);
  assign job_ready_o = !busy_q || (step && last);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      busy_q <= 1'b0;
      first_q <= 1'b0;
      job_q <= '0;
    end else if (job_ready_o) begin
      busy_q <= job_valid_i;
      first_q <= 1'b1;
      job_q <= job_i;
    end else if (step) begin
      first_q <= 1'b0;
      job_q.len_dw <= job_q.len_dw - 11'(Lanes);
      job_q.local_dw <= job_q.local_dw + mem_dw_t'(Lanes);
      job_q.gen_n <= job_q.gen_n + 32'(Lanes);
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      fetch_q <= 1'b0;
      fetch_sop_q <= 1'b0;
      fetch_eop_q <= 1'b0;
      fetch_kind_q <= SrcNone;
      fetch_n_q <= '0;
      fetch_seed_q <= '0;
      fetch_imm_q <= '0;
    end else begin
      fetch_q <= step;
      fetch_sop_q <= first_q;
      fetch_eop_q <= last;
      fetch_kind_q <= job_q.kind;
      fetch_n_q <= job_q.gen_n;
      fetch_seed_q <= job_q.gen_seed;
      fetch_imm_q <= job_q.imm;
    end
  end

  payload_t fetched;

  always_comb begin
    fetched = '0;
    fetched.sop = fetch_sop_q;
    fetched.eop = fetch_eop_q;
    unique case (fetch_kind_q)
      SrcMem: fetched.data = rd_data_i;
      SrcGen: begin
        for (int unsigned i = 0; i < Lanes; i++) begin
          fetched.data[32*i+:32] = pattern(fetch_n_q + i, fetch_seed_q);
        end
      end
      SrcImm: fetched.data[63:0] = fetch_imm_q;
      default: ;
    endcase
  end

  // Heads wait beside the payload, one for each TLP.
  payload_t out;
  tlp_head_t head;
  logic payload_room;
  logic head_room;
  logic head_valid;
  logic [$clog2(Depth+2)-1:0] heads;

  fifo #(.T(payload_t), .Depth(Depth)) i_payload (
    .clk_i, .rst_ni,
    .wvalid_i(fetch_q), .wready_o(payload_room), .wdata_i(fetched),
    .rvalid_o(tx_valid_o), .rready_i(tx_ready_i), .rdata_o(out),
    .depth_o(level)
  );

  fifo #(.T(tlp_head_t), .Depth(Depth + 1)) i_heads (
    .clk_i, .rst_ni,
    .wvalid_i(step && first_q), .wready_o(head_room), .wdata_i(job_q.head),
    .rvalid_o(head_valid), .rready_i(tx_valid_o && tx_ready_i && out.eop), .rdata_o(head),
    .depth_o(heads)
  );

  always_comb begin
    tx_beat_o = '0;
    tx_beat_o.sop = out.sop;
    tx_beat_o.eop = out.eop;
    tx_beat_o.head = head;
    tx_beat_o.data = out.data;
  end

  assert property (@(posedge clk_i) disable iff (!rst_ni) !fetch_q || payload_room);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !(step && first_q) || head_room);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !tx_valid_o || head_valid);
  assert property (@(posedge clk_i) disable iff (!rst_ni) heads <= 3'(Depth + 1));

endmodule
