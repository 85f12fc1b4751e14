// SPDX-License-Identifier: MIT OR Apache-2.0

/// Messages of devices: page requests (IOMMU §2.7, §3.3) with registers pqb, pqh, pqt and pqcsr, the
/// page-request queue, and the responses that the IOMMU gives itself when a request cannot be queued;
/// Invalidate Completions, which only a device with EN_ATS may send (§2.1.3.1). One message at a time.
module iommu_pq
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

    /// Register accessed: byte offset in doublewords.
    input logic [8:0] reg_no_i,
    /// Write of its low half.
    input logic wr_lo_i,
    /// Write of its high half.
    input logic wr_hi_i,
    /// Write data.
    input logic [63:0] wdata_i,
    /// Its value, 0 if it is none of these; of pqcsr the low half.
    output logic [63:0] rdata_o,
    /// fctl.BE.
    input logic be_i,
    /// pqcsr.pie and an error bit of pqcsr: pip is set while 1.
    output logic level_o,
    /// pqcsr.pie and a new message, one cycle: pip is set.
    output logic event_o,

    /// Page Request, Stop Marker or Invalidate Completion; ready/valid.
    input logic msg_valid_i,
    /// Taken.
    output logic msg_ready_o,
    /// Message.
    input msg_in_t msg_i,
    /// Invalidate Completion of a device with EN_ATS, one cycle.
    output logic completion_valid_o,
    /// Message.
    output msg_in_t completion_o,
    /// Page Request Group Response; ready/valid.
    output logic rsp_valid_o,
    /// Taken.
    input logic rsp_ready_i,
    /// Response.
    output msg_out_t rsp_o,

    /// Locate the device context; ready/valid.
    output logic dir_req_valid_o,
    /// Taken.
    input logic dir_req_ready_i,
    /// Request.
    output dir_req_t dir_req_o,
    /// Answer; valid only.
    input logic dir_rsp_valid_i,
    /// Answer.
    input dir_rsp_t dir_rsp_i,

    /// Fault to report; ready/valid.
    output logic fault_valid_o,
    /// Taken.
    input logic fault_ready_i,
    /// Fault.
    output fault_t fault_o,

    /// Memory request.
    output logic mem_valid_o,
    /// Memory request taken.
    input logic mem_ready_i,
    /// Memory request.
    output mem_req_t mem_req_o,
    /// Response beat for this client.
    input logic mem_rsp_valid_i,
    /// Access fault.
    input logic mem_rsp_error_i
);
  localparam logic [8:0] RegPqb = 9'd7;
  localparam logic [8:0] RegPqht = 9'd8;   // pqh low, pqt high
  localparam logic [8:0] RegPqcsr = 9'd10;  // low
  localparam logic [63:0] PageRequestCode = 64'h04;

  // Response codes (PCIe 6.0 §10.4.2.1).
  localparam logic [3:0] Success = 4'b0000;
  localparam logic [3:0] InvalidRequest = 4'b0001;
  localparam logic [3:0] ResponseFailure = 4'b1111;

  typedef enum logic [2:0] {
    StIdle, StDir, StDirRsp, StFault, StQueue, StWrite, StWriteRsp, StRespond
  } state_e;
  state_e state_q, state_d;
  msg_in_t msg_q;
  logic [3:0] code_q, code_d;
  logic prpr_q, prpr_d;
  cause_t cause_q, cause_d;

  queue_cfg_t cfg_q;
  logic pie_q, on_q, on_d, pqmf_q, pqof_q, set_pqmf, set_pqof, turn_on, wr_csr, new_message;
  logic [31:0] tail_q, tail_d, tail_next, mask;
  assign mask = queue_mask(cfg_q.log2sz_m1);
  assign tail_next = (tail_q + 32'd1) & mask;
  assign turn_on = cfg_q.en && !on_q;
  assign wr_csr = reg_no_i == RegPqcsr && wr_lo_i;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      cfg_q <= '0;
      pie_q <= 1'b0;
    end else begin
      if (reg_no_i == RegPqb) begin
        if (wr_lo_i) begin
          cfg_q.log2sz_m1 <= queue_size(Cfg, wdata_i[4:0]);
          cfg_q.ppn[21:0] <= wdata_i[31:10];
          cfg_q.index <= cfg_q.index & queue_mask(queue_size(Cfg, wdata_i[4:0]));
        end
        if (wr_hi_i) cfg_q.ppn[43:22] <= wdata_i[53:32];
      end
      if (reg_no_i == RegPqht && wr_lo_i) cfg_q.index <= wdata_i[31:0] & mask;
      if (wr_csr) {pie_q, cfg_q.en} <= wdata_i[1:0];
    end
  end
  always_comb begin
    unique case (reg_no_i)
      RegPqb:   rdata_o = {10'd0, cfg_q.ppn, 5'd0, cfg_q.log2sz_m1};
      RegPqht:  rdata_o = {tail_q, cfg_q.index};
      RegPqcsr: rdata_o = {46'd0, cfg_q.en ^ on_q, on_q, 6'd0, pqof_q, pqmf_q, 6'd0, pie_q, cfg_q.en};
      default:  rdata_o = '0;
    endcase
  end
  // The write that turns the queue on clears the errors, before pie can see them.
  assign level_o = pie_q && (pqmf_q || pqof_q) && !turn_on;
  assign event_o = pie_q && new_message;

  // A Stop Marker is not answered, nor is a request that is not the last of its group.
  logic answerable, permitted, rsp_valid_q, respond;
  assign answerable = msg_q.last && (msg_q.read || msg_q.write);
  assign permitted = dir_rsp_i.dc.en_ats && dir_rsp_i.dc.en_pri;

  always_comb begin
    state_d = state_q;
    code_d = code_q;
    prpr_d = prpr_q;
    cause_d = cause_q;
    tail_d = tail_q;
    on_d = on_q;
    set_pqmf = 1'b0;
    set_pqof = 1'b0;
    new_message = 1'b0;
    unique case (state_q)
      StIdle: begin
        on_d = cfg_q.en;
        if (msg_valid_i) state_d = StDir;
      end
      StDir: if (dir_req_ready_i) state_d = StDirRsp;
      StDirRsp: begin
        // An unsupported completion has no answer and leaves no record.
        if (dir_rsp_valid_i && msg_q.inv_completion) begin
          state_d = StIdle;
        end else if (dir_rsp_valid_i) begin
          cause_d = dir_rsp_i.cause;
          prpr_d = dir_rsp_i.cause == CauseNone && dir_rsp_i.dc.prpr;
          code_d = dir_rsp_i.cause == CauseTypeDisallowed ? InvalidRequest : ResponseFailure;
          state_d = StFault;
          if (dir_rsp_i.cause == CauseNone) begin
            state_d = StQueue;
            if (!permitted) begin
              cause_d = CauseTypeDisallowed;
              code_d = InvalidRequest;
              state_d = dir_rsp_i.dc.dtf ? StRespond : StFault;
            end
          end
        end
      end
      StFault: if (fault_ready_i) state_d = StRespond;
      StQueue: begin
        state_d = StRespond;
        if (!cfg_q.en || !on_q || pqmf_q) begin
          code_d = ResponseFailure;
        end else begin
          code_d = Success;
          if (!pqof_q && tail_next == (cfg_q.index & mask)) set_pqof = 1'b1;
          else if (!pqof_q) state_d = StWrite;
        end
      end
      StWrite: if (mem_ready_i) state_d = StWriteRsp;
      StWriteRsp: begin
        if (mem_rsp_valid_i) begin
          code_d = ResponseFailure;
          set_pqmf = mem_rsp_error_i;
          new_message = !mem_rsp_error_i;
          if (!mem_rsp_error_i) tail_d = tail_next;
          state_d = mem_rsp_error_i ? StRespond : StIdle;
        end
      end
      default: if (!answerable || respond) state_d = StIdle;
    endcase
    if (turn_on) tail_d = '0;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StIdle;
      tail_q <= '0;
      on_q <= 1'b0;
      pqmf_q <= 1'b0;
      pqof_q <= 1'b0;
    end else begin
      state_q <= state_d;
      tail_q <= tail_d;
      on_q <= on_d;
      pqmf_q <= set_pqmf || (pqmf_q && !(wr_csr && wdata_i[8]) && !turn_on);
      pqof_q <= set_pqof || (pqof_q && !(wr_csr && wdata_i[9]) && !turn_on);
    end
  end
  always_ff @(posedge clk_i) begin
    code_q <= code_d;
    prpr_q <= prpr_d;
    cause_q <= cause_d;
    if (state_q == StIdle) msg_q <= msg_i;
  end

  assign msg_ready_o = state_q == StIdle;
  assign completion_valid_o = state_q == StDirRsp && dir_rsp_valid_i && msg_q.inv_completion &&
                              dir_rsp_i.cause == CauseNone && dir_rsp_i.dc.en_ats;
  assign completion_o = msg_q;
  assign dir_req_valid_o = state_q == StDir;
  assign dir_req_o = '{device_id: msg_q.device_id};

  // A response waits aside: a device may take messages only once its completions have been taken.
  msg_out_t rsp_q, response;
  assign respond = state_q == StRespond && answerable && (!rsp_valid_q || rsp_ready_i);
  always_comb begin
    response = '0;
    response.prg_response = 1'b1;
    response.device_id = msg_q.device_id;
    // A failure always repeats the PASID, the others as the device wants it.
    response.pid_valid = msg_q.pid_valid && (code_q == ResponseFailure || prpr_q);
    response.process_id = response.pid_valid ? msg_q.process_id : '0;
    response.prgi = msg_q.prgi;
    response.code = code_q;
  end
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) rsp_valid_q <= 1'b0;
    else rsp_valid_q <= respond || (rsp_valid_q && !rsp_ready_i);
  end
  always_ff @(posedge clk_i) begin
    if (respond) rsp_q <= response;
  end
  assign rsp_valid_o = rsp_valid_q;
  assign rsp_o = rsp_q;

  assign fault_valid_o = state_q == StFault;
  always_comb begin
    fault_o = '0;
    fault_o.cause = cause_q;
    fault_o.ttyp = TtMessage;
    fault_o.device_id = msg_q.device_id;
    fault_o.pid_valid = msg_q.pid_valid;
    fault_o.process_id = msg_q.pid_valid ? msg_q.process_id : '0;
    fault_o.priv = msg_q.pid_valid && msg_q.priv;
    fault_o.iotval = PageRequestCode;
  end

  logic [63:0] dw0, dw1;
  assign dw0 = {msg_q.device_id, 5'd0, msg_q.pid_valid && msg_q.exec, msg_q.pid_valid && msg_q.priv,
                msg_q.pid_valid, msg_q.pid_valid ? msg_q.process_id : 20'd0, 12'd0};
  assign dw1 = {msg_q.addr, msg_q.prgi, msg_q.last, msg_q.write, msg_q.read};
  assign mem_valid_o = state_q == StWrite;
  always_comb begin
    mem_req_o = '0;
    mem_req_o.op = MemWrite;
    mem_req_o.addr = {cfg_q.ppn, 12'd0} | {20'd0, tail_q, 4'd0};
    mem_req_o.len_dw = 5'd4;
    mem_req_o.wdata[127:0] = be_i ? {swap_bytes(dw1), swap_bytes(dw0)} : {dw1, dw0};
  end

  logic unused;
  assign unused = ^{wdata_i, dir_rsp_i, msg_q};

  assert property (@(posedge clk_i) disable iff (!rst_ni) !dir_rsp_valid_i || state_q == StDirRsp);
  assert property (@(posedge clk_i) disable iff (!rst_ni) !mem_rsp_valid_i || state_q == StWriteRsp);
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      !$past(rsp_valid_o && !rsp_ready_i) || (rsp_valid_o && $stable(rsp_o)));
endmodule
