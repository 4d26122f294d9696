#!/usr/bin/env bash
# Builds every function for Lambda, as target/lambda/<step>/bootstrap.zip.
#
#   ARCH   x86_64 or arm64; default: the architecture of this machine
#
# Needs cargo and cargo-lambda (with its Zig) on the PATH.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${ARCH:-$(uname -m)}" in
x86_64) architecture=--x86-64 ;;
arm64 | aarch64) architecture=--arm64 ;;
*)
  echo "build: ARCH must be x86_64 or arm64, not '${ARCH:-$(uname -m)}'" >&2
  exit 2
  ;;
esac

# Only the functions; the local cloud and the tests are not built for Lambda. The library has no main.rs.
packages=()
for main in functions/*/src/main.rs; do
  step=${main#functions/}
  packages+=(--package "${step%%/*}")
done

# pipeline.yaml reads the packages from this path, even if CARGO_TARGET_DIR is set.
cargo lambda build --release --locked --output-format zip --lambda-dir target/lambda "$architecture" "${packages[@]}"
