// SPDX-License-Identifier: MIT OR Apache-2.0

/// Registers of BAR0 below 0x1000 (`docs/endpoint.md`): staged descriptor, doorbell, status,
/// completion records.
///
/// A 64-bit read of COMPLETION, or a 32-bit read of its low half, pops the record: software
/// limited to 32 bits reads the high half, with the valid bit, first.
///
/// Handshake kind: a write is taken in the cycle of `wr_valid_i`; a read is combinational, its
/// side effect in the cycle of `rd_valid_i`. The descriptor and record ports are ready/valid.
module ep_regs (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// Write a register.
  input logic wr_valid_i,
  /// Register, in units of 8 bytes.
  input logic [13:3] wr_addr_i,
  /// Halves written.
  input logic [1:0] wr_en_i,
  /// Data.
  input logic [63:0] wr_data_i,

  /// Read a register.
  input logic rd_valid_i,
  /// Register, in units of 8 bytes.
  input logic [13:3] rd_addr_i,
  /// The low half is read.
  input logic rd_low_i,
  /// Contents; 0 at addresses of other blocks.
  output logic [63:0] rd_data_o,

  /// A descriptor is pushed.
  output logic desc_valid_o,
  /// There is room in the queue.
  input logic desc_ready_i,
  /// The descriptor.
  output ep_pkg::desc_t desc_o,

  /// A completion record waits.
  input logic record_valid_i,
  /// The record.
  input ep_pkg::record_t record_i,
  /// The record is read.
  output logic record_ready_o,

  /// Records waiting.
  input logic [7:0] records_i,
  /// Read tags in use.
  input logic [7:0] tags_i,
  /// A descriptor is complete.
  input logic retire_i,
  /// A completion was unexpected or malformed.
  input logic unexpected_i
);
  import ep_pkg::*;

  localparam logic [13:3] RegId = 11'(14'h000 >> 3);
  localparam logic [13:3] RegScratch = 11'(14'h008 >> 3);
  localparam logic [13:3] RegStatus = 11'(14'h010 >> 3);
  localparam logic [13:3] RegCounts = 11'(14'h018 >> 3);
  localparam logic [13:3] RegDescAddr = 11'(14'h100 >> 3);
  localparam logic [13:3] RegDescLen = 11'(14'h108 >> 3);
  localparam logic [13:3] RegDescCtrl = 11'(14'h110 >> 3);
  localparam logic [13:3] RegDescAux = 11'(14'h118 >> 3);
  localparam logic [13:3] RegDoorbell = 11'(14'h120 >> 3);
  localparam logic [13:3] RegCompletion = 11'(14'h128 >> 3);
  localparam logic [13:3] RegDescAddr2 = 11'(14'h130 >> 3);

  // Defined bits of the staged descriptor; the others read 0.
  localparam logic [63:0] MaskLen = 64'h000f_ffff_007f_ffff;
  localparam logic [63:0] MaskCtrl = 64'h000f_ffff_0037_7fff;
  localparam logic [63:0] MaskAux = 64'hffff_ffff_0000_ffff;

  logic [63:0] scratch_q;
  logic [63:0] addr_q;
  logic [63:0] addr2_q;
  logic [63:0] len_q;
  logic [63:0] ctrl_q;
  logic [63:0] aux_q;
  logic [31:0] retired_q;
  logic [31:0] strays_q;
  logic [7:0] pending_q;

  function automatic logic [63:0] merge(logic [63:0] old, logic [63:0] data, logic [1:0] en);
    return {en[1] ? data[63:32] : old[63:32], en[0] ? data[31:0] : old[31:0]};
  endfunction

  // The doorbell acts on its low half; a descriptor that cannot be queued is counted and lost.
  logic ring;
  mode_e mode;
  logic desc_ok;
  logic lost;

  assign ring = wr_valid_i && wr_addr_i == RegDoorbell && wr_en_i[0];
  assign mode = mode_e'(ctrl_q[21:20]);
  assign desc_ok = len_q[22:0] != '0 && 32'(len_q[22:0]) <= MaxLen && mode != ModeReserved;
  assign desc_valid_o = ring && desc_ok;
  assign lost = ring && !(desc_ok && desc_ready_i);

  always_comb begin
    desc_o = '0;
    desc_o.info.id = wr_data_i[15:0];
    desc_o.transfer.extent.addr = addr_q;
    desc_o.transfer.addr2 = addr2_q;
    desc_o.transfer.mode = mode;
    desc_o.transfer.extent.len = len_q[22:0];
    desc_o.transfer.extent.local_dw = len_q[51:34];
    desc_o.transfer.common.write = ctrl_q[0];
    desc_o.transfer.common.pattern = ctrl_q[1];
    desc_o.transfer.common.at = ctrl_q[3:2];
    desc_o.transfer.common.attr = {ctrl_q[6], ctrl_q[5], ctrl_q[4]};
    desc_o.transfer.common.pasid_valid = ctrl_q[7];
    desc_o.transfer.common.pmr = ctrl_q[8];
    desc_o.transfer.common.er = ctrl_q[9];
    desc_o.transfer.common.rid_ovr = ctrl_q[10];
    desc_o.info.irq = ctrl_q[11];
    desc_o.info.irq_vector = ctrl_q[14:12];
    desc_o.transfer.common.tc = ctrl_q[18:16];
    desc_o.transfer.common.pasid = ctrl_q[51:32];
    desc_o.transfer.common.rid = aux_q[15:0];
    desc_o.transfer.common.seed = aux_q[63:32];
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      scratch_q <= '0;
      addr_q <= '0;
      addr2_q <= '0;
      len_q <= '0;
      ctrl_q <= '0;
      aux_q <= '0;
      retired_q <= '0;
      strays_q <= '0;
      pending_q <= '0;
    end else begin
      if (wr_valid_i) begin
        unique case (wr_addr_i)
          RegScratch: scratch_q <= merge(scratch_q, wr_data_i, wr_en_i);
          RegDescAddr: addr_q <= merge(addr_q, wr_data_i, wr_en_i);
          RegDescAddr2: addr2_q <= merge(addr2_q, wr_data_i, wr_en_i);
          RegDescLen: len_q <= merge(len_q, wr_data_i, wr_en_i) & MaskLen;
          RegDescCtrl: ctrl_q <= merge(ctrl_q, wr_data_i, wr_en_i) & MaskCtrl;
          RegDescAux: aux_q <= merge(aux_q, wr_data_i, wr_en_i) & MaskAux;
          default: ;
        endcase
      end
      retired_q <= retired_q + 32'(retire_i);
      strays_q <= strays_q + 32'(unexpected_i) + 32'(lost);
      pending_q <= pending_q + 8'(desc_valid_o && desc_ready_i) - 8'(retire_i);
    end
  end

  always_comb begin
    unique case (rd_addr_i)
      RegId: rd_data_o = {16'd0, 8'(QueueDepth), 8'(Tags), 32'h544c_5031};
      RegScratch: rd_data_o = scratch_q;
      RegStatus: rd_data_o = {32'd0, pending_q == '0, 7'd0, tags_i, records_i, pending_q};
      RegCounts: rd_data_o = {strays_q, retired_q};
      RegDescAddr: rd_data_o = addr_q;
      RegDescAddr2: rd_data_o = addr2_q;
      RegDescLen: rd_data_o = len_q;
      RegDescCtrl: rd_data_o = ctrl_q;
      RegDescAux: rd_data_o = aux_q;
      RegCompletion: begin
        rd_data_o = record_valid_i
            ? {1'b1, 31'd0, record_i.code, 5'd0, record_i.status, record_i.id} : '0;
      end
      default: rd_data_o = '0;
    endcase
  end

  assign record_ready_o = rd_valid_i && rd_addr_i == RegCompletion && rd_low_i;

  assert property (@(posedge clk_i) disable iff (!rst_ni) !retire_i || pending_q != '0);

endmodule
