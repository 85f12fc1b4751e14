// SPDX-License-Identifier: MIT OR Apache-2.0

/// PCIe messages: page requests go to their queue, supported Invalidate Completions to the account of
/// ATS commands; responses and Invalidate Requests share the way out. Without ATS messages are taken
/// and ignored.
module iommu_messages
  import iommu_pkg::*;
  import iommu_int_pkg::*;
#(
    /// Capabilities.
    parameter iommu_cfg_t Cfg = CfgBase,
    /// Cycles until an Invalidate Request times out.
    parameter longint unsigned AtsTimeoutCycles = 64'd15_000_000_000
) (
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,

    /// Register accessed: byte offset in doublewords.
    input logic [8:0] reg_no_i,
    /// Write of its low half.
    input logic wr_lo_i,
    /// Write of its high half.
    input logic wr_hi_i,
    /// Write data.
    input logic [63:0] wdata_i,
    /// Its value, 0 if it is not here.
    output logic [63:0] rdata_o,
    /// fctl.BE.
    input logic be_i,
    /// ipsr.pip is set while 1.
    output logic level_o,
    /// ipsr.pip is set, one cycle.
    output logic event_o,

    /// Message of a device; ready/valid, stable until taken.
    input logic msg_in_valid_i,
    /// Message taken.
    output logic msg_in_ready_o,
    /// Message.
    input msg_in_t msg_in_i,
    /// Message for a device; ready/valid, stable until taken.
    output logic msg_out_valid_o,
    /// Message taken.
    input logic msg_out_ready_i,
    /// Message.
    output msg_out_t msg_out_o,

    /// ATS command; ready/valid.
    input logic cmd_valid_i,
    /// Its message has been sent.
    output logic cmd_ready_o,
    /// 1: ATS.PRGR, 0: ATS.INVAL.
    input logic cmd_prgr_i,
    /// The command.
    input logic [127:0] cmd_i,
    /// An Invalidate Request is outstanding.
    output logic busy_o,
    /// One has timed out since the last acknowledgement.
    output logic timeout_o,
    /// The timeout has been reported, one cycle.
    input logic timeout_ack_i,

    /// Locate the device context; ready/valid.
    output logic dir_req_valid_o,
    /// Taken.
    input logic dir_req_ready_i,
    /// Request.
    output dir_req_t dir_req_o,
    /// Answer; valid only.
    input logic dir_rsp_valid_i,
    /// Answer.
    input dir_rsp_t dir_rsp_i,

    /// Fault to report; ready/valid.
    output logic fault_valid_o,
    /// Taken.
    input logic fault_ready_i,
    /// Fault.
    output fault_t fault_o,

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
  if (Cfg.ats) begin : gen_ats
    logic pq_rsp_valid, pq_rsp_ready, ats_msg_valid, ats_msg_ready, sel_q, sel, completion_valid;
    msg_in_t completion;
    msg_out_t pq_rsp, ats_msg;

    iommu_pq #(
        .Cfg(Cfg)
    ) u_pq (
        .clk_i,
        .rst_ni,
        .reg_no_i       (reg_no_i),
        .wr_lo_i        (wr_lo_i),
        .wr_hi_i        (wr_hi_i),
        .wdata_i        (wdata_i),
        .rdata_o        (rdata_o),
        .be_i           (be_i),
        .level_o        (level_o),
        .event_o        (event_o),
        .msg_valid_i    (msg_in_valid_i),
        .msg_ready_o    (msg_in_ready_o),
        .msg_i          (msg_in_i),
        .completion_valid_o(completion_valid),
        .completion_o      (completion),
        .rsp_valid_o    (pq_rsp_valid),
        .rsp_ready_i    (pq_rsp_ready),
        .rsp_o          (pq_rsp),
        .dir_req_valid_o(dir_req_valid_o),
        .dir_req_ready_i(dir_req_ready_i),
        .dir_req_o      (dir_req_o),
        .dir_rsp_valid_i(dir_rsp_valid_i),
        .dir_rsp_i      (dir_rsp_i),
        .fault_valid_o  (fault_valid_o),
        .fault_ready_i  (fault_ready_i),
        .fault_o        (fault_o),
        .mem_valid_o    (mem_valid_o),
        .mem_ready_i    (mem_ready_i),
        .mem_req_o      (mem_req_o),
        .mem_rsp_valid_i(mem_rsp_valid_i),
        .mem_rsp_error_i(mem_rsp_error_i)
    );

    iommu_ats #(
        .TimeoutCycles(AtsTimeoutCycles)
    ) u_ats (
        .clk_i,
        .rst_ni,
        .cmd_valid_i       (cmd_valid_i),
        .cmd_ready_o       (cmd_ready_o),
        .cmd_prgr_i        (cmd_prgr_i),
        .cmd_dw0_i         (cmd_i[63:0]),
        .cmd_payload_i     (cmd_i[127:64]),
        .busy_o            (busy_o),
        .timeout_o         (timeout_o),
        .timeout_ack_i     (timeout_ack_i),
        .completion_valid_i(completion_valid),
        .completion_i      (completion),
        .msg_valid_o       (ats_msg_valid),
        .msg_ready_i       (ats_msg_ready),
        .msg_o             (ats_msg)
    );

    // A message that is offered stays until it is taken.
    logic held_q;
    assign sel = held_q ? sel_q : !pq_rsp_valid;
    assign msg_out_valid_o = sel ? ats_msg_valid : pq_rsp_valid;
    assign msg_out_o = sel ? ats_msg : pq_rsp;
    assign ats_msg_ready = sel && msg_out_ready_i;
    assign pq_rsp_ready = !sel && msg_out_ready_i;
    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) begin
        held_q <= 1'b0;
        sel_q <= 1'b0;
      end else begin
        held_q <= msg_out_valid_o && !msg_out_ready_i;
        sel_q <= sel;
      end
    end
    assert property (@(posedge clk_i) disable iff (!rst_ni)
        !$past(msg_out_valid_o && !msg_out_ready_i) ||
        (msg_out_valid_o && $stable(msg_out_o)));
  end else begin : gen_no_ats
    assign rdata_o = '0;
    assign level_o = 1'b0;
    assign event_o = 1'b0;
    assign fault_valid_o = 1'b0;
    assign fault_o = '0;
    assign dir_req_valid_o = 1'b0;
    assign dir_req_o = '0;
    assign {cmd_ready_o, busy_o, timeout_o} = '0;
    assign msg_in_ready_o = 1'b1;
    assign msg_out_valid_o = 1'b0;
    assign msg_out_o = '0;
    assign mem_valid_o = 1'b0;
    assign mem_req_o = '0;
    logic unused_ats;
    assign unused_ats = ^{clk_i, rst_ni, reg_no_i, wr_lo_i, wr_hi_i, wdata_i, be_i, msg_in_valid_i,
                          msg_in_i, msg_out_ready_i, cmd_valid_i, cmd_prgr_i, cmd_i, timeout_ack_i,
                          dir_req_ready_i, dir_rsp_valid_i, dir_rsp_i, fault_ready_i, mem_ready_i,
                          mem_rsp_valid_i, mem_rsp_error_i};
  end
endmodule
