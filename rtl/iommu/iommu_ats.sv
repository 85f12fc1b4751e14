// SPDX-License-Identifier: MIT OR Apache-2.0

/// Commands ATS.INVAL and ATS.PRGR (IOMMU §3.1.4): sends their messages, and keeps account of the
/// Invalidate Requests that devices have not completed (PCIe 6.0 §10.3).
module iommu_ats
  import iommu_pkg::*;
#(
    /// Cycles after which an Invalidate Request has timed out; an eighth more at most.
    parameter longint unsigned TimeoutCycles = 64'd15_000_000_000
) (
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,

    /// Command; ready/valid.
    input logic cmd_valid_i,
    /// Its message has been sent.
    output logic cmd_ready_o,
    /// 1: ATS.PRGR, 0: ATS.INVAL.
    input logic cmd_prgr_i,
    /// First doubleword.
    input logic [63:0] cmd_dw0_i,
    /// PAYLOAD.
    input logic [63:0] cmd_payload_i,
    /// An Invalidate Request is outstanding.
    output logic busy_o,
    /// One has timed out since the last acknowledgement.
    output logic timeout_o,
    /// The timeout has been reported, one cycle.
    input logic timeout_ack_i,

    /// Invalidate Completion; valid only, always taken.
    input logic completion_valid_i,
    /// Message.
    input msg_in_t completion_i,
    /// Message for a device; ready/valid.
    output logic msg_valid_o,
    /// Taken.
    input logic msg_ready_i,
    /// Message.
    output msg_out_t msg_o
);
  localparam int unsigned NumTags = 32;
  localparam longint unsigned TickCycles = TimeoutCycles / 8;

  logic [NumTags-1:0] used_q, counting_q, done, expired;
  logic [NumTags-1:0][23:0] device_id_q;
  logic [NumTags-1:0][2:0] left_q;  // completions still to come, less one, once counting
  logic [NumTags-1:0][3:0] age_q;
  logic [63:0] tick_q;
  logic tick, allocate, timeout_q;
  logic [4:0] lowest, free_tag, tag_q;
  logic any_free, offered_q;

  always_comb begin
    lowest = '0;
    any_free = used_q != '1;
    for (int i = int'(NumTags) - 1; i >= 0; i--) begin
      if (!used_q[i]) lowest = 5'(i);
    end
  end
  // A message that waits keeps its tag.
  assign free_tag = offered_q ? tag_q : lowest;

  assign msg_valid_o = cmd_valid_i && (cmd_prgr_i || any_free);
  assign cmd_ready_o = msg_valid_o && msg_ready_i;
  assign allocate = cmd_ready_o && !cmd_prgr_i;
  always_comb begin
    msg_o = '0;
    msg_o.prg_response = cmd_prgr_i;
    // DSV: the segment of the destination is given.
    msg_o.device_id = {cmd_dw0_i[33] ? cmd_dw0_i[63:56] : 8'd0, cmd_dw0_i[55:40]};
    msg_o.pid_valid = cmd_dw0_i[32];
    msg_o.process_id = cmd_dw0_i[32] ? cmd_dw0_i[31:12] : '0;
    if (cmd_prgr_i) begin
      msg_o.prgi = cmd_payload_i[40:32];
      msg_o.code = cmd_payload_i[47:44];
    end else begin
      msg_o.itag = free_tag;
      msg_o.body = cmd_payload_i;
    end
  end

  // The device says with each completion how many it sends (CC); a tag is free after that many.
  logic [NumTags-1:0] completed;
  logic [2:0] first_left;
  assign first_left = completion_i.count - 3'd1;  // 0 means 8
  always_comb begin
    for (int unsigned i = 0; i < NumTags; i++) begin
      completed[i] = completion_valid_i && completion_i.itag_vector[i] && used_q[i] &&
                     device_id_q[i] == completion_i.device_id;
      done[i] = completed[i] && (counting_q[i] ? left_q[i] == 3'd0 : first_left == 3'd0);
      expired[i] = used_q[i] && age_q[i] == 4'd9 && !done[i];
    end
  end

  assign tick = tick_q == TickCycles - 1;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      used_q <= '0;
      counting_q <= '0;
      tick_q <= '0;
      timeout_q <= 1'b0;
      offered_q <= 1'b0;
    end else begin
      offered_q <= msg_valid_o && !msg_ready_i;
      tick_q <= tick ? '0 : tick_q + 64'd1;
      timeout_q <= |expired || (timeout_q && !timeout_ack_i);
      used_q <= used_q & ~done & ~expired;
      counting_q <= (counting_q | completed) & ~done;
      if (allocate) begin
        used_q[free_tag] <= 1'b1;
        counting_q[free_tag] <= 1'b0;
      end
    end
  end
  always_ff @(posedge clk_i) begin
    for (int unsigned i = 0; i < NumTags; i++) begin
      if (completed[i]) left_q[i] <= (counting_q[i] ? left_q[i] : first_left) - 3'd1;
      if (tick && age_q[i] != 4'd9) age_q[i] <= age_q[i] + 4'd1;
    end
    tag_q <= free_tag;
    if (allocate) begin
      device_id_q[free_tag] <= msg_o.device_id;
      age_q[free_tag] <= '0;
    end
  end
  assign busy_o = used_q != '0;
  assign timeout_o = timeout_q;

  logic unused;
  assign unused = ^{cmd_dw0_i, completion_i};

  if (TimeoutCycles < 8) begin : gen_timeout
    $error("a timeout is at least 8 cycles, as it is counted in eighths");
  end

  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !$past(msg_valid_o && !msg_ready_i) || (msg_valid_o && $stable(msg_o)));
endmodule
