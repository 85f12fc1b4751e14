// SPDX-License-Identifier: MIT OR Apache-2.0

/// Two IOMMUs behind one set of ports, for the block test: one with base-format device contexts and
/// one with extended-format ones (capabilities.MSI_FLAT). A strap chooses; the other one is idle.
module iommu_formats
  import iommu_pkg::*;
(
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,
    /// 1: extended format; static while not in reset.
    input logic msi_flat_i,

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
  logic [1:0] tr_req_ready, tr_rsp_valid, mem_req_valid, reg_rsp_valid, drain_req;
  tr_rsp_t [1:0] tr_rsp;
  iommu_mem_req_t [1:0] mem_req;
  logic [1:0][63:0] reg_rsp_rdata;

  for (genvar i = 0; i < 2; i++) begin : gen_format
    logic on;
    assign on = msi_flat_i == 1'(i);
    iommu #(
        .MsiFlat(1'(i))
    ) i_iommu (
        .clk_i,
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
  end

  assign tr_req_ready_o = tr_req_ready[msi_flat_i];
  assign tr_rsp_valid_o = tr_rsp_valid[msi_flat_i];
  assign tr_rsp_o = tr_rsp[msi_flat_i];
  assign mem_req_valid_o = mem_req_valid[msi_flat_i];
  assign mem_req_o = mem_req[msi_flat_i];
  assign reg_rsp_valid_o = reg_rsp_valid[msi_flat_i];
  assign reg_rsp_rdata_o = reg_rsp_rdata[msi_flat_i];
  assign drain_req_o = drain_req[msi_flat_i];
endmodule
