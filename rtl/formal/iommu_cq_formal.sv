// SPDX-License-Identifier: MIT OR Apache-2.0

/// Properties of `iommu_cq` (IOMMU §3.1, §5.15): commands are executed in order, each that is fetched
/// ends once, with cqh on the next command or with an error on this one; no effect without a command.
module iommu_cq_formal
  import iommu_pkg::*;
  import iommu_int_pkg::*;
#(
    /// Also check the invariants that the induction needs.
    parameter bit Invariants = 1'b1
) (
    /// Clock.
    input logic clk_i,
    /// Software's choice of base and size, read while the queue is off.
    input queue_cfg_t cfg_i,
    /// cqcsr.cqen.
    input logic en_i,
    /// Software adds a command if there is room.
    input logic write_i,
    /// ddtp.iommu_mode.
    input ddt_mode_e mode_i,
    /// fctl.WSI.
    input logic wsi_i,
    /// Clears of cqmf, cmd_ill, cmd_to, fence_w_ip.
    input logic [3:0] clear_i,
    /// ATS message sent.
    input logic ats_ready_i,
    /// ATS.
    input logic ats_busy_i,
    /// ATS.
    input logic ats_timeout_i,
    /// A fence may end.
    input logic fence_i,
    /// Memory.
    input logic mem_ready_i,
    /// Memory.
    input logic mem_answers_i,
    /// Memory.
    input logic mem_error_i,
    /// Memory.
    input logic [127:0] cmd_i
);
  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  // Base and size change only while the queue is off; then software writes 0 to cqt.
  queue_cfg_t cfg, cfg_q;
  logic [31:0] tail_q = '0;
  logic [31:0] head, mask, level;
  logic on, cqmf, cmd_ill, cmd_to, fence_w_ip, iotlb_valid, dir_valid, ats_valid, ats_prgr;
  logic timeout_ack, fence_valid, fence_global, fence_done, mem_valid, rsp_valid;
  iotlb_inval_t iotlb;
  dir_inval_t dir;
  logic [127:0] ats_cmd;
  mem_req_t mem_req;
  assign cfg = '{en: en_i, ppn: cfg_q.ppn, log2sz_m1: cfg_q.log2sz_m1, index: tail_q};
  assign mask = queue_mask(cfg_q.log2sz_m1);
  assign level = (tail_q - head) & mask;

  logic under_way_q = 1'b0, write_q = 1'b0;  // a memory request, and whether it is a store
  assign rsp_valid = under_way_q && mem_answers_i;
  assign fence_done = fence_valid && fence_i;

  iommu_cq #(
      .Cfg(CfgFull)
  ) dut (
      .clk_i,
      .rst_ni(rst_n),
      .cfg_i(cfg),
      .mode_i,
      .be_i(1'b0),
      .wsi_i,
      .clear_cqmf_i(clear_i[0]),
      .clear_cmd_ill_i(clear_i[1]),
      .clear_cmd_to_i(clear_i[2]),
      .clear_fence_w_ip_i(clear_i[3]),
      .head_o(head),
      .on_o(on),
      .cqmf_o(cqmf),
      .cmd_ill_o(cmd_ill),
      .cmd_to_o(cmd_to),
      .fence_w_ip_o(fence_w_ip),
      .iotlb_inval_valid_o(iotlb_valid),
      .iotlb_inval_o(iotlb),
      .dir_inval_valid_o(dir_valid),
      .dir_inval_o(dir),
      .ats_valid_o(ats_valid),
      .ats_ready_i,
      .ats_prgr_o(ats_prgr),
      .ats_cmd_o(ats_cmd),
      .ats_busy_i,
      .ats_timeout_i,
      .ats_timeout_ack_o(timeout_ack),
      .fence_valid_o(fence_valid),
      .fence_global_o(fence_global),
      .fence_done_i(fence_done),
      .mem_valid_o(mem_valid),
      .mem_ready_i,
      .mem_req_o(mem_req),
      .mem_rsp_valid_i(rsp_valid),
      .mem_rsp_error_i(mem_error_i),
      .mem_rsp_cmd_i(cmd_i)
  );

  // The command that is being executed, from its fetch to its end.
  logic fetched, executing_q = 1'b0, fenced_q = 1'b0, fresh_q = 1'b0;
  logic [127:0] cmd_q;
  logic [6:0] opcode;
  logic [2:0] func3;
  assign fetched = rsp_valid && !write_q && !mem_error_i;
  assign opcode = cmd_q[6:0];
  assign func3 = cmd_q[9:7];

  logic started_q = 1'b0, turned_on_q = 1'b0, error, error_q = 1'b0, fence_waits_q = 1'b0;
  logic stored_q = 1'b0, store_failed_q = 1'b0, fetch_failed_q = 1'b0, inval_q = 1'b0, ready_q = 1'b0;
  logic [31:0] head_q;
  logic advanced, refused;
  logic ill_q = 1'b0, to_q = 1'b0, mf_q = 1'b0;
  assign error = cqmf || cmd_ill || cmd_to;
  assign advanced = started_q && !turned_on_q && head != head_q;
  // An error bit has come up.
  assign refused = (cmd_ill && !ill_q) || (cmd_to && !to_q) || (cqmf && !mf_q);

  always_ff @(posedge clk_i) begin
    if (!rst_n || (!on && !en_i)) cfg_q <= cfg_i;
    if (rst_n) begin
      started_q <= 1'b1;
      head_q <= head;
      turned_on_q <= en_i && !on;
      error_q <= error && on;
      ill_q <= cmd_ill;
      to_q <= cmd_to;
      mf_q <= cqmf;
      if (!on) tail_q <= '0;
      else if (write_i && level != mask) tail_q <= (tail_q + 32'd1) & mask;
      under_way_q <= mem_valid ? mem_ready_i : under_way_q && !rsp_valid;
      if (mem_valid) write_q <= mem_req.op == MemWrite;
      if (fetched) cmd_q <= cmd_i;
      fresh_q <= fetched;
      executing_q <= fetched || (executing_q && !advanced && !refused);
      fenced_q <= fence_done || (fenced_q && !fetched);
      fence_waits_q <= fence_valid && !fence_done;
      stored_q <= rsp_valid && write_q && !mem_error_i;
      store_failed_q <= rsp_valid && write_q && mem_error_i;
      fetch_failed_q <= rsp_valid && !write_q && mem_error_i;
      ready_q <= on && en_i && level != '0 && !error && !executing_q && !under_way_q && !mem_valid;
      inval_q <= iotlb_valid || dir_valid;
    end
  end

  always_comb begin
    if (rst_n) begin
      // Invariants of the induction.
      if (Invariants) begin
        assert (!on || ((head & mask) == head && (tail_q & mask) == tail_q));
        assert (on || dut.state_q == 3'd0);
        assert (under_way_q == (dut.state_q == 3'd2 || dut.state_q == 3'd7));
        assert (!under_way_q || write_q == (dut.state_q == 3'd7));
        assert (dut.state_q != 3'd3 || (executing_q && fresh_q));
        assert (!(dut.state_q == 3'd4 || dut.state_q == 3'd5) || (executing_q && !fresh_q));
        assert (!(dut.state_q == 3'd6 || dut.state_q == 3'd7) || (executing_q && fenced_q));
        assert (dut.state_q < 3'd3 || {dut.dw1_q, dut.dw0_q} == cmd_q);
        assert (dut.state_q != 3'd4 || opcode == 7'd4);
        assert (dut.state_q < 3'd5 || opcode == 7'd2);
        assert (dut.state_q < 3'd6 || cmd_q[10]);
        assert (dut.state_q == 3'd0 || level != '0);
        assert (dut.state_q == 3'd0 || !(dut.cqmf_q || dut.cmd_ill_q || dut.cmd_to_q));
        assert (!(dut.state_q == 3'd1 || dut.state_q == 3'd2) || !executing_q);
        assert (dut.state_q != 3'd0 || !executing_q || (started_q && (advanced || refused)));
      end

      // A fetch is of the command at cqh, which software has written, with no other under way and
      // no error.
      assert (!(mem_valid && mem_req.op == MemRead) ||
              (level != '0 && !executing_q && !under_way_q && !error && mem_req.len_dw == 5'd4 &&
               mem_req.addr == ({cfg_q.ppn, 12'd0} | {20'd0, head, 4'd0})));
      // cqh moves by one for a command that has been fetched and not ended, and never otherwise.
      assert (!advanced || (executing_q && !refused && head == ((head_q + 32'd1) & mask)));
      assert (!turned_on_q || (head == '0 && !error && !fence_w_ip));
      assert (!error_q || head == head_q || turned_on_q);
      // Only the fetched command has an effect, once, in the cycle after its fetch.
      assert (!iotlb_valid || (executing_q && fresh_q && opcode == 7'd1 && func3 <= 3'd1 &&
                               iotlb.gvma == func3[0]));
      assert (!dir_valid || (executing_q && fresh_q && opcode == 7'd3 && func3 <= 3'd1 &&
                             dir.pdt == func3[0]));
      assert (!inval_q || advanced);
      assert (!ats_valid || (executing_q && opcode == 7'd4 && ats_cmd == cmd_q));
      assert (!fence_valid || (executing_q && opcode == 7'd2 &&
                               fence_global == (cmd_q[12] || cmd_q[13])));
      assert (!fence_waits_q || fence_valid);
      // A fence stores after it has ended, with AV, its own data; and then ends with the store.
      assert (!(mem_valid && mem_req.op != MemRead) ||
              (executing_q && opcode == 7'd2 && cmd_q[10] && fenced_q && mem_req.op == MemWrite &&
               mem_req.len_dw == 5'd1 && mem_req.wdata[31:0] == cmd_q[63:32] &&
               mem_req.addr == {cmd_q[117:64], 2'b00}));
      assert (!stored_q || advanced);
      assert (!(store_failed_q || fetch_failed_q) || (cqmf && !advanced));
      // Progress: a command that is there is fetched; what is fetched waits for somebody.
      assert (!ready_q || mem_valid);
      assert (!executing_q || fresh_q || ats_valid || fence_valid || advanced || refused ||
              (opcode == 7'd2 && (ats_busy_i || timeout_ack || mem_valid || under_way_q)));

      cover (advanced && stored_q && head == '0);
      cover (cmd_ill && level == 32'd2);
      cover (cmd_to && !cmd_ill);
      cover (iotlb_valid && iotlb.gvma);
      cover (dir_valid && dir.pdt);
      cover (advanced && fence_w_ip);
    end
  end
endmodule
