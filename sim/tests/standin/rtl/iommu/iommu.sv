// SPDX-License-Identifier: MIT OR Apache-2.0

/// A small IOMMU of another make, in the place of `rtl/iommu/iommu.sv`: one state machine that does one
/// thing after another and holds nothing. Device directory of one level with base-format contexts, Sv39,
/// command queue, fault queue, one wired interrupt. Ports: `docs/own-iommu.md`.
// Of the ports and of what stands in memory it uses what its capabilities need.
// verilator lint_off UNUSEDSIGNAL
// verilator lint_off UNUSEDPARAM
module iommu
  import iommu_pkg::*;
#(
    // The parameters that the tops set; this IOMMU has nothing to configure.
    parameter iommu_cfg_t Cfg = CfgMinimal,
    parameter int unsigned WalkEntries = 0,
    parameter longint unsigned AtsTimeoutCycles = 0
) (
    input logic clk_i,
    input logic rst_ni,

    input  logic    tr_req_valid_i,
    output logic    tr_req_ready_o,
    input  tr_req_t tr_req_i,
    output logic    tr_rsp_valid_o,
    output tr_rsp_t tr_rsp_o,

    output logic           mem_req_valid_o,
    input  logic           mem_req_ready_i,
    output iommu_mem_req_t mem_req_o,
    input  logic           mem_rsp_valid_i,
    input  iommu_mem_rsp_t mem_rsp_i,

    output logic [15:0] wsi_o,

    input  logic        reg_req_valid_i,
    input  logic        reg_req_write_i,
    input  logic [11:0] reg_req_addr_i,
    input  logic [ 7:0] reg_req_be_i,
    input  logic [63:0] reg_req_wdata_i,
    output logic        reg_rsp_valid_o,
    output logic [63:0] reg_rsp_rdata_o,

    output logic drain_req_o,
    input  logic drain_ack_i,

    // What belongs to capabilities that this IOMMU does not have: never ready, never valid.
    input  logic      mrif_req_valid_i,
    output logic      mrif_req_ready_o,
    input  mrif_req_t mrif_req_i,
    output logic      mrif_done_o,
    input  logic      msg_in_valid_i,
    output logic      msg_in_ready_o,
    input  msg_in_t   msg_in_i,
    output logic      msg_out_valid_o,
    input  logic      msg_out_ready_i,
    output msg_out_t  msg_out_o
);
  assign mrif_req_ready_o = 1'b0;
  assign mrif_done_o = 1'b0;
  assign msg_in_ready_o = 1'b0;
  assign msg_out_valid_o = 1'b0;
  assign msg_out_o = '0;

  /// Version 1.0, Sv39, interrupts by wire, physical addresses of 56 bits.
  localparam logic [63:0] Capabilities = 64'd56 << 32 | 64'd1 << 28 | 64'd1 << 9 | 64'h10;
  /// Index bits of the largest queue.
  localparam int unsigned QueueLog2Max = 7;

  typedef enum logic [3:0] {
    StIdle,
    StContext,  // read the device context
    StPte,      // read a page-table entry
    StRecord,   // write a fault record
    StAnswer,
    StCommand,  // read a command
    StDrain,    // the bridge makes visible what it holds, for a fence or a write of ddtp
    StStore     // the store of a fence
  } state_e;
  state_e state_q, state_d;
  logic sent_q, mem_done, mem_error, mem_poison;
  logic [255:0] rdata;

  assign mem_done = mem_rsp_valid_i && mem_rsp_i.last;
  assign mem_error = mem_rsp_i.error;
  assign mem_poison = mem_rsp_i.poison;
  assign rdata = mem_rsp_i.rdata;

  // Registers -----------------------------------------------------------------------------------------

  /// What cqb, fqb and the like hold.
  typedef struct packed {
    logic [43:0] ppn;
    logic [ 4:0] log2sz_m1;
    logic        ie;
    logic        en;
    logic [ 6:0] software;  // cqt, fqh
    logic [ 6:0] hardware;  // cqh, fqt
    logic [11:8] errors;    // of the CSR
  } queue_t;
  queue_t cq_q, cq_d, fq_q, fq_d;
  logic [ 3:0] mode_q, mode_d;
  logic [43:0] root_q, root_d;
  logic [1:0] ipsr_q, ipsr_d, raise;  // fault queue, command queue
  logic pending_q, write_q, do_access, do_low, do_high, new_record;
  logic [11:3] offset_q;
  logic [7:0] be_q;
  logic [63:0] wdata_q, rvalue;
  logic cq_step, cq_fence_w_ip, cq_illegal, cq_fault, fq_overflow, fq_fault;

  function automatic logic [6:0] mask(queue_t q);
    return 7'h7f >> (3'd6 - q.log2sz_m1[2:0]);
  endfunction

  function automatic queue_t write_base(queue_t q, logic low, logic high, logic [63:0] value);
    write_base = q;
    if (low) begin
      write_base.ppn[21:0] = value[31:10];
      write_base.log2sz_m1 = value[4:0] < 5'(QueueLog2Max) ? value[4:0] : 5'(QueueLog2Max - 1);
    end
    if (high) write_base.ppn[43:22] = value[53:32];
    write_base.software &= mask(write_base);
  endfunction

  /// Errors are cleared by 1; a queue that is turned on begins anew.
  function automatic queue_t write_csr(queue_t q, logic [31:0] value);
    write_csr = q;
    write_csr.en = value[0];
    write_csr.ie = value[1];
    write_csr.errors &= ~value[11:8];
    if (value[0] && !q.en) begin
      write_csr.hardware = '0;
      write_csr.errors = '0;
    end
  endfunction

  function automatic logic [31:0] read_csr(queue_t q);
    return {15'd0, q.en, 4'd0, q.errors, 6'd0, q.ie, q.en};
  endfunction

  function automatic logic [63:0] read_base(queue_t q);
    return {10'd0, q.ppn, 5'd0, q.log2sz_m1};
  endfunction

  // An access waits until nothing is under way, so that no register is ever busy.
  assign do_access = state_q == StIdle && pending_q;
  assign do_low = do_access && write_q && be_q[3:0] == '1;
  assign do_high = do_access && write_q && be_q[7:4] == '1;

  always_comb begin
    unique case (offset_q)
      9'd0: rvalue = Capabilities;
      9'd1: rvalue = 64'd2;  // fctl: little-endian, wires
      9'd2: rvalue = {10'd0, root_q, 6'd0, mode_q};
      9'd3: rvalue = read_base(cq_q);
      9'd4: rvalue = {25'd0, cq_q.software, 25'd0, cq_q.hardware};
      9'd5: rvalue = read_base(fq_q);
      9'd6: rvalue = {25'd0, fq_q.hardware, 25'd0, fq_q.software};
      9'd9: rvalue = {read_csr(fq_q), read_csr(cq_q)};
      9'd10: rvalue = {30'd0, ipsr_q, 32'd0};
      default: rvalue = '0;
    endcase
  end

  always_comb begin
    cq_d = cq_q;
    fq_d = fq_q;
    mode_d = mode_q;
    root_d = root_q;
    ipsr_d = ipsr_q;
    unique case (offset_q)
      9'd2: begin
        if (do_low) begin
          root_d[21:0] = wdata_q[31:10];
          if (wdata_q[3:0] <= 4'd2) mode_d = wdata_q[3:0];
        end
        if (do_high) root_d[43:22] = wdata_q[53:32];
      end
      9'd3: cq_d = write_base(cq_q, do_low, do_high, wdata_q);
      9'd4: if (do_high) cq_d.software = wdata_q[38:32] & mask(cq_q);
      9'd5: fq_d = write_base(fq_q, do_low, do_high, wdata_q);
      9'd6: if (do_low) fq_d.software = wdata_q[6:0] & mask(fq_q);
      9'd9: begin
        if (do_low) cq_d = write_csr(cq_q, wdata_q[31:0]);
        if (do_high) fq_d = write_csr(fq_q, wdata_q[63:32]);
      end
      9'd10: if (do_high) ipsr_d &= ~wdata_q[33:32];
      default: ;
    endcase
    if (cq_step) cq_d.hardware = (cq_q.hardware + 7'd1) & mask(cq_q);
    cq_d.errors |= {cq_fence_w_ip, cq_illegal, 1'b0, cq_fault};
    if (new_record) fq_d.hardware = (fq_q.hardware + 7'd1) & mask(fq_q);
    fq_d.errors |= {2'b00, fq_overflow, fq_fault};
    raise = {fq_q.ie && (new_record || fq_q.errors != '0), cq_q.ie && cq_q.errors != '0};
    ipsr_d |= raise;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      cq_q <= '0;
      fq_q <= '0;
      mode_q <= '0;
      root_q <= '0;
      ipsr_q <= '0;
      pending_q <= 1'b0;
      write_q <= 1'b0;
      offset_q <= '0;
      be_q <= '0;
      wdata_q <= '0;
      reg_rsp_valid_o <= 1'b0;
      reg_rsp_rdata_o <= '0;
    end else begin
      cq_q <= cq_d;
      fq_q <= fq_d;
      mode_q <= mode_d;
      root_q <= root_d;
      ipsr_q <= ipsr_d;
      pending_q <= reg_req_valid_i || pending_q && !do_access;
      if (reg_req_valid_i) begin
        write_q <= reg_req_write_i;
        offset_q <= reg_req_addr_i[11:3];
        be_q <= reg_req_be_i;
        wdata_q <= reg_req_wdata_i;
      end
      reg_rsp_valid_o <= do_access;
      reg_rsp_rdata_o <= rvalue;
    end
  end

  assign wsi_o = {15'd0, ipsr_q != '0};

  // Translation (IOMMU §2.3) --------------------------------------------------------------------------

  tr_req_t req_q;
  logic dtf_q, dtf_d, write, execute;
  logic [11:0] cause_q, cause_d, access_fault, page_fault;
  logic [43:0] table_q, table_d;
  logic [1:0] level_q, level_d;
  logic [55:0] spa_q, spa_d;
  logic [5:0] size_q, size_d;
  logic [63:0] tc, iohgatp, ta, fsc, pte;
  logic misconfigured, translated, wide, canonical, leaf, allowed, bad_pte, from_table_q;
  logic [6:0] leaf_size;
  logic [55:0] page_mask;
  logic [11:0] vpn_offset;

  assign write = req_q.ttyp == TtUntransWr;
  assign execute = req_q.ttyp == TtUntransRx;
  assign translated = !(req_q.ttyp inside {TtUntransRx, TtUntransRd, TtUntransWr});
  assign access_fault = execute ? 12'd1 : write ? 12'd7 : 12'd5;
  assign page_fault = execute ? 12'd12 : write ? 12'd15 : 12'd13;
  assign wide = req_q.iova[63:56] != '0;
  assign canonical = req_q.iova[63:38] == '0 || req_q.iova[63:38] == '1;

  // The device context and its checks (IOMMU §2.1.4).
  assign {fsc, ta, iohgatp, tc} = rdata;
  assign misconfigured = tc[63:32] != '0 || tc[23:12] != '0
      || (tc[11:0] & 12'b1101_1100_1110) != '0  // SXL, SBE, SADE, GADE, PRPR, T2GPA, EN_PRI, EN_ATS
      || tc[9] && !tc[5]                        // DPE without PDTV
      || iohgatp[63:60] != '0
      || ta[63:32] != '0 || ta[11:0] != '0
      || fsc[59:44] != '0
      || fsc[63:60] != '0 && (tc[5] || fsc[63:60] != 4'd8);

  // A page-table entry (Privileged specification, Sv39 and Svnapot).
  assign pte = rdata[63:0];
  assign leaf = pte[1] || pte[3];
  always_comb begin
    unique case (level_q)
      2'd2: begin
        leaf_size = 7'd30;
        vpn_offset = {req_q.iova[38:30], 3'd0};
      end
      2'd1: begin
        leaf_size = 7'd21;
        vpn_offset = {req_q.iova[29:21], 3'd0};
      end
      default: begin
        leaf_size = pte[63] ? 7'd16 : 7'd12;
        vpn_offset = {req_q.iova[20:12], 3'd0};
      end
    endcase
    page_mask = (56'd1 << leaf_size) - 56'd1;
  end
  assign allowed = pte[4] && pte[6]
      && (execute ? pte[3] : write ? pte[2] && pte[7] : pte[1]);
  always_comb begin
    bad_pte = !pte[0] || pte[2] && !pte[1] || pte[62:54] != '0;
    if (!leaf) begin
      bad_pte |= level_q == 2'd0 || pte[7] || pte[6] || pte[4] || pte[63];
    end else if (pte[63]) begin
      bad_pte |= level_q != 2'd0 || pte[13:10] != 4'b1000;
    end else begin
      bad_pte |= ({pte[53:10], 12'd0} & page_mask) != '0;
    end
    if (leaf) bad_pte |= !allowed;
  end

  // Commands (IOMMU §3.1): there is nothing to forget, so that an invalidation that is legal is done.
  logic [63:0] w0, w1, fence_data_q, fence_addr_q;
  logic fence_store_q, fence_wsi_q, for_fence_q, command_waits, legal, is_fence;
  assign {w1, w0} = rdata[127:0];
  assign is_fence = w0[9:0] == 10'd2;
  assign command_waits = cq_q.en && cq_q.errors[10:8] == '0 && cq_q.hardware != cq_q.software;
  always_comb begin
    unique case (w0[9:0])
      10'd1: begin  // IOTINVAL.VMA
        legal = !w0[11] && w0[43:34] == '0 && w0[63:60] == '0 && w1[9:0] == '0 && w1[63:62] == '0;
      end
      10'd2: legal = w0[31:14] == '0 && w1[63:62] == '0;  // IOFENCE.C
      10'd3: begin  // IODIR.INVAL_DDT
        legal = w0[11:10] == '0 && w0[32:12] == '0 && w0[39:34] == '0 && w1 == '0;
      end
      default: legal = 1'b0;
    endcase
  end

  // One thing after another ---------------------------------------------------------------------------

  assign tr_req_ready_o = state_q == StIdle && !pending_q && !command_waits;
  assign drain_req_o = state_q == StDrain;

  always_comb begin
    state_d = state_q;
    cause_d = cause_q;
    dtf_d = dtf_q;
    table_d = table_q;
    level_d = level_q;
    spa_d = spa_q;
    size_d = size_q;
    cq_step = 1'b0;
    cq_fence_w_ip = 1'b0;
    cq_illegal = 1'b0;
    cq_fault = 1'b0;
    fq_overflow = 1'b0;
    fq_fault = 1'b0;
    new_record = 1'b0;
    unique case (state_q)
      StIdle: begin
        cause_d = '0;
        dtf_d = 1'b0;
        if (pending_q) begin
          if (write_q && offset_q == 9'd2) state_d = StDrain;
        end else if (command_waits) begin
          state_d = StCommand;
        end else if (tr_req_valid_i) begin
          state_d = StAnswer;
          spa_d = tr_req_i.iova[55:0];
          size_d = 6'd12;
          if (mode_q == 4'd0) cause_d = 12'd256;
          else if (mode_q == 4'd2) begin
            if (tr_req_i.device_id[23:7] != '0) cause_d = 12'd260;
            else state_d = StContext;
          end
        end
      end

      StContext:
      if (mem_done) begin
        state_d = StAnswer;
        table_d = fsc[43:0];
        level_d = 2'd2;
        if (mem_error) cause_d = 12'd257;
        else if (mem_poison) cause_d = 12'd268;
        else if (!tc[0]) cause_d = 12'd258;
        else if (misconfigured) cause_d = 12'd259;
        else begin
          dtf_d = tc[4];
          if (translated || req_q.pid_valid && !tc[5]) cause_d = 12'd260;
          else if (!tc[5] && fsc[63:60] != '0) begin
            if (canonical) state_d = StPte;
            else cause_d = page_fault;
          end
        end
      end

      StPte:
      if (mem_done) begin
        state_d = StAnswer;
        spa_d = {pte[53:10], 12'd0} & ~page_mask | req_q.iova[55:0] & page_mask;
        size_d = leaf_size[5:0];
        table_d = pte[53:10];
        level_d = level_q - 2'd1;
        if (mem_error) cause_d = access_fault;
        else if (mem_poison) cause_d = 12'd274;
        else if (bad_pte) cause_d = page_fault;
        else if (!leaf) state_d = StPte;
      end

      // Some faults are reported whatever DTF says (IOMMU §3.2).
      StRecord: begin
        if (!sent_q && (dtf_q && !(cause_q inside {[12'd256 : 12'd259], 12'd268})
            || !fq_q.en || fq_q.errors != '0)) begin
          state_d = StIdle;
        end else if (!sent_q && ((fq_q.hardware + 7'd1) & mask(fq_q)) == fq_q.software) begin
          fq_overflow = 1'b1;
          state_d = StIdle;
        end else if (mem_done) begin
          state_d = StIdle;
          fq_fault = mem_error;
          new_record = !mem_error;
        end
      end

      StAnswer: state_d = tr_rsp_o.status == TrOk ? StIdle : StRecord;

      StCommand:
      if (mem_done) begin
        state_d = StIdle;
        if (mem_error || mem_poison) cq_fault = 1'b1;
        else if (!legal) cq_illegal = 1'b1;
        else if (!is_fence) cq_step = 1'b1;
        else state_d = w0[13:12] != '0 ? StDrain : StStore;
      end

      StDrain: if (drain_ack_i) state_d = for_fence_q ? StStore : StIdle;

      StStore:
      if (!sent_q && fence_store_q && fence_addr_q[63:56] != '0) begin
        state_d = StIdle;
        cq_fault = 1'b1;
      end else if (mem_done || !fence_store_q) begin
        state_d = StIdle;
        cq_fault = fence_store_q && mem_error;
        cq_step = !cq_fault;
        cq_fence_w_ip = fence_wsi_q && !cq_fault;
      end

      default: state_d = StIdle;
    endcase
  end

  always_comb begin
    tr_rsp_o = '0;
    tr_rsp_o.tag = req_q.tag;
    tr_rsp_o.cause = cause_q;
    // In mode Bare, and without a page table (IOMMU §2.3 step 2; §5.3, PAS).
    if (cause_q == '0 && mode_q == 4'd1 && translated) tr_rsp_o.cause = 12'd260;
    else if (cause_q == '0 && !from_table_q && wide) tr_rsp_o.cause = access_fault;
    if (tr_rsp_o.cause == '0) begin
      tr_rsp_o.spa = spa_q;
      tr_rsp_o.size_log2 = size_q;
    end else begin
      tr_rsp_o.status = tr_rsp_o.cause inside {[12'd268 : 12'd274]} ? TrCa : TrUr;
    end
  end
  assign tr_rsp_valid_o = state_q == StAnswer;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StIdle;
      sent_q <= 1'b0;
    end else begin
      state_q <= state_d;
      if (mem_req_valid_o && mem_req_ready_i) sent_q <= 1'b1;
      if (mem_done) sent_q <= 1'b0;
    end
  end
  always_ff @(posedge clk_i) begin
    if (state_q == StIdle) req_q <= tr_req_i;
    cause_q <= state_q == StAnswer ? tr_rsp_o.cause : cause_d;
    dtf_q <= dtf_d;
    table_q <= table_d;
    level_q <= level_d;
    spa_q <= spa_d;
    size_q <= size_d;
    from_table_q <= state_q == StPte;
    if (state_q == StIdle) for_fence_q <= 1'b0;
    if (state_q == StCommand && mem_done) begin
      for_fence_q <= 1'b1;
      fence_store_q <= w0[10];
      fence_wsi_q <= w0[11];
      fence_data_q <= {32'd0, w0[63:32]};
      fence_addr_q <= {w1[61:0], 2'd0};
    end
  end

  // The memory port: one request at a time.
  always_comb begin
    mem_req_o = '0;
    mem_req_valid_o = !sent_q;
    unique case (state_q)
      StContext: begin
        mem_req_o.addr = {root_q, req_q.device_id[6:0], 5'd0};
        mem_req_o.len_dw = 5'd8;
      end
      StPte: begin
        mem_req_o.addr = {table_q, vpn_offset};
        mem_req_o.len_dw = 5'd2;
      end
      StCommand: begin
        mem_req_o.addr = {cq_q.ppn, 12'd0} | {45'd0, cq_q.hardware, 4'd0};
        mem_req_o.len_dw = 5'd4;
      end
      StRecord: begin
        mem_req_o.op = MemWrite;
        mem_req_o.addr = {fq_q.ppn, 12'd0} | {44'd0, fq_q.hardware, 5'd0};
        mem_req_o.len_dw = 5'd8;
        mem_req_o.wdata[63:0] = {req_q.device_id, req_q.ttyp, req_q.priv && req_q.pid_valid,
                                 req_q.pid_valid, req_q.pid_valid ? req_q.process_id : 20'd0, cause_q};
        mem_req_o.wdata[191:128] = req_q.iova;
        mem_req_valid_o = !sent_q && state_d == StRecord;
      end
      StStore: begin
        mem_req_o.op = MemWrite;
        mem_req_o.addr = fence_addr_q[55:0];
        mem_req_o.len_dw = 5'd1;
        mem_req_o.wdata[63:0] = fence_data_q;
        mem_req_valid_o = !sent_q && state_d == StStore;
      end
      default: mem_req_valid_o = 1'b0;
    endcase
  end
endmodule
