// SPDX-License-Identifier: MIT OR Apache-2.0

/// Fault queue (IOMMU §3.2): writes one record at a time. Records are discarded while the queue is
/// off, or while fqof or fqmf is 1.
module iommu_fq
  import iommu_pkg::*;
  import iommu_int_pkg::*;
(
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,

    /// fqcsr.fqen, fqb, fqh.
    input queue_cfg_t cfg_i,
    /// fctl.BE.
    input logic be_i,
    /// Clear fqcsr.fqmf, one cycle.
    input logic clear_fqmf_i,
    /// Clear fqcsr.fqof, one cycle.
    input logic clear_fqof_i,
    /// fqt.
    output logic [31:0] tail_o,
    /// fqcsr.fqon.
    output logic on_o,
    /// fqcsr.fqmf.
    output logic fqmf_o,
    /// fqcsr.fqof.
    output logic fqof_o,
    /// A record has been produced, one cycle.
    output logic new_record_o,

    /// Fault of a request; ready/valid.
    input logic tr_fault_valid_i,
    /// Taken.
    output logic tr_fault_ready_o,
    /// Fault.
    input fault_t tr_fault_i,
    /// Fault of the IOMMU's own MSI; ready/valid, goes first.
    input logic msi_fault_valid_i,
    /// Taken.
    output logic msi_fault_ready_o,
    /// Its address.
    input logic [55:0] msi_fault_addr_i,

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
  typedef enum logic [1:0] { StIdle, StWrite, StRsp } state_e;
  state_e state_q, state_d;
  fault_t fault_q, fault;
  logic [31:0] tail_q, tail_d, mask, tail_next;
  logic on_q, on_d, fqmf_q, fqof_q, set_fqmf, set_fqof, turn_on, offered;

  assign mask = queue_mask(cfg_i.log2sz_m1);
  assign tail_next = (tail_q + 32'd1) & mask;
  assign turn_on = cfg_i.en && !on_q;

  always_comb begin
    fault = tr_fault_i;
    if (msi_fault_valid_i) begin
      fault = '0;  // TTYP 0: not caused by a request
      fault.cause = CauseMsiWrite;
      fault.iotval = {8'd0, msi_fault_addr_i};
    end
  end
  assign offered = msi_fault_valid_i || tr_fault_valid_i;
  assign msi_fault_ready_o = state_q == StIdle;
  assign tr_fault_ready_o = state_q == StIdle && !msi_fault_valid_i;

  assign mem_valid_o = state_q == StWrite;
  always_comb begin
    mem_req_o = '0;
    mem_req_o.op = MemWrite;
    mem_req_o.addr = {cfg_i.ppn, 12'd0} | {19'd0, tail_q, 5'd0};
    mem_req_o.len_dw = 5'd8;
    mem_req_o.wdata[63:0] = {fault_q.device_id, fault_q.ttyp, fault_q.priv, fault_q.pid_valid,
                             fault_q.process_id, fault_q.cause};
    mem_req_o.wdata[191:128] = fault_q.iotval;
    mem_req_o.wdata[255:192] = fault_q.iotval2;
    for (int unsigned i = 0; i < 4; i++) begin
      if (be_i) mem_req_o.wdata[64*i+:64] = swap_bytes(mem_req_o.wdata[64*i+:64]);
    end
  end

  always_comb begin
    state_d = state_q;
    tail_d = tail_q;
    on_d = on_q;
    set_fqmf = 1'b0;
    set_fqof = 1'b0;
    new_record_o = 1'b0;
    unique case (state_q)
      StIdle: begin
        on_d = cfg_i.en;
        if (offered && cfg_i.en && on_q && !fqmf_q && !fqof_q) begin
          if (tail_next == (cfg_i.index & mask)) set_fqof = 1'b1;
          else state_d = StWrite;
        end
      end
      StWrite: if (mem_ready_i) state_d = StRsp;
      default: begin
        if (mem_rsp_valid_i) begin
          state_d = StIdle;
          if (mem_rsp_error_i) begin
            set_fqmf = 1'b1;
          end else begin
            tail_d = tail_next;
            new_record_o = 1'b1;
          end
        end
      end
    endcase
    if (turn_on) tail_d = '0;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StIdle;
      tail_q <= '0;
      on_q <= 1'b0;
      fqmf_q <= 1'b0;
      fqof_q <= 1'b0;
    end else begin
      state_q <= state_d;
      tail_q <= tail_d;
      on_q <= on_d;
      fqmf_q <= set_fqmf || (fqmf_q && !clear_fqmf_i && !turn_on);
      fqof_q <= set_fqof || (fqof_q && !clear_fqof_i && !turn_on);
    end
  end
  always_ff @(posedge clk_i) begin
    if (state_q == StIdle) fault_q <= fault;
  end

  assign tail_o = tail_q;
  assign on_o = on_q;
  // The write that turns the queue on clears these (IOMMU §5.16), before fie can see them.
  assign fqmf_o = fqmf_q && !turn_on;
  assign fqof_o = fqof_q && !turn_on;

  assert property (@(posedge clk_i) disable iff (!rst_ni) !mem_rsp_valid_i || state_q == StRsp);
endmodule
