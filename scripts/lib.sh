# Shared by the scripts: where we are, how to become root, and what a build makes. To be sourced, not run.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}

# Runs a command as root.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo --preserve-env=PATH,NO_COLOR "$@"
    else
        echo "error: this takes root, and there is no sudo here" >&2
        echo "  hint: without root, \`cargo build --release\` and \`target/release/stateway lab test topologies/article\`" >&2
        exit 3
    fi
}

# Builds the program in the profile named by STATEWAY_PROFILE (release unless told otherwise), and sets $stateway.
build() {
    local profile=${STATEWAY_PROFILE:-release} flag=()
    [ "$profile" = debug ] || flag=(--profile "$profile")
    cargo build --quiet --bin stateway "${flag[@]}"
    stateway=$target/$profile/stateway
}

# The program that was built last; builds it if there is none.
find_program() {
    stateway=$(ls -t "$target"/{release,debug}/stateway 2>/dev/null | head -1) || true
    [ -x "$stateway" ] || build
}
