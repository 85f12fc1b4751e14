// SPDX-License-Identifier: MIT OR Apache-2.0

/// Command queue (IOMMU §3.1): fetches a command, executes it, moves on. Since a command is
/// complete before the next is fetched, a fence has nothing to wait for but translations.
module iommu_cq
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

    /// cqcsr.cqen, cqb, cqt.
    input queue_cfg_t cfg_i,
    /// ddtp.iommu_mode, for the width of a DID operand.
    input ddt_mode_e mode_i,
    /// fctl.BE.
    input logic be_i,
    /// fctl.WSI.
    input logic wsi_i,
    /// Clear cqcsr.cqmf, one cycle.
    input logic clear_cqmf_i,
    /// Clear cqcsr.cmd_ill, one cycle.
    input logic clear_cmd_ill_i,
    /// Clear cqcsr.cmd_to, one cycle.
    input logic clear_cmd_to_i,
    /// Clear cqcsr.fence_w_ip, one cycle.
    input logic clear_fence_w_ip_i,
    /// cqh.
    output logic [31:0] head_o,
    /// cqcsr.cqon.
    output logic on_o,
    /// cqcsr.cqmf.
    output logic cqmf_o,
    /// cqcsr.cmd_ill.
    output logic cmd_ill_o,
    /// cqcsr.cmd_to.
    output logic cmd_to_o,
    /// cqcsr.fence_w_ip.
    output logic fence_w_ip_o,

    /// Invalidate in the IOTLB, one cycle.
    output logic iotlb_inval_valid_o,
    /// What.
    output iotlb_inval_t iotlb_inval_o,
    /// Invalidate in the directory caches, one cycle.
    output logic dir_inval_valid_o,
    /// What.
    output dir_inval_t dir_inval_o,

    /// ATS command; ready/valid.
    output logic ats_valid_o,
    /// Its message has been sent.
    input logic ats_ready_i,
    /// 1: ATS.PRGR, 0: ATS.INVAL.
    output logic ats_prgr_o,
    /// The command.
    output logic [127:0] ats_cmd_o,
    /// An Invalidate Request is outstanding: a fence waits for it.
    input logic ats_busy_i,
    /// One has timed out: the fence reports it.
    input logic ats_timeout_i,
    /// Reported, one cycle.
    output logic ats_timeout_ack_o,

    /// A fence waits for what is under way; held until done.
    output logic fence_valid_o,
    /// The fence has PR or PW.
    output logic fence_global_o,
    /// Nothing older than the fence is under way any more.
    input logic fence_done_i,

    /// Memory request.
    output logic mem_valid_o,
    /// Memory request taken.
    input logic mem_ready_i,
    /// Memory request.
    output mem_req_t mem_req_o,
    /// Response beat for this client.
    input logic mem_rsp_valid_i,
    /// Access fault or corrupt data.
    input logic mem_rsp_error_i,
    /// The command.
    input logic [127:0] mem_rsp_cmd_i
);
  // What there is to invalidate: second-stage and MSI PTEs, process contexts.
  localparam bit HasGvma = Cfg.msi_flat || Cfg.sv32x4 || Cfg.sv39x4 || Cfg.sv48x4 || Cfg.sv57x4;
  localparam bit HasPdt = Cfg.pd8 || Cfg.pd17 || Cfg.pd20;

  typedef enum logic [2:0] {
    StIdle, StFetch, StFetchRsp, StExec, StAts, StFence, StWrite, StWriteRsp
  } state_e;
  state_e state_q, state_d;
  logic [31:0] head_q, head_d, mask;
  logic on_q, on_d, cqmf_q, cmd_ill_q, fence_w_ip_q, cmd_to_q, fencing_q, fenced, set_cqmf, set_cmd_ill, turn_on;
  logic [63:0] dw0_q, dw1_q;

  assign mask = queue_mask(cfg_i.log2sz_m1);

  // Decode (IOMMU §3.1): bits that are not in the format of the command must be 0.
  logic [6:0] opcode;
  logic [2:0] func3;
  logic is_vma, is_gvma, is_fence, is_inval_ddt, is_inval_pdt, is_ats, legal, did_fits, pid_fits;
  assign opcode = dw0_q[6:0];
  assign func3 = dw0_q[9:7];
  // Bit 34 is NL and bit 9 of the second doubleword S: reserved without those extensions.
  logic tlb_bits_ok;
  assign tlb_bits_ok = !dw0_q[11] && (Cfg.nl || !dw0_q[34]) && dw0_q[43:35] == '0 &&
                       dw0_q[63:60] == '0 && dw1_q[8:0] == '0 && (Cfg.s || !dw1_q[9]) &&
                       dw1_q[63:62] == '0;
  assign is_vma = opcode == 7'd1 && func3 == 3'd0 && tlb_bits_ok;
  assign is_gvma = (HasGvma || !Cfg.absent_cache_command_illegal) && opcode == 7'd1 && func3 == 3'd1 && tlb_bits_ok && !dw0_q[32];
  // WSI (bit 11) is reserved while fctl.WSI is 0.
  assign is_fence = opcode == 7'd2 && func3 == 3'd0 && (wsi_i || !dw0_q[11]) && dw0_q[31:14] == '0 &&
                    dw1_q[63:62] == '0;
  assign is_inval_ddt = opcode == 7'd3 && func3 == 3'd0 && dw0_q[11:10] == '0 &&
                        dw0_q[32:12] == '0 && dw0_q[39:34] == '0 && dw1_q == '0 &&
                        (!dw0_q[33] || did_fits || !Cfg.wide_operand_illegal);
  assign is_inval_pdt = (HasPdt || !Cfg.absent_cache_command_illegal) && opcode == 7'd3 && func3 == 3'd1 && dw0_q[11:10] == '0 &&
                        !dw0_q[32] && dw0_q[33] && dw0_q[39:34] == '0 && dw1_q == '0 &&
                        ((did_fits && pid_fits) || !Cfg.wide_operand_illegal);
  // A DID operand must not be wider than the mode supports; with no directory all are accepted.
  assign did_fits = Cfg.msi_flat ?
      (mode_i != Ddt2Lvl || dw0_q[63:55] == '0) && (mode_i != Ddt1Lvl || dw0_q[63:46] == '0) :
      (mode_i != Ddt2Lvl || dw0_q[63:56] == '0) && (mode_i != Ddt1Lvl || dw0_q[63:47] == '0);
  assign pid_fits = (Cfg.pd20 || dw0_q[31:29] == '0) &&
                    (Cfg.pd20 || Cfg.pd17 || dw0_q[28:20] == '0);
  assign legal = is_vma || is_gvma || is_fence || is_inval_ddt || is_inval_pdt || is_ats;
  // The payload is a message's: PCIe says what it means.
  assign is_ats = Cfg.ats && opcode == 7'd4 && func3 <= 3'd1 && dw0_q[11:10] == '0 &&
                  dw0_q[39:34] == '0;

  logic av, exec;
  assign av = dw0_q[10];
  assign exec = state_q == StExec;
  assign iotlb_inval_valid_o = exec && (is_vma || is_gvma);
  assign iotlb_inval_o = '{
      gvma: is_gvma,
      av: av,
      gv: dw0_q[33],
      pscv: dw0_q[32],
      nl: Cfg.nl && dw0_q[34],
      s: Cfg.s && dw1_q[9],
      gscid: dw0_q[59:44],
      pscid: dw0_q[31:12],
      addr: dw1_q[61:10]
  };
  assign dir_inval_valid_o = exec && (is_inval_ddt || is_inval_pdt);
  assign dir_inval_o = '{
      pdt: is_inval_pdt,
      dv: dw0_q[33],
      device_id: dw0_q[63:40],
      process_id: dw0_q[31:12]
  };
  assign ats_valid_o = state_q == StAts;
  assign ats_prgr_o = func3[0];
  assign ats_cmd_o = {dw1_q, dw0_q};
  // Invalidate Requests first: a fence that finds a timeout does not complete (IOMMU §3.1.4).
  assign ats_timeout_ack_o = state_q == StFence && !fencing_q && !ats_busy_i && ats_timeout_i;
  assign fence_valid_o = state_q == StFence && (fencing_q || (!ats_busy_i && !ats_timeout_i));
  assign fence_global_o = dw0_q[12] || dw0_q[13];

  always_comb begin
    mem_req_o = '0;
    if (state_q == StWrite) begin
      mem_req_o.op = MemWrite;
      mem_req_o.addr = {dw1_q[53:0], 2'b00};
      mem_req_o.len_dw = 5'd1;
      mem_req_o.wdata[31:0] = (Cfg.fence_data_big_endian && be_i) ? swap_bytes32(dw0_q[63:32]) : dw0_q[63:32];
    end else begin
      mem_req_o.addr = {cfg_i.ppn, 12'd0} | {20'd0, head_q, 4'd0};
      mem_req_o.len_dw = 5'd4;
    end
  end
  assign mem_valid_o = state_q == StFetch || state_q == StWrite;

  assign turn_on = cfg_i.en && !on_q;
  always_comb begin
    state_d = state_q;
    head_d = head_q;
    on_d = on_q;
    set_cqmf = 1'b0;
    set_cmd_ill = 1'b0;
    fenced = 1'b0;
    unique case (state_q)
      StIdle: begin
        on_d = cfg_i.en;
        if (cfg_i.en && on_q && !cqmf_q && !cmd_ill_q && !cmd_to_q && head_q != (cfg_i.index & mask)) begin
          state_d = StFetch;
        end
      end
      StFetch: if (mem_ready_i) state_d = StFetchRsp;
      StFetchRsp: begin
        if (mem_rsp_valid_i) begin
          set_cqmf = mem_rsp_error_i;
          state_d = mem_rsp_error_i ? StIdle : StExec;
        end
      end
      StExec: begin
        state_d = StIdle;
        if (!legal) set_cmd_ill = 1'b1;
        else if (is_fence) state_d = StFence;
        else if (is_ats) state_d = StAts;
        else head_d = (head_q + 32'd1) & mask;
      end
      StAts: begin
        if (ats_ready_i) begin
          state_d = StIdle;
          head_d = (head_q + 32'd1) & mask;
        end
      end
      StFence: begin
        if (ats_timeout_ack_o) state_d = StIdle;
        if (fence_done_i) begin
          state_d = StIdle;
          if (!av) begin
            head_d = (head_q + 32'd1) & mask;
            fenced = 1'b1;
          end else if (dw1_q[61:54] != '0) begin
            set_cqmf = 1'b1;  // beyond the physical address space
          end else begin
            state_d = StWrite;
          end
        end
      end
      StWrite: if (mem_ready_i) state_d = StWriteRsp;
      default: begin
        if (mem_rsp_valid_i) begin
          state_d = StIdle;
          if (mem_rsp_error_i) begin
            set_cqmf = 1'b1;
          end else begin
            head_d = (head_q + 32'd1) & mask;
            fenced = 1'b1;
          end
        end
      end
    endcase
    if (turn_on) head_d = '0;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StIdle;
      head_q <= '0;
      on_q <= 1'b0;
      cqmf_q <= 1'b0;
      cmd_ill_q <= 1'b0;
      fence_w_ip_q <= 1'b0;
      cmd_to_q <= 1'b0;
      fencing_q <= 1'b0;
    end else begin
      state_q <= state_d;
      head_q <= head_d;
      on_q <= on_d;
      cqmf_q <= set_cqmf || (cqmf_q && !clear_cqmf_i && !turn_on);
      fencing_q <= fence_valid_o && !fence_done_i;
      cmd_to_q <= ats_timeout_ack_o || (cmd_to_q && !clear_cmd_to_i && !turn_on);
      fence_w_ip_q <= wsi_i && ((fenced && dw0_q[11]) ||
                                (fence_w_ip_q && !clear_fence_w_ip_i && !turn_on));
      cmd_ill_q <= set_cmd_ill || (cmd_ill_q && !clear_cmd_ill_i && !turn_on);
    end
  end
  always_ff @(posedge clk_i) begin
    if (state_q == StFetchRsp && mem_rsp_valid_i) begin
      dw0_q <= be_i ? swap_bytes(mem_rsp_cmd_i[63:0]) : mem_rsp_cmd_i[63:0];
      dw1_q <= be_i ? swap_bytes(mem_rsp_cmd_i[127:64]) : mem_rsp_cmd_i[127:64];
    end
  end

  assign head_o = head_q;
  assign on_o = on_q;
  // The write that turns the queue on clears these (IOMMU §5.15), before cie can see them.
  assign cqmf_o = cqmf_q && !turn_on;
  assign cmd_ill_o = cmd_ill_q && !turn_on;
  assign cmd_to_o = cmd_to_q && !turn_on;
  // Reserved without fctl.WSI.
  assign fence_w_ip_o = fence_w_ip_q && wsi_i && !turn_on;

  // cqh stays on the offender while an error stands.
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !$past(cqmf_q || cmd_ill_q || cmd_to_q) || $past(turn_on) || $stable(head_q));
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !mem_rsp_valid_i || state_q == StFetchRsp || state_q == StWriteRsp);
endmodule
