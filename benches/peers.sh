#!/usr/bin/env bash
# Accepting webhooks, side by side with what one would install instead: the Debian package `webhook` (adnanh/webhook).
#
#   benches/peers.sh [--quick] [--landfall FILE]
#
# Needs Rust (or --landfall FILE, a binary that is measured as it is), and wrk, webhook, sqlite3, git, curl, openssl; strace
# if there is one. Takes 6 minutes, with --quick 90 s; do nothing else on the machine meanwhile. What it makes lies in one
# directory below ${TMPDIR:-/var/tmp}, which has to be on a real disk, and goes with it.
#
# Compared: the time from a signed request to its answer, over loopback with keep-alive, by one and the same client.
#   - The same requests to both: GitHub pushes, modelled on the fixture, of 8 kB and 200 kB, signed before the clock starts.
#   - The same rule: HMAC-SHA256 of the body in `X-Hub-Signature-256`, and `ref` is `refs/heads/main`.
#   - `webhook` then starts /bin/true, answers without waiting for it, and has stored nothing.
#   - `landfall serve` answers after the delivery, its decision and what it queued are on disk (fsync). Its log goes to a file.
#   - Rounds take turns, each with servers just started. Medians of the rounds; memory is the kernel's peak of the process.
# Which requests:
#   own ids     every delivery has an id of its own; the pushed commit is live already (`current`): no deployment follows
#   200 pushes  the same with 200 bodies in turn, each of another commit: all are queued, and deployed while more come in
#   same id     one delivery, sent again and again
#   wrong       the signature is one of another secret      absent   there is none (both are refused with 401)
# Checked in passing: every answer is 2xx, or every one 401; after each round Landfall's database has a row for each
# answer, and none for a refusal; each answer came after an fsync of its own (strace, on one connection, apart from the rounds).
# Not compared: TLS, a proxy in front, a network, what a deployment takes, other rules of `webhook`. The client shares the
# machine with the servers: what is compared are ratios. wrk sends the next request when the last is answered, so a stall
# counts once for each connection, for both alike. Memory without the processes that `webhook` starts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
export PATH="$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin"

rounds=3
seconds=8      # Of a round with ids of its own, in which `webhook` gathers memory.
side_seconds=2 # Of any other.
landfall=target/release/landfall build=true
landfall_pid='' webhook_pid='' client_pid='' tracer_pid='' directory=''
run=0 failures=0

main() {
  while [ $# -gt 0 ]; do
    case "$1" in
      --quick) rounds=2 seconds=2 side_seconds=1 ;;
      --landfall) landfall=$(realpath "${2:?}") build=false && shift ;;
      *) fail "usage: benches/peers.sh [--quick] [--landfall FILE]" ;;
    esac
    shift
  done
  look_for_tools
  if $build; then cargo build --release --locked; fi
  landfall=$(realpath "$landfall")
  trap clean_up EXIT
  trap 'exit 130' INT TERM
  directory=$(mktemp -d "${TMPDIR:-/var/tmp}/landfall-peers.XXXXXX")
  make_origin
  make_requests
  configure
  say_where
  check_durable
  measure_all
  print_table
  [ "$failures" = 0 ] || fail "$failures checks failed, see above: the figures do not count"
}

fail() {
  printf 'benches/peers.sh: %s\n' "$1" >&2
  exit 1
}

# Goes on, so that all is seen at once, and fails in the end.
complain() {
  printf 'WRONG: %s\n' "$1"
  failures=$((failures + 1))
}

look_for_tools() {
  local tool missing=()
  for tool in wrk webhook sqlite3 git curl openssl awk; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  [ "${#missing[@]}" = 0 ] || fail "install these first: apt-get install ${missing[*]}"
  if $build; then command -v cargo >/dev/null || fail "there is no cargo: install Rust, or give --landfall FILE"; fi
}

# Ends what runs and removes what was made, whatever happened.
clean_up() {
  local pid
  for pid in "$client_pid" "$tracer_pid" "$webhook_pid" "$landfall_pid"; do
    if [ -n "$pid" ]; then end "$pid"; fi
  done
  if [ -n "$directory" ]; then rm -rf "$directory"; fi
}

# Asks a child of ours to end, and ends it if it does not. It may have ended by itself, and its status tells nothing here.
end() {
  kill -TERM "$1" 2>/dev/null || true
  for _ in {1..400}; do
    kill -0 "$1" 2>/dev/null || break
    sleep 0.05
  done
  kill -KILL "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
}

# --- What is sent ---------------------------------------------------------------------------------------------------

# Makes the site's repository. Sets tip.
make_origin() {
  local work="$directory/work"
  git init --quiet --bare --initial-branch=main "$directory/origin.git"
  git init --quiet --initial-branch=main "$work"
  mkdir "$work/public"
  echo '<h1>It works</h1>' >"$work/public/index.html"
  git -C "$work" add --all
  git -C "$work" -c user.name=octo-dev -c user.email=octo-dev@example.com commit --quiet --message 'Say that it works'
  git -C "$work" push --quiet "$directory/origin.git" HEAD:refs/heads/main
  tip=$(git -C "$work" rev-parse HEAD)
}

# Writes the files of requests that peers.lua reads: a signature, a space, a body.
make_requests() {
  local other number
  (umask 077 && openssl rand -hex 20 >"$directory/secret")
  secret=$(cat "$directory/secret")
  other=$(openssl rand -hex 20)
  signed "$secret" "$(push_of 8000 "$tip")" >"$directory/small"
  signed "$secret" "$(push_of 200000 "$tip")" >"$directory/large"
  for number in {1..200}; do
    signed "$secret" "$(push_of 8000 "$(printf '%08x%s' "$number" "${tip:8}")")"
  done >"$directory/pushes"
  signed "$other" "$(push_of 8000 "$tip")" >"$directory/wrong"
  sed 's/^[^ ]*/-/' "$directory/small" >"$directory/absent"
}

# Prints the fixture's push as GitHub sends it, on one line, with this commit as the new tip and so many commits before it
# that it has at least so many bytes.
push_of() {
  sed 's/^ *//; s/": /":/' fixtures/webhooks/github/push.json | tr -d '\n' | awk -v size="$1" -v after="$2" '{
    gsub("0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c", after)
    first = index($0, "\"commits\":[") + 11
    rest = index($0, "],\"head_commit\"")
    commit = substr($0, first, rest - first)
    text = substr($0, 1, first - 1)
    while (length(text) + length(commit) + length($0) - rest < size) {
      earlier = commit
      gsub(after, sprintf("%s%08x", substr(after, 1, 32), ++count), earlier)
      text = text earlier ","
    }
    print text commit substr($0, rest)
  }'
}

signed() {
  local digest
  digest=$(printf '%s' "$2" | openssl dgst -sha256 -hmac "$1")
  printf '%s %s\n' "${digest##* }" "$2"
}

# --- The servers ----------------------------------------------------------------------------------------------------

configure() {
  cat >"$directory/deploy.toml" <<END
state_dir = "$directory/state"
reconcile = "0s"
[deliveries]
# The rows are counted: none may go meanwhile.
keep_count = 10000000
[server]
listen = "127.0.0.1:0"
[repositories.blog]
url = "file://$directory/origin.git"
repository = "acme/blog"
forge = "github"
secret = { file = "$directory/secret" }
[sites.blog]
repository = "blog"
branch = "main"
root = "$directory/root"
END
  cat >"$directory/hooks.json" <<END
[{
  "id": "blog", "execute-command": "/bin/true", "http-methods": ["POST"], "trigger-rule-mismatch-http-response-code": 401,
  "trigger-rule": { "and": [
    { "match": { "type": "payload-hmac-sha256", "secret": "$secret",
                 "parameter": { "source": "header", "name": "X-Hub-Signature-256" } } },
    { "match": { "type": "value", "value": "refs/heads/main", "parameter": { "source": "payload", "name": "ref" } } }
  ] }
}]
END
}

# An empty database, and the tip is live.
renew_landfall() {
  rm -rf "$directory/state" "$directory/root"
  "$landfall" --config "$directory/deploy.toml" deploy blog >"$directory/deploy.out" 2>&1 || {
    cat "$directory/deploy.out" >&2
    fail "landfall cannot deploy the site"
  }
}

# Sets url and landfall_pid.
start_landfall() {
  local log="$directory/landfall.log"
  : >"$log"
  "$landfall" --config "$directory/deploy.toml" serve >>"$log" 2>&1 &
  landfall_pid=$!
  for _ in {1..200}; do
    url=$(sed -n 's|.*listens on \(http://[^ ]*\) .*|\1|p' "$log")
    if [ -n "$url" ]; then return; fi
    kill -0 "$landfall_pid" 2>/dev/null || break
    sleep 0.02
  done
  cat "$log" >&2
  fail "landfall does not start"
}

stop_landfall() {
  end "$landfall_pid"
  landfall_pid=''
}

# Sets url and webhook_pid.
start_webhook() {
  local port
  for _ in {1..10}; do
    # Below the range from which the kernel hands out ports.
    port=$((RANDOM % 10000 + 20000)) url="http://127.0.0.1:$port"
    webhook -hooks "$directory/hooks.json" -ip 127.0.0.1 -port "$port" >"$directory/webhook.log" 2>&1 &
    webhook_pid=$!
    for _ in {1..100}; do
      kill -0 "$webhook_pid" 2>/dev/null || break
      # Another one could have had the port: then ours has ended.
      if curl --silent --output /dev/null "$url/" && kill -0 "$webhook_pid" 2>/dev/null; then return; fi
      sleep 0.02
    done
    stop_webhook
  done
  cat "$directory/webhook.log" >&2
  fail "webhook does not start"
}

stop_webhook() {
  end "$webhook_pid"
  webhook_pid=''
}

rows() {
  sqlite3 "$directory/state/landfall.db" 'SELECT COUNT(*) FROM delivery'
}

# Prints how many there are in which state.
deployments() {
  sqlite3 -separator ' ' "$directory/state/landfall.db" 'SELECT COUNT(*), state FROM deployment GROUP BY state' | paste -sd ,
}

# Prints a figure of /proc/PID/status, in kB.
memory() {
  awk -v name="$2:" '$1 == name { print $2 }' "/proc/$1/status"
}

# --- The rounds -----------------------------------------------------------------------------------------------------

# The order is that of the table.
measure_all() {
  local connections payload
  headline "rounds ($rounds of $seconds s, with own ids, or $side_seconds s)"
  for payload in small large; do
    for connections in 1 16 64; do
      measure "$payload" own "$connections" 'own ids' "$seconds"
    done
  done
  measure pushes own 16 '200 pushes' "$side_seconds"
  measure small same 16 'same id' "$side_seconds"
  # Nobody looks at the ids of what is refused: the client need not write any.
  measure wrong same 16 wrong "$side_seconds"
  measure absent same 16 absent "$side_seconds"
}

# Takes turns, and leaves a line of each round in $directory/rounds: the row's name; who; answers/s; p50 and p99 in µs;
# peak memory in kB.
measure() {
  local file=$1 ids=$2 connections=$3 name=$4 length=$5 kind=accept round
  case "$file" in wrong | absent) kind=refuse ;; esac
  local row="${name// /_}:$(($(head -n 1 "$directory/$file" | wc -c) / 1000)):$connections:$kind"
  renew_landfall
  for ((round = 0; round < rounds; round++)); do
    landfall_round "$row"
    webhook_round "$row"
  done
}

landfall_round() {
  local before after least most
  start_landfall
  before=$(rows)
  load landfall "$1" "$landfall_pid"
  # What was under way when the client left is stored, too.
  stop_landfall
  after=$(rows)
  least=$accepted most=$((accepted > 0 ? accepted + connections : 0))
  if [ $((after - before)) -lt "$least" ] || [ $((after - before)) -gt "$most" ]; then
    complain "landfall has stored $((after - before)) deliveries, and has accepted $accepted ($1)"
  fi
  if [ "$file" = pushes ]; then echo "  deployments so far: $(deployments)"; fi
  if deployments | grep -Eq 'failed|stuck'; then complain "deployments: $(deployments)"; fi
}

webhook_round() {
  start_webhook
  load webhook "$1" "$webhook_pid"
  stop_webhook
}

# Lets the client work on the server, and notes what it saw. Sets accepted. Uses the variables of `measure`.
load() {
  local who=$1 row=$2 pid=$3 answers microseconds refused broken p50 p99
  run=$((run + 1))
  wrk --threads 1 --connections "$connections" --duration "${length}s" --timeout 30s --script benches/peers.lua \
    "$url/hooks/blog" -- "$directory/$file" "$ids" "$run" >"$directory/client.out" 2>&1 &
  client_pid=$!
  # What went wrong shows in what it printed, which is looked at next.
  wait "$client_pid" || true
  client_pid=''
  if ! read -r _ answers microseconds refused broken p50 p99 < <(grep '^result ' "$directory/client.out"); then
    cat "$directory/client.out" >&2
    fail "wrk gave no result"
  fi
  accepted=$((answers - refused))
  case "$kind" in
    accept) [ $((refused + broken)) = 0 ] || complain "$who: $refused of $answers are no 2xx, $broken broke ($row)" ;;
    refuse) [ $((accepted + broken)) = 0 ] || complain "$who: $accepted of $answers are 2xx, $broken broke ($row)" ;;
  esac
  awk -v row="$row" -v who="$who" -v answers="$answers" -v time="$microseconds" -v p50="$p50" -v p99="$p99" \
    -v memory="$(memory "$pid" VmHWM)" 'BEGIN { print row, who, answers * 1e6 / time, p50, p99, memory }' |
    tee -a "$directory/rounds" |
    awk '{ printf "%-24s %-9s %8.0f answers/s   p50 %7.2f ms   p99 %7.2f ms   %7.1f MiB\n", $1, $2, $3, $4 / 1e3, $5 / 1e3, $6 / 1024 }'
}

# --- Durable before answered ----------------------------------------------------------------------------------------

# Sends deliveries one after the other, and looks in the trace whether each answer comes after an fsync of its own.
check_durable() {
  local trace="$directory/trace" count=20 signature body number codes
  headline "durable before answered"
  if ! command -v strace >/dev/null; then echo "not looked at: there is no strace" && return; fi
  renew_landfall
  start_landfall
  : >"$directory/strace.err"
  strace --follow-forks --decode-fds --output "$trace" --trace fsync,fdatasync,write,writev,sendto,sendmsg \
    --attach "$landfall_pid" 2>>"$directory/strace.err" &
  tracer_pid=$!
  for _ in {1..100}; do
    if grep -q attached "$directory/strace.err" || ! kill -0 "$tracer_pid" 2>/dev/null; then break; fi
    sleep 0.05
  done
  read -r signature body <"$directory/small"
  printf '%s' "$body" >"$directory/body"
  for ((number = 1; number <= count; number++)); do
    curl --silent --output /dev/null --write-out '%{http_code}\n' --data-binary "@$directory/body" \
      --header 'content-type: application/json' --header 'x-github-event: push' --header "x-github-delivery: $number" \
      --header "x-hub-signature-256: sha256=$signature" "$url/hooks/blog"
  done >"$directory/codes"
  end "$tracer_pid"
  tracer_pid=''
  stop_landfall
  codes=$(sort "$directory/codes" | uniq -c | tr -s ' \n' ' ')
  [ "$(grep -c '^20' "$directory/codes")" = "$count" ] || complain "answers to $count deliveries:$codes"
  [ "$(rows)" = "$count" ] || complain "$(rows) rows after $count deliveries"
  if ! [ -s "$trace" ]; then echo "not looked at: $(head -n 1 "$directory/strace.err")" && return; fi
  judge_trace "$trace" "$count"
}

judge_trace() {
  local answers early syncs
  read -r answers early syncs < <(awk '
    # Also where the call is told in two lines, since another thread was told in between.
    /(fsync|fdatasync)(\(.*landfall\.db| resumed>).* = 0$/ { syncs++; synced = 1 }
    /"HTTP\/1\.1 20/ { answers++; if (!synced) early++; synced = 0 }
    END { print answers + 0, early + 0, syncs + 0 }' "$1")
  if [ "$answers" != "$2" ]; then
    complain "the trace shows $answers answers to $2 deliveries"
  elif [ "$early" != 0 ]; then
    complain "$early of $answers answers came before the database was synced"
  else
    echo "$answers deliveries one after the other: $syncs fsyncs of the database, at least one before each answer"
  fi
}

# --- What was seen --------------------------------------------------------------------------------------------------

headline() {
  printf '\n=== %s\n' "$1"
}

# The machine, without its name.
say_where() {
  local synced
  synced=$(dd if=/dev/zero of="$directory/synced" bs=4k count=500 oflag=dsync 2>&1 | awk '/copied/ { printf "%.0f", $(NF - 3) * 1e6 / 500 }')
  headline "what and where"
  echo "$("$landfall" --version) · $(webhook -version) · $(wrk -v 2>&1 | awk 'NR == 1 { print $1, $2 }')"
  echo "$(nproc) cores ($(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)) · $(uname -srm)" \
    "· $(awk '/^MemTotal/ { printf "%.0f", $2 / 1024 / 1024 }' /proc/meminfo) GiB"
  echo "$(df --output=fstype "$directory" | tail -n 1) · a synced write of 4 kB takes $synced µs" \
    "· load before: $(cut -d ' ' -f 1 /proc/loadavg) · as $([ "$(id -u)" = 0 ] && echo root || echo 'a plain user')"
  echo "bytes of a push: $(($(wc -c <"$directory/small") - 66)) and $(($(wc -c <"$directory/large") - 66))"
  case "$(df --output=fstype "$directory" | tail -n 1)" in
    tmpfs | ramfs) complain "$directory is in memory, where an fsync costs nothing: set TMPDIR" ;;
  esac
}

# Medians, and what they are to each other. The goals are those of the issue.
print_table() {
  headline "medians (spread of answers/s), and landfall ÷ webhook"
  awk '
    function median(key, column,    count, sorted, i, j, swap) {
      count = seen[key]
      for (i = 1; i <= count; i++) sorted[i] = value[key, column, i]
      for (i = 1; i <= count; i++) for (j = i + 1; j <= count; j++)
        if (sorted[j] < sorted[i]) { swap = sorted[i]; sorted[i] = sorted[j]; sorted[j] = swap }
      least = sorted[1]; most = sorted[count]
      return count % 2 ? sorted[(count + 1) / 2] : (sorted[count / 2] + sorted[count / 2 + 1]) / 2
    }
    function side(key,    rate, text) {
      rate = median(key, 3)
      text = sprintf("%6.0f (%.0f-%.0f)", rate, least, most)
      return sprintf("%-22s %7.2f %8.2f %7.1f", text, median(key, 4) / 1e3, median(key, 5) / 1e3, median(key, 6) / 1024)
    }
    function judged(goals, name, is_met) { return goals (goals == "" ? "" : ", ") name (is_met ? " met" : " MISSED") }
    {
      key = $1 SUBSEP $2; seen[key]++
      for (i = 3; i <= 6; i++) value[key, i, seen[key]] = $i
      if (!($1 in known)) { known[$1]; names[++total] = $1 }
    }
    END {
      printf "%-20s %-47s   %-47s   %s\n", "", "landfall", "webhook", "landfall ÷ webhook"
      heads = sprintf("%-22s %7s %8s %7s", "answers/s", "p50 ms", "p99 ms", "MiB")
      printf "%-11s %3s %3s  %s   %s   %7s %6s %6s\n", "requests", "kB", "con", heads, heads, "answers", "p99", "MiB"
      for (n = 1; n <= total; n++) {
        split(names[n], of, ":"); ours = names[n] SUBSEP "landfall"; theirs = names[n] SUBSEP "webhook"
        rate = median(ours, 3) / median(theirs, 3); p99 = median(ours, 5) / median(theirs, 5); rss = median(ours, 6) / median(theirs, 6)
        goals = ""
        if (of[4] == "refuse") goals = judged(goals, "answers ≥ 10", rate >= 10)
        else if (of[1] == "own_ids" && of[3] == 1) goals = judged(goals, "answers ≥ 1", rate >= 1)
        else if (of[1] == "own_ids") {
          goals = judged(goals, "answers ≥ 2.5", rate >= 2.5); goals = judged(goals, "p99 ≤ 0.5", p99 <= 0.5)
          goals = judged(goals, "MiB ≤ 0.1", rss <= 0.1)
        }
        gsub("_", " ", of[1])
        printf "%-11s %3d %3d  %s   %s   %7.2f %6.3f %6.3f  %s\n", of[1], of[2], of[3], side(ours), side(theirs), rate, p99, rss, goals
      }
    }' "$directory/rounds"
}

main "$@"
