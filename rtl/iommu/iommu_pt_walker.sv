// SPDX-License-Identifier: MIT OR Apache-2.0

/// Walks the page table of one stage (privileged specification, "Virtual Address Translation
/// Process" and "Guest Physical Address Translation", with Svnapot, Svpbmt and Svrsw60t59b), and
/// updates A and D where that is enabled. The first stage asks the second for the address of each
/// of its tables. One walk at a time; `start_valid_i` is only given while no walk is under way.
module iommu_pt_walker
  import iommu_pkg::*;
  import iommu_int_pkg::*;
#(
    /// Capabilities.
    parameter iommu_cfg_t Cfg = CfgBase,
    /// 1: second stage. Its root table has four times the entries, its pages are user pages.
    parameter bit Stage2 = 1'b0,
    /// Non-leaf entries held, 0 for none.
    parameter int unsigned WalkEntries = 0
) (
    /// Clock.
    input logic clk_i,
    /// Reset, active low.
    input logic rst_ni,

    /// Begin a walk.
    input logic start_valid_i,
    /// Scheme, not PtBare.
    input pt_mode_e mode_i,
    /// Root page table.
    input logic [43:0] root_ppn_i,
    /// Address bits 58:12; what is above them has been checked.
    input logic [46:0] page_i,
    /// Access.
    input acc_t acc_i,
    /// A and D are updated.
    input logic ade_i,
    /// Entries are big-endian.
    input logic be_i,
    /// The address space has a second stage; tables of the first are then at guest addresses.
    input logic guest_i,
    /// GSCID, when there is a second stage.
    input logic [15:0] gscid_i,
    /// PSCID.
    input logic [19:0] pscid_i,
    /// What is found may be held.
    input logic may_fill_i,
    /// Invalidate what is held, one cycle.
    input logic inval_valid_i,
    /// What to invalidate.
    input iotlb_inval_t inval_i,

    /// Ask the second stage for a table; held until done.
    output logic s2_valid_o,
    /// Its guest page.
    output logic [43:0] s2_page_o,
    /// It is to be written.
    output logic s2_write_o,
    /// Answered, one cycle.
    input logic s2_done_i,
    /// Answer.
    input s2_rsp_t s2_rsp_i,

    /// The walk has ended, one cycle.
    output logic done_valid_o,
    /// How.
    output walk_e done_result_o,
    /// The leaf when the result is WkOk.
    output leaf_t done_leaf_o,
    /// Address of the entry that the second stage refused, when the result is WkGuest.
    output logic [55:2] done_gpa_o,
    /// It was to be written.
    output logic done_gpa_write_o,

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
    input logic mem_rsp_poison_i,
    /// The entry.
    input logic [63:0] mem_rsp_pte_i
);
  typedef enum logic [3:0] {
    StIdle, StLookup, StTable, StReq, StRsp, StWritable, StCas, StCasRsp, StDone
  } state_e;

  /// Page table entry (privileged specification, Sv39 to Sv57).
  typedef struct packed {
    logic        n;
    logic [1:0]  pbmt;
    logic [6:0]  rsvd;
    logic [43:0] ppn;
    logic [1:0]  rsw;
    logic        d;
    logic        a;
    logic        g;
    logic        u;
    logic        x;
    logic        w;
    logic        r;
    logic        v;
  } pte_t;

  state_e state_q, state_d;
  pt_mode_e mode_q;
  logic root_q, root_d, global_q, global_d, guest_q, ade_q, be_q;
  logic [2:0] level_q, level_d;
  logic [43:0] ppn_q, ppn_d;   // table, guest page if guest_q
  logic [43:0] spa_q, spa_d;   // table
  logic [1:0] pbmt_q, pbmt_d;  // memory type that the second stage gives to it
  logic [46:0] page_q;
  acc_t acc_q;
  walk_e result_q, result_d;
  leaf_t leaf_q, leaf_d, leaf;
  logic [63:0] raw_q, raw_d;  // the entry as it is in memory
  pte_t pte;
  logic sv32;

  assign sv32 = (Cfg.sv32 || Cfg.sv32x4) && mode_q == PtSv32;

  function automatic logic [63:0] to_memory(logic [63:0] v, logic big, logic half);
    if (!big) return v;
    return half ? {32'd0, swap_bytes32(v[31:0])} : swap_bytes(v);
  endfunction

  // Index of the entry at this level and its byte offset.
  logic [11:0] index;
  logic [13:0] offset;
  always_comb begin
    if (sv32) begin
      index = level_q == 3'd0 ? {2'd0, page_q[9:0]} : page_q[21:10];
      if (!Stage2 || !root_q) index[11:10] = '0;
      offset = {index, 2'b00};
    end else begin
      unique case (level_q)
        3'd4:    index = {1'b0, page_q[46:36]};
        3'd3:    index = {1'b0, page_q[37:27]};
        3'd2:    index = {1'b0, page_q[28:18]};
        3'd1:    index = {1'b0, page_q[19:9]};
        default: index = {1'b0, page_q[10:0]};
      endcase
      if (!Stage2 || !root_q) index[10:9] = '0;
      offset = {index[10:0], 3'b000};
    end
  end

  logic [63:0] in_memory, value;
  assign in_memory = sv32 ? {32'd0, mem_rsp_pte_i[31:0]} : mem_rsp_pte_i;
  // In the state after a response the entry is the one that was read.
  assign value = to_memory(state_q == StRsp ? in_memory : raw_q, be_q, sv32);
  // A 32-bit entry has a PPN of 22 bits and nothing above it.
  assign pte = sv32 ? pte_t'({32'd0, value[31:0]}) : pte_t'(value);

  // What the entry would be if this walk updates it.
  logic set_d, update;
  pte_t updated;
  logic [63:0] new_raw;
  assign set_d = acc_q.write && pte.w && !pte.d;
  assign update = !pte.a || set_d;
  always_comb begin
    updated = pte;
    updated.a = 1'b1;
    if (set_d) updated.d = 1'b1;
  end
  assign new_raw = to_memory(updated, be_q, sv32);

  // The root of the second stage is aligned to its 16 KiB.
  assign mem_req_o = '{
      rcid: '0,
      mcid: '0,
      pbmt: pbmt_q,
      op: state_q == StCas ? MemCas : MemRead,
      addr: {spa_q, 12'd0} | {42'd0, offset},
      len_dw: sv32 ? 5'd1 : 5'd2,
      wdata: state_q == StCas ? {128'd0, raw_q, new_raw} : '0
  };
  assign mem_valid_o = state_q == StReq || state_q == StCas;
  assign s2_valid_o = !Stage2 && (state_q == StTable || state_q == StWritable);
  assign s2_page_o = ppn_q;
  assign s2_write_o = state_q == StWritable;

  always_comb begin
    leaf = '0;
    unique case (level_q)
      3'd4:    leaf.size = Pg256T;
      3'd3:    leaf.size = Pg512G;
      3'd2:    leaf.size = Pg1G;
      3'd1:    leaf.size = sv32 ? Pg4M : Pg2M;
      default: leaf.size = pte.n ? Pg64K : Pg4K;
    endcase
    leaf.r = pte.r;
    leaf.w = pte.w && (pte.d || (set_d && ade_q));
    leaf.x = pte.x;
    leaf.u = pte.u;
    leaf.global_map = global_q || pte.g;
    leaf.pbmt = Cfg.svpbmt ? pte.pbmt : 2'd0;
    leaf.ppn = pte.ppn;
  end

  // Each ends in the same page fault, so that their order is not visible; but no entry is updated
  // that has any of these faults.
  logic malformed, pointer, pointer_bad, leaf_bad, denied, clean, reserved;
  logic [51:0] offset_mask;
  assign offset_mask = page_mask(leaf.size);
  assign reserved = Cfg.svrsw60t59b ? pte.rsvd[4:0] != '0 : pte.rsvd != '0;
  // xwr = 010 stays reserved for IO requests (IOMMU §2.3, on Zicfiss).
  assign malformed = !pte.v || (pte.w && !pte.r) || reserved || pte.pbmt == 2'd3 ||
                     (!Cfg.svpbmt && pte.pbmt != 2'd0);
  assign pointer = !pte.r && !pte.x;
  assign pointer_bad = level_q == 3'd0 || pte.a || pte.d || pte.u || pte.n || pte.pbmt != 2'd0;
  // A translation request demands no permission, it asks for them.
  assign denied = !acc_q.probe &&
                  (acc_q.exec ? !pte.x || (Cfg.execute_needs_read && !pte.r) : acc_q.write ? !pte.w : !pte.r);
  // To be set by software.
  assign clean = acc_q.write && !pte.d &&
                 (!acc_q.probe ? pte.w :
                  Cfg.ats_clean_page == CleanNoAccess ||
                  (Cfg.ats_clean_page == CleanNoAccessIfWritable && pte.w));
  always_comb begin
    leaf_bad = !privilege_permits(pte.u, acc_q) || denied;
    if (level_q != 3'd0) begin
      leaf_bad = leaf_bad || pte.n || (pte.ppn & offset_mask[43:0]) != '0;  // superpage
    end else begin
      leaf_bad = leaf_bad || (pte.n && pte.ppn[3:0] != 4'b1000);  // 64 KiB is the only NAPOT size
    end
    if (!ade_q) leaf_bad = leaf_bad || !pte.a || clean;
  end

  // Tables that are held: the walk begins at the one nearest to the leaf.
  logic wc_hit, wc_global, wc_fill;
  logic [1:0] wc_level;
  logic [43:0] wc_ppn;
  if (WalkEntries > 0) begin : gen_walk_cache
    logic guest;
    assign guest = Stage2 || guest_q;
    iommu_walk_cache #(
        .Entries(WalkEntries),
        .Stage2 (Stage2)
    ) u_walk_cache (
        .clk_i,
        .rst_ni,
        .guest_i      (guest),
        .gscid_i      (guest ? gscid_i : '0),
        .pscid_i      (Stage2 ? '0 : pscid_i),
        .sv32_i       (sv32),
        .page_i       (page_q),
        .used_i       (state_q == StLookup && wc_hit),
        .hit_o        (wc_hit),
        .level_o      (wc_level),
        .ppn_o        (wc_ppn),
        .global_o     (wc_global),
        .fill_valid_i (wc_fill && may_fill_i),
        .fill_level_i (level_d[1:0]),
        .fill_ppn_i   (ppn_d),
        .fill_global_i(global_d),
        .inval_valid_i,
        .inval_i
    );
  end else begin : gen_no_walk_cache
    assign wc_hit = 1'b0;
    assign wc_level = '0;
    assign wc_ppn = '0;
    assign wc_global = 1'b0;
  end

  logic unused;
  assign unused = ^{pte.rsw, offset_mask[51:44], s2_rsp_i.leaf, s2_done_i, guest_i, acc_i, gscid_i,
                    pscid_i, may_fill_i, inval_valid_i, inval_i, wc_fill, wc_level};

  // From a table to its entry.
  logic enter;
  always_comb begin
    state_d = state_q;
    root_d = root_q;
    level_d = level_q;
    ppn_d = ppn_q;
    spa_d = spa_q;
    pbmt_d = pbmt_q;
    global_d = global_q;
    result_d = result_q;
    raw_d = raw_q;
    leaf_d = leaf_q;
    enter = 1'b0;
    wc_fill = 1'b0;
    unique case (state_q)
      StIdle: begin
        pbmt_d = '0;
        if (start_valid_i) begin
          enter = 1'b1;
          root_d = 1'b1;
          unique case (mode_i)
            PtSv57:  level_d = 3'd4;
            PtSv48:  level_d = 3'd3;
            PtSv32:  level_d = 3'd1;
            default: level_d = 3'd2;
          endcase
          ppn_d = root_ppn_i;
          global_d = 1'b0;
        end
      end
      StLookup: begin
        enter = 1'b1;
        if (wc_hit) begin
          root_d = 1'b0;
          level_d = {1'b0, wc_level};
          ppn_d = wc_ppn;
          global_d = wc_global;
        end
      end
      StTable, StWritable: begin
        if (s2_done_i) begin
          state_d = s2_rsp_i.result == WkOk ? (state_q == StTable ? StReq : StCas) : StDone;
          result_d = s2_rsp_i.result == WkPage ? WkGuest : s2_rsp_i.result;
          spa_d = leaf_ppn(s2_rsp_i.leaf, {8'd0, ppn_q});
          pbmt_d = s2_rsp_i.leaf.pbmt;
        end
      end
      StReq: if (mem_ready_i) state_d = StRsp;
      StRsp: begin
        if (mem_rsp_valid_i) begin
          raw_d = in_memory;
          leaf_d = leaf;
          state_d = StDone;
          result_d = WkOk;
          if (mem_rsp_error_i) result_d = WkAccess;
          else if (mem_rsp_poison_i) result_d = WkCorrupt;
          else if (malformed || (pointer ? pointer_bad : leaf_bad)) result_d = WkPage;
          else if (pointer) begin
            enter = 1'b1;
            wc_fill = 1'b1;
            root_d = 1'b0;
            level_d = level_q - 3'd1;
            ppn_d = pte.ppn;
            global_d = global_q || pte.g;
          end else if (update && ade_q) begin
            state_d = (!Stage2 && guest_q) ? StWritable : StCas;
          end
        end
      end
      StCas: if (mem_ready_i) state_d = StCasRsp;
      StCasRsp: begin
        if (mem_rsp_valid_i) begin
          state_d = StDone;
          if (mem_rsp_error_i) result_d = WkAccess;
          else if (mem_rsp_poison_i) result_d = WkCorrupt;
          else if (in_memory != raw_q) state_d = StReq;  // it has changed: look again
        end
      end
      default: state_d = StIdle;
    endcase
    if (enter) begin
      state_d = (!Stage2 && (state_q == StIdle ? guest_i : guest_q)) ? StTable : StReq;
      if (WalkEntries > 0 && state_q == StIdle) state_d = StLookup;
      spa_d = ppn_d;
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) state_q <= StIdle;
    else state_q <= state_d;
  end
  always_ff @(posedge clk_i) begin
    root_q <= root_d;
    level_q <= level_d;
    ppn_q <= ppn_d;
    spa_q <= spa_d;
    pbmt_q <= pbmt_d;
    global_q <= global_d;
    result_q <= result_d;
    raw_q <= raw_d;
    leaf_q <= leaf_d;
    if (start_valid_i) begin
      mode_q <= mode_i;
      page_q <= page_i;
      acc_q <= acc_i;
      ade_q <= Cfg.amo_hwad && ade_i;
      be_q <= big_endian(Cfg, be_i);
      guest_q <= guest_i;
    end
    if (s2_valid_o) done_gpa_write_o <= s2_write_o;
  end

  assign done_valid_o = state_q == StDone;
  assign done_result_o = result_q;
  assign done_leaf_o = leaf_q;
  assign done_gpa_o = {ppn_q, offset[11:2]};

  assert property (@(posedge clk_i) disable iff (!rst_ni) !start_valid_i || state_q == StIdle);
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !mem_rsp_valid_i || state_q == StRsp || state_q == StCasRsp);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !s2_done_i || s2_valid_o || Stage2);
endmodule
