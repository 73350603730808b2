#!/usr/bin/env bash
# Fuzzes what reads other people's bytes: fuzz/run.sh [SECONDS [TARGET…]], by default 60 seconds each of all targets.
#
# libFuzzer, guided by coverage, on the stable toolchain: the flags that cargo-fuzz passes to a nightly one, less those of the
# sanitizers, which look for what safe Rust does not do. A target fails by a panic, or by taking too long or too much memory;
# then its input is printed. Needs Rust and a C++ compiler. All it makes lies below target/fuzz/; there, inputs that were
# found interesting stay for the next time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin"

all=(header payload ref_match config)
# Scripts and macros of the build are not instrumented: flags are for a target that is named.
# Without rustc it stays empty, which is told below.
platform=$(rustc -vV 2>/dev/null | sed -n 's/^host: //p') || true
work=target/fuzz

main() {
  local seconds="${1:-60}" targets=("${@:2}") target failed=false
  if [ "${#targets[@]}" = 0 ]; then targets=("${all[@]}"); fi
  [[ "$seconds" =~ ^[1-9][0-9]*$ ]] || fail "\`$seconds\` is no number of seconds"
  [ -n "$platform" ] || fail "there is no rustc: install Rust (https://rustup.rs)"
  command -v c++ >/dev/null || fail "there is no C++ compiler for libFuzzer: apt-get install build-essential"
  build
  for target in "${targets[@]}"; do
    [ -x "$(program "$target")" ] || fail "there is no target \`$target\`; there are: ${all[*]}"
    mkdir -p "$work/$target/seeds" "$work/$target/corpus" "$work/$target/failures"
    # As many at once as there are cores. How each ended is in its own file.
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n || true; done
    run "$target" "$seconds" 2>/dev/null &
  done
  wait
  for target in "${targets[@]}"; do
    report "$target" || failed=true
  done
  if $failed; then fail "a target failed"; fi
}

fail() {
  printf 'fuzz/run.sh: %s\n' "$1" >&2
  exit 1
}

build() {
  local flags=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares)
  # Nothing that is fuzzed uses OpenSSL, and to compile it takes longer than the rest: the machine's will do, if it has one.
  if pkg-config --atleast-version=3 openssl 2>/dev/null; then export OPENSSL_NO_VENDOR=1; fi
  RUSTFLAGS="${flags[*]}" cargo build --manifest-path fuzz/Cargo.toml --locked --release --bins \
    --target "$platform" --target-dir "$work"
}

program() {
  printf '%s/%s/release/%s' "$work" "$platform" "$1"
}

# A seed may be a body of 6 kB in an otherwise small request; 10 s for one input is for ever.
run() {
  local directory="$work/$1" status=0
  LANDFALL_FUZZ_SEEDS="$directory/seeds" "$(program "$1")" -max_total_time="$2" -max_len=12288 -timeout=10 \
    -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$directory/failures/" \
    "$directory/corpus" "$directory/seeds" >"$directory/log" 2>&1 || status=$?
  echo "$status" >"$directory/status"
}

# Says what a target did; fails if that was nothing, or if it found something.
report() {
  local directory="$work/$1" status runs coverage input
  status=$(cat "$directory/status" 2>/dev/null) || status="none"
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$directory/log")
  coverage=$(grep -o 'cov: [0-9]*' "$directory/log" | tail -n 1) || true
  printf '%-10s %s inputs, %s\n' "$1" "${runs:-no}" "${coverage:-no coverage}"
  if [ "$status" = 0 ] && [ "${runs:-0}" -ge 100 ] && [ -n "$coverage" ]; then return 0; fi
  printf '\n%s ended with status %s; the end of its log:\n' "$1" "$status"
  tail -n 40 "$directory/log"
  input=$(sed -n 's/.*Test unit written to //p' "$directory/log" | tail -n 1)
  if [ -n "$input" ]; then
    printf '\nThe input, in base64; to see it again: %s FILE\n' "$(program "$1")"
    base64 "$input"
  fi
  return 1
}

main "$@"
