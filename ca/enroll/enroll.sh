#!/bin/sh
# enroll.sh lets this host trust an exitgate gateway and use it. The gateway serves this file; the command that the gateway
# prints compares it with a SHA-256 before it runs. It fetches the exitgate program over TLS that is checked by the
# fingerprint of the gateway's identity root, and lets it enrol this host:
#
#   sh enroll.sh --gateway URL --fingerprint SHA256 [--name NAME] [--user] [--dry-run]
#   sh enroll.sh --remove
#
# The one-time token is read from EXITGATE_TOKEN, or asked for. Where the gateway has no program for this architecture, the
# interception root, variables and proxy settings are written by the system's own tools, and there is no identity.
set -eu

say() { printf '%s\n' "$*"; }
die() {
  printf 'enroll.sh: %s\n' "$*" >&2
  exit 1
}
there() { command -v "$1" >/dev/null 2>&1; }

sha256() { if there sha256sum; then sha256sum; else shasum -a 256; fi; }

# Only this shell has the token: programs that are started do not inherit it.
token=${EXITGATE_TOKEN-}
unset EXITGATE_TOKEN

gateway='' fingerprint='' name='' dry='' user='' remove=''
while [ $# -gt 0 ]; do
  case $1 in
    --gateway | --fingerprint | --name)
      [ $# -ge 2 ] || die "$1 needs a value"
      case $1 in
        --gateway) gateway=${2%/} ;;
        --fingerprint) fingerprint=$2 ;;
        --name) name=$2 ;;
      esac
      shift
      ;;
    --dry-run) dry=1 ;;
    --user) user=1 ;;
    --remove) remove=1 ;;
    --token | --token=*) die "the token is read from EXITGATE_TOKEN or asked for: on a command line everybody on this host could read it" ;;
    *) die "unknown argument: $1" ;;
  esac
  shift
done

state=/var/lib/exitgate-host
list=$state/script-files
bin=/usr/local/bin
[ -z "$user" ] || bin=$HOME/.local/bin
[ -n "$user$dry" ] || [ "$(id -u)" = 0 ] || die "this needs root rights: run it with sudo, or with --user to change this account only"

begin='# >>> exitgate: "exitgate unenroll" removes these lines'
end='# <<< exitgate'

# without_block prints a file without our lines.
without_block() {
  awk -v b="$begin" -v e="$end" '$0 == b { skip = 1 } !skip { print } $0 == e { skip = 0 }' "$1"
}

# find_store sets anchors, update, fresh and bundle to those of this system.
find_store() {
  update='' fresh=''
  if [ -d /etc/pki/trust/anchors ] && there update-ca-certificates; then
    anchors=/etc/pki/trust/anchors bundle=/etc/ssl/ca-bundle.pem update=update-ca-certificates fresh=update-ca-certificates
  elif [ -d /etc/pki/ca-trust/source/anchors ] && there update-ca-trust; then
    anchors=/etc/pki/ca-trust/source/anchors bundle=/etc/pki/tls/certs/ca-bundle.crt update='update-ca-trust extract' fresh='update-ca-trust extract'
  elif [ -d /etc/ca-certificates/trust-source/anchors ] && there update-ca-trust; then
    anchors=/etc/ca-certificates/trust-source/anchors bundle=/etc/ssl/certs/ca-certificates.crt update=update-ca-trust fresh=update-ca-trust
  elif there update-ca-certificates; then
    anchors=/usr/local/share/ca-certificates bundle=/etc/ssl/certs/ca-certificates.crt update=update-ca-certificates fresh='update-ca-certificates --fresh'
  else
    die "this host has no trust store that is known: install the package ca-certificates"
  fi
}

# undo_script takes back what the mode without a program wrote.
undo_script() {
  [ -e "$list" ] || return 0
  find_store
  gone=''
  while IFS= read -r f; do
    case $f in
      dir:*) ;;
      /etc/environment)
        without_block "$f" >"$f.exitgate" && cat "$f.exitgate" >"$f"
        rm -f "$f.exitgate"
        ;;
      "$anchors"/*)
        rm -f "$f"
        gone="$gone-/etc/ssl/certs/$(basename "$f" .crt).pem
"
        ;;
      *) rm -f "$f" ;;
    esac
  done <"$list"
  $fresh >/dev/null 2>&1 || say "note: $fresh failed; run it by hand"
  # Debian tells its hooks nothing of a local certificate that went: Java would trust it for ever.
  for hook in /etc/ca-certificates/update.d/*; do
    if [ -n "$gone" ] && [ -x "$hook" ]; then printf '%s' "$gone" | "$hook" >/dev/null 2>&1 || say "note: $hook failed"; fi
  done
  sed -n 's/^dir://p' "$list" | while IFS= read -r f; do rmdir "$f" 2>/dev/null || true; done
  rm -f "$list"
  rmdir "$state" 2>/dev/null || true
}

if [ -n "$remove" ]; then
  if [ -x "$bin/exitgate" ]; then
    if [ -n "$user" ]; then "$bin/exitgate" unenroll --user; else "$bin/exitgate" unenroll; fi
    rm -f "$bin/exitgate"
    say "removed $bin/exitgate"
  fi
  undo_script
  exit 0
fi

case $gateway in
  https://?*) ;;
  *) die "give the gateway: --gateway https://NAME:PORT" ;;
esac
case $gateway in *[!A-Za-z0-9.:/_[\]-]*) die "the gateway's URL has a character that no URL of a gateway has" ;; esac
fingerprint=$(printf '%s' "$fingerprint" | tr 'ABCDEF' 'abcdef' | tr -d ':')
case $fingerprint in *[!0-9a-f]*) die "the fingerprint is not hexadecimal" ;; esac
[ ${#fingerprint} = 64 ] || die "the fingerprint is not 64 hexadecimal digits"

umask 077
tmp=$(mktemp -d) || die "no temporary directory can be made"
placed=''
trap 'rm -rf "$tmp"; [ -z "$placed" ] || rm -f "$placed"' EXIT
trap 'exit 1' HUP INT TERM

# get PATH FILE [CURL-OPTION...] fetches from the gateway and prints the status. Proxies are not asked: the gateway is near.
if there curl; then
  get() {
    p=$1 f=$2
    shift 2
    curl -sS --noproxy '*' --proto '=https' --connect-timeout 10 --max-time 600 -o "$f" -w '%{http_code}' "$@" "$gateway$p" 2>"$tmp/error" || true
  }
  insecure=-k ca=--cacert
elif there wget && wget --help 2>&1 | grep -q -e --ca-certificate; then
  get() {
    p=$1 f=$2
    shift 2
    if wget -q --no-proxy --timeout=60 --tries=1 -O "$f" "$@" "$gateway$p" 2>"$tmp/error"; then
      printf 200
    elif [ $? = 8 ]; then
      printf 404
    else
      printf 000
    fi
  }
  insecure=--no-check-certificate ca=--ca-certificate
else
  die "curl is missing: install it (a wget without --ca-certificate checks no certificate)"
fi

# The root is fetched from whoever answers, and believed only if it has the fingerprint. What is kept is written anew
# from the bytes that were compared.
status=$(get "/root/$fingerprint" "$tmp/root.json" "$insecure")
[ "$status" != 000 ] || die "the gateway cannot be reached: $(head -n 1 "$tmp/error")"
sed -n 's/.*"ca"[[:space:]]*:[[:space:]]*"\([^"]*\)".*/\1/p' "$tmp/root.json" | sed 's/\\n/ /g; s/\\r//g; s/-----[A-Z ]*-----/ /g' | tr -cd 'A-Za-z0-9+/=' >"$tmp/root.b64"
sum=$(base64 -d <"$tmp/root.b64" 2>/dev/null | sha256)
if [ "$status" != 200 ] || [ "${sum%% *}" != "$fingerprint" ]; then
  die "wrong fingerprint, or not the gateway: it has no root with the SHA-256 $fingerprint"
fi
{
  printf '%s\n' '-----BEGIN CERTIFICATE-----'
  fold -w 64 <"$tmp/root.b64"
  printf '\n%s\n' '-----END CERTIFICATE-----'
} >"$tmp/root.pem"

# fetch PATH FILE fetches over TLS that is checked by the root.
fetch() {
  status=$(get "$1" "$2" "$ca" "$tmp/root.pem")
  [ "$status" != 000 ] || die "the gateway's certificate is not under the root with that fingerprint, or the connection broke: $(head -n 1 "$tmp/error")"
}

case $(uname -s) in
  Linux) os=linux ;;
  Darwin) os=darwin ;;
  *) os=$(uname -s | tr '[:upper:]' '[:lower:]' | tr -cd 'a-z0-9') ;;
esac
case $(uname -m) in
  x86_64 | amd64) arch=amd64 ;;
  aarch64 | arm64) arch=arm64 ;;
  armv[67]*) arch=arm ;;
  i[3456]86) arch=386 ;;
  *) arch=$(uname -m | tr -cd 'A-Za-z0-9_') ;;
esac

# with_program installs the program and lets it do the rest.
with_program() {
  program=$tmp/exitgate
  chmod 755 "$program"
  if [ -z "$dry" ]; then
    mkdir -p "$bin"
    if ! cmp -s "$program" "$bin/exitgate"; then
      [ -e "$bin/exitgate" ] || placed=$bin/exitgate # goes again when the enrolment fails
      cat "$program" >"$bin/.exitgate.new"
      chmod 755 "$bin/.exitgate.new"
      mv "$bin/.exitgate.new" "$bin/exitgate"
      say "installed $bin/exitgate"
    fi
    program=$bin/exitgate
  fi
  set -- --gateway "$gateway" --fingerprint "$fingerprint"
  [ -z "$name" ] || set -- "$@" --name "$name"
  [ -z "$user" ] || set -- "$@" --user
  if [ -n "$dry" ]; then
    "$program" enroll "$@" --dry-run </dev/null
    return
  fi
  enrolled=/etc/exitgate/host.json
  [ -z "$user" ] || enrolled=$HOME/.config/exitgate/host.json
  if [ -z "$token" ] && [ ! -e "$enrolled" ]; then ask_token; fi
  if [ -n "$token" ]; then # printf is part of the shell, so that no process has the token as an argument
    printf '%s\n' "$token" | "$program" enroll "$@" --token -
  else
    "$program" enroll "$@" </dev/null
  fi
  placed=''
}

ask_token() {
  if [ -t 0 ]; then
    printf 'token: ' >&2
    trap 'stty echo; exit 1' HUP INT TERM
    stty -echo
    IFS= read -r token || true
    stty echo
    trap 'exit 1' HUP INT TERM
    printf '\n' >&2
  else
    IFS= read -r token || true
  fi
  [ -n "$token" ] || die "a token is needed: EXITGATE_TOKEN, or standard input"
}

# put FILE writes standard input to FILE unless that is what it holds.
put() {
  cat >"$tmp/put"
  if cmp -s "$tmp/put" "$1"; then return; fi
  : >"$tmp/changed"
  if [ -n "$dry" ]; then
    say "  would have written $1"
    return
  fi
  mkdir -p "$state"
  grep -qxF "$1" "$list" 2>/dev/null || printf '%s\n' "$1" >>"$list"
  d=$(dirname "$1")
  [ -d "$d" ] || printf 'dir:%s\n' "$d" >>"$list"
  (umask 022 && mkdir -p "$d" && cat "$tmp/put" >"$1.exitgate" && mv "$1.exitgate" "$1")
  say "  wrote $1"
}

# variables FORMAT prints all variables, each by printf with FORMAT.
# shellcheck disable=SC2059
variables() {
  for v in SSL_CERT_FILE CURL_CA_BUNDLE REQUESTS_CA_BUNDLE PIP_CERT NODE_EXTRA_CA_CERTS GIT_SSL_CAINFO AWS_CA_BUNDLE CARGO_HTTP_CAINFO \
    CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE HTTPLIB2_CA_CERTS GRPC_DEFAULT_SSL_ROOTS_FILE_PATH NIX_SSL_CERT_FILE BUNDLE_SSL_CA_CERT; do
    printf "$1" "$v" "$bundle"
  done
  if [ -n "$https" ]; then
    for v in "http_proxy $http" "HTTP_PROXY $http" "https_proxy $https" "HTTPS_PROXY $https" "no_proxy $none" "NO_PROXY $none" "NODE_USE_ENV_PROXY 1"; do
      printf "$1" "${v%% *}" "${v#* }"
    done
  fi
}

# setting KEY prints a value that the gateway's settings have, if it is of harmless characters.
setting() {
  v=$(sed -n "s|^// exitgate .*$1=\\([^ ]*\\).*|\\1|p" "$tmp/proxy.pac")
  case $v in *[!A-Za-z0-9.:/_,*[\]-]*) die "the gateway's settings have a character that they should not have" ;; esac
  printf '%s' "$v"
}

# without_program does what needs no identity.
without_program() {
  [ -z "$user" ] || die "there is no program for $os-$arch, and without it --user is not possible"
  [ ! -e "$state/undo.json" ] || die "this host is enrolled already: run exitgate unenroll first"
  find_store
  fetch /trust/roots.pem "$tmp/roots.pem"
  [ "$status" = 200 ] || die "the gateway's interception roots cannot be fetched (status $status)"
  grep -q 'BEGIN CERTIFICATE' "$tmp/roots.pem" || die "the gateway's interception roots are no certificates"
  fetch /proxy.pac "$tmp/proxy.pac"
  [ "$status" = 200 ] || die "the gateway's proxy settings cannot be fetched (status $status)"
  http=$(setting http)
  https=$(setting https)
  none=$(setting no_proxy)
  host=$(printf '%s' "${gateway#https://}" | sed 's/:[0-9]*$//' | tr -d '[]')
  none=localhost,127.0.0.1,::1,$host${none:+,$none}
  [ -n "$dry" ] || trap 'undo_script; rm -rf "$tmp"' EXIT
  awk -v dir="$tmp" '/BEGIN CERT/ { n++ } n { print >(dir "/root-" n ".crt") } /END CERT/ { close(dir "/root-" n ".crt") }' "$tmp/roots.pem"
  for f in "$tmp"/root-*.crt; do
    id=$(sed '/-----/d' "$f" | tr -d '\r\n' | base64 -d | sha256 | cut -c 1-16)
    put "$anchors/exitgate-$id.crt" <"$f"
  done
  if [ -e "$tmp/changed" ] && [ -z "$dry" ]; then
    $update >/dev/null 2>"$tmp/error" || die "$update failed: $(head -n 1 "$tmp/error")"
    say "  ran $update"
  fi
  note='Written by exitgate.'
  { say "# $note" && variables "export %s='%s'\n"; } | put /etc/profile.d/exitgate.sh
  { say "# $note" && variables '%s="%s"\n'; } | put /etc/environment.d/60-exitgate.conf
  if [ -e /etc/environment ]; then
    { without_block /etc/environment && say "$begin" && variables '%s="%s"\n' && say "$end"; } | put /etc/environment
  fi
  if [ -d /etc/systemd ]; then
    { say "# $note" && say '[Manager]' && variables 'DefaultEnvironment="%s=%s"\n'; } | put /etc/systemd/system.conf.d/60-exitgate.conf
  fi
  if [ -d /etc/apt/apt.conf.d ] && [ -n "$https" ]; then
    printf '// %s\nAcquire::http::Proxy "%s";\nAcquire::https::Proxy "%s";\n' "$note" "$http" "$https" | put /etc/apt/apt.conf.d/95exitgate
  fi
  [ -n "$dry" ] || trap 'rm -rf "$tmp"' EXIT
  [ -e "$tmp/changed" ] || say "nothing to change"
  say "note: the gateway has no exitgate program for $os-$arch, so this host has no identity, and Java and browsers were left alone; the token was not used"
  say "note: let an administrator register the addresses of this host; \"sh enroll.sh --remove\" undoes all of this"
}

fetch "/bin/$os-$arch" "$tmp/exitgate"
case $status in
  200) with_program ;;
  404) without_program ;;
  *) die "the gateway answered $status for its program" ;;
esac
