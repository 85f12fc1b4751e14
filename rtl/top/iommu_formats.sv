// SPDX-License-Identifier: MIT OR Apache-2.0

/// Six IOMMUs behind one set of ports, for the block tests: one with base-format device contexts, one
/// with extended-format ones (capabilities.MSI_FLAT), one with everything, one with the least, one with
/// the other choices, one with parts of features. A strap chooses; the others have no clock.
module iommu_formats
  import iommu_pkg::*;
#(
    /// Which of them there are, a bit each: fewer are built faster.
    parameter int unsigned Present = 63
) (
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,
    /// 0: base format, 1: extended format, 2: everything, 3: the least, 4: the other choices,
    /// 5: parts of features; static.
    input logic [2:0] config_i,

    /// Translation request; ready/valid, stable until taken.
    input logic tr_req_valid_i,
    /// Request taken.
    output logic tr_req_ready_o,
    /// Request.
    input tr_req_t tr_req_i,
    /// Answer; valid only.
    output logic tr_rsp_valid_o,
    /// Answer.
    output tr_rsp_t tr_rsp_o,

    /// Memory request; ready/valid, stable until taken.
    output logic mem_req_valid_o,
    /// Memory request taken.
    input logic mem_req_ready_i,
    /// Memory request.
    output iommu_mem_req_t mem_req_o,
    /// Response beat; valid only.
    input logic mem_rsp_valid_i,
    /// Response beat.
    input iommu_mem_rsp_t mem_rsp_i,

    /// Write into a memory-resident interrupt file; ready/valid.
    input logic mrif_req_valid_i,
    /// Write taken.
    output logic mrif_req_ready_o,
    /// Write.
    input mrif_req_t mrif_req_i,
    /// The write is done, one cycle.
    output logic mrif_done_o,

    /// Message of a device; ready/valid.
    input logic msg_in_valid_i,
    /// Message taken.
    output logic msg_in_ready_o,
    /// Message.
    input msg_in_t msg_in_i,
    /// Message for a device; ready/valid.
    output logic msg_out_valid_o,
    /// Message taken.
    input logic msg_out_ready_i,
    /// Message.
    output msg_out_t msg_out_o,
    /// Wired interrupts.
    output logic [15:0] wsi_o,

    /// Register access, one cycle.
    input logic reg_req_valid_i,
    /// 1 write.
    input logic reg_req_write_i,
    /// Byte offset.
    input logic [11:0] reg_req_addr_i,
    /// Byte enables.
    input logic [7:0] reg_req_be_i,
    /// Write data.
    input logic [63:0] reg_req_wdata_i,
    /// Response, one cycle.
    output logic reg_rsp_valid_o,
    /// Read data.
    output logic [63:0] reg_rsp_rdata_o,

    /// To the bridge: make visible what has been translated.
    output logic drain_req_o,
    /// Acknowledge, one cycle.
    input logic drain_ack_i
);
  localparam int unsigned Num = 6;
  localparam iommu_cfg_t [Num-1:0] Cfgs = {
    CfgPartial, CfgOther, CfgMinimal, CfgFull, CfgMsiFlat, CfgBase
  };

  logic [Num-1:0] tr_req_ready, tr_rsp_valid, mem_req_valid, reg_rsp_valid, drain_req;
  logic [Num-1:0] mrif_req_ready, mrif_done, msg_in_ready, msg_out_valid;
  tr_rsp_t [Num-1:0] tr_rsp;
  iommu_mem_req_t [Num-1:0] mem_req;
  msg_out_t [Num-1:0] msg_out;
  logic [Num-1:0][15:0] wsi;
  logic [Num-1:0][63:0] reg_rsp_rdata;

  for (genvar i = 0; i < Num; i++) begin : gen_format
    logic on, clk;
    assign on = config_i == 3'(i);
    assign clk = clk_i & on;
    if (Present[i]) begin : gen_present
      iommu #(
          .Cfg(Cfgs[i]),
          .WalkEntries(i == 2 ? 16 : i == 4 ? 4 : 0),
          .AtsTimeoutCycles(8000)  // short enough to be seen
      ) i_iommu (
          .clk_i(clk),
          .rst_ni,
          .tr_req_valid_i(tr_req_valid_i && on),
          .tr_req_ready_o(tr_req_ready[i]),
          .tr_req_i,
          .tr_rsp_valid_o(tr_rsp_valid[i]),
          .tr_rsp_o(tr_rsp[i]),
          .mem_req_valid_o(mem_req_valid[i]),
          .mem_req_ready_i(mem_req_ready_i && on),
          .mem_req_o(mem_req[i]),
          .mem_rsp_valid_i(mem_rsp_valid_i && on),
          .mem_rsp_i,
          .mrif_req_valid_i(mrif_req_valid_i && on),
          .mrif_req_ready_o(mrif_req_ready[i]),
          .mrif_req_i,
          .mrif_done_o(mrif_done[i]),
          .msg_in_valid_i(msg_in_valid_i && on),
          .msg_in_ready_o(msg_in_ready[i]),
          .msg_in_i,
          .msg_out_valid_o(msg_out_valid[i]),
          .msg_out_ready_i(msg_out_ready_i && on),
          .msg_out_o(msg_out[i]),
          .wsi_o(wsi[i]),
          .reg_req_valid_i(reg_req_valid_i && on),
          .reg_req_write_i,
          .reg_req_addr_i,
          .reg_req_be_i,
          .reg_req_wdata_i,
          .reg_rsp_valid_o(reg_rsp_valid[i]),
          .reg_rsp_rdata_o(reg_rsp_rdata[i]),
          .drain_req_o(drain_req[i]),
          .drain_ack_i(drain_ack_i && on)
      );
    end else begin : gen_absent
      assign tr_req_ready[i] = 1'b0;
      assign tr_rsp_valid[i] = 1'b0;
      assign tr_rsp[i] = '0;
      assign mem_req_valid[i] = 1'b0;
      assign mem_req[i] = '0;
      assign mrif_req_ready[i] = 1'b0;
      assign mrif_done[i] = 1'b0;
      assign msg_in_ready[i] = 1'b0;
      assign msg_out_valid[i] = 1'b0;
      assign msg_out[i] = '0;
      assign wsi[i] = '0;
      assign reg_rsp_valid[i] = 1'b0;
      assign reg_rsp_rdata[i] = '0;
      assign drain_req[i] = 1'b0;
      logic unused;
      assign unused = clk;
    end
  end

  assign tr_req_ready_o = tr_req_ready[config_i];
  assign tr_rsp_valid_o = tr_rsp_valid[config_i];
  assign tr_rsp_o = tr_rsp[config_i];
  assign mem_req_valid_o = mem_req_valid[config_i];
  assign mem_req_o = mem_req[config_i];
  assign reg_rsp_valid_o = reg_rsp_valid[config_i];
  assign reg_rsp_rdata_o = reg_rsp_rdata[config_i];
  assign drain_req_o = drain_req[config_i];
  assign mrif_req_ready_o = mrif_req_ready[config_i];
  assign mrif_done_o = mrif_done[config_i];
  assign msg_in_ready_o = msg_in_ready[config_i];
  assign msg_out_valid_o = msg_out_valid[config_i];
  assign msg_out_o = msg_out[config_i];
  assign wsi_o = wsi[config_i];
endmodule
