// SPDX-License-Identifier: MIT OR Apache-2.0

/// Properties of `tlp_arb` with a stream of each class: no beat is lost, doubled or sent without
/// room, no TLP is interleaved, and none is overtaken more than once by each other stream.
module tlp_arb_formal #(
    /// Also check the invariants that the induction needs.
    parameter bit Invariants = 1'b1
) (
    /// Clock.
    input logic clk_i,
    /// Streams offer beats.
    input logic [2:0] valid_i,
    /// The beat is the last of its TLP.
    input logic [2:0] eop_i,
    /// What identifies a beat.
    input logic [2:0][7:0] data_i,
    /// Room of the receiver.
    input tlp_pkg::tlp_ready_t ready_i,
    /// The followed stream, read in reset.
    input logic [1:0] who_i
);
  // As much of a beat as the arbiter looks at.
  typedef struct packed {tlp_pkg::tlp_hdr_t hdr;} head_t;
  typedef struct packed {
    logic sop;
    logic eop;
    head_t head;
    logic [7:0] data;
  } beat_t;
  localparam logic [2:0][1:0] Class = {2'(tlp_pkg::ClassCpl), 2'(tlp_pkg::ClassNp),
                                       2'(tlp_pkg::ClassP)};

  logic rst_n = 1'b0;
  logic [1:0] who_q;
  always_ff @(posedge clk_i) begin
    rst_n <= 1'b1;
    if (!rst_n) who_q <= who_i;
  end

  // Every stream is a sequence of whole TLPs of its class.
  logic [2:0] within_q = '0;
  beat_t [2:0] beat;
  beat_t tx_beat;
  logic [2:0] take;
  logic tx_valid;
  logic [1:0] sel;
  always_comb begin
    for (int unsigned i = 0; i < 3; i++) begin
      beat[i] = '0;
      beat[i].sop = !within_q[i];
      beat[i].eop = eop_i[i];
      beat[i].data = data_i[i];
    end
    beat[0].head.hdr = tlp_pkg::mk_mem_hdr(1'b1, 64'h1000, 11'd1, 4'hf, 4'h0, 16'd0, 10'd0, 3'd0,
                                            2'd0, 3'd0);
    beat[1].head.hdr = tlp_pkg::mk_mem_hdr(1'b0, 64'h1000, 11'd1, 4'hf, 4'h0, 16'd0, 10'd0, 3'd0,
                                            2'd0, 3'd0);
    beat[2].head.hdr = tlp_pkg::mk_cpl_hdr(1'b0, 3'd0, 16'd0, '0, 11'd0, 13'd4, 7'd0);
  end

  tlp_arb #(
      .beat_t(beat_t),
      .NumIn(3),
      .Class(Class)
  ) dut (
      .clk_i,
      .rst_ni(rst_n),
      .beat_i(beat),
      .valid_i,
      .take_o(take),
      .tx_beat_o(tx_beat),
      .tx_valid_o(tx_valid),
      .tx_ready_i(ready_i),
      .sel_o(sel)
  );

  logic [2:0] able;
  logic open_q = 1'b0;  // a TLP is under way, of stream `owner_q`
  logic [1:0] owner_q = 2'd0;
  logic [1:0] others_q = 2'd0;  // TLPs begun since the followed stream can send
  logic waiting;
  logic [1:0] between;
  for (genvar i = 0; i < 3; i++) begin : gen_able
    assign able[i] = valid_i[i] && ready_i[Class[i]];
  end
  assign waiting = able[who_q] && !take[who_q] && !(open_q && owner_q == who_q);
  assign between = who_q > owner_q ? who_q - owner_q - 2'd1 : who_q + 2'd2 - owner_q;

  always_ff @(posedge clk_i) begin
    if (rst_n) begin
      for (int unsigned i = 0; i < 3; i++) if (take[i]) within_q[i] <= !eop_i[i];
      if (tx_valid) begin
        open_q <= !tx_beat.eop;
        owner_q <= sel;
      end
      if (!waiting) others_q <= 2'd0;
      else if (tx_valid && tx_beat.sop) others_q <= others_q + 2'd1;
    end
  end

  always_comb begin
    assume (who_i < 2'd3);
    if (rst_n) begin
      // Invariants of the induction.
      if (Invariants) begin
        assert (who_q < 2'd3 && owner_q < 2'd3);
        assert (dut.locked_q == open_q && dut.last_q == owner_q);
        for (int unsigned i = 0; i < 3; i++) assert (within_q[i] == (open_q && owner_q == 2'(i)));
      end

      // A beat is taken of one stream, which has one and has room, and it is the beat that is sent.
      assert (take == (tx_valid ? 3'd1 << sel : 3'd0));
      assert ((take & ~able) == '0);
      assert (!tx_valid || (sel < 2'd3 && tx_beat == beat[sel]));
      // A TLP has the port from its first to its last beat.
      assert (!tx_valid || tx_beat.sop == !open_q);
      assert (!tx_valid || !open_q || sel == owner_q);
      // Progress: a blocked class blocks no other, and nobody is overtaken twice by the same.
      assert (tx_valid == (open_q ? able[owner_q] : |able));
      assert (3'(others_q) + 3'(between) < 3'd3 || !waiting);

      cover (open_q && able == 3'b011 && !tx_valid);
      cover (take[who_q] && others_q == 2'd2);
    end
  end
endmodule
