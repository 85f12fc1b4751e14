// SPDX-License-Identifier: MIT OR Apache-2.0

/// PCI Express endpoint: type 0 function with a register BAR, a memory BAR, MSI-X and a DMA
/// engine whose requests are programmable (`docs/endpoint.md`).
///
/// Posted requests and completions are always taken at full rate, whatever becomes of reads:
/// nothing received waits for something to be sent except non-posted requests for their
/// completions (PCIe 6.0 §2.4.1).
///
/// Handshake kind: class-ready on both sides (`tlp_pkg`).
module endpoint #(
  /// Beat type.
  parameter type beat_t = tlp_pkg::tlp_beat256_t,
  /// Device ID.
  parameter logic [15:0] DeviceId = 16'h0e9d,
  /// Completion timeout in cycles.
  parameter int unsigned CplTimeout = 1 << 20
) (
  /// Clock.
  input logic clk_i,
  /// Reset, asynchronous assertion, active low.
  input logic rst_ni,

  /// Beat from the link.
  input beat_t rx_beat_i,
  /// Beat from the link is valid.
  input logic rx_valid_i,
  /// Ready of each class.
  output tlp_pkg::tlp_ready_t rx_ready_o,

  /// Beat to the link.
  output beat_t tx_beat_o,
  /// Beat to the link is valid.
  output logic tx_valid_o,
  /// Ready of each class.
  input tlp_pkg::tlp_ready_t tx_ready_i
);
  import tlp_pkg::*;
  import ep_pkg::*;

  localparam int unsigned DataW = $bits(beat_t) - $bits(tlp_head_t) - 2;

  // Configuration space.
  logic [9:0] cfg_dw;
  logic [31:0] cfg_rdata;
  logic cfg_write;
  logic [3:0] cfg_be;
  logic [31:0] cfg_wdata;
  logic [12:0] cfg_bus_dev;
  logic [15:0] bdf;
  logic mem_enable;
  logic bus_master;
  logic [2:0] mps;
  logic [2:0] mrrs;
  logic [63:14] bar0;
  logic [63:20] bar2;
  logic msix_enable;
  logic msix_mask;

  cfg_type0 #(.DeviceId(DeviceId), .Vectors(Vectors)) i_cfg (
    .clk_i, .rst_ni,
    .dw_i(cfg_dw), .rdata_o(cfg_rdata), .write_i(cfg_write), .be_i(cfg_be),
    .wdata_i(cfg_wdata), .bus_dev_i(cfg_bus_dev),
    .bdf_o(bdf), .mem_enable_o(mem_enable), .bus_master_o(bus_master), .mps_o(mps),
    .mrrs_o(mrrs), .bar0_o(bar0), .bar2_o(bar2),
    .msix_enable_o(msix_enable), .msix_mask_o(msix_mask)
  );

  // Reception: posted requests and completions go through one register stage, always taken;
  // a non-posted request waits for the completer.
  beat_t in_beat;
  logic in_valid;
  tlp_ready_t in_ready;
  logic in_fire;
  logic in_mid_q;
  tlp_class_e in_class;
  tlp_class_e in_class_q;
  logic np_ready;
  logic np_valid;

  tlp_class_fifo #(.beat_t(beat_t)) i_rx (
    .clk_i, .rst_ni,
    .rx_beat_i, .rx_valid_i, .rx_ready_o,
    .tx_beat_o(in_beat), .tx_valid_o(in_valid), .tx_ready_i(in_ready)
  );

  always_comb begin
    in_ready = '1;
    // The later beats of a request with more data than is looked at are dropped.
    in_ready[ClassNp] = np_ready || (in_mid_q && in_class_q == ClassNp);
  end

  assign in_class = in_mid_q ? in_class_q : hdr_class(in_beat.head.hdr);
  assign in_fire = in_valid && in_ready[in_class];
  assign np_valid = in_valid && in_class == ClassNp && in_beat.sop;

  beat_t beat_q;
  logic posted_q;
  logic cpl_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      in_mid_q <= 1'b0;
      in_class_q <= ClassP;
      beat_q <= '0;
      posted_q <= 1'b0;
      cpl_q <= 1'b0;
    end else begin
      beat_q <= in_beat;
      posted_q <= in_fire && in_class == ClassP;
      cpl_q <= in_fire && in_class == ClassCpl;
      if (in_fire) begin
        in_mid_q <= !in_beat.eop;
        in_class_q <= in_class;
      end
    end
  end

  // Posted writes: to BAR2 any, to BAR0 one or two whole DW; others are dropped as unsupported
  // (PCIe 6.0 §2.3.1), as are poisoned ones (§2.7.2.2). Messages are ignored.
  tlp_hdr_t hdr;
  logic [63:2] addr;
  logic write;
  sink_job_t write_sink;
  logic reg_write;
  logic reg_dw;
  logic reg_qw;

  assign hdr = beat_q.head.hdr;
  assign addr = 62'(hdr_addr(hdr) >> 2);
  assign write = posted_q && beat_q.sop && hdr_is_mem(hdr) && !hdr_ep(hdr) && mem_enable;

  always_comb begin
    write_sink.en = write && addr[63:20] == bar2;
    write_sink.local_dw = addr[19:2];
    write_sink.len_dw = hdr_len_dw(hdr);
    write_sink.first_be = hdr_first_be(hdr);
    write_sink.last_be = hdr_last_be(hdr);
  end

  assign reg_dw = hdr_len_dw(hdr) == 11'd1 && hdr_first_be(hdr) == 4'hf;
  assign reg_qw = hdr_len_dw(hdr) == 11'd2 && hdr_first_be(hdr) == 4'hf
      && hdr_last_be(hdr) == 4'hf && !addr[2];
  assign reg_write = write && addr[63:14] == bar0 && (reg_dw || reg_qw);

  // Local memory.
  sink_job_t cpl_sink;
  logic wr_valid;
  mem_dw_t wr_dw;
  logic [DataW-1:0] wr_data;
  logic [DataW/8-1:0] wr_be;
  logic [1:0] rd_valid;
  logic [1:0] rd_ready;
  mem_dw_t [1:0] rd_dw;
  logic [DataW-1:0] rd_data;

  ep_mem_sink #(.DataW(DataW)) i_sink (
    .clk_i, .rst_ni,
    .valid_i(posted_q || cpl_q), .sop_i(beat_q.sop), .job_i(cpl_q ? cpl_sink : write_sink),
    .data_i(beat_q.data),
    .wr_valid_o(wr_valid), .wr_dw_o(wr_dw), .wr_data_o(wr_data), .wr_be_o(wr_be)
  );

  ep_mem #(.DataW(DataW)) i_mem (
    .clk_i, .rst_ni,
    .wr_valid_i(wr_valid), .wr_dw_i(wr_dw), .wr_data_i(wr_data), .wr_be_i(wr_be),
    .rd_valid_i(rd_valid), .rd_ready_o(rd_ready), .rd_dw_i(rd_dw), .rd_data_o(rd_data)
  );

  // Registers.
  logic [1:0] reg_wr_en;
  logic [63:0] reg_wr_data;
  logic reg_rd_valid;
  logic [13:3] reg_rd_addr;
  logic reg_rd_low;
  logic [63:0] reg_rd_data;
  logic [63:0] msix_rd_data;
  logic desc_valid;
  logic desc_ready;
  desc_t desc;
  logic record_valid;
  logic record_ready;
  record_t record;
  logic [7:0] records;
  logic [7:0] tags;
  logic retire;
  logic unexpected;
  logic irq_valid;
  vector_t irq_vector;

  assign reg_wr_en = reg_qw ? 2'b11 : addr[2] ? 2'b10 : 2'b01;
  assign reg_wr_data = addr[2] ? {beat_q.data[31:0], 32'd0} : beat_q.data[63:0];

  ep_regs i_regs (
    .clk_i, .rst_ni,
    .wr_valid_i(reg_write), .wr_addr_i(addr[13:3]), .wr_en_i(reg_wr_en), .wr_data_i(reg_wr_data),
    .rd_valid_i(reg_rd_valid), .rd_addr_i(reg_rd_addr), .rd_low_i(reg_rd_low),
    .rd_data_o(reg_rd_data),
    .desc_valid_o(desc_valid), .desc_ready_i(desc_ready), .desc_o(desc),
    .record_valid_i(record_valid), .record_i(record), .record_ready_o(record_ready),
    .records_i(records), .tags_i(tags), .retire_i(retire), .unexpected_i(unexpected)
  );

  beat_t msg_beat;
  logic msg_valid;
  logic msg_ready;

  ep_msix #(.beat_t(beat_t)) i_msix (
    .clk_i, .rst_ni,
    .wr_valid_i(reg_write), .wr_addr_i(addr[13:3]), .wr_en_i(reg_wr_en), .wr_data_i(reg_wr_data),
    .rd_addr_i(reg_rd_addr), .rd_data_o(msix_rd_data),
    .enable_i(msix_enable), .mask_i(msix_mask), .bdf_i(bdf),
    .irq_valid_i(irq_valid), .irq_vector_i(irq_vector),
    .tx_beat_o(msg_beat), .tx_valid_o(msg_valid), .tx_ready_i(msg_ready)
  );

  // Completer.
  logic [63:14] np_addr;
  logic cpl_job_valid;
  logic cpl_job_ready;
  src_job_t cpl_job;
  beat_t cpl_beat;
  logic cpl_valid;
  logic cpl_ready;

  ep_completer i_completer (
    .clk_i, .rst_ni,
    .req_valid_i(np_valid), .req_ready_o(np_ready), .req_hdr_i(in_beat.head.hdr),
    .req_data_i(in_beat.data[31:0]),
    .bdf_i(bdf), .mps_i(mps),
    .lookup_addr_o(np_addr),
    .bar0_hit_i(mem_enable && np_addr == bar0),
    .bar2_hit_i(mem_enable && np_addr[63:20] == bar2),
    .cfg_dw_o(cfg_dw), .cfg_rdata_i(cfg_rdata), .cfg_write_o(cfg_write), .cfg_be_o(cfg_be),
    .cfg_wdata_o(cfg_wdata), .cfg_bus_dev_o(cfg_bus_dev),
    .reg_valid_o(reg_rd_valid), .reg_addr_o(reg_rd_addr), .reg_low_o(reg_rd_low),
    .reg_rdata_i(reg_rd_data | msix_rd_data),
    .job_valid_o(cpl_job_valid), .job_ready_i(cpl_job_ready), .job_o(cpl_job)
  );

  ep_tlp_source #(.beat_t(beat_t)) i_cpl_source (
    .clk_i, .rst_ni,
    .job_valid_i(cpl_job_valid), .job_ready_o(cpl_job_ready), .job_i(cpl_job),
    .rd_valid_o(rd_valid[0]), .rd_ready_i(rd_ready[0]), .rd_dw_o(rd_dw[0]),
    .rd_data_i(rd_data),
    .tx_beat_o(cpl_beat), .tx_valid_o(cpl_valid), .tx_ready_i(cpl_ready)
  );

  // DMA.
  beat_t dma_beat;
  logic dma_valid;
  tlp_ready_t dma_ready;

  ep_dma #(.beat_t(beat_t), .CplTimeout(CplTimeout)) i_dma (
    .clk_i, .rst_ni,
    .desc_valid_i(desc_valid), .desc_ready_o(desc_ready), .desc_i(desc),
    .record_valid_o(record_valid), .record_ready_i(record_ready), .record_o(record),
    .records_o(records), .tags_o(tags), .retire_o(retire),
    .irq_valid_o(irq_valid), .irq_vector_o(irq_vector), .unexpected_o(unexpected),
    .bdf_i(bdf), .mps_i(mps), .mrrs_i(mrrs),
    .cpl_valid_i(cpl_q), .cpl_sop_i(beat_q.sop), .cpl_eop_i(beat_q.eop), .cpl_hdr_i(hdr),
    .cpl_data_i(beat_q.data), .cpl_sink_o(cpl_sink),
    .rd_valid_o(rd_valid[1]), .rd_ready_i(rd_ready[1]), .rd_dw_o(rd_dw[1]),
    .rd_data_i(rd_data),
    .tx_beat_o(dma_beat), .tx_valid_o(dma_valid), .tx_ready_i(dma_ready)
  );

  // Transmission.
  ep_tx_arb #(.beat_t(beat_t)) i_tx (
    .clk_i, .rst_ni,
    .bus_master_i(bus_master),
    .dma_beat_i(dma_beat), .dma_valid_i(dma_valid), .dma_ready_o(dma_ready),
    .msg_beat_i(msg_beat), .msg_valid_i(msg_valid), .msg_ready_o(msg_ready),
    .cpl_beat_i(cpl_beat), .cpl_valid_i(cpl_valid), .cpl_ready_o(cpl_ready),
    .tx_beat_o, .tx_valid_o, .tx_ready_i
  );

  assert property (@(posedge clk_i) disable iff (!rst_ni) !(posted_q && cpl_q));

endmodule
