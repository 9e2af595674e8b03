# Shared by the scripts: where we are, what must hold before long work begins, how to become root, and what a build
# makes. To be sourced, not run.

self=$(realpath "$0")
called_from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
# Servers and rustup's programs lie where not every PATH leads.
PATH=$PATH:/usr/sbin:/sbin:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin

# Says why this machine cannot do it, with the remedy, and ends with the exit code for that.
cannot() {
    echo "error: $1" >&2
    shift
    [ $# -eq 0 ] || printf '  hint: %s\n' "$@" >&2
    exit 3
}

# Runs a command as root. sudo drops most of the environment and chooses its own PATH, hence `env`.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo env "PATH=$PATH" ${NO_COLOR+"NO_COLOR=$NO_COLOR"} "$@"
    fi
}

# Makes sure that we can be root. Where sudo wants a password, it asks for it here and not after a long build.
need_root() {
    [ "$(id -u)" -ne 0 ] || return 0
    local otherwise='run it as root; or in simulation, without: `cargo run --release -- lab test topologies/article --on sim`'
    command -v sudo >/dev/null || cannot "this takes root, and there is no sudo here" "$otherwise"
    sudo true || cannot "this takes root, and sudo refuses" "$otherwise"
}

# sudo forgets a password after some minutes, and a build may take longer: it is reminded until the script ends.
keep_root() {
    [ "$(id -u)" -ne 0 ] || return 0
    while sudo -n -v; do
        sleep 60 &
        trap 'kill $!; exit' TERM
        wait $!
    done </dev/null >/dev/null 2>&1 &
    at_end "kill $! 2>/dev/null"
}

# Adds a command to what is done when the script ends, whatever ends it.
at_end() {
    ends="$1 || true; ${ends:-}"
    trap 'eval "$ends"' EXIT
    # A script that was interrupted dies of that signal, so that what called it stops as well.
    local signal
    for signal in INT TERM HUP; do
        # shellcheck disable=SC2064 # the name of now is meant
        trap "trap - EXIT $signal; eval \"\$ends\"; kill -$signal \$\$" $signal
    done
}

# A Rust toolchain that is new enough: cargo itself would notice late, and say less.
need_toolchain() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    local get="https://rustup.rs installs one for you alone (Debian 13: \`apt-get install rustup && rustup default stable\`)"
    command -v cargo >/dev/null || cannot "there is no Rust toolchain; stateway takes Rust $wanted or later" "$get"
    found=$(cargo --version </dev/null 2>/dev/null | cut -d ' ' -f 2) || true
    [ -n "$found" ] || cannot "\`cargo --version\` fails; stateway takes Rust $wanted or later" \
        "\`rustup default stable\` chooses a toolchain; $get"
    [ "$(printf '%s\n' "$wanted" "${found%%-*}" | sort -V | head -n 1)" = "$wanted" ] || {
        if command -v rustup >/dev/null; then get='`rustup update stable && rustup default stable`'; fi
        cannot "the Rust toolchain is $found ($(command -v cargo)), and stateway takes $wanted or later" "$get"
    }
}

# The part of the toolchain that makes WebAssembly.
has_wasm() {
    [ -d "$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown/lib" ]
}

need_wasm() {
    has_wasm ||
        cannot "the Rust toolchain lacks the target wasm32-unknown-unknown, which the playground is built for" \
            "\`rustup target add wasm32-unknown-unknown\`; with Debian's toolchain, \`apt-get install libstd-rust-dev-wasm32\`"
}

# Fetches it, where rustup has the toolchain in its care.
get_wasm() {
    has_wasm || ! command -v rustup >/dev/null || rustup target add wasm32-unknown-unknown </dev/null >&2 || true
    need_wasm
}

# Node with npm, which builds the page.
need_node() {
    local get="\`apt-get install nodejs npm\`, or https://nodejs.org"
    command -v node >/dev/null && command -v npm >/dev/null || cannot "there is no Node.js with npm, which builds the page" "$get"
    node -e 'const [major, minor] = process.versions.node.split("."); process.exit(major > 18 || (major == 18 && minor >= 13) ? 0 : 1)' ||
        cannot "Node.js is $(node --version), and the page takes 18.13 or later" "$get"
}

# The browser in which the page is tested; sets $chromium.
need_chromium() {
    chromium=${CHROMIUM:-$(command -v chromium)} || cannot "there is no Chromium, in which the page is tested" \
        "\`apt-get install chromium\`, or CHROMIUM=PATH"
}

# The page's packages as its lock file says, if they are not there yet. None of their own scripts is run.
npm_packages() {
    local stamp=web/node_modules/.stateway-lock
    cmp -s web/package-lock.json "$stamp" && return
    # npm trusts whom the system trusts, as the other programs here do: behind a company's proxy that is more than Node knows of.
    (cd web && NODE_EXTRA_CA_CERTS=${NODE_EXTRA_CA_CERTS:-/etc/ssl/certs/ca-certificates.crt} \
        npm ci --ignore-scripts --no-audit --no-fund) || cannot "npm cannot install the page's packages" \
        "it fetches what web/package-lock.json names from the registry that \`npm config get registry\` prints"
    cp web/package-lock.json "$stamp"
}

# The device that the router's ports are made of.
need_tun() {
    [ -e /dev/net/tun ] || cannot "there is no /dev/net/tun, which labs with real programs take" \
        "\`modprobe tun\` as root; in a container, \`--device /dev/net/tun\`" \
        "in simulation: \`cargo run --release -- lab test topologies/article --on sim\`"
}

# Namespaces and TAPs, by making one of each where nobody sees it. It takes `unshare` and `ip`.
need_namespaces() {
    local why
    why=$(as_root unshare --mount --net --uts sh -c 'mount -t tmpfs none /tmp && ip tuntap add name swtry mode tap' 2>&1) ||
        cannot "this machine does not let root make namespaces and TAPs: ${why:-unshare fails}" \
            "in a container, \`--privileged\`, or \`--device /dev/net/tun --cap-add NET_ADMIN --cap-add SYS_ADMIN\`" \
            "in simulation: \`cargo run --release -- lab test topologies/article --on sim\`"
}

# Everything that labs with real programs take, asked for before the build, which takes minutes. What is to be installed
# is said as to `scripts/setup`.
prepare_live() {
    need_toolchain
    need_root
    need_tun
    scripts/setup "$@"
    need_namespaces
    keep_root
}

# Room in the kernel's tables of neighbours, which all namespaces share, until the script ends: labs of hundreds of hosts
# fill them where they meet. Where they cannot be made larger, `lab test` says if one was full.
room_for_neighbours() {
    local file was
    for file in /proc/sys/net/ipv{4,6}/neigh/default/gc_thresh{2,3}; do
        was=$(cat "$file" 2>/dev/null) || continue
        [ "$was" -lt 8192 ] || continue
        echo 8192 | as_root tee "$file" >/dev/null 2>&1 || continue
        at_end "echo $was | as_root tee $file >/dev/null"
    done
}

# What runs a program in a /run of its own: namespaces and routers that are kept there by name go with it, also where it was
# killed, and labs beside it do not meet them.
own_run=(unshare --mount --propagation private sh -c 'mount -t tmpfs -o mode=755 tmpfs /run && exec "$@"' sh)

# For `--help`: the comment at the head of a script.
usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$self"
    exit 0
}

# Builds the program in the profile named by STATEWAY_PROFILE (release unless told otherwise), and sets $stateway.
build() {
    local profile=${STATEWAY_PROFILE:-release} flag=()
    [ "$profile" = debug ] || flag=(--profile "$profile")
    [ -x "$target/$profile/stateway" ] || echo "building; the first time takes some minutes" >&2
    cargo build --bin stateway "${flag[@]}"
    stateway=$target/$profile/stateway
}

# The program that was built last; builds it if there is none.
find_program() {
    stateway=$(ls -t "$target"/{release,debug}/stateway 2>/dev/null | head -1) || true
    [ -x "$stateway" ] || build
}
