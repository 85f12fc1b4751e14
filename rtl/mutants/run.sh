#!/bin/sh
# Builds the IOMMU with each defect and runs the lock-step campaign against it: a defect that it does
# not notice within 100,000 requests survives.
#   ./rtl/mutants/run.sh [NAME...]   all patches of this folder, or those named
# Exit status: 0 all noticed, 1 one survived or does not build, 2 bad usage.
set -eu
cd "$(dirname "$0")/../.."
root=$PWD
tree=$root/target/rtl-mutants
requests=${REQUESTS:-100000}
command -v patch >/dev/null 2>&1 || {
    echo "patch was not found: apt-get install patch" >&2
    exit 2
}
# shellcheck disable=SC2046 # one word a patch
[ $# -gt 0 ] || set -- $(cd rtl/mutants && ls ./*.patch | sed 's|^\./||; s|\.patch$||')
mkdir -p "$tree"
survived=0
for name in "$@"; do
    defect=$root/rtl/mutants/$name.patch
    [ -f "$defect" ] || {
        echo "$name: no such defect" >&2
        exit 2
    }
    rm -rf "$tree/rtl"
    cp -r rtl "$tree/rtl"
    (cd "$tree" && patch -p1 -s <"$defect") || {
        echo "$name: the patch does not apply"
        survived=1
        continue
    }
    if ! TLPROOF_ROOT=$tree TLPROOF_TOPS=iommu_formats cargo build --release --quiet \
        -p tlproof-lockstep --bin lockstep --target-dir "$tree/target" 2>"$tree/build.log"; then
        echo "$name: does not build, see $tree/build.log"
        survived=1
        continue
    fi
    status=0
    "$tree/target/release/lockstep" full "$requests" 1 >"$tree/run.log" 2>&1 || status=$?
    case $status in
    0)
        echo "$name: SURVIVED $requests requests"
        survived=1
        ;;
    1) echo "$name: noticed $(head -n 1 "$tree/run.log" | cut -c1-150)" ;;
    *)
        echo "$name: the campaign itself failed (status $status), see $tree/run.log"
        survived=1
        ;;
    esac
done
exit $survived
