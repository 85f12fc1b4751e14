// SPDX-License-Identifier: MIT OR Apache-2.0

/// The neutral TLP port: types shared by every block that sends or receives TLPs.
///
/// A TLP travels as one or more beats. The header (and the PASID TLP prefix) stands beside the
/// first beat (`sop`); payload byte k of the TLP is byte lane k mod (DataW/8) of beat
/// k / (DataW/8), so payload DW 0 always starts at lane 0, whatever the address.
///
/// Handshake, class-ready: the receiver drives one ready bit per traffic class (posted,
/// non-posted, completion) that does not depend on `valid`. A beat is taken in a cycle with
/// `valid` and the ready bit of its TLP's class. The receiver raises a class's ready for a `sop`
/// beat only when it has room for a whole TLP of that class, and keeps it raised until `eop`: a
/// TLP is never stalled half-way. The sender may put bubbles between beats, never interleaves two
/// TLPs, and may withdraw a `sop` beat that was not taken in favour of another class: that is
/// what lets a posted request pass a blocked non-posted one (PCIe 6.0 §2.4.1).
package tlp_pkg;

  /// Header bits: DW i of the header is `hdr[32*i +: 32]`, with byte 0 of that DW (the first on
  /// the link) in bits 31:24, as the figures of PCIe 6.0 §2.2 are drawn.
  typedef logic [127:0] tlp_hdr_t;

  /// What stands beside the first beat of a TLP.
  typedef struct packed {
    logic        pfx_valid;  // a PASID TLP prefix is present (PCIe 6.0 §6.20)
    logic [31:0] pfx;        // 31:24 = 8'h91, 23 PMR, 22 ER, 19:0 PASID
    tlp_hdr_t    hdr;
  } tlp_head_t;

  /// One beat for each supported data width. Blocks take the type as parameter `beat_t`.
  typedef struct packed {
    logic sop;
    logic eop;
    tlp_head_t head;
    logic [63:0] data;
  } tlp_beat64_t;

  typedef struct packed {
    logic sop;
    logic eop;
    tlp_head_t head;
    logic [127:0] data;
  } tlp_beat128_t;

  typedef struct packed {
    logic sop;
    logic eop;
    tlp_head_t head;
    logic [255:0] data;
  } tlp_beat256_t;

  typedef struct packed {
    logic sop;
    logic eop;
    tlp_head_t head;
    logic [511:0] data;
  } tlp_beat512_t;

  /// Traffic classes of the ordering table (PCIe 6.0 §2.4.1).
  typedef enum logic [1:0] {
    ClassP   = 2'd0,
    ClassNp  = 2'd1,
    ClassCpl = 2'd2
  } tlp_class_e;

  /// One ready bit per class, indexed by `tlp_class_e`.
  typedef logic [2:0] tlp_ready_t;

  /// Fmt and Type as one 8-bit field, header bits 31:24 of DW 0 (PCIe 6.0 §2.2.1, Table 2-3).
  localparam logic [7:0] FtMRd32 = 8'h00;
  localparam logic [7:0] FtMRd64 = 8'h20;
  localparam logic [7:0] FtMWr32 = 8'h40;
  localparam logic [7:0] FtMWr64 = 8'h60;
  localparam logic [7:0] FtCfgRd0 = 8'h04;
  localparam logic [7:0] FtCfgWr0 = 8'h44;
  localparam logic [7:0] FtCfgRd1 = 8'h05;
  localparam logic [7:0] FtCfgWr1 = 8'h45;
  localparam logic [7:0] FtCpl = 8'h0a;
  localparam logic [7:0] FtCplD = 8'h4a;
  localparam logic [7:0] PfxPasid = 8'h91;

  /// Completion Status (PCIe 6.0 §2.2.9.1).
  localparam logic [2:0] CplSc = 3'b000;
  localparam logic [2:0] CplUr = 3'b001;
  localparam logic [2:0] CplCa = 3'b100;

  /// Address Type (PCIe 6.0 §2.2.4.1 with the ATS encodings of §10.2.1).
  localparam logic [1:0] AtUntranslated = 2'b00;
  localparam logic [1:0] AtTranslationReq = 2'b01;
  localparam logic [1:0] AtTranslated = 2'b10;

  // Fields of DW 0, common to all headers.
  function automatic logic [7:0] hdr_fmt_type(tlp_hdr_t h);
    return h[31:24];
  endfunction
  function automatic logic hdr_4dw(tlp_hdr_t h);
    return h[29];
  endfunction
  function automatic logic hdr_has_data(tlp_hdr_t h);
    return h[30];
  endfunction
  function automatic logic [2:0] hdr_tc(tlp_hdr_t h);
    return h[22:20];
  endfunction
  /// Attr[2:0] = {IDO, Relaxed Ordering, No Snoop} (PCIe 6.0 §2.2.6.3).
  function automatic logic [2:0] hdr_attr(tlp_hdr_t h);
    return {h[18], h[13:12]};
  endfunction
  function automatic logic hdr_ep(tlp_hdr_t h);
    return h[14];
  endfunction
  function automatic logic [1:0] hdr_at(tlp_hdr_t h);
    return h[11:10];
  endfunction
  /// Length in DW, 1 to 1024 (field 0 means 1024).
  function automatic logic [10:0] hdr_len_dw(tlp_hdr_t h);
    return {h[9:0] == 10'd0, h[9:0]};
  endfunction

  // Requests.
  function automatic logic hdr_is_mem(tlp_hdr_t h);
    return h[28:24] == 5'b00000;
  endfunction
  function automatic logic hdr_is_cfg(tlp_hdr_t h);
    return h[28:25] == 4'b0010;
  endfunction
  function automatic logic hdr_is_msg(tlp_hdr_t h);
    return h[28:27] == 2'b10;
  endfunction
  function automatic logic hdr_is_cpl(tlp_hdr_t h);
    return h[28:24] == 5'b01010;
  endfunction
  function automatic logic [15:0] hdr_req_id(tlp_hdr_t h);
    return h[63:48];
  endfunction
  /// 10-bit tag: T9 and T8 are in DW 0 (PCIe 6.0 §2.2.6.2).
  function automatic logic [9:0] hdr_tag(tlp_hdr_t h);
    return {h[23], h[19], h[47:40]};
  endfunction
  function automatic logic [3:0] hdr_last_be(tlp_hdr_t h);
    return h[39:36];
  endfunction
  function automatic logic [3:0] hdr_first_be(tlp_hdr_t h);
    return h[35:32];
  endfunction
  /// Address of a memory request; bits 1:0 are zero.
  function automatic logic [63:0] hdr_addr(tlp_hdr_t h);
    return hdr_4dw(h) ? {h[95:64], h[127:98], 2'b00} : {32'd0, h[95:66], 2'b00};
  endfunction
  /// Target of a configuration request or a message routed by ID.
  function automatic logic [15:0] hdr_target_id(tlp_hdr_t h);
    return h[95:80];
  endfunction
  /// DW number of a configuration register, 0 to 1023.
  function automatic logic [9:0] hdr_cfg_dw(tlp_hdr_t h);
    return h[75:66];
  endfunction

  // Completions (PCIe 6.0 §2.2.9).
  function automatic logic [15:0] cpl_completer_id(tlp_hdr_t h);
    return h[63:48];
  endfunction
  function automatic logic [2:0] cpl_status(tlp_hdr_t h);
    return h[47:45];
  endfunction
  /// Byte count remaining including this completion, 1 to 4096 (field 0 means 4096).
  function automatic logic [12:0] cpl_byte_count(tlp_hdr_t h);
    return {h[43:32] == 12'd0, h[43:32]};
  endfunction
  function automatic logic [15:0] cpl_req_id(tlp_hdr_t h);
    return h[95:80];
  endfunction
  function automatic logic [9:0] cpl_tag(tlp_hdr_t h);
    return {h[23], h[19], h[79:72]};
  endfunction
  function automatic logic [6:0] cpl_lower_addr(tlp_hdr_t h);
    return h[70:64];
  endfunction

  /// Class of a TLP by its Fmt and Type.
  function automatic tlp_class_e hdr_class(tlp_hdr_t h);
    if (hdr_is_cpl(h)) return ClassCpl;
    if (hdr_is_msg(h)) return ClassP;
    if (hdr_is_mem(h) && hdr_has_data(h)) return ClassP;
    return ClassNp;
  endfunction

  /// Replace the address of a memory request; 3-DW form below 4 GiB (PCIe 6.0 §2.2.4.1 forbids
  /// the 4-DW form there), 4-DW form at or above it.
  function automatic tlp_hdr_t hdr_set_addr(tlp_hdr_t h, logic [63:0] addr);
    tlp_hdr_t r;
    r = h;
    r[29] = addr[63:32] != 32'd0;
    r[127:64] = (addr[63:32] != 32'd0) ? {addr[31:2], 2'b00, addr[63:32]}
                                       : {32'd0, addr[31:2], 2'b00};
    return r;
  endfunction

  /// Memory request header. `attr` is {IDO, RO, NS}.
  function automatic tlp_hdr_t mk_mem_hdr(logic write, logic [63:0] addr, logic [10:0] len_dw,
                                          logic [3:0] first_be, logic [3:0] last_be,
                                          logic [15:0] req_id, logic [9:0] tag, logic [2:0] attr,
                                          logic [1:0] at, logic [2:0] tc);
    tlp_hdr_t r;
    r = '0;
    r[31:24] = {1'b0, write, 6'b0};
    r[23] = tag[9];
    r[22:20] = tc;
    r[19] = tag[8];
    r[18] = attr[2];
    r[13:12] = attr[1:0];
    r[11:10] = at;
    r[9:0] = len_dw[9:0];
    r[63:32] = {req_id, tag[7:0], last_be, first_be};
    return hdr_set_addr(r, addr);
  endfunction

  /// Configuration request header (always one DW).
  function automatic tlp_hdr_t mk_cfg_hdr(logic write, logic type1, logic [15:0] target_id,
                                          logic [9:0] dw, logic [3:0] first_be,
                                          logic [15:0] req_id, logic [9:0] tag);
    tlp_hdr_t r;
    r = '0;
    r[31:24] = {1'b0, write, 5'b00010, type1};
    r[23] = tag[9];
    r[19] = tag[8];
    r[9:0] = 10'd1;
    r[63:32] = {req_id, tag[7:0], 4'b0000, first_be};
    r[95:64] = {target_id, 4'b0000, dw, 2'b00};
    return r;
  endfunction

  /// Completion header. `len_dw` is 0 and `with_data` clear for a completion without data.
  /// TC and Attr are copied from the request (PCIe 6.0 §2.2.9).
  function automatic tlp_hdr_t mk_cpl_hdr(logic with_data, logic [2:0] status,
                                          logic [15:0] completer_id, tlp_hdr_t request,
                                          logic [10:0] len_dw, logic [12:0] byte_count,
                                          logic [6:0] lower_addr);
    tlp_hdr_t r;
    r = '0;
    r[31:24] = with_data ? FtCplD : FtCpl;
    r[23] = request[23];
    r[22:20] = request[22:20];
    r[19:18] = request[19:18];
    r[13:12] = request[13:12];
    r[9:0] = len_dw[9:0];
    r[63:32] = {completer_id, status, 1'b0, byte_count[11:0]};
    r[95:64] = {hdr_req_id(request), request[47:40], 1'b0, lower_addr};
    return r;
  endfunction

  /// Bytes between the DW address and the first enabled byte (PCIe 6.0 Table 2-39).
  function automatic logic [1:0] be_offset(logic [3:0] first_be);
    if (first_be[0] || first_be == 4'b0000) return 2'd0;
    if (first_be[1]) return 2'd1;
    if (first_be[2]) return 2'd2;
    return 2'd3;
  endfunction

  /// Byte Count of the first completion of a memory read (PCIe 6.0 Table 2-38).
  function automatic logic [12:0] read_byte_count(tlp_hdr_t h);
    logic [12:0] total;
    logic [3:0] fbe;
    logic [3:0] lbe;
    logic [2:0] tail;
    fbe = hdr_first_be(h);
    lbe = hdr_last_be(h);
    total = {hdr_len_dw(h), 2'b00};
    if (lbe == 4'b0000) begin
      // One DW: the span from the first to the last enabled byte; zero-length reads count 1.
      if (fbe == 4'b0000) return 13'd1;
      tail = fbe[3] ? 3'd4 : fbe[2] ? 3'd3 : fbe[1] ? 3'd2 : 3'd1;
      return 13'(tail) - 13'(be_offset(fbe));
    end
    tail = lbe[3] ? 3'd0 : lbe[2] ? 3'd1 : lbe[1] ? 3'd2 : 3'd3;
    return total - 13'(be_offset(fbe)) - 13'(tail);
  endfunction

endpackage
