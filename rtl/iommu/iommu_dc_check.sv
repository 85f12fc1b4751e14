// SPDX-License-Identifier: MIT OR Apache-2.0

/// A device context as it is in memory, decoded (IOMMU §2.1.3) and checked (§2.1.4). Combinational.
module iommu_dc_check
  import iommu_pkg::*;
  import iommu_int_pkg::*;
#(
    /// Capabilities.
    parameter iommu_cfg_t Cfg = CfgBase
) (
    /// The context in its byte order; the upper half is 0 in base format.
    input logic [511:0] raw_i,
    /// fctl.BE.
    input logic be_i,
    /// fctl.GXL.
    input logic gxl_i,
    /// DC.tc.V.
    output logic valid_o,
    /// A check of §2.1.4 fails.
    output logic misconfigured_o,
    /// The context.
    output dc_t dc_o
);
  localparam bit HasS2 = Cfg.sv32x4 || Cfg.sv39x4 || Cfg.sv48x4 || Cfg.sv57x4;
  // Page number bits of a guest address, or without a second stage of a physical one.
  localparam int unsigned MsiWidth = Cfg.sv57x4 ? 59 : Cfg.sv48x4 ? 50 : Cfg.sv39x4 ? 41 :
                                     Cfg.sv32x4 ? 34 : int'(Cfg.pas);
  localparam logic [51:0] MsiBits = ~({52{1'b1}} << (MsiWidth - 12));
  localparam bit HasPdt = Cfg.pd8 || Cfg.pd17 || Cfg.pd20;

  logic [63:0] tc, iohgatp, ta, fsc, msiptp, msi_mask, msi_pattern, dc_rsvd;
  always_comb begin
    {dc_rsvd, msi_pattern, msi_mask, msiptp, fsc, ta, iohgatp, tc} = raw_i;
    if (big_endian(Cfg, be_i)) begin
      tc = swap_bytes(tc);
      iohgatp = swap_bytes(iohgatp);
      ta = swap_bytes(ta);
      fsc = swap_bytes(fsc);
      msiptp = swap_bytes(msiptp);
      msi_mask = swap_bytes(msi_mask);
      msi_pattern = swap_bytes(msi_pattern);
      dc_rsvd = swap_bytes(dc_rsvd);
    end
  end

  logic en_ats, en_pri, t2gpa, pdtv, prpr, gade, sade, dpe, sbe, sxl, gxl;
  assign {sxl, sbe, dpe, sade, gade, prpr, pdtv} = tc[11:5];
  assign {t2gpa, en_pri, en_ats} = tc[3:1];
  assign gxl = Cfg.gxl_writable && gxl_i;

  // Second-stage scheme.
  logic s2_ok, s2_bare;
  pt_mode_e s2_mode;
  always_comb begin
    s2_mode = PtBare;
    s2_ok = 1'b0;
    unique case (iohgatp[63:60])
      4'd0: s2_ok = 1'b1;
      4'd8: begin
        s2_mode = gxl ? PtSv32 : PtSv39;
        s2_ok = gxl ? Cfg.sv32x4 : Cfg.sv39x4;
      end
      4'd9: begin
        s2_mode = PtSv48;
        s2_ok = !gxl && Cfg.sv48x4;
      end
      4'd10: begin
        s2_mode = PtSv57;
        s2_ok = !gxl && Cfg.sv57x4;
      end
      default: s2_ok = 1'b0;
    endcase
    s2_bare = iohgatp[63:60] == 4'd0;
  end

  // First-stage scheme, or process directory.
  logic s1_ok, pd_ok;
  pt_mode_e s1_mode;
  always_comb begin
    {s1_ok, s1_mode} = s1_scheme(Cfg, sxl, fsc[63:60]);
    unique case (fsc[63:60])
      4'd0:    pd_ok = 1'b1;
      4'd1:    pd_ok = Cfg.pd8;
      4'd2:    pd_ok = Cfg.pd17;
      4'd3:    pd_ok = Cfg.pd20;
      default: pd_ok = 1'b0;
    endcase
  end

  logic [51:0] known;
  assign known = Cfg.wide_msi_mask == MsiMaskMasked ? MsiBits : '1;

  function automatic logic beyond(logic [11:0] id, logic [3:0] width);
    return (id >> width) != '0;
  endfunction

  logic tc_bad, s2_bad, ta_bad, fsc_bad, msi_bad, wide_bad;
  // tc bits 31:24 are custom.
  assign tc_bad = tc[63:32] != '0 || tc[23:12] != '0 ||
                  (!Cfg.ats && (en_ats || en_pri || prpr)) ||
                  (!en_ats && (t2gpa || en_pri)) ||
                  (!en_pri && prpr) ||
                  (t2gpa && (!Cfg.t2gpa || s2_bare)) ||
                  (!Cfg.amo_hwad && (sade || gade)) ||
                  (dpe && !pdtv) ||
                  (!Cfg.big_endian && sbe != Cfg.fixed_big_endian) ||
                  (sxl ? !Cfg.gxl_writable : gxl);
  assign s2_bad = !s2_ok || (!s2_bare && iohgatp[1:0] != '0);
  assign ta_bad = ta[11:0] != '0 || ta[39:32] != '0 ||
                  (Cfg.qosid ? beyond(ta[51:40], Cfg.qos_id_bits[0]) ||
                               beyond(ta[63:52], Cfg.qos_id_bits[1])
                             : ta[63:40] != '0);
  assign fsc_bad = fsc[59:44] != '0 || (pdtv ? !pd_ok : !s1_ok);
  assign wide_bad = Cfg.wide_address == WideMisconfigured &&
                    ((!s2_bare && beyond_pas(Cfg, {8'd0, iohgatp[43:0]})) ||
                     (s2_bare && fsc[63:60] != '0 && beyond_pas(Cfg, {8'd0, fsc[43:0]})) ||
                     (Cfg.msi_flat && msiptp[63:60] != '0 && beyond_pas(Cfg, {8'd0, msiptp[43:0]})));
  assign msi_bad = Cfg.msi_flat && (msiptp[63:60] > 4'd1 || msiptp[59:44] != '0 ||
                                    msi_mask[63:52] != '0 || msi_pattern[63:52] != '0 ||
                                    (Cfg.msi_needs_second_stage && s2_bare &&
                                     msiptp[63:60] != '0) ||
                                    (Cfg.wide_msi_mask == MsiMaskMisconfigured &&
                                     ((msi_mask[51:0] | msi_pattern[51:0]) & ~MsiBits) != '0) ||
                                    dc_rsvd != '0);
  assign valid_o = tc[0];
  assign misconfigured_o = tc_bad || s2_bad || ta_bad || fsc_bad || msi_bad || wide_bad;

  // What is left out is 0 in every context that is not misconfigured; said so, it costs no logic.
  always_comb begin
    dc_o = '{
        en_ats: Cfg.ats && en_ats,
        en_pri: Cfg.ats && en_pri,
        t2gpa: Cfg.t2gpa && t2gpa,
        dtf: tc[4],
        pdtv: pdtv,
        prpr: Cfg.ats && prpr,
        gade: Cfg.amo_hwad && gade,
        sade: Cfg.amo_hwad && sade,
        dpe: dpe,
        sbe: big_endian(Cfg, sbe),
        sxl: Cfg.gxl_writable && sxl,
        s2_mode: HasS2 ? s2_mode : PtBare,
        gscid: HasS2 && !s2_bare ? iohgatp[59:44] : '0,
        s2_ppn: HasS2 ? iohgatp[43:0] : '0,
        pscid: ta[31:12],
        rcid: Cfg.qosid ? ta[51:40] : '0,
        mcid: Cfg.qosid ? ta[63:52] : '0,
        s1_mode: pdtv ? PtBare : s1_mode,
        pd_mode: HasPdt && pdtv ? pd_mode_e'(fsc[61:60]) : PdBare,
        fsc_ppn: fsc[43:0],
        msi_en: Cfg.msi_flat && msiptp[63:60] == 4'd1,
        msi_ppn: Cfg.msi_flat ? msiptp[43:0] : '0,
        msi_mask: Cfg.msi_flat ? msi_mask[51:0] & known : '0,
        msi_pattern: Cfg.msi_flat ? msi_pattern[51:0] & known : '0
    };
  end

  logic unused;  // custom and ignored bits
  assign unused = ^{tc, iohgatp, msiptp, msi_mask, msi_pattern, dc_rsvd, be_i, gxl_i};
endmodule
