// SPDX-License-Identifier: MIT OR Apache-2.0

/// Steps 1 to 16 of the process to translate an IOVA (IOMMU §2.3), as far as the contexts are
/// known: what the request may not do, which context is to be located next, and which first stage
/// it then has. Combinational; the first check that applies wins.
module iommu_checks
  import iommu_pkg::*;
  import iommu_int_pkg::*;
#(
    /// Capabilities.
    parameter iommu_cfg_t Cfg = CfgBase
) (
    /// The request.
    input ctx_t ctx_i,
    /// A directory is in use.
    output logic in_ddt_o,
    /// The device context is located, or is not to be.
    output logic dc_usable_o,
    /// Fault, or CauseNone.
    output cause_t cause_o,
    /// Locate the device context.
    output logic need_ddt_o,
    /// Locate the process context.
    output logic need_pdt_o,
    /// The address is the system physical address, nothing is to be translated.
    output logic direct_o,
    /// First stage.
    output space_t space_o,
    /// Access.
    output acc_t acc_o
);
  // DDI[1] and DDI[2] start here (IOMMU §2.3, steps 3 and 4).
  localparam int unsigned Ddi1Lsb = Cfg.msi_flat ? 6 : 7;
  localparam int unsigned Ddi2Lsb = Ddi1Lsb + 9;

  tr_req_t req;
  dc_t dc;
  ttyp_e ttyp;
  logic did_too_wide, pid_too_wide, uses_pc, canonical, ats, translated, priv, too_wide;
  assign req = ctx_i.req;
  assign dc = ctx_i.dc;
  assign ttyp = req.ttyp;
  assign ats = ttyp == TtAtsReq;
  assign translated = is_translated(ttyp);

  assign in_ddt_o = ctx_i.mode inside {Ddt1Lvl, Ddt2Lvl, Ddt3Lvl};
  assign did_too_wide =
      (ctx_i.mode != Ddt3Lvl && req.device_id[23:Ddi2Lsb] != '0) ||
      (ctx_i.mode == Ddt1Lvl && req.device_id[Ddi2Lsb-1:Ddi1Lsb] != '0);
  assign dc_usable_o = in_ddt_o && !did_too_wide && ctx_i.dc_valid;

  always_comb begin
    unique case (dc.pd_mode)
      Pd8:     pid_too_wide = req.process_id[19:8] != '0;
      Pd17:    pid_too_wide = req.process_id[19:17] != '0;
      default: pid_too_wide = 1'b0;
    endcase
  end
  // Steps 8 to 13. With DPE a request without a process_id is one of process 0.
  assign uses_pc = dc.pd_mode != PdBare && !translated && (req.pid_valid || dc.dpe);
  assign priv = uses_pc && req.pid_valid && req.priv;

  always_comb begin
    space_o = '{mode: PtBare, ppn: '0, pscid: '0};
    if (uses_pc) begin
      space_o = '{mode: ctx_i.pc.s1_mode, ppn: ctx_i.pc.s1_ppn, pscid: ctx_i.pc.pscid};
    end else if (!dc.pdtv && !translated) begin
      space_o = '{mode: dc.s1_mode, ppn: dc.fsc_ppn, pscid: dc.pscid};
    end
    if (!in_ddt_o) space_o.mode = PtBare;
  end
  assign acc_o = '{
      probe: ats,
      write: is_write(ttyp) || (ats && !req.no_write),
      exec: is_exec(ttyp) || (ats && req.pid_valid && req.ats_exec),
      priv: priv,
      sum: ctx_i.pc.sum
  };

  always_comb begin
    unique case (space_o.mode)
      PtSv39:  canonical = &req.iova[63:38] || ~|req.iova[63:38];
      PtSv48:  canonical = &req.iova[63:47] || ~|req.iova[63:47];
      PtSv57:  canonical = &req.iova[63:56] || ~|req.iova[63:56];
      PtSv32:  canonical = ~|req.iova[63:32];
      default: canonical = 1'b1;
    endcase
  end
  // Beyond capabilities.PAS there is no physical address: the PMA check fails.
  assign too_wide = Cfg.wide_pass_through_faults && beyond_pas(Cfg, req.iova[63:12]);

  always_comb begin
    cause_o = CauseNone;
    need_ddt_o = 1'b0;
    need_pdt_o = 1'b0;
    direct_o = 1'b0;
    if (ctx_i.cause != CauseNone) begin
      cause_o = ctx_i.cause;
    end else if (ctx_i.mode == DdtOff) begin
      cause_o = CauseAllDisallowed;
    end else if (!in_ddt_o) begin
      direct_o = 1'b1;
      if (ctx_i.kind == KindDir || !is_untranslated(ttyp)) cause_o = CauseTypeDisallowed;
      else if (too_wide) cause_o = access_fault(ttyp);
    end else if (did_too_wide) begin
      cause_o = CauseTypeDisallowed;
    end else if (!ctx_i.dc_valid) begin
      need_ddt_o = 1'b1;
    end else if (ctx_i.kind == KindDir) begin
      direct_o = 1'b1;
    end else if (((translated || ats) && !dc.en_ats) ||
                 !(translated || ats || is_untranslated(ttyp)) ||
                 (req.pid_valid && (!dc.pdtv || pid_too_wide))) begin
      cause_o = CauseTypeDisallowed;
    end else if (translated && !dc.t2gpa) begin
      direct_o = 1'b1;
      if (too_wide) cause_o = access_fault(ttyp);
    end else if (uses_pc && !ctx_i.pc_valid) begin
      need_pdt_o = 1'b1;
    end else if (priv && !ctx_i.pc.ens) begin
      cause_o = CauseTypeDisallowed;
    end else if (!canonical) begin
      cause_o = page_fault(access_type(Cfg, req));
    end
  end

  logic unused;
  assign unused = ^{ctx_i, req, dc};
endmodule
