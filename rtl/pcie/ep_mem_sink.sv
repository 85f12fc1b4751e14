// SPDX-License-Identifier: MIT OR Apache-2.0

/// Turns the payload beats of a received TLP into writes of the local memory.
///
/// Handshake kind: valid only; a beat is always taken. Combinational from beat to write.
module ep_mem_sink #(
  /// Beat width in bits.
  parameter int unsigned DataW = 256
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// A payload beat.
  input logic valid_i,
  /// First beat of its TLP: `job_i` says where the payload goes.
  input logic sop_i,
  /// Destination of the TLP.
  input ep_pkg::sink_job_t job_i,
  /// Payload, DW 0 of the TLP at lane 0 of its first beat.
  input logic [DataW-1:0] data_i,

  /// Write a beat.
  output logic wr_valid_o,
  /// DW address of lane 0.
  output ep_pkg::mem_dw_t wr_dw_o,
  /// Data.
  output logic [DataW-1:0] wr_data_o,
  /// Byte enables.
  output logic [DataW/8-1:0] wr_be_o
);
  import ep_pkg::*;

  localparam int unsigned Lanes = DataW / 32;

  sink_job_t rest_q;  // what follows the beats taken
  sink_job_t job;

  assign job = sop_i ? job_i : rest_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      rest_q <= '0;
    end else if (valid_i) begin
      rest_q <= job;
      rest_q.local_dw <= job.local_dw + mem_dw_t'(Lanes);
      rest_q.len_dw <= (job.len_dw > 11'(Lanes)) ? job.len_dw - 11'(Lanes) : '0;
    end
  end

  always_comb begin
    for (int unsigned i = 0; i < Lanes; i++) begin
      if (11'(i) >= job.len_dw) wr_be_o[4*i+:4] = '0;
      else if (sop_i && i == 0) wr_be_o[4*i+:4] = job.first_be;
      else if (11'(i) + 11'd1 == job.len_dw) wr_be_o[4*i+:4] = job.last_be;
      else wr_be_o[4*i+:4] = '1;
    end
  end

  assign wr_valid_o = valid_i && job.en;
  assign wr_dw_o = job.local_dw;
  assign wr_data_o = data_i;

endmodule
