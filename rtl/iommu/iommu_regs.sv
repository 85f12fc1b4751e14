// SPDX-License-Identifier: MIT OR Apache-2.0

/// Register map (IOMMU §5). 4-byte and aligned 8-byte accesses; a half that is not written with
/// all its byte enables is left alone. What is not implemented reads 0 and ignores writes.
module iommu_regs
  import iommu_pkg::*;
  import iommu_int_pkg::*;
#(
    /// Capabilities.
    parameter iommu_cfg_t Cfg = CfgBase
) (
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,

    /// Access, one cycle.
    input logic req_valid_i,
    /// 1 write.
    input logic req_write_i,
    /// Byte offset, bits 11:3.
    input logic [11:3] req_addr_i,
    /// Byte enables within the 8 bytes.
    input logic [7:0] req_be_i,
    /// Write data.
    input logic [63:0] req_wdata_i,
    /// Response, one cycle.
    output logic rsp_valid_o,
    /// Read data.
    output logic [63:0] rsp_rdata_o,

    /// For registers in blocks of their own: the one accessed.
    output logic [8:0] ext_reg_no_o,
    /// Write of its low half.
    output logic ext_wr_lo_o,
    /// Write of its high half.
    output logic ext_wr_hi_o,
    /// Write data.
    output logic [63:0] ext_wdata_o,
    /// What such a block has to say; 0 if it has no register there.
    input logic [63:0] ext_rdata_i,

    /// iommu_qosid.RCID.
    output logic [11:0] rcid_o,
    /// iommu_qosid.MCID.
    output logic [11:0] mcid_o,
    /// fctl.BE.
    output logic be_o,
    /// fctl.GXL.
    output logic gxl_o,
    /// fctl.WSI.
    output logic wsi_o,
    /// ddtp.iommu_mode.
    output ddt_mode_e ddtp_mode_o,
    /// ddtp.PPN.
    output logic [43:0] ddtp_ppn_o,
    /// ddtp.busy: waits for the drain; held until done.
    output logic ddtp_busy_o,
    /// The drain that a ddtp write asked for has ended.
    input logic ddtp_done_i,

    /// Command queue: cqen, cqb, cqt.
    output queue_cfg_t cq_cfg_o,
    /// cqcsr.cie.
    output logic cie_o,
    /// Write of 1 to cqcsr.cqmf.
    output logic cq_clear_cqmf_o,
    /// Write of 1 to cqcsr.cmd_ill.
    output logic cq_clear_cmd_ill_o,
    /// Write of 1 to cqcsr.cmd_to.
    output logic cq_clear_cmd_to_o,
    /// Write of 1 to cqcsr.fence_w_ip.
    output logic cq_clear_fence_w_ip_o,
    /// cqh.
    input logic [31:0] cq_head_i,
    /// cqcsr.cqon.
    input logic cq_on_i,
    /// cqcsr.cqmf.
    input logic cq_cqmf_i,
    /// cqcsr.cmd_ill.
    input logic cq_cmd_ill_i,
    /// cqcsr.cmd_to.
    input logic cq_cmd_to_i,
    /// cqcsr.fence_w_ip.
    input logic cq_fence_w_ip_i,

    /// Fault queue: fqen, fqb, fqh.
    output queue_cfg_t fq_cfg_o,
    /// fqcsr.fie.
    output logic fie_o,
    /// Write of 1 to fqcsr.fqmf.
    output logic fq_clear_fqmf_o,
    /// Write of 1 to fqcsr.fqof.
    output logic fq_clear_fqof_o,
    /// fqt.
    input logic [31:0] fq_tail_i,
    /// fqcsr.fqon.
    input logic fq_on_i,
    /// fqcsr.fqmf.
    input logic fq_fqmf_i,
    /// fqcsr.fqof.
    input logic fq_fqof_i,

    /// Write of 1 to ipsr.{pip, pmip, fip, cip}.
    output logic [3:0] ipsr_clear_o,
    /// ipsr.
    input logic [3:0] ipsr_i,
    /// icvec.{piv, pmiv, fiv, civ}.
    output logic [3:0][3:0] vector_o,
    /// msi_cfg_tbl.
    output msi_cfg_t [15:0] msi_cfg_o
);
  // Offsets in doublewords.
  localparam logic [8:0] RegCaps = 9'd0;
  localparam logic [8:0] RegFctl = 9'd1;
  localparam logic [8:0] RegDdtp = 9'd2;
  localparam logic [8:0] RegCqb = 9'd3;
  localparam logic [8:0] RegCqht = 9'd4;   // cqh low, cqt high
  localparam logic [8:0] RegFqb = 9'd5;
  localparam logic [8:0] RegFqht = 9'd6;   // fqh low, fqt high
  localparam logic [8:0] RegCsr = 9'd9;    // cqcsr low, fqcsr high
  localparam logic [8:0] RegIpsr = 9'd10;  // pqcsr low, ipsr high
  localparam logic [8:0] RegQosid = 9'd78;  // low
  localparam logic [8:0] RegIcvec = 9'd95;
  // msi_cfg_tbl: doublewords 96 to 127.
  localparam logic [4:0] Vectors = 5'd1 << Cfg.interrupt_vectors_log2;

  logic [8:0] reg_no;
  logic wr_lo, wr_hi;
  logic [63:0] wdata;
  assign reg_no = req_addr_i;
  assign wr_lo = req_valid_i && req_write_i && &req_be_i[3:0];
  assign wr_hi = req_valid_i && req_write_i && &req_be_i[7:4];
  assign wdata = req_wdata_i;

  ddt_mode_e mode_q;
  logic [43:0] ddtp_ppn_q;
  logic busy_q;
  logic be_q, gxl_q, wsi_q;
  logic [11:0] rcid_q, mcid_q;
  queue_cfg_t cq_q, fq_q;
  logic cie_q, fie_q;
  logic [15:0] icvec_q;
  msi_cfg_t [15:0] msi_q;
  logic [3:0] msi_row;
  assign msi_row = reg_no[4:1];

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      mode_q <= Cfg.reset_mode_bare ? DdtBare : DdtOff;
      {gxl_q, wsi_q, be_q} <= '0;
      {mcid_q, rcid_q} <= '0;
      ddtp_ppn_q <= '0;
      busy_q <= 1'b0;
      cq_q <= '0;
      fq_q <= '0;
      cie_q <= 1'b0;
      fie_q <= 1'b0;
      icvec_q <= '0;
      msi_q <= '0;
    end else begin
      if (ddtp_done_i) busy_q <= 1'b0;
      // A write while busy is ignored (IOMMU §5.5). A reserved mode leaves the mode as it is.
      if (reg_no == RegDdtp && !busy_q) begin
        if (wr_lo) begin
          busy_q <= 1'b1;
          ddtp_ppn_q[21:0] <= wdata[31:10];
          if (wdata[3:0] <= 4'd1 + 4'(Cfg.ddt_levels)) mode_q <= ddt_mode_e'(wdata[2:0]);
        end
        if (wr_hi) ddtp_ppn_q[43:22] <= wdata[53:32];
      end

      if (reg_no == RegCqb) begin
        if (wr_lo) begin
          cq_q.log2sz_m1 <= queue_size(Cfg, wdata[4:0]);
          cq_q.ppn[21:0] <= wdata[31:10];
          cq_q.index <= cq_q.index & queue_mask(queue_size(Cfg, wdata[4:0]));
        end
        if (wr_hi) cq_q.ppn[43:22] <= wdata[53:32];
      end
      if (reg_no == RegCqht && wr_hi) cq_q.index <= wdata[63:32] & queue_mask(cq_q.log2sz_m1);

      if (reg_no == RegFctl && wr_lo) begin
        be_q <= Cfg.big_endian && wdata[0];
        wsi_q <= Cfg.igs == 2'd2 && wdata[1];
        gxl_q <= Cfg.gxl_writable && wdata[2];
      end

      if (Cfg.qosid && reg_no == RegQosid && wr_lo) begin
        rcid_q <= wdata[11:0] & 12'((13'd1 << Cfg.qos_id_bits[0]) - 13'd1);
        mcid_q <= wdata[27:16] & 12'((13'd1 << Cfg.qos_id_bits[1]) - 13'd1);
      end

      if (reg_no == RegFqb) begin
        if (wr_lo) begin
          fq_q.log2sz_m1 <= queue_size(Cfg, wdata[4:0]);
          fq_q.ppn[21:0] <= wdata[31:10];
          fq_q.index <= fq_q.index & queue_mask(queue_size(Cfg, wdata[4:0]));
        end
        if (wr_hi) fq_q.ppn[43:22] <= wdata[53:32];
      end
      if (reg_no == RegFqht && wr_lo) fq_q.index <= wdata[31:0] & queue_mask(fq_q.log2sz_m1);

      if (reg_no == RegCsr && wr_lo) {cie_q, cq_q.en} <= wdata[1:0];
      if (reg_no == RegCsr && wr_hi) {fie_q, fq_q.en} <= wdata[33:32];
      if (reg_no == RegIcvec && wr_lo) icvec_q <= wdata[15:0] & {4{Vectors[3:0] - 4'd1}};

      // Without messages the table is hardwired to 0 (IOMMU §5.29).
      if (reg_no[8:5] == 4'd3 && Cfg.igs != 2'd1 && 5'(msi_row) < Vectors) begin
        if (!reg_no[0]) begin
          if (wr_lo) msi_q[msi_row].addr[31:2] <= wdata[31:2];
          if (wr_hi) msi_q[msi_row].addr[55:32] <= wdata[55:32];
        end else begin
          if (wr_lo) msi_q[msi_row].data <= wdata[31:0];
          if (wr_hi) msi_q[msi_row].mask <= wdata[32];
        end
      end
    end
  end

  assign cq_clear_cqmf_o = reg_no == RegCsr && wr_lo && wdata[8];
  assign cq_clear_cmd_ill_o = reg_no == RegCsr && wr_lo && wdata[10];
  assign cq_clear_cmd_to_o = reg_no == RegCsr && wr_lo && wdata[9];
  assign cq_clear_fence_w_ip_o = reg_no == RegCsr && wr_lo && wdata[11];
  assign fq_clear_fqmf_o = reg_no == RegCsr && wr_hi && wdata[40];
  assign fq_clear_fqof_o = reg_no == RegCsr && wr_hi && wdata[41];
  assign ipsr_clear_o = (reg_no == RegIpsr && wr_hi) ? wdata[35:32] : '0;

  // busy: a write to cqen or fqen has not taken effect yet.
  logic [31:0] cqcsr, fqcsr;
  assign cqcsr = {14'd0, cq_q.en ^ cq_on_i, cq_on_i, 4'd0, cq_fence_w_ip_i, cq_cmd_ill_i, cq_cmd_to_i, cq_cqmf_i, 6'd0,
                  cie_q, cq_q.en};
  assign fqcsr = {14'd0, fq_q.en ^ fq_on_i, fq_on_i, 6'd0, fq_fqof_i, fq_fqmf_i, 6'd0,
                  fie_q, fq_q.en};

  // capabilities.IGS: 0 messages, 1 wires, 2 both.
  logic wsi, be;
  assign be = big_endian(Cfg, be_q);
  assign wsi = Cfg.igs == 2'd1 || wsi_q;

  logic [63:0] rdata;
  always_comb begin
    unique case (reg_no)
      RegCaps:  rdata = capabilities(Cfg);
      RegFctl:  rdata = {61'd0, gxl_q, wsi, be};
      RegDdtp:  rdata = {10'd0, ddtp_ppn_q, 5'd0, busy_q, 1'b0, mode_q};
      RegCqb:   rdata = {10'd0, cq_q.ppn, 5'd0, cq_q.log2sz_m1};
      RegCqht:  rdata = {cq_q.index, cq_head_i};
      RegFqb:   rdata = {10'd0, fq_q.ppn, 5'd0, fq_q.log2sz_m1};
      RegFqht:  rdata = {fq_tail_i, fq_q.index};
      RegCsr:   rdata = {fqcsr, cqcsr};
      RegIpsr:  rdata = {28'd0, ipsr_i, ext_rdata_i[31:0]};
      RegQosid: rdata = {36'd0, mcid_q, 4'd0, rcid_q};
      RegIcvec: rdata = {48'd0, icvec_q};
      default:  rdata = ext_rdata_i;
    endcase
    if (reg_no[8:5] == 4'd3) begin
      rdata = reg_no[0] ? {31'd0, msi_q[msi_row].mask, msi_q[msi_row].data}
                        : {8'd0, msi_q[msi_row].addr, 2'b00};
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) rsp_valid_o <= 1'b0;
    else rsp_valid_o <= req_valid_i;
  end
  always_ff @(posedge clk_i) begin
    if (req_valid_i) rsp_rdata_o <= rdata;
  end

  assign ext_reg_no_o = reg_no;
  assign ext_wr_lo_o = wr_lo;
  assign ext_wr_hi_o = wr_hi;
  assign ext_wdata_o = wdata;
  assign rcid_o = rcid_q;
  assign mcid_o = mcid_q;
  assign be_o = be;
  assign gxl_o = gxl_q;
  assign wsi_o = wsi;
  assign ddtp_mode_o = mode_q;
  assign ddtp_ppn_o = ddtp_ppn_q;
  assign ddtp_busy_o = busy_q;
  assign cq_cfg_o = cq_q;
  assign cie_o = cie_q;
  assign fq_cfg_o = fq_q;
  assign fie_o = fie_q;
  assign vector_o = icvec_q;
  assign msi_cfg_o = msi_q;

  // One access at a time: the next after the response.
  assert property (@(posedge clk_i) disable iff (!rst_ni) !req_valid_i || !$past(req_valid_i));
endmodule
