// SPDX-License-Identifier: MIT OR Apache-2.0

/// Stores an MSI into a memory-resident interrupt file and sends the notice (AIA, "Memory-resident
/// interrupt files"). A write that is not an MSI of the file is accepted and has no effect. The
/// notice is sent whether the interrupt is enabled or not. One write at a time.
module iommu_mrif
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

    /// QoS IDs of iommu_qosid: the notice is a message of the IOMMU's own (IOMMU §5.27).
    input logic [11:0] rcid_i,
    /// MCID.
    input logic [11:0] mcid_i,

    /// Write; ready/valid.
    input logic req_valid_i,
    /// Taken.
    output logic req_ready_o,
    /// Write.
    input mrif_req_t req_i,
    /// Done or failed, one cycle.
    output logic done_o,

    /// Fault to report; ready/valid.
    output logic fault_valid_o,
    /// Fault taken.
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
    input logic mem_rsp_error_i,
    /// Data corrupt.
    input logic mem_rsp_poison_i
);
  typedef enum logic [2:0] {
    StIdle, StSet, StSetRsp, StNotice, StNoticeRsp, StFault, StDone
  } state_e;
  state_e state_q, state_d;
  mrif_req_t req_q;
  cause_t cause_q, cause_d;

  // seteipnum_le is at 0 and seteipnum_be at 4 of the page; identities have 11 bits.
  logic big, is_msi;
  logic [31:0] identity;
  assign big = req_q.req.iova[2];
  assign identity = big ? swap_bytes32(req_q.data) : req_q.data;
  assign is_msi = req_i.req.iova[11:3] == '0 && (Cfg.mrif_big_endian || !req_i.req.iova[2]) &&
                  (req_i.req.iova[2] ? req_i.data[7:0] == '0 && req_i.data[15:8] == '0 &&
                                       req_i.data[23:19] == '0
                                     : req_i.data[31:11] == '0);

  // Pending bits are doublewords 0, 2, 4 and so on; between them are the enable bits.
  logic [63:0] bits;
  assign bits = 64'd1 << identity[5:0];
  always_comb begin
    mem_req_o = '0;
    mem_req_o.rcid = req_q.rcid;
    mem_req_o.mcid = req_q.mcid;
    if (state_q == StSet) begin
      mem_req_o.op = MemOr;
      mem_req_o.addr = {req_q.mrif_addr, identity[10:6], 4'd0};
      mem_req_o.len_dw = 5'd2;
      mem_req_o.wdata[63:0] = bits;
    end else begin
      mem_req_o.op = MemWrite;
      mem_req_o.rcid = rcid_i;
      mem_req_o.mcid = mcid_i;
      mem_req_o.addr = {req_q.notice_ppn, 12'd0};
      mem_req_o.len_dw = 5'd1;
      mem_req_o.wdata[10:0] = req_q.notice_id;
    end
  end
  assign mem_valid_o = state_q == StSet || state_q == StNotice;
  assign req_ready_o = state_q == StIdle;

  always_comb begin
    state_d = state_q;
    cause_d = cause_q;
    unique case (state_q)
      StIdle:   if (req_valid_i) state_d = is_msi ? StSet : StDone;
      StSet:    if (mem_ready_i) state_d = StSetRsp;
      StSetRsp: begin
        cause_d = mem_rsp_error_i ? CauseMrifAccess : CauseMrifCorrupt;
        if (mem_rsp_valid_i) begin
          if (!mem_rsp_error_i && !mem_rsp_poison_i) state_d = StNotice;
          else state_d = (req_q.dtf && !cause_ignores_dtf(cause_d)) ? StDone : StFault;
        end
      end
      StNotice: if (mem_ready_i) state_d = StNoticeRsp;
      StNoticeRsp: begin
        cause_d = CauseMsiWrite;
        if (mem_rsp_valid_i) state_d = mem_rsp_error_i ? StFault : StDone;
      end
      StFault:  if (fault_ready_i) state_d = StDone;
      default:  state_d = StIdle;
    endcase
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) state_q <= StIdle;
    else state_q <= state_d;
  end
  always_ff @(posedge clk_i) begin
    cause_q <= cause_d;
    if (state_q == StIdle) req_q <= req_i;
  end

  assign done_o = state_q == StDone;
  assign fault_valid_o = state_q == StFault;
  always_comb begin
    fault_o = '0;
    fault_o.cause = cause_q;
    if (cause_q == CauseMsiWrite) begin
      fault_o.iotval = {8'd0, req_q.notice_ppn, 12'd0};  // the IOMMU's own message: TTYP 0
    end else begin
      fault_o.ttyp = req_q.req.ttyp;
      fault_o.device_id = req_q.req.device_id;
      fault_o.pid_valid = req_q.req.pid_valid;
      fault_o.process_id = req_q.req.pid_valid ? req_q.req.process_id : '0;
      fault_o.priv = req_q.req.pid_valid && req_q.req.priv;
      fault_o.iotval = iotval(Cfg, req_q.req);
    end
  end

  logic unused;
  assign unused = ^{req_q, identity};

  if (!Cfg.amo_mrif || !Cfg.msi_flat) begin : gen_needs
    $error("MSI_MRIF needs MSI_FLAT, and here AMO_MRIF");
  end

  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !$past(req_valid_i && !req_ready_o) || (req_valid_i && $stable(req_i)));
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !mem_rsp_valid_i || state_q == StSetRsp || state_q == StNoticeRsp);
endmodule
