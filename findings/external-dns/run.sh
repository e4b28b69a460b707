#!/bin/bash
# What external-dns does at each step of docs/migrate-one-by-one.md, by the last version that reads the old prefix of annotations (0.21)
# and the first that ignores it (0.22). Not part of CI: building the two takes some four minutes of processor time each.
# Run it at the root of the repository: findings/external-dns/run.sh
set -euo pipefail
cd "$(dirname "$0")"
tools=$(git rev-parse --show-toplevel)/target/tools/bin
mkdir -p "$tools"
go build -trimpath -ldflags '-s -w' -modfile=go-0.21.mod -o "$tools/external-dns-0.21" .
go build -trimpath -ldflags '-s -w' -o "$tools/external-dns-0.22" .
cd "$(git rev-parse --show-toplevel)"
FAIRWAY_EXTERNAL_DNS=1 cargo xtask e2e docs::page_migrate_one_by_one
