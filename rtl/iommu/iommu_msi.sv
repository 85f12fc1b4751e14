// SPDX-License-Identifier: MIT OR Apache-2.0

/// Interrupt pending register (IOMMU §5.18) and the messages that its bits cause (§5.28, §5.29).
/// A vector becomes pending when an ipsr bit mapped to it goes from 0 to 1, and sends one message
/// as soon as it is not masked; with fctl.WSI the bits drive wires instead.
module iommu_msi
  import iommu_pkg::*;
  import iommu_int_pkg::*;
(
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,

    /// A condition stands, by source: {pip, pmip, fip, cip}; its bit is set while 1.
    input logic [3:0] level_i,
    /// Something has happened, one cycle: its bit is set.
    input logic [3:0] event_i,
    /// Write of 1 to ipsr, one cycle.
    input logic [3:0] clear_i,
    /// ipsr.
    output logic [3:0] ipsr_o,

    /// icvec: {piv, pmiv, fiv, civ}.
    input logic [3:0][3:0] vector_i,
    /// fctl.WSI: wires instead of messages.
    input logic wsi_i,
    /// The wires, level.
    output logic [15:0] wsi_o,
    /// msi_cfg_tbl.
    input msi_cfg_t [15:0] cfg_i,

    /// A message met an access fault; ready/valid.
    output logic fault_valid_o,
    /// Taken.
    input logic fault_ready_i,
    /// Address of that message.
    output logic [55:0] fault_addr_o,

    /// Memory request.
    output logic mem_valid_o,
    /// Memory request taken.
    input logic mem_ready_i,
    /// Memory request.
    output mem_req_t mem_req_o,
    /// Response beat for this client.
    input logic mem_rsp_valid_i,
    /// Access fault.
    input logic mem_rsp_error_i
);
  typedef enum logic [1:0] { StIdle, StWrite, StRsp, StFault } state_e;
  state_e state_q, state_d;
  logic [3:0] ipsr_q, ipsr_d, rise, event_q;
  logic [15:0] pending_q, pending_d, unmasked, sendable;
  logic [3:0] vector;
  logic [55:2] addr_q;
  logic [31:0] data_q;
  logic send;

  // A cleared bit is 0 for one cycle, so that a condition that still stands makes a new edge.
  assign ipsr_d = ~clear_i & (ipsr_q | level_i | event_i | event_q);
  assign rise = ipsr_d & ~ipsr_q;
  assign ipsr_o = ipsr_q;

  always_comb begin
    for (int unsigned i = 0; i < 16; i++) unmasked[i] = !cfg_i[i].mask;
  end
  assign sendable = pending_q & unmasked;
  always_comb begin
    vector = '0;
    for (int i = 15; i >= 0; i--) begin
      if (sendable[i]) vector = 4'(i);
    end
  end
  assign send = state_q == StIdle && |sendable;

  always_comb begin
    pending_d = pending_q;
    if (send) pending_d[vector] = 1'b0;
    for (int unsigned i = 0; i < 4; i++) begin
      if (rise[i] && !wsi_i) pending_d[vector_i[i]] = 1'b1;
    end
  end

  always_comb begin
    state_d = state_q;
    unique case (state_q)
      StIdle:  if (send) state_d = StWrite;
      StWrite: if (mem_ready_i) state_d = StRsp;
      StRsp:   if (mem_rsp_valid_i) state_d = mem_rsp_error_i ? StFault : StIdle;
      default: if (fault_ready_i) state_d = StIdle;
    endcase
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StIdle;
      ipsr_q <= '0;
      event_q <= '0;
      pending_q <= '0;
    end else begin
      state_q <= state_d;
      ipsr_q <= ipsr_d;
      event_q <= event_i & clear_i;  // an event in the cycle of a clear comes after it
      pending_q <= pending_d;
    end
  end
  always_ff @(posedge clk_i) begin
    if (send) begin
      addr_q <= cfg_i[vector].addr;
      data_q <= cfg_i[vector].data;
    end
  end

  always_comb begin
    wsi_o = '0;
    for (int unsigned i = 0; i < 4; i++) begin
      if (ipsr_q[i] && wsi_i) wsi_o[vector_i[i]] = 1'b1;
    end
  end

  assign mem_valid_o = state_q == StWrite;
  assign mem_req_o = '{
      rcid: '0,
      mcid: '0,
      pbmt: '0,
      op: MemWrite,
      addr: {addr_q, 2'b00},
      len_dw: 5'd1,
      wdata: {224'd0, data_q}
  };
  assign fault_valid_o = state_q == StFault;
  assign fault_addr_o = {addr_q, 2'b00};

  assert property (@(posedge clk_i) disable iff (!rst_ni) !mem_rsp_valid_i || state_q == StRsp);
endmodule
