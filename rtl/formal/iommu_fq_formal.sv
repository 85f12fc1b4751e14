// SPDX-License-Identifier: MIT OR Apache-2.0

/// Properties of `iommu_fq` (IOMMU §3.2, §5.16): one record for each fault that is taken while the
/// queue takes records, none beyond its room, and the overflow bit instead.
module iommu_fq_formal
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
    /// fqcsr.fqen.
    input logic en_i,
    /// Software takes a record if there is one.
    input logic read_i,
    /// Clears.
    input logic clear_fqmf_i,
    /// Clears.
    input logic clear_fqof_i,
    /// Fault of a request.
    input logic tr_valid_i,
    /// Fault of a request.
    input fault_t tr_fault_i,
    /// Fault of a message.
    input logic msi_valid_i,
    /// Its address.
    input logic [55:0] msi_addr_i,
    /// Memory.
    input logic mem_ready_i,
    /// Memory.
    input logic mem_answers_i,
    /// Memory.
    input logic mem_error_i
);
  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  // Base and size change only while the queue is off; then software writes 0 to fqh.
  queue_cfg_t cfg, cfg_q;
  logic [31:0] head_q = '0;
  logic [31:0] tail, mask;
  logic on, fqmf, fqof, new_record, tr_ready, msi_ready, mem_valid;
  mem_req_t mem_req;
  assign cfg = '{en: en_i, ppn: cfg_q.ppn, log2sz_m1: cfg_q.log2sz_m1, index: head_q};
  assign mask = queue_mask(cfg_q.log2sz_m1);

  // A record: taken, then at the port, then under way.
  logic held_q = 1'b0, issued_q = 1'b0;
  fault_t record_q;
  logic rsp_valid;
  assign rsp_valid = issued_q && mem_answers_i;

  iommu_fq dut (
      .clk_i,
      .rst_ni(rst_n),
      .cfg_i(cfg),
      .be_i(1'b0),
      .clear_fqmf_i,
      .clear_fqof_i,
      .tail_o(tail),
      .on_o(on),
      .fqmf_o(fqmf),
      .fqof_o(fqof),
      .new_record_o(new_record),
      .tr_fault_valid_i(tr_valid_i),
      .tr_fault_ready_o(tr_ready),
      .tr_fault_i,
      .msi_fault_valid_i(msi_valid_i),
      .msi_fault_ready_o(msi_ready),
      .msi_fault_addr_i(msi_addr_i),
      .mem_valid_o(mem_valid),
      .mem_ready_i,
      .mem_req_o(mem_req),
      .mem_rsp_valid_i(rsp_valid),
      .mem_rsp_error_i(mem_error_i)
  );

  logic fault, accepts, full;
  logic [31:0] level;
  assign fault = (tr_valid_i && tr_ready) || (msi_valid_i && msi_ready);
  assign full = ((tail + 32'd1) & mask) == head_q;
  assign accepts = fault && en_i && on && !fqmf && !fqof;
  assign level = (tail - head_q) & mask;

  logic [31:0] tail_q;
  logic started_q = 1'b0, on_now_q = 1'b0, overflow_q = 1'b0, stored_q = 1'b0, failed_q = 1'b0;
  logic fqof_q = 1'b0;
  always_ff @(posedge clk_i) begin
    if (!rst_n || (!on && !en_i)) cfg_q <= cfg_i;
    if (rst_n) begin
      started_q <= 1'b1;
      if (!on) head_q <= '0;
      else if (read_i && level != '0) head_q <= (head_q + 32'd1) & mask;
      if (accepts && !full) begin
        held_q <= 1'b1;
        record_q <= msi_valid_i ? '{cause: CauseMsiWrite, ttyp: TtNone, iotval: {8'd0, msi_addr_i}, default: '0}
                                : tr_fault_i;
      end else if (rsp_valid) held_q <= 1'b0;
      issued_q <= mem_valid ? mem_ready_i : issued_q && !rsp_valid;
      tail_q <= tail;
      on_now_q <= en_i && !on;
      overflow_q <= accepts && full;
      stored_q <= rsp_valid && !mem_error_i;
      failed_q <= rsp_valid && mem_error_i;
      fqof_q <= fqof && !clear_fqof_i;
    end
  end

  always_comb begin
    if (rst_n) begin
      // Invariants of the induction.
      if (Invariants) begin
        assert (!on || ((head_q & mask) == head_q && (tail & mask) == tail));
        assert ((dut.state_q == 2'd1) == (held_q && !issued_q));
        assert ((dut.state_q == 2'd2) == (held_q && issued_q));
        assert (!issued_q || held_q);
        assert (!held_q || on);
        assert (!held_q || dut.fault_q == record_q);
      end

      // A write is the record that was taken, in the entry of fqt, and never over an entry that
      // software has not read.
      assert (!mem_valid || (held_q && !issued_q && !full));
      assert (!mem_valid || (mem_req.op == MemWrite && mem_req.len_dw == 5'd8 && mem_req.addr ==
                             ({cfg_q.ppn, 12'd0} | {19'd0, tail, 5'd0})));
      assert (!mem_valid || (mem_req.wdata[11:0] == record_q.cause &&
                             mem_req.wdata[31:12] == record_q.process_id &&
                             mem_req.wdata[32] == record_q.pid_valid &&
                             mem_req.wdata[33] == record_q.priv &&
                             mem_req.wdata[39:34] == record_q.ttyp &&
                             mem_req.wdata[63:40] == record_q.device_id &&
                             mem_req.wdata[191:128] == record_q.iotval &&
                             mem_req.wdata[255:192] == record_q.iotval2));
      // Every record that is taken comes to the port, and one at a time.
      assert (!held_q || issued_q || mem_valid);
      assert (!(tr_ready || msi_ready) || !held_q);
      // fqt moves by one for a stored record, and for nothing else but to 0 when turned on.
      assert (!started_q ||
              tail == (on_now_q ? '0 : stored_q ? (tail_q + 32'd1) & mask : tail_q));
      assert (new_record == (rsp_valid && !mem_error_i));
      // A full queue takes no record and says so; a failed write is said, too.
      assert (!overflow_q || (fqof && !held_q));
      assert (!failed_q || fqmf || on_now_q);
      assert (!fqof || fqof_q || overflow_q);
      assert (!on_now_q || (!fqof && !fqmf));
      // Progress: a fault waits for one record at most, a message's for no request's.
      assert (msi_ready == !held_q && tr_ready == (!held_q && !msi_valid_i));

      cover (overflow_q);
      cover (stored_q && tail == '0 && cfg_q.log2sz_m1 == 5'd0);
      cover (failed_q && level == 32'd2);
      cover (on_now_q && tail_q != '0);
    end
  end
endmodule
