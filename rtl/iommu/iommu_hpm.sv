// SPDX-License-Identifier: MIT OR Apache-2.0

/// Performance monitor (IOMMU §5.19 to §5.23): iocountovf, iocountinh, iohpmcycles, and event
/// counters with their selectors.
module iommu_hpm
  import iommu_pkg::*;
  import iommu_int_pkg::*;
#(
    /// Capabilities; how many counters, of how many bits.
    parameter iommu_cfg_t Cfg = CfgFull
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
    /// Its value, 0 if it is none of these.
    output logic [63:0] rdata_o,

    /// What happens in this cycle.
    input hpm_event_t event_i,
    /// An OF bit went from 0 to 1 by an overflow, one cycle.
    output logic overflow_o
);
  localparam int unsigned Num = int'(Cfg.event_counters);
  localparam logic [8:0] RegOvf = 9'd11;  // iocountovf low, iocountinh high
  localparam logic [8:0] RegCycles = 9'd12;
  localparam logic [8:0] RegCtr1 = 9'd13;
  localparam logic [8:0] RegEvt1 = 9'd44;
  // A counter counts in the bits that it has.
  localparam logic [63:0] CtrMask = Cfg.counter_bits >= 7'd64 ? '1 : (64'd1 << Cfg.counter_bits) - 64'd1;
  localparam logic [62:0] CycMask = Cfg.counter_bits >= 7'd63 ? '1 : (63'd1 << Cfg.counter_bits) - 63'd1;
  localparam logic [14:0] LastEvent = 15'(EvS2Walk);

  /// iohpmevt1-31 (IOMMU §5.23) without OF.
  typedef struct packed {
    logic        idt;
    logic        dv_gscv;
    logic        pv_pscv;
    logic [23:0] did_gscid;
    logic [19:0] pid_pscid;
    logic        dmask;
    logic [14:0] event_id;
  } selector_t;

  logic [Num:0] inhibit_q, of_q;  // bit 0 is that of iohpmcycles
  logic [62:0] cycles_q;
  logic [Num:1][63:0] counter_q;
  selector_t [Num:1] selector_q;

  // Does the event of this cycle count? Events 4, 7 and 8 know GSCID and PSCID.
  function automatic logic counts(selector_t s, hpm_event_t e);
    logic [23:0] id, masked;
    logic happened, has_space, id_ok, pid_ok;
    happened = 1'b0;
    for (int unsigned i = EvUntranslated; i <= EvS2Walk; i++) begin
      if (s.event_id == 15'(i)) happened = e.pulse[i];
    end
    has_space = s.event_id inside {15'(EvTlbMiss), 15'(EvS1Walk), 15'(EvS2Walk)};
    masked = s.dmask ? s.did_gscid ^ (s.did_gscid + 24'd1) : '0;
    id = s.idt ? {8'd0, e.gscid} : e.device_id;
    id_ok = (!s.idt || e.gscid_valid) && ((id ^ s.did_gscid) & ~masked) == '0;
    pid_ok = s.idt ? e.pscid_valid && e.pscid == s.pid_pscid
                   : e.pid_valid && e.process_id == s.pid_pscid;
    return happened && (!s.idt || has_space) && (!s.dv_gscv || id_ok) && (!s.pv_pscv || pid_ok);
  endfunction

  logic [Num:0] overflow;
  assign overflow_o = |overflow;
  assign overflow[0] = !inhibit_q[0] && cycles_q == CycMask && !of_q[0];

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      inhibit_q <= '0;
      of_q[0] <= 1'b0;
      cycles_q <= '0;
    end else begin
      if (!inhibit_q[0]) begin
        cycles_q <= (cycles_q + 63'd1) & CycMask;
        if (cycles_q == CycMask) of_q[0] <= 1'b1;
      end
      if (reg_no_i == RegCycles) begin
        if (wr_lo_i) cycles_q <= {cycles_q[62:32], wdata_i[31:0]} & CycMask;
        if (wr_hi_i) {of_q[0], cycles_q[62:32]} <= wdata_i[63:32] & {1'b1, CycMask[62:32]};
        if (wr_lo_i && wr_hi_i) cycles_q <= wdata_i[62:0] & CycMask;
      end
      if (reg_no_i == RegOvf && wr_hi_i) inhibit_q <= wdata_i[32+:Num+1];
    end
  end

  logic [63:0] rdata_ctr [Num+1];
  assign rdata_ctr[0] = '0;
  for (genvar i = 1; i <= Num; i++) begin : gen_counter
    logic count, wr_ctr, wr_evt;
    logic [63:0] written;
    assign count = !inhibit_q[i] && counts(selector_q[i], event_i);
    assign overflow[i] = count && counter_q[i] == CtrMask && !of_q[i];
    assign wr_ctr = reg_no_i == RegCtr1 + 9'(i - 1);
    assign wr_evt = reg_no_i == RegEvt1 + 9'(i - 1);
    always_comb begin
      written = {of_q[i], selector_q[i]};
      if (wr_lo_i) written[31:0] = wdata_i[31:0];
      if (wr_hi_i) written[63:32] = wdata_i[63:32];
      if (written[14:0] > LastEvent) written[14:0] = '0;
    end
    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) begin
        counter_q[i] <= '0;
        selector_q[i] <= '0;
        of_q[i] <= 1'b0;
      end else begin
        if (count) begin
          counter_q[i] <= (counter_q[i] + 64'd1) & CtrMask;
          if (counter_q[i] == CtrMask) of_q[i] <= 1'b1;
        end
        // A write wins over an event of its cycle.
        if (wr_ctr && wr_lo_i) counter_q[i][31:0] <= wdata_i[31:0];
        if (wr_ctr && wr_hi_i) counter_q[i][63:32] <= wdata_i[63:32] & CtrMask[63:32];
        if (wr_evt && (wr_lo_i || wr_hi_i)) {of_q[i], selector_q[i]} <= written;
      end
    end
    assign rdata_ctr[i] = wr_ctr ? counter_q[i] : wr_evt ? {of_q[i], selector_q[i]} : '0;
  end

  always_comb begin
    rdata_o = '0;
    for (int unsigned i = 1; i <= Num; i++) begin
      rdata_o = rdata_o | rdata_ctr[i];
    end
    if (reg_no_i == RegOvf) rdata_o = {32'(inhibit_q), 32'(of_q)};
    if (reg_no_i == RegCycles) rdata_o = {of_q[0], cycles_q};
  end

  if (Num < 1 || Cfg.counter_bits < 7'd32 || Cfg.counter_bits > 7'd64) begin : gen_too_few
    $error("HPM has at least one event counter, of 32 to 64 bits (IOMMU §5.3)");
  end
  logic unused;
  assign unused = ^{event_i, wdata_i};
endmodule
