// SPDX-License-Identifier: MIT OR Apache-2.0

/// Types and sizes inside the endpoint (`docs/endpoint.md`).
package ep_pkg;

  /// Read tags, descriptor queue, descriptors under way, completion records, MSI-X vectors.
  localparam int unsigned Tags = 64;
  localparam int unsigned QueueDepth = 32;
  localparam int unsigned Slots = 32;
  localparam int unsigned Records = 64;
  localparam int unsigned Vectors = 8;

  typedef logic [5:0] tag_t;
  typedef logic [4:0] slot_t;
  typedef logic [2:0] vector_t;

  /// DW address in the 1 MiB local memory.
  typedef logic [17:0] mem_dw_t;

  /// Completion status of a descriptor beside the codes of a completion.
  localparam logic [2:0] StatusTimeout = 3'b111;

  /// What becomes of a descriptor when it is complete.
  typedef struct packed {
    logic [15:0] id;
    logic irq;
    vector_t irq_vector;
  } info_t;

  /// Largest transfer of a descriptor in bytes.
  localparam int unsigned MaxLen = 4 << 20;
  typedef logic [22:0] len_t;

  /// How DESC_ADDR and DESC_ADDR2 lead to the data.
  typedef enum logic [1:0] {
    ModeContiguous = 2'd0,  // address of the data
    ModePrp = 2'd1,  // PRP entries 1 and 2
    ModeSgl = 2'd2,  // an SGL descriptor
    ModeReserved = 2'd3
  } mode_e;

  /// Why a list ended a descriptor: generic command status (NVM Express 1.4 §4.6.1.2.1).
  typedef enum logic [7:0] {
    ListOk = 8'h00,
    ListReadFailed = 8'h04,  // Data Transfer Error
    ListSegment = 8'h0d,  // Invalid SGL Segment Descriptor
    ListNumber = 8'h0e,  // Invalid Number of SGL Descriptors
    ListLength = 8'h0f,  // Data SGL Length Invalid
    ListType = 8'h11,  // SGL Descriptor Type Invalid
    ListOffset = 8'h13,  // PRP Offset Invalid
    ListGranularity = 8'h1e  // SGL Data Block Granularity Invalid
  } list_code_e;

  /// The list buffer: blocks of 128 bytes, each filled by one read.
  localparam int unsigned ListBlocks = 8;
  typedef logic [$clog2(ListBlocks)-1:0] block_t;

  /// What all requests of a descriptor have in common.
  typedef struct packed {
    logic [31:0] seed;
    logic [15:0] rid;
    logic [19:0] pasid;
    logic [2:0] tc;
    logic rid_ovr;
    logic er;
    logic pmr;
    logic pasid_valid;
    logic [2:0] attr;  // {IDO, RO, NS}
    logic [1:0] at;
    logic pattern;
    logic write;
  } common_t;

  /// Contiguous memory that is moved to or from local memory.
  typedef struct packed {
    mem_dw_t local_dw;
    len_t len;
    logic [63:0] addr;
  } extent_t;

  /// What a descriptor asks for.
  typedef struct packed {
    common_t common;
    mode_e mode;
    logic [63:0] addr2;  // PRP entry 2, or the high half of the SGL descriptor
    extent_t extent;
  } transfer_t;

  /// A descriptor as the doorbell queues it.
  typedef struct packed {
    info_t info;
    transfer_t transfer;
  } desc_t;

  /// One step of a descriptor: an extent to move, or just its end.
  typedef struct packed {
    logic move;  // the extent is to be moved
    logic last;  // nothing of the descriptor follows
    logic [2:0] status;  // of a list read that failed
    list_code_e code;
    extent_t extent;
  } piece_t;

  /// A piece with whose it is.
  typedef struct packed {
    slot_t slot;
    common_t common;
    piece_t piece;
  } work_t;

  /// A completion record: descriptor, worst status, why its list ended it.
  typedef struct packed {
    list_code_e code;
    logic [2:0] status;
    logic [15:0] id;
  } record_t;

  /// Where the payload of a TLP comes from.
  typedef enum logic [1:0] {
    SrcNone = 2'd0,  // no payload
    SrcMem = 2'd1,  // local memory
    SrcGen = 2'd2,  // pattern generator
    SrcImm = 2'd3  // at most two DW given with the job
  } src_kind_e;

  /// One TLP to send.
  typedef struct packed {
    tlp_pkg::tlp_head_t head;
    src_kind_e kind;
    logic [10:0] len_dw;  // of the payload, 0 with `SrcNone`
    mem_dw_t local_dw;
    logic [31:0] gen_n;
    logic [31:0] gen_seed;
    logic [63:0] imm;
  } src_job_t;

  /// Where the payload of a received TLP goes.
  typedef struct packed {
    logic en;
    mem_dw_t local_dw;
    logic [10:0] len_dw;
    logic [3:0] first_be;
    logic [3:0] last_be;  // unused with one DW
  } sink_job_t;

  /// What is left of a read: bytes, lower address of the next one, its DW in local memory.
  typedef struct packed {
    logic [12:0] bytes;
    logic [6:0] lower;
    mem_dw_t local_dw;
  } progress_t;

  /// What a read tag belongs to.
  typedef struct packed {
    logic of_list;  // a read of a list, into this block of the list buffer
    block_t block;
    slot_t slot;
    logic discard;
    logic [15:0] rid;
  } owner_t;

  /// The Requester ID of a descriptor's requests.
  function automatic logic [15:0] requester(common_t c, logic [15:0] bdf);
    return c.rid_ovr ? c.rid : bdf;
  endfunction

  /// Header of a memory request with the attributes of its descriptor.
  function automatic tlp_pkg::tlp_head_t mk_head(common_t c, logic write, logic [63:0] addr,
                                                 logic [10:0] len_dw, logic [3:0] first_be,
                                                 logic [3:0] last_be, logic [15:0] bdf,
                                                 logic [9:0] tag);
    tlp_pkg::tlp_head_t head;
    head.hdr = tlp_pkg::mk_mem_hdr(write, {addr[63:2], 2'b00}, len_dw, first_be, last_be,
                                   requester(c, bdf), tag, c.attr, c.at, c.tc);
    head.pfx_valid = c.pasid_valid;
    head.pfx = c.pasid_valid ? {tlp_pkg::PfxPasid, c.pmr, c.er, 2'b00, c.pasid} : '0;
    return head;
  endfunction

  /// Byte enables from byte `offset` of a DW on.
  function automatic logic [3:0] be_from(logic [1:0] offset);
    return 4'hf << offset;
  endfunction

  /// Byte enables of the last DW of a span that ends `tail` bytes into it (0: at its end).
  function automatic logic [3:0] be_until(logic [1:0] tail);
    return (tail == 2'd0) ? 4'hf : 4'hf >> (3'd4 - {1'b0, tail});
  endfunction

  /// The pattern generator's DW `n` under seed `s`.
  function automatic logic [31:0] pattern(logic [31:0] n, logic [31:0] s);
    logic [31:0] x;
    x = n ^ s;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return x;
  endfunction

endpackage
