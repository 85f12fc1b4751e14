#!/bin/sh
# Line coverage of rtl/iommu in the lock-step campaign and the directed tests:
#   ./rtl/coverage.sh [REQUESTS]   requests of each configuration, 300,000 if not said
# Lines that are not covered are listed, and below them the share of each file. rtl/iommu/coverage.csv has
# the lines that no campaign can reach, with reasons. Exit status 0 if all others are covered, 1 if not.
set -eu
cd "$(dirname "$0")/.."
requests=${1:-300000}
found=$PWD/target/rtl-coverage/found
rm -rf "$found"
mkdir -p "$found"
TLPROOF_TOPS=iommu_formats cargo build --release --quiet -p tlproof-lockstep --features coverage \
    --bins --target-dir target/rtl-coverage
for config in full minimal base other; do
    TLPROOF_COVERAGE=$found target/rtl-coverage/release/lockstep "$config" "$requests" 1
done
TLPROOF_COVERAGE=$found TLPROOF_TOPS=iommu_formats cargo test --release --quiet -p tlproof-sim \
    --features coverage --test iommu --target-dir target/rtl-coverage
target/rtl-coverage/release/rtl-coverage "$found"
