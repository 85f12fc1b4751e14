// SPDX-License-Identifier: MIT OR Apache-2.0

/// Requests of one port and class between arrival and release. Slots are taken in order, issued
/// for translation in order, answered in any order, released in order.
///
/// Handshake kinds: ready/valid for `alloc`, `iss` and `out`; valid only for `fill`.
module hb_slots #(
  /// Width of a slot number; 2**IdxW slots.
  parameter int unsigned IdxW = 3,
  /// Width of the ordering stamp kept with a request.
  parameter int unsigned StampW = 24
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// A request arrives.
  input logic alloc_valid_i,
  /// A slot is free.
  output logic alloc_ready_o,
  /// Its header and prefix.
  input tlp_pkg::tlp_head_t alloc_head_i,
  /// Its ordering stamp.
  input logic [StampW-1:0] alloc_stamp_i,
  /// It needs no translation: it is refused with `alloc_status_i`.
  input logic alloc_refuse_i,
  /// See `alloc_refuse_i`.
  input logic [2:0] alloc_status_i,

  /// A request is ready for translation.
  output logic iss_valid_o,
  /// It is taken.
  input logic iss_ready_i,
  /// Its slot.
  output logic [IdxW-1:0] iss_idx_o,
  /// Its header and prefix.
  output tlp_pkg::tlp_head_t iss_head_o,

  /// Slot that a translation has come for.
  input logic [IdxW-1:0] fill_idx_i,
  /// Header and prefix in that slot.
  output tlp_pkg::tlp_head_t fill_head_o,
  /// The outcome is written.
  input logic fill_valid_i,
  /// The outcome.
  input bridge_pkg::resolved_t fill_res_i,

  /// The oldest request has its outcome.
  output logic out_valid_o,
  /// It is released.
  input logic out_ready_i,
  /// Its slot.
  output logic [IdxW-1:0] out_idx_o,
  /// Its header and prefix.
  output tlp_pkg::tlp_head_t out_head_o,
  /// Its stamp.
  output logic [StampW-1:0] out_stamp_o,
  /// Its outcome.
  output bridge_pkg::resolved_t out_res_o,

  /// Slots that have an outcome and are not released.
  output logic [2**IdxW-1:0] answered_o,
  /// A slot is in use.
  output logic busy_o
);

  localparam int unsigned Num = 2 ** IdxW;

  tlp_pkg::tlp_head_t head_q[Num];
  bridge_pkg::resolved_t res_q[Num];
  logic [StampW-1:0] stamp_q[Num];
  logic [Num-1:0] done_q;
  // One bit more than the index tells full from empty.
  logic [IdxW:0] alloc_q;
  logic [IdxW:0] iss_q;
  logic [IdxW:0] out_q;
  logic alloc;
  logic skip;

  assign alloc_ready_o = alloc_q - out_q != (IdxW + 1)'(Num);
  assign alloc = alloc_valid_i && alloc_ready_o;

  // A refused request is done from the beginning.
  assign skip = iss_q != alloc_q && done_q[iss_q[IdxW-1:0]];
  assign iss_valid_o = iss_q != alloc_q && !done_q[iss_q[IdxW-1:0]];
  assign iss_idx_o = iss_q[IdxW-1:0];
  assign iss_head_o = head_q[iss_q[IdxW-1:0]];

  assign fill_head_o = head_q[fill_idx_i];

  // Release waits for the issue pointer, so that it never falls behind.
  assign out_valid_o = out_q != iss_q && done_q[out_q[IdxW-1:0]];
  assign out_idx_o = out_q[IdxW-1:0];
  assign out_head_o = head_q[out_q[IdxW-1:0]];
  assign out_stamp_o = stamp_q[out_q[IdxW-1:0]];
  assign out_res_o = res_q[out_q[IdxW-1:0]];
  assign answered_o = done_q;
  assign busy_o = alloc_q != out_q;

  // A slot is filled or allocated, never both: a filled one is in use.
  always_ff @(posedge clk_i) begin
    if (alloc) begin
      head_q[alloc_q[IdxW-1:0]] <= alloc_head_i;
      stamp_q[alloc_q[IdxW-1:0]] <= alloc_stamp_i;
      res_q[alloc_q[IdxW-1:0]] <= '{
        dest: bridge_pkg::DestNone,
        cpl_status: alloc_status_i,
        attr: '0,
        addr: '0
      };
    end
    if (fill_valid_i) res_q[fill_idx_i] <= fill_res_i;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      alloc_q <= '0;
      iss_q <= '0;
      out_q <= '0;
      done_q <= '0;
    end else begin
      if (alloc) begin
        alloc_q <= alloc_q + (IdxW + 1)'(1);
        done_q[alloc_q[IdxW-1:0]] <= alloc_refuse_i;
      end
      if (skip || (iss_valid_o && iss_ready_i)) iss_q <= iss_q + (IdxW + 1)'(1);
      if (fill_valid_i) done_q[fill_idx_i] <= 1'b1;
      if (out_valid_o && out_ready_i) begin
        out_q <= out_q + (IdxW + 1)'(1);
        done_q[out_q[IdxW-1:0]] <= 1'b0;
      end
    end
  end

  // An answer is for an issued request that has none yet.
  logic [IdxW-1:0] fill_age;
  logic [IdxW:0] issued;
  assign fill_age = fill_idx_i - out_q[IdxW-1:0];
  assign issued = iss_q - out_q;
  assert property (@(posedge clk_i) disable iff (!rst_ni) !fill_valid_i || !done_q[fill_idx_i]);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !fill_valid_i
      || {1'b0, fill_age} < issued);

endmodule
