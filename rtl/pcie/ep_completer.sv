// SPDX-License-Identifier: MIT OR Apache-2.0

/// Answers non-posted requests, one at a time: configuration accesses, reads of BAR0 registers
/// and of the BAR2 memory; everything else with Unsupported Request (PCIe 6.0 §2.3.1).
///
/// Completions of a memory read end at addresses that are multiples of Max_Payload_Size, hence
/// of the Read Completion Boundary (§2.3.1.1).
///
/// Handshake kind: `req_ready_o` does not depend on `req_valid_i`; jobs are ready/valid.
module ep_completer (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// A non-posted request.
  input logic req_valid_i,
  /// The request is taken.
  output logic req_ready_o,
  /// Its header.
  input tlp_pkg::tlp_hdr_t req_hdr_i,
  /// Its first payload DW.
  input logic [31:0] req_data_i,

  /// The function's ID.
  input logic [15:0] bdf_i,
  /// Max_Payload_Size as encoded in Device Control.
  input logic [2:0] mps_i,
  /// An address to be looked up in the BARs.
  output logic [63:14] lookup_addr_o,
  /// It is in BAR0.
  input logic bar0_hit_i,
  /// It is in BAR2.
  input logic bar2_hit_i,

  /// Configuration register.
  output logic [9:0] cfg_dw_o,
  /// Its contents.
  input logic [31:0] cfg_rdata_i,
  /// Write it.
  output logic cfg_write_o,
  /// Byte enables.
  output logic [3:0] cfg_be_o,
  /// Data.
  output logic [31:0] cfg_wdata_o,
  /// Bus and device number of the target.
  output logic [12:0] cfg_bus_dev_o,

  /// Read a BAR0 register: side effects happen.
  output logic reg_valid_o,
  /// Register, in units of 8 bytes.
  output logic [13:3] reg_addr_o,
  /// The low half is read.
  output logic reg_low_o,
  /// Contents.
  input logic [63:0] reg_rdata_i,

  /// Completion to send.
  output logic job_valid_o,
  /// The job is taken.
  input logic job_ready_i,
  /// The job.
  output ep_pkg::src_job_t job_o
);
  import tlp_pkg::*;
  import ep_pkg::*;

  typedef enum logic [1:0] {
    StIdle,
    StExec,
    StSend
  } state_e;

  state_e state_q;
  tlp_hdr_t req_q;
  logic [31:0] wdata_q;

  // The answer, and what is left of it.
  logic [2:0] status_q;
  src_kind_e kind_q;
  logic [63:0] imm_q;
  logic [10:0] left_dw_q;
  logic [12:0] left_bytes_q;
  logic [6:0] lower_q;
  mem_dw_t local_dw_q;

  // Decoding.
  logic [3:0] first_be;
  logic [3:0] last_be;
  logic [10:0] len_dw;
  logic [63:2] addr;
  logic is_read;
  logic is_cfg;
  logic reg_dw;
  logic reg_qw;
  logic reg_none;
  logic is_reg;
  logic is_mem;

  assign first_be = hdr_first_be(req_q);
  assign last_be = hdr_last_be(req_q);
  assign len_dw = hdr_len_dw(req_q);
  assign addr = 62'(hdr_addr(req_q) >> 2);
  assign lookup_addr_o = addr[63:14];

  assign is_read = hdr_is_mem(req_q) && !hdr_has_data(req_q);
  // Type 0 to function 0; a poisoned write is not performed.
  assign is_cfg = hdr_is_cfg(req_q) && !req_q[24] && !hdr_4dw(req_q) && len_dw == 11'd1
      && req_q[82:80] == 3'd0 && !(hdr_has_data(req_q) && hdr_ep(req_q));
  // Registers are read as one or two whole DW, or not at all by a zero-length read.
  assign reg_dw = len_dw == 11'd1 && first_be == 4'hf;
  assign reg_qw = len_dw == 11'd2 && first_be == 4'hf && last_be == 4'hf && !addr[2];
  assign reg_none = len_dw == 11'd1 && first_be == 4'h0;
  assign is_reg = is_read && bar0_hit_i && (reg_dw || reg_qw || reg_none);
  assign is_mem = is_read && bar2_hit_i;

  assign cfg_dw_o = hdr_cfg_dw(req_q);
  assign cfg_write_o = state_q == StExec && is_cfg && hdr_has_data(req_q);
  assign cfg_be_o = first_be;
  assign cfg_wdata_o = wdata_q;
  assign cfg_bus_dev_o = req_q[95:83];

  assign reg_valid_o = state_q == StExec && is_reg;
  assign reg_addr_o = addr[13:3];
  assign reg_low_o = !reg_none && !addr[2];

  // Next completion: up to a multiple of Max_Payload_Size.
  logic [7:0] mps_dw;
  logic [7:0] room_dw;
  logic [10:0] chunk_dw;
  logic last;

  assign mps_dw = (mps_i == 3'd0) ? 8'd32 : (mps_i == 3'd1) ? 8'd64 : 8'd128;
  assign room_dw = mps_dw - (local_dw_q[7:0] & (mps_dw - 8'd1));
  assign chunk_dw = (kind_q == SrcMem && 11'(room_dw) < left_dw_q) ? 11'(room_dw) : left_dw_q;
  assign last = chunk_dw == left_dw_q;

  always_comb begin
    job_o = '0;
    job_o.head.hdr = mk_cpl_hdr(kind_q != SrcNone, status_q, bdf_i, req_q, chunk_dw,
                                left_bytes_q, lower_q);
    job_o.kind = kind_q;
    job_o.len_dw = chunk_dw;
    job_o.local_dw = local_dw_q;
    job_o.imm = imm_q;
  end

  assign job_valid_o = state_q == StSend;
  assign req_ready_o = state_q == StIdle;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StIdle;
      req_q <= '0;
      wdata_q <= '0;
      status_q <= CplSc;
      kind_q <= SrcNone;
      imm_q <= '0;
      left_dw_q <= '0;
      left_bytes_q <= '0;
      lower_q <= '0;
      local_dw_q <= '0;
    end else begin
      unique case (state_q)
        StIdle: begin
          req_q <= req_hdr_i;
          wdata_q <= req_data_i;
          if (req_valid_i) state_q <= StExec;
        end

        StExec: begin
          state_q <= StSend;
          status_q <= CplUr;
          kind_q <= SrcNone;
          left_dw_q <= '0;
          // PCIe 6.0 §2.2.9: Byte Count 4 and Lower Address 0 other than for memory reads.
          left_bytes_q <= is_read ? read_byte_count(req_q) : 13'd4;
          lower_q <= is_read ? {addr[6:2], be_offset(first_be)} : 7'd0;
          local_dw_q <= addr[19:2];
          if (is_cfg || is_reg || is_mem) status_q <= CplSc;
          if (is_cfg && !hdr_has_data(req_q)) begin
            kind_q <= SrcImm;
            imm_q <= {32'd0, cfg_rdata_i};
            left_dw_q <= 11'd1;
          end else if (is_reg) begin
            kind_q <= SrcImm;
            imm_q <= addr[2] ? {32'd0, reg_rdata_i[63:32]} : reg_rdata_i;
            left_dw_q <= len_dw;
          end else if (is_mem) begin
            kind_q <= SrcMem;
            left_dw_q <= len_dw;
          end
        end

        StSend: begin
          if (job_ready_i) begin
            left_dw_q <= left_dw_q - chunk_dw;
            left_bytes_q <= left_bytes_q - {chunk_dw, 2'b00} + 13'(lower_q[1:0]);
            lower_q <= {lower_q[6:2] + chunk_dw[4:0], 2'b00};
            local_dw_q <= local_dw_q + mem_dw_t'(chunk_dw);
            if (last) state_q <= StIdle;
          end
        end

        default: state_q <= StIdle;
      endcase
    end
  end

  // A register is read once, a configuration register written once.
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !(reg_valid_o || cfg_write_o) || state_q == StExec);
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !(job_valid_o && kind_q == SrcMem) || chunk_dw != '0);

endmodule
