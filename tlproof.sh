#!/bin/sh
# Sets up what tlproof needs on Debian 12 or Ubuntu 24.04, then runs it or its tests.
#   ./tlproof.sh run [ARGS]   install what is missing, run the main job (or `tlproof ARGS`)
#   ./tlproof.sh test         install what is missing, run all tests
#   ./tlproof.sh setup        install what is missing
set -eu
cd "$(dirname "$0")"

die() {
    echo "tlproof: $*" >&2
    exit 2
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        return 1
    fi
}

setup() {
    command -v cargo >/dev/null 2>&1 ||
        die "cargo was not found: install a Rust toolchain (1.88 or later) with rustup and put cargo on PATH"
    missing=
    if [ -z "${VERILATOR_BIN:-}${VERILATOR_ROOT:-}" ] && ! command -v verilator_bin >/dev/null 2>&1; then
        missing="$missing verilator"
    fi
    if ! command -v "${CXX:-c++}" >/dev/null 2>&1; then
        missing="$missing g++"
    fi
    [ -n "$missing" ] || return 0
    echo "tlproof: installing$missing" >&2
    # The index of a fresh image is empty, so it is fetched first.
    # shellcheck disable=SC2086 # one word a package
    if ! command -v apt-get >/dev/null 2>&1 ||
        ! as_root apt-get update -qq ||
        ! as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends $missing >&2; then
        die "could not install$missing: install them yourself (Verilator 5.006 or later, a C++17 compiler), or set VERILATOR_BIN and CXX"
    fi
}

command=${1:-run}
[ $# -eq 0 ] || shift
case $command in
setup)
    setup
    ;;
run)
    setup
    # The first build takes minutes and says so.
    cargo build --release -p tlproof
    exec cargo run --release --quiet -p tlproof -- "$@"
    ;;
test)
    setup
    cargo test --release --workspace --doc
    cargo test --release -p tlproof --features mutants --test mutants
    exec cargo test --release --workspace --lib --bins --tests "$@"
    ;;
*)
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
