#!/usr/bin/env bash
# Runs every test, also those that plain `cargo test` leaves out because they need a PostgreSQL server, nginx and the like.
#
# Needs Rust, and installs what else is missing where apt and the right to use it are at hand. As root it runs the tests
# twice: as root, which owners and `run_as` need, and as a plain user, as many will run Landfall. What it makes, packages and
# /run/sshd and what cargo builds apart, lies in one temporary directory and goes with it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source=$PWD

# How long each of the fuzz targets runs.
FUZZ_SECONDS=${FUZZ_SECONDS:-60}

# Where servers are for a plain user, and cargo is for a root without a login shell.
export PATH="$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:/usr/local/sbin:/usr/sbin:/sbin"
is_root=false
if [ "$(id -u)" = 0 ]; then is_root=true; fi

main() {
  command -v cargo >/dev/null || fail "there is no cargo: install Rust (https://rustup.rs)"
  headline "what the tests need"
  install_missing
  # Where nothing has started the system's sshd, the directory that one of root's insists on is not there.
  if $is_root && [ ! -d /run/sshd ]; then mkdir -m 755 /run/sshd; fi

  headline "build"
  cargo build --locked --all-targets

  # A short path: sockets are made below it, whose names have at most 107 bytes.
  temporary=$(mktemp -d /tmp/lf.XXXXXX)
  trap clean_up EXIT
  chmod 711 "$temporary"
  mkdir -m 1777 "$temporary/t"
  export TMPDIR="$temporary/t"
  headline "PostgreSQL"
  start_postgres

  if $is_root; then
    headline "all tests, as root"
    cargo test --locked --no-fail-fast -- --include-ignored
    run_as_plain_user
  else
    headline "all tests, as a plain user (owners and \`run_as\` can only be tested by root)"
    cargo test --locked --no-fail-fast -- --include-ignored
  fi
  headline "fuzzing, $FUZZ_SECONDS s each"
  "$source/fuzz/run.sh" "$FUZZ_SECONDS"
  printf '\ntests/run.sh: all passed\n'
}

headline() {
  printf '\n=== %s\n' "$1"
}

fail() {
  printf 'tests/run.sh: %s\n' "$1" >&2
  exit 1
}

# --- What the tests need --------------------------------------------------------------------------------------------

# Prints the Debian packages whose commands are not there.
missing_packages() {
  local need
  for need in cc:build-essential c++:build-essential make:build-essential git:git bash:bash curl:curl openssl:openssl nginx:nginx-light \
    fcgiwrap:fcgiwrap sshd:openssh-server strace:strace setpriv:util-linux node:nodejs npm:npm \
    systemd-analyze:systemd tar:tar getent:libc-bin; do
    command -v "${need%%:*}" >/dev/null || printf '%s\n' "${need##*:}"
  done
  # Debian's own small perl lacks what OpenSSL's build uses.
  perl -MFindBin -MIPC::Cmd -MTime::Piece -e 1 2>/dev/null || echo perl
  [ -x "$(git --exec-path 2>/dev/null)/git-http-backend" ] || echo git
  [ -n "$(postgres_programs)" ] || echo postgresql
  # Programs with their version in the name, and a library.
  compgen -G '/usr/sbin/php-fpm*' >/dev/null || echo php-fpm
  [ -n "$(find /usr/lib /usr/lib64 -name libnss_wrapper.so -print -quit 2>/dev/null)" ] || echo libnss-wrapper
}

install_missing() {
  local missing as_root=()
  mapfile -t missing < <(missing_packages | sort -u)
  if [ "${#missing[@]}" = 0 ]; then return; fi
  echo "missing: ${missing[*]}"
  if ! $is_root; then as_root=(sudo -n); fi
  if command -v apt-get >/dev/null && { $is_root || sudo -n true 2>/dev/null; }; then
    "${as_root[@]}" apt-get update -qq || true # What is cached may do.
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" || true
    hash -r
    mapfile -t missing < <(missing_packages | sort -u)
  fi
  [ "${#missing[@]}" = 0 ] || fail "install these first: apt-get install ${missing[*]} (or what brings the same commands)"
}

# --- PostgreSQL -----------------------------------------------------------------------------------------------------

# Prints the directory with the server's programs, the newest if there are several.
postgres_programs() {
  local found
  found=$(find /usr/lib/postgresql/*/bin -maxdepth 1 -name initdb 2>/dev/null | sort -V | tail -n 1) || true
  [ -n "$found" ] || found=$(command -v initdb) || true
  if [ -n "$found" ]; then dirname "$found"; fi
}

# Starts a server of our own, which refuses to run as root. Sets postgres_pid and exports LANDFALL_TEST_POSTGRES.
start_postgres() {
  local programs data="$temporary/pg" user=() port
  programs=$(postgres_programs)
  mkdir -m 700 "$data"
  if $is_root; then
    local owner=nobody
    if id postgres >/dev/null 2>&1; then owner=postgres; fi
    chown "$owner:" "$data"
    user=(setpriv "--reuid=$owner" "--regid=$(id -g "$owner")" --clear-groups)
  fi
  # A server cares where it was started: it must be able to come back there.
  (cd / && "${user[@]}" "$programs/initdb" --pgdata "$data/db" --username landfall --auth trust --encoding UTF8 \
    --locale C --no-sync) >/dev/null
  for _ in {1..10}; do
    # Below the range from which the kernel hands out ports.
    port=$((RANDOM % 10000 + 20000))
    (cd / && exec "${user[@]}" "$programs/postgres" -D "$data/db" -p "$port" -c listen_addresses=127.0.0.1 \
      -c "unix_socket_directories=$data" -c fsync=off -c full_page_writes=off -c max_connections=300) \
      >"$temporary/postgres.log" 2>&1 &
    postgres_pid=$!
    if postgres_answers "$programs" "$port"; then
      export LANDFALL_TEST_POSTGRES="postgres://landfall@127.0.0.1:$port/postgres"
      echo "$LANDFALL_TEST_POSTGRES ($("$programs/postgres" --version))"
      return
    fi
    stop_postgres
  done
  cat "$temporary/postgres.log" >&2
  fail "PostgreSQL does not start"
}

# False if it ended, as it does when the port is taken, or is not there after 30 s.
postgres_answers() {
  for _ in {1..300}; do
    kill -0 "$postgres_pid" 2>/dev/null || return 1
    if "$1/pg_isready" -q -h 127.0.0.1 -p "$2" -U landfall -d postgres && kill -0 "$postgres_pid" 2>/dev/null; then
      return 0
    fi
    sleep 0.1
  done
  return 1
}

stop_postgres() {
  if [ -z "${postgres_pid:-}" ]; then return; fi
  kill -INT "$postgres_pid" 2>/dev/null || true
  wait "$postgres_pid" 2>/dev/null || true
  postgres_pid=
}

clean_up() {
  stop_postgres
  rm -rf "$temporary"
}

# --- The second run -------------------------------------------------------------------------------------------------

# A plain user can neither enter root's home nor write in a checkout of root's: binaries and sources are copied.
run_as_plain_user() {
  local home="$temporary/u" id=65534 tests test failed=false
  mapfile -t tests < <(CARGO_TERM_QUIET=false cargo --color never test --locked --no-run 2>&1 | sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
  [ "${#tests[@]}" -gt 1 ] || fail "cargo does not tell the test programs"
  mkdir "$home" "$home/source" "$home/bin" "$home/t"
  tar -c --exclude=./.git --exclude=./target . | tar -x --no-same-owner -C "$home/source"
  cp "${tests[@]}" "$(dirname "${tests[0]}")/../landfall" "$home/bin"
  chown -R "$id:$id" "$home"
  cd "$home/source"
  for test in "${tests[@]}"; do
    headline "all tests, as a plain user: $(basename "$test")"
    setpriv --reuid "$id" --regid "$id" --clear-groups --inh-caps=-all --bounding-set=-all \
      env HOME="$home" TMPDIR="$home/t" LANDFALL_TEST_BIN="$home/bin/landfall" LANDFALL_TEST_SOURCE="$home/source" \
      "$home/bin/$(basename "$test")" --include-ignored || failed=true
  done
  if $failed; then fail "a test failed as a plain user"; fi
}

main "$@"
